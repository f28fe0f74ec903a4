/* op_point.c - geglu; sums and multiples of tensors. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"
#include <string.h>

/* ---- geglu ---------------------------------------------------------------------------- */

static Status geglu_cpu(const Tensor *y, Stream *s)
{
    return cpu_geglu_fwd(y->data, y->src[0]->data, rows_of(y), last_dim(y), s);
}

static Status geglu_cuda(const Tensor *y, Stream *s)
{
    return cuda_geglu_fwd(y->data, y->src[0]->data, rows_of(y), last_dim(y), y->dtype, s);
}

static Status geglu_dx_cpu(const Tensor *dx, Stream *s)
{
    return cpu_geglu_dx(dx->data, dx->src[0]->data, dx->src[1]->data, rows_of(dx), last_dim(dx) / 2,
                        s);
}

static Status geglu_dx_cuda(const Tensor *dx, Stream *s)
{
    return cuda_geglu_dx(dx->data, dx->src[0]->data, dx->src[1]->data, rows_of(dx),
                         last_dim(dx) / 2, dx->dtype, s);
}

const OpDef op_geglu_dx = {
    .name = "geglu_dx", .cpu = geglu_dx_cpu, .cuda = CUDA_RUN(geglu_dx_cuda)};

static void geglu_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0];
    grad_add(g, x, graph_node(g, &op_geglu_dx, x->ndim, x->dim, 2, (Tensor *[]){x, dy}, NULL, 0));
}

const OpDef op_geglu = {
    .name = "geglu", .cpu = geglu_cpu, .cuda = CUDA_RUN(geglu_cuda), .vjp = geglu_vjp};

Tensor *geglu(Graph *g, Tensor *x)
{
    if (!x) return NULL;
    if (last_dim(x) % 2) return graph_fail(g, "geglu: width %d is odd", last_dim(x));
    int dim[MAX_DIM];
    memcpy(dim, x->dim, sizeof dim);
    dim[x->ndim - 1] /= 2;
    return graph_node(g, &op_geglu, x->ndim, dim, 1, &x, NULL, 0);
}

/* ---- add_scaled, scale_shift, channel_affine ------------------------------------------ */

static Status add_scaled_cpu(const Tensor *y, Stream *s)
{
    const ScaleArgs *a = y->args;
    return cpu_add_scaled_fwd(y->data, y->src[0]->data, a->alpha, y->src[1]->data, a->beta,
                              tensor_count(y), s);
}

static Status add_scaled_cuda(const Tensor *y, Stream *s)
{
    const ScaleArgs *a = y->args;
    return cuda_add_scaled_fwd(y->data, y->src[0]->data, a->alpha, y->src[1]->data, a->beta,
                               tensor_count(y), y->dtype, s);
}

static void add_scaled_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    const ScaleArgs *a = y->args;
    for (int i = 0; i < 2; i++) {
        float factor = i ? a->beta : a->alpha;
        if (y->src[i]->trainable)
            grad_add(g, y->src[i], factor == 1 ? dy : scale_shift(g, dy, factor, 0));
    }
}

const OpDef op_add_scaled = {.name = "add_scaled",
                             .cpu = add_scaled_cpu,
                             .cuda = CUDA_RUN(add_scaled_cuda),
                             .vjp = add_scaled_vjp};

Tensor *add_scaled(Graph *g, Tensor *a, float alpha, Tensor *b, float beta)
{
    if (!a || !b) return NULL;
    if (!op_alike(a, b)) return op_shapes_differ(g, "add_scaled", a, b);
    ScaleArgs args = {alpha, beta};
    return graph_node(g, &op_add_scaled, a->ndim, a->dim, 2, (Tensor *[]){a, b}, &args,
                      sizeof args);
}

static Status scale_shift_cpu(const Tensor *y, Stream *s)
{
    const ScaleArgs *a = y->args;
    return cpu_scale_shift_fwd(y->data, y->src[0]->data, a->alpha, a->beta, tensor_count(y), s);
}

static Status scale_shift_cuda(const Tensor *y, Stream *s)
{
    const ScaleArgs *a = y->args;
    return cuda_scale_shift_fwd(y->data, y->src[0]->data, a->alpha, a->beta, tensor_count(y),
                                y->dtype, s);
}

static void scale_shift_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    grad_add(g, y->src[0], scale_shift(g, dy, ((const ScaleArgs *)y->args)->alpha, 0));
}

const OpDef op_scale_shift = {.name = "scale_shift",
                              .cpu = scale_shift_cpu,
                              .cuda = CUDA_RUN(scale_shift_cuda),
                              .vjp = scale_shift_vjp};

Tensor *scale_shift(Graph *g, Tensor *x, float alpha, float beta)
{
    if (!x) return NULL;
    ScaleArgs args = {alpha, beta};
    return graph_node(g, &op_scale_shift, x->ndim, x->dim, 1, &x, &args, sizeof args);
}

static Status channel_affine_cpu(const Tensor *y, Stream *s)
{
    const ChannelAffineArgs *a = y->args;
    return cpu_channel_affine_fwd(y->data, y->src[0]->data, a->scale, a->shift, rows_of(y),
                                  last_dim(y), s);
}

static Status channel_affine_cuda(const Tensor *y, Stream *s)
{
    const ChannelAffineArgs *a = y->args;
    return cuda_channel_affine_fwd(y->data, y->src[0]->data, a->scale, a->shift, rows_of(y),
                                   last_dim(y), y->dtype, s);
}

static void channel_affine_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    grad_add(g, y->src[0],
             channel_affine(g, dy, ((const ChannelAffineArgs *)y->args)->scale, (float[4]){0}));
}

