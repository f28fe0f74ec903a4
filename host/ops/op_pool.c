/* op_pool.c - maxpool, avgpool, global_avgpool and upsample on images [n,h,w,c]. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static bool is_image(Graph *g, const char *op, const Tensor *x)
{
    char shape[64];
    if (x->ndim == 4) return true;
    graph_fail(g, "%s: %s is no image [n,h,w,c]", op, tensor_shape_text(x, shape));
    return false;
}

/* ---- windows ------------------------------------------------------------------------------ */

/* x and y: the pool's input and output, or their gradients. */
static PoolShape shape_of(const Tensor *x, const Tensor *y, const void *args)
{
    const PoolArgs *a = args;
    return (PoolShape){.n = x->dim[0],
                       .h = x->dim[1],
                       .w = x->dim[2],
                       .c = x->dim[3],
                       .p = y->dim[1],
                       .q = y->dim[2],
                       .size = a->size,
                       .stride = a->stride,
                       .pad = a->pad};
}

static Tensor *pool(Graph *g, const OpDef *op, Tensor *x, PoolArgs a)
{
    if (!x || !is_image(g, op->name, x)) return NULL;
    char shape[64];
    if (a.size < 1 || a.stride < 1 || a.pad < 0 || 2 * a.pad > a.size ||
        x->dim[1] + 2 * a.pad < a.size || x->dim[2] + 2 * a.pad < a.size)
        return graph_fail(g, "%s: size %d, stride %d, padding %d do not fit %s", op->name, a.size,
                          a.stride, a.pad, tensor_shape_text(x, shape));
    int dim[] = {x->dim[0], (x->dim[1] + 2 * a.pad - a.size) / a.stride + 1,
                 (x->dim[2] + 2 * a.pad - a.size) / a.stride + 1, x->dim[3]};
    return graph_node(g, op, 4, dim, 1, &x, &a, sizeof a);
}

static Status maxpool_dx_cpu(const Tensor *dx, Stream *s)
{
    const Tensor *dy = dx->src[0];
    return cpu_maxpool_dx(dx->data, dy->data, dx->src[1]->data, shape_of(dx, dy, dx->args), s);
}

static Status maxpool_dx_cuda(const Tensor *dx, Stream *s)
{
    const Tensor *dy = dx->src[0];
    return cuda_maxpool_dx(dx->data, dy->data, dx->src[1]->data, shape_of(dx, dy, dx->args),
                           dx->dtype, s);
}

const OpDef op_maxpool_dx = {
    .name = "maxpool_dx", .cpu = maxpool_dx_cpu, .cuda = CUDA_RUN(maxpool_dx_cuda)};

static Status maxpool_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cpu_maxpool_fwd(y->data, y->side[0]->data, x->data, shape_of(x, y, y->args), s);
}

static Status maxpool_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cuda_maxpool_fwd(y->data, y->side[0]->data, x->data, shape_of(x, y, y->args), y->dtype,
                            s);
}

static void maxpool_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0];
    grad_add(g, x,
             graph_node(g, &op_maxpool_dx, 4, x->dim, 2, (Tensor *[]){dy, y->side[0]}, y->args,
                        sizeof(PoolArgs)));
}

const OpDef op_maxpool = {
    .name = "maxpool", .cpu = maxpool_cpu, .cuda = CUDA_RUN(maxpool_cuda), .vjp = maxpool_vjp};

Tensor *maxpool(Graph *g, Tensor *x, int size, int stride, int pad)
{
    Tensor *y = pool(g, &op_maxpool, x, (PoolArgs){size, stride, pad});
    if (y) graph_side(g, y, 4, y->dim)->dtype = DTYPE_I32;
    return y;
}

static Status avgpool_dx_cpu(const Tensor *dx, Stream *s)
{
    const Tensor *dy = dx->src[0];
    return cpu_avgpool_dx(dx->data, dy->data, shape_of(dx, dy, dx->args), s);
}

static Status avgpool_dx_cuda(const Tensor *dx, Stream *s)
{
    const Tensor *dy = dx->src[0];
    return cuda_avgpool_dx(dx->data, dy->data, shape_of(dx, dy, dx->args), dx->dtype, s);
}

const OpDef op_avgpool_dx = {
    .name = "avgpool_dx", .cpu = avgpool_dx_cpu, .cuda = CUDA_RUN(avgpool_dx_cuda)};

static Status avgpool_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cpu_avgpool_fwd(y->data, x->data, shape_of(x, y, y->args), s);
}

static Status avgpool_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cuda_avgpool_fwd(y->data, x->data, shape_of(x, y, y->args), y->dtype, s);
}

