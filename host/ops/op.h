/* op.h - what the files of this room share; models include ops.h instead. */
#ifndef OP_H
#define OP_H
#include "graph/graph.h"
#include "kernels_matrix.h"
#include "ops/ops.h"

static inline Tensor *op_shapes_differ(Graph *g, const char *op, const Tensor *a, const Tensor *b)
{
    char sa[64], sb[64];
    if (tensor_same_shape(a, b) && a->dtype != b->dtype)
        return graph_fail(g, "%s: %s of two storage types", op, tensor_shape_text(a, sa));
    return graph_fail(g, "%s: shapes %s and %s differ", op, tensor_shape_text(a, sa), tensor_shape_text(b, sb));
}
/* Of one shape and storage type. */
static inline bool op_alike(const Tensor *a, const Tensor *b)
{
    return tensor_same_shape(a, b) && a->dtype == b->dtype;
}
static inline int last_dim(const Tensor *t) { return t->dim[t->ndim - 1]; }
static inline size_t rows_of(const Tensor *t) { return tensor_count(t) / (size_t)last_dim(t); } /* all but the last */
static inline size_t per_sample(const Tensor *t) { return tensor_count(t) / (size_t)t->dim[0]; }

static inline bool op_is_vector(const Tensor *t, int n) { return t->ndim == 1 && t->dim[0] == n; }

static inline ConvShape conv_shape(const Tensor *x, const Tensor *w, const ConvArgs *a)
{
    return (ConvShape){x->dim[0], x->dim[1], x->dim[2], x->dim[3], w->dim[0], w->dim[1],
                       w->dim[2], a->stride, a->top,    a->left,   a->bottom, a->right};
}

/* On the CPU, y = x . w^T + b (b NULL without); of matrices as of one vector for each image. */
Status linear_forward(const Tensor *y, const Tensor *x, const Tensor *w, const Tensor *b, Stream *s);

/* Of batchnorm's builders: whether x, gain, bias, mean, var fit, else false and the reason in g; the
 * failure of a batch of one row. */
bool batchnorm_fits(Graph *g, Tensor *const src[5]);
Tensor *batchnorm_too_few(Graph *g);

/* The CUDA column of an OpDef: NULL, and the function and its launcher not linked, in a build
 * without CUDA. */
#define CUDA_RUN(f) (EQ_CUDA ? (f) : NULL)

/* Every op of the engine: X(name) declares `extern const OpDef op_name`. Backward ops stand
 * behind the op they belong to. */
#define OPS(X) \
    X(add) X(fill) X(reshape) X(cast) \
    X(conv2d) X(conv2d_dx) X(conv2d_dw) \
    X(linear) X(linear_dx) X(linear_dw) X(column_sum) \
    X(attention) X(attention_bwd) \
    X(conv2d_after) X(conv2d_join) X(upsample2_fold) X(upsample2_conv2d) X(linear_after) X(linear_geglu) \
    X(concat) X(slice) X(pad) \
    X(upsample) X(upsample_dx) \
    X(maxpool) X(maxpool_dx) X(avgpool) X(avgpool_dx) X(global_avgpool) X(global_avgpool_dx) \
    X(embedding) X(embedding_dw) \
    X(timestep_embedding) X(mix_samples) X(mix_samples_dx) X(ddim_step) X(ddim_step_drawn) X(noise_samples) \
    X(weighted_mse) X(weighted_mse_dx) X(weighted_l1) X(weighted_l1_dx) X(cross_entropy) X(cross_entropy_dx) \
    X(clamp) X(clamp_dx) X(sample_gaussian) X(sample_gaussian_dlogvar) X(gaussian_kl) X(gaussian_kl_dx) \
    X(silu) X(silu_dx) X(gelu) X(gelu_dx) X(quick_gelu) X(quick_gelu_dx) X(mish) X(mish_dx) \
    X(relu) X(relu_dx) X(soft_clamp) X(soft_clamp_dx) \
    X(geglu) X(geglu_dx) X(add_scaled) X(scale_shift) X(channel_affine) \
    X(add_channel) X(add_channel_dv) X(add_rows) X(add_rows_dp) X(dropout) \
    X(groupnorm) X(groupnorm_dx) X(layernorm) X(layernorm_dx) X(batchnorm) X(batchnorm_train) X(batchnorm_dx) \
    X(batchnorm_moments) X(batchnorm_sync) X(batchnorm_sums) X(batchnorm_sync_dx)

#define OP_DECLARE(name) extern const OpDef op_##name;
OPS(OP_DECLARE)
#undef OP_DECLARE
#endif
