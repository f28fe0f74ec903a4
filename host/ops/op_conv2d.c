/* op_conv2d.c - two-dimensional convolution, with gradients for image, weight and bias. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

/* Every output of every pass costs one multiply and add per filter tap and channel. */
static double conv_cost(const Tensor *y, const Tensor *w)
{
    return 2.0 * (double)tensor_count(y) * (double)per_sample(w);
}

/* conv2d: y from x, w, b */
static Status conv2d_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0], *w = y->src[1], *b = y->src[2];
    ConvShape a = conv_shape(x, w, y->args);
    return cpu_conv2d_fwd(y->data, x->data, w->data, b ? b->data : NULL, &a, s);
}
static Status conv2d_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0], *w = y->src[1], *b = y->src[2];
    ConvShape a = conv_shape(x, w, y->args);
    return cuda_conv2d_fwd(y->data, x->data, w->data, b ? b->data : NULL, &a, y->dtype, s);
}
static double conv2d_flops(const Tensor *y) { return conv_cost(y, y->src[1]); }

/* conv2d_dx: dx from dy, w */
static Status conv2d_dx_cpu(const Tensor *dx, Stream *s)
{
    const Tensor *dy = dx->src[0], *w = dx->src[1];
    ConvShape a = conv_shape(dx, w, dx->args);
    return cpu_conv2d_dx(dx->data, dy->data, w->data, &a, s);
}
static Status conv2d_dx_cuda(const Tensor *dx, Stream *s)
{
    const Tensor *dy = dx->src[0], *w = dx->src[1];
    ConvShape a = conv_shape(dx, w, dx->args);
    return cuda_conv2d_dx(dx->data, dy->data, w->data, &a, dx->dtype, s);
}
static double conv2d_dx_flops(const Tensor *dx) { return conv_cost(dx->src[0], dx->src[1]); }

/* conv2d_dw: dw, and as its side db where there is one, from dy, x */
static Status conv2d_dw_cpu(const Tensor *dw, Stream *s)
{
    const Tensor *dy = dw->src[0], *x = dw->src[1], *db = dw->side[0];
    ConvShape a = conv_shape(x, dw, dw->args);
    return cpu_conv2d_dw(dw->data, db ? db->data : NULL, dy->data, x->data, &a, s);
}
static Status conv2d_dw_cuda(const Tensor *dw, Stream *s)
{
    const Tensor *dy = dw->src[0], *x = dw->src[1], *db = dw->side[0];
    ConvShape a = conv_shape(x, dw, dw->args);
    return cuda_conv2d_dw(dw->data, db ? db->data : NULL, dy->data, x->data, &a, dy->dtype, s);
}
static double conv2d_dw_flops(const Tensor *dw) { return conv_cost(dw->src[0], dw); }

static void conv2d_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0], *w = y->src[1], *b = y->src[2];
    if (x->trainable)
        grad_add(g, x,
                 graph_node(g, &op_conv2d_dx, 4, x->dim, 2, (Tensor *[]){dy, w}, y->args,
                            sizeof(ConvArgs)));
    if (w->trainable) {
        Tensor *dw = graph_node(g, &op_conv2d_dw, 4, w->dim, 2, (Tensor *[]){dy, x}, y->args,
                                sizeof(ConvArgs));
        if (b && b->trainable) grad_add(g, b, graph_side(g, dw, 1, b->dim));
        grad_add(g, w, graph_typed(dw, DTYPE_F32));
    } else if (b && b->trainable) {
        Tensor *db = graph_node(g, &op_column_sum, 1, b->dim, 1, &dy, NULL, 0);
        grad_add(g, b, graph_typed(db, DTYPE_F32));
    }
}

const OpDef op_conv2d = {.name = "conv2d",
                         .cpu = conv2d_cpu,
                         .cuda = CUDA_RUN(conv2d_cuda),
                         .vjp = conv2d_vjp,
                         .flops = conv2d_flops};
const OpDef op_conv2d_dx = {.name = "conv2d_dx",
                            .cpu = conv2d_dx_cpu,
                            .cuda = CUDA_RUN(conv2d_dx_cuda),
                            .flops = conv2d_dx_flops};
const OpDef op_conv2d_dw = {.name = "conv2d_dw",
                            .cpu = conv2d_dw_cpu,
                            .cuda = CUDA_RUN(conv2d_dw_cuda),
                            .flops = conv2d_dw_flops};

Tensor *conv2d(Graph *g, Tensor *x, Tensor *w, Tensor *b, ConvArgs a)
{
    char sx[64], sw[64];
    if (!x || !w) return NULL;
    if (x->ndim != 4 || w->ndim != 4 || x->dim[3] != w->dim[3])
        return graph_fail(
            g, "conv2d: image %s and weight %s do not fit, expected [n,h,w,c] and [k,r,s,c]",
            tensor_shape_text(x, sx), tensor_shape_text(w, sw));
    if (b && (b->ndim != 1 || b->dim[0] != w->dim[0]))
        return graph_fail(g, "conv2d: bias %s, expected [%d]", tensor_shape_text(b, sx), w->dim[0]);
    if (a.stride < 1 || a.top < 0 || a.left < 0 || a.bottom < 0 || a.right < 0)
        return graph_fail(g, "conv2d: stride %d, padding %d %d %d %d", a.stride, a.top, a.left,
                          a.bottom, a.right);
    if (x->dim[1] + a.top + a.bottom < w->dim[1] || x->dim[2] + a.left + a.right < w->dim[2])
        return graph_fail(g, "conv2d: filter %s is larger than the padded image %s",
                          tensor_shape_text(w, sw), tensor_shape_text(x, sx));
    int dim[] = {x->dim[0], conv_out(x->dim[1], a.top, a.bottom, w->dim[1], a.stride),
                 conv_out(x->dim[2], a.left, a.right, w->dim[2], a.stride), w->dim[0]};
    return graph_node(g, &op_conv2d, 4, dim, 3, (Tensor *[]){x, w, b}, &a, sizeof a);
}