static void avgpool_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0];
    grad_add(g, x, graph_node(g, &op_avgpool_dx, 4, x->dim, 1, &dy, y->args, sizeof(PoolArgs)));
}

const OpDef op_avgpool = {
    .name = "avgpool", .cpu = avgpool_cpu, .cuda = CUDA_RUN(avgpool_cuda), .vjp = avgpool_vjp};

Tensor *avgpool(Graph *g, Tensor *x, int size, int stride, int pad)
{
    return pool(g, &op_avgpool, x, (PoolArgs){size, stride, pad});
}

/* ---- whole planes ------------------------------------------------------------------------- */

static Status global_avgpool_dx_cpu(const Tensor *dx, Stream *s)
{
    return cpu_global_avgpool_dx(dx->data, dx->src[0]->data, dx->dim[0], dx->dim[1] * dx->dim[2],
                                 dx->dim[3], s);
}

static Status global_avgpool_dx_cuda(const Tensor *dx, Stream *s)
{
    return cuda_global_avgpool_dx(dx->data, dx->src[0]->data, dx->dim[0], dx->dim[1] * dx->dim[2],
                                  dx->dim[3], dx->dtype, s);
}

const OpDef op_global_avgpool_dx = {.name = "global_avgpool_dx",
                                    .cpu = global_avgpool_dx_cpu,
                                    .cuda = CUDA_RUN(global_avgpool_dx_cuda)};

static Status global_avgpool_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cpu_global_avgpool_fwd(y->data, x->data, x->dim[0], x->dim[1] * x->dim[2], x->dim[3], s);
}

static Status global_avgpool_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cuda_global_avgpool_fwd(y->data, x->data, x->dim[0], x->dim[1] * x->dim[2], x->dim[3],
                                   y->dtype, s);
}

static void global_avgpool_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0];
    grad_add(g, x, graph_node(g, &op_global_avgpool_dx, 4, x->dim, 1, &dy, NULL, 0));
}

const OpDef op_global_avgpool = {.name = "global_avgpool",
                                 .cpu = global_avgpool_cpu,
                                 .cuda = CUDA_RUN(global_avgpool_cuda),
                                 .vjp = global_avgpool_vjp};

Tensor *global_avgpool(Graph *g, Tensor *x)
{
    if (!x || !is_image(g, "global_avgpool", x)) return NULL;
    return graph_node(g, &op_global_avgpool, 2, (int[]){x->dim[0], x->dim[3]}, 1, &x, NULL, 0);
}

/* ---- upsampling --------------------------------------------------------------------------- */

static UpsampleShape upsample_shape(const Tensor *x, const Tensor *y)
{
    return (UpsampleShape){x->dim[0], x->dim[1], x->dim[2], x->dim[3], y->dim[1], y->dim[2]};
}

static Status upsample_dx_cpu(const Tensor *dx, Stream *s)
{
    const Tensor *dy = dx->src[0];
    return cpu_upsample_dx(dx->data, dy->data, upsample_shape(dx, dy), s);
}

static Status upsample_dx_cuda(const Tensor *dx, Stream *s)
{
    const Tensor *dy = dx->src[0];
    return cuda_upsample_dx(dx->data, dy->data, upsample_shape(dx, dy), dx->dtype, s);
}

const OpDef op_upsample_dx = {
    .name = "upsample_dx", .cpu = upsample_dx_cpu, .cuda = CUDA_RUN(upsample_dx_cuda)};

static Status upsample_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cpu_upsample_fwd(y->data, x->data, upsample_shape(x, y), s);
}

static Status upsample_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cuda_upsample_fwd(y->data, x->data, upsample_shape(x, y), y->dtype, s);
}

static void upsample_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0];
    grad_add(g, x, graph_node(g, &op_upsample_dx, 4, x->dim, 1, &dy, NULL, 0));
}

const OpDef op_upsample = {.name = "upsample",
                           .cpu = upsample_cpu,
                           .cuda = CUDA_RUN(upsample_cuda),
                           .vjp = upsample_vjp};

Tensor *upsample(Graph *g, Tensor *x, int h, int w)
{
    char text[64];
    if (!x || !is_image(g, "upsample", x)) return NULL;
    if (h < x->dim[1] || w < x->dim[2])
        return graph_fail(g, "upsample: %s to %d x %d pixels, expected no fewer",
                          tensor_shape_text(x, text), h, w);
    return graph_node(g, &op_upsample, 4, (int[]){x->dim[0], h, w, x->dim[3]}, 1, &x, NULL, 0);
}

Tensor *upsample2(Graph *g, Tensor *x)
{
    if (!x || !is_image(g, "upsample2", x)) return NULL;
    return upsample(g, x, 2 * x->dim[1], 2 * x->dim[2]);
}