const OpDef op_channel_affine = {.name = "channel_affine",
                                 .cpu = channel_affine_cpu,
                                 .cuda = CUDA_RUN(channel_affine_cuda),
                                 .vjp = channel_affine_vjp};

Tensor *channel_affine(Graph *g, Tensor *x, const float *scale, const float *shift)
{
    if (!x) return NULL;
    if (last_dim(x) > 4)
        return graph_fail(g, "channel_affine: %d channels, expected 4 or fewer", last_dim(x));
    ChannelAffineArgs args = {0};
    memcpy(args.scale, scale, (size_t)last_dim(x) * sizeof *scale);
    memcpy(args.shift, shift, (size_t)last_dim(x) * sizeof *shift);
    return graph_node(g, &op_channel_affine, x->ndim, x->dim, 1, &x, &args, sizeof args);
}

/* ---- add_channel, add_rows ------------------------------------------------------------ */

static Status add_channel_cpu(const Tensor *y, Stream *s)
{
    size_t n = (size_t)y->dim[0];
    return cpu_add_channel_fwd(y->data, y->src[0]->data, y->src[1]->data, n, rows_of(y) / n,
                               last_dim(y), s);
}

static Status add_channel_cuda(const Tensor *y, Stream *s)
{
    size_t n = (size_t)y->dim[0];
    return cuda_add_channel_fwd(y->data, y->src[0]->data, y->src[1]->data, n, rows_of(y) / n,
                                last_dim(y), y->dtype, s);
}

static Status add_channel_dv_cpu(const Tensor *dv, Stream *s)
{
    const Tensor *dy = dv->src[0];
    size_t n = (size_t)dy->dim[0];
    return cpu_add_channel_dv(dv->data, dy->data, n, rows_of(dy) / n, last_dim(dy), s);
}

static Status add_channel_dv_cuda(const Tensor *dv, Stream *s)
{
    const Tensor *dy = dv->src[0];
    size_t n = (size_t)dy->dim[0];
    return cuda_add_channel_dv(dv->data, dy->data, n, rows_of(dy) / n, last_dim(dy), dv->dtype, s);
}

const OpDef op_add_channel_dv = {
    .name = "add_channel_dv", .cpu = add_channel_dv_cpu, .cuda = CUDA_RUN(add_channel_dv_cuda)};

static void add_channel_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *v = y->src[1];
    grad_add(g, y->src[0], dy);
    if (v->trainable)
        grad_add(g, v, graph_node(g, &op_add_channel_dv, v->ndim, v->dim, 1, &dy, NULL, 0));
}

const OpDef op_add_channel = {.name = "add_channel",
                              .cpu = add_channel_cpu,
                              .cuda = CUDA_RUN(add_channel_cuda),
                              .vjp = add_channel_vjp};

Tensor *add_channel(Graph *g, Tensor *x, Tensor *v)
{
    if (!x || !v) return NULL;
    if (x->ndim < 2 || v->ndim != 2 || v->dim[0] != x->dim[0] || v->dim[1] != last_dim(x) ||
        v->dtype != x->dtype)
        return op_shapes_differ(g, "add_channel", x, v);
    return graph_node(g, &op_add_channel, x->ndim, x->dim, 2, (Tensor *[]){x, v}, NULL, 0);
}

static Status add_rows_cpu(const Tensor *y, Stream *s)
{
    return cpu_add_rows_fwd(y->data, y->src[0]->data, y->src[1]->data, (size_t)y->dim[0],
                            per_sample(y), s);
}

static Status add_rows_cuda(const Tensor *y, Stream *s)
{
    return cuda_add_rows_fwd(y->data, y->src[0]->data, y->src[1]->data, (size_t)y->dim[0],
                             per_sample(y), y->dtype, s);
}

static Status add_rows_dp_cpu(const Tensor *dp, Stream *s)
{
    const Tensor *dy = dp->src[0];
    return cpu_add_rows_dp(dp->data, dy->data, (size_t)dy->dim[0], per_sample(dy), tensor_count(dp),
                           s);
}

static Status add_rows_dp_cuda(const Tensor *dp, Stream *s)
{
    const Tensor *dy = dp->src[0];
    return cuda_add_rows_dp(dp->data, dy->data, (size_t)dy->dim[0], per_sample(dy),
                            tensor_count(dp), dy->dtype, s);
}

const OpDef op_add_rows_dp = {
    .name = "add_rows_dp", .cpu = add_rows_dp_cpu, .cuda = CUDA_RUN(add_rows_dp_cuda)};

static void add_rows_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *p = y->src[1];
    grad_add(g, y->src[0], dy);
    if (p->trainable)
        grad_add(g, p,
                 graph_typed(graph_node(g, &op_add_rows_dp, p->ndim, p->dim, 1, &dy, NULL, 0),
                             DTYPE_F32));
}

const OpDef op_add_rows = {.name = "add_rows",
                           .cpu = add_rows_cpu,
                           .cuda = CUDA_RUN(add_rows_cuda),
                           .vjp = add_rows_vjp};

Tensor *add_rows(Graph *g, Tensor *x, Tensor *p)
{
    if (!x || !p) return NULL;
    if (x->ndim != 3 || p->ndim != 2 || p->dim[0] < x->dim[1] || p->dim[1] != x->dim[2] ||
        p->dtype != x->dtype)
        return op_shapes_differ(g, "add_rows", x, p);
    return graph_node(g, &op_add_rows, x->ndim, x->dim, 2, (Tensor *[]){x, p}, NULL, 0);
}
