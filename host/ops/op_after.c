/* op_after.c - convolutions and linear layers that go on, and that read more than one image: what
 * fusions.c makes of several nodes. They have no gradient: fusing comes after the reverse pass.
 *
 *   y = act(conv(x, w) + b[k] + v[image, k]) + r      r shaped like y; v, r or both may be missing
 *
 *   conv2d_after, linear_after   x, w and b as of conv2d and linear
 *   linear_geglu                 y[..,k/2] = geglu(linear(x, w, b)), nothing more
 *   conv2d_join                  x's first channels in x, the others in x2
 *   upsample2_fold               w4[4k,2,2,c] of w[k,3,3,c]: the filters that the four kinds of pixels
 *                                of an image upsampled by 2 see (kernels_matrix.h)
 *   upsample2_conv2d             x at half the height and width of y, w4 in place of w
 */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static void *data(const Tensor *t /* or NULL */) { return t ? t->data : NULL; }

static ConvShape shape_of(const Tensor *y)
{
    const Tensor *x = y->src[AFTER_X], *w = y->src[AFTER_W], *x2 = y->src[AFTER_X2];
    ConvShape a = conv_shape(x, w, &((const AfterArgs *)y->args)->conv);
    if (x2) a.c += last_dim(x2);
    return a;
}

/* The filter is w4, its four kinds of pixels one behind the other. */
static ConvShape upsampled_shape(const Tensor *y)
{
    ConvShape a = shape_of(y);
    a.k /= 4;
    return a;
}

static ConvAfter after_of(const Tensor *y)
{
    return (ConvAfter){data(y->src[AFTER_V]), data(y->src[AFTER_R]),
                       ((const AfterArgs *)y->args)->act};
}

/* Behind a forward pass of any of them: 2 FLOPs a tap and channel of the filter that is read. */
static double after_flops(const Tensor *y)
{
    return 2.0 * (double)tensor_count(y) * (double)per_sample(y->src[AFTER_W]);
}

/* Of a linear layer twice as wide as y. */
static double geglu_flops(const Tensor *y) { return 2 * after_flops(y); }

/* ---- on a CPU: the separate launchers, in place --------------------------------------------- */

static Status go_on(const Tensor *y, int n, int k, Stream *s)
{
    static Status (*const act[])(float *, const float *, size_t, Stream *) = {
        [ACT_SILU] = cpu_silu_fwd, [ACT_RELU] = cpu_relu_fwd};
    const ConvAfter after = after_of(y);
    size_t count = tensor_count(y), hw = count / (size_t)n / (size_t)k;
    if (after.v) TRY(cpu_add_channel_fwd(y->data, y->data, after.v, (size_t)n, hw, k, s));
    if (after.act) TRY(act[after.act](y->data, y->data, count, s));
    return after.r ? cpu_add(y->data, y->data, after.r, count, s) : OK;
}

static Status conv2d_after_cpu(const Tensor *y, Stream *s)
{
    ConvShape a = shape_of(y);
    TRY(cpu_conv2d_fwd(y->data, y->src[AFTER_X]->data, y->src[AFTER_W]->data,
                       data(y->src[AFTER_B]), &a, s));
    return go_on(y, a.n, a.k, s);
}

static Status conv2d_join_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[AFTER_X];
    ConvShape a = shape_of(y);
    TRY(cpu_conv2d_join_fwd(y->data, x->data, y->src[AFTER_X2]->data, last_dim(x),
                            y->src[AFTER_W]->data, data(y->src[AFTER_B]), &a, s));
    return go_on(y, a.n, a.k, s);
}

static Status upsample2_fold_cpu(const Tensor *w4, Stream *s)
{
    return cpu_upsample2_fold(w4->data, w4->src[0]->data, w4->dim[3], w4->dim[0] / 4, s);
}

static Status upsample2_conv2d_cpu(const Tensor *y, Stream *s)
{
    ConvShape a = upsampled_shape(y);
    TRY(cpu_upsample2_conv2d_fwd(y->data, y->src[AFTER_X]->data, y->src[AFTER_W]->data,
                                 data(y->src[AFTER_B]), &a, s));
    return go_on(y, a.n, a.k, s);
}

static Status linear_after_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[AFTER_X], *w = y->src[AFTER_W];
    TRY(linear_forward(y, x, w, y->src[AFTER_B], s));
    return go_on(y, 1, w->dim[0], s);
}

static Status linear_geglu_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[AFTER_X], *w = y->src[AFTER_W];
    return cpu_linear_geglu_fwd(y->data, x->data, w->data, data(y->src[AFTER_B]), rows_of(x),
                                w->dim[1], w->dim[0], s);
}

/* ---- on a GPU: one kernel --------------------------------------------------------------------- */

static Status conv2d_after_cuda(const Tensor *y, Stream *s)
{
    ConvShape a = shape_of(y);
    ConvAfter after = after_of(y);
    return cuda_conv2d_after_fwd(y->data, y->src[AFTER_X]->data, y->src[AFTER_W]->data,
                                 data(y->src[AFTER_B]), &after, &a, y->dtype, s);
}

static Status conv2d_join_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[AFTER_X];
    ConvShape a = shape_of(y);
    ConvAfter after = after_of(y);
    return cuda_conv2d_join_fwd(y->data, x->data, y->src[AFTER_X2]->data, last_dim(x),
                                y->src[AFTER_W]->data, data(y->src[AFTER_B]), &after, &a, y->dtype,
                                s);
}

static Status upsample2_fold_cuda(const Tensor *w4, Stream *s)
{
    return cuda_upsample2_fold(w4->data, w4->src[0]->data, w4->dim[3], w4->dim[0] / 4, w4->dtype,
                               s);
}

static Status upsample2_conv2d_cuda(const Tensor *y, Stream *s)
{
    ConvShape a = upsampled_shape(y);
    ConvAfter after = after_of(y);
    return cuda_upsample2_conv2d_fwd(y->data, y->src[AFTER_X]->data, y->src[AFTER_W]->data,
                                     data(y->src[AFTER_B]), &after, &a, y->dtype, s);
}

static Status linear_after_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[AFTER_X], *w = y->src[AFTER_W];
    ConvAfter after = after_of(y);
    return cuda_linear_after_fwd(y->data, x->data, w->data, data(y->src[AFTER_B]), &after,
                                 rows_of(x), w->dim[1], w->dim[0], y->dtype, s);
}

static Status linear_geglu_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[AFTER_X], *w = y->src[AFTER_W];
    return cuda_linear_geglu_fwd(y->data, x->data, w->data, data(y->src[AFTER_B]), rows_of(x),
                                 w->dim[1], w->dim[0], y->dtype, s);
}

#define AFTER_OP(f)                                                                                \
    const OpDef op_##f = {                                                                         \
        .name = #f, .cpu = f##_cpu, .cuda = CUDA_RUN(f##_cuda), .flops = after_flops};
AFTER_OP(conv2d_after)
AFTER_OP(conv2d_join)
AFTER_OP(upsample2_conv2d)
AFTER_OP(linear_after)
const OpDef op_linear_geglu = {.name = "linear_geglu",
                               .cpu = linear_geglu_cpu,
                               .cuda = CUDA_RUN(linear_geglu_cuda),
                               .flops = geglu_flops};
const OpDef op_upsample2_fold = {
    .name = "upsample2_fold", .cpu = upsample2_fold_cpu, .cuda = CUDA_RUN(upsample2_fold_cuda)};
