/* kernels_point.h - launchers bound by memory: elementwise and norms. See kernels.h.
 *
 * [..] is the number of elements; "in place" means that y or dx may be x or dy. */
#ifndef KERNELS_POINT_H
#define KERNELS_POINT_H
#include "kernels_base.h"
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

Status cpu_fill(float *y, float value, size_t count, Stream *s);
Status cpu_add(float *y, const float *a, const float *b, size_t count, Stream *s);
Status cuda_fill(void *y, float value, size_t count, Dtype type, Stream *s);
Status cuda_add(void *y, const void *a, const void *b, size_t count, Dtype type, Stream *s);

/* y = x, each stored as its type: F32 or BF16, not in place */
Status cuda_cast(void *y, Dtype to, const void *x, Dtype from, size_t count, Stream *s);

/* ---- functions of one element; in place ---- */
Status cpu_silu_fwd(float *y, const float *x, size_t count, Stream *s);
Status cpu_silu_dx(float *dx, const float *x, const float *dy, size_t count, Stream *s);
Status cpu_gelu_fwd(float *y, const float *x, size_t count, Stream *s);
Status cpu_gelu_dx(float *dx, const float *x, const float *dy, size_t count, Stream *s);
Status cpu_quick_gelu_fwd(float *y, const float *x, size_t count, Stream *s);
Status cpu_quick_gelu_dx(float *dx, const float *x, const float *dy, size_t count, Stream *s);
Status cpu_mish_fwd(float *y, const float *x, size_t count, Stream *s);
Status cpu_mish_dx(float *dx, const float *x, const float *dy, size_t count, Stream *s);
Status cpu_relu_fwd(float *y, const float *x, size_t count, Stream *s);
Status cpu_relu_dx(float *dx, const float *y, const float *dy, size_t count,
                   Stream *s); /* reads y */
Status cpu_soft_clamp_fwd(float *y, const float *x, size_t count, Stream *s);
Status cpu_soft_clamp_dx(float *dx, const float *y, const float *dy, size_t count,
                         Stream *s); /* reads y */

/* the same on a GPU, in place too; `kept` is what the cpu_ launcher reads, x or y */
#define CUDA_UNARY(f)                                                                              \
    Status cuda_##f##_fwd(void *y, const void *x, size_t count, Dtype type, Stream *s);            \
    Status cuda_##f##_dx(void *dx, const void *kept, const void *dy, size_t count, Dtype type,     \
                         Stream *s);
CUDA_UNARY(silu)
CUDA_UNARY(gelu)
CUDA_UNARY(quick_gelu)
CUDA_UNARY(mish)
CUDA_UNARY(relu)
CUDA_UNARY(soft_clamp)
#undef CUDA_UNARY

/* dx is 0 where x lies outside least..most */
Status cpu_clamp_fwd(float *y, const float *x, float least, float most, size_t count, Stream *s);
Status cpu_clamp_dx(float *dx, const float *x, const float *dy, float least, float most,
                    size_t count, Stream *s);
/* y = mean + exp(logvar/2) * noise */
Status cpu_sample_gaussian_fwd(float *y, const float *mean, const float *logvar, const float *noise,
                               size_t count, Stream *s);
Status cpu_sample_gaussian_dlogvar(float *dlogvar, const float *dy, const float *logvar,
                                   const float *noise, size_t count, Stream *s);
Status cuda_clamp_fwd(void *y, const void *x, float least, float most, size_t count, Dtype type,
                      Stream *s);
Status cuda_clamp_dx(void *dx, const void *x, const void *dy, float least, float most, size_t count,
                     Dtype type, Stream *s);
Status cuda_sample_gaussian_fwd(void *y, const void *mean, const void *logvar, const void *noise,
                                size_t count, Dtype type, Stream *s);
Status cuda_sample_gaussian_dlogvar(void *dlogvar, const void *dy, const void *logvar,
                                    const void *noise, size_t count, Dtype type, Stream *s);

/* x, dx[rows, 2d]: value, then gate; y, dy[rows, d] */
Status cpu_geglu_fwd(float *y, const float *x, size_t rows, int d, Stream *s);
Status cpu_geglu_dx(float *dx, const float *x, const float *dy, size_t rows, int d, Stream *s);
Status cuda_geglu_fwd(void *y, const void *x, size_t rows, int d, Dtype type, Stream *s);
Status cuda_geglu_dx(void *dx, const void *x, const void *dy, size_t rows, int d, Dtype type,
                     Stream *s);

/* ---- sums and multiples; in place ---- */
Status cpu_add_scaled_fwd(float *y, const float *a, float alpha, const float *b, float beta,
                          size_t count, Stream *s);
Status cpu_scale_shift_fwd(float *y, const float *x, float alpha, float beta, size_t count,
                           Stream *s);
/* y[rows, c] = scale[c] * x + shift[c], c <= 4; scale and shift are in host memory on every device
 */
Status cpu_channel_affine_fwd(float *y, const float *x, const float *scale, const float *shift,
                              size_t rows, int c, Stream *s);
/* x, y[n, hw, c] + v[n, c]; dv = sum of dy over hw */
Status cpu_add_channel_fwd(float *y, const float *x, const float *v, size_t n, size_t hw, int c,
                           Stream *s);
Status cpu_add_channel_dv(float *dv, const float *dy, size_t n, size_t hw, int c, Stream *s);
/* x, y[n, count] + p[count]; dp[total] = sum of dy over n, 0 from `count` on */
Status cpu_add_rows_fwd(float *y, const float *x, const float *p, size_t n, size_t count,
                        Stream *s);
Status cpu_add_rows_dp(float *dp, const float *dy, size_t n, size_t count, size_t total, Stream *s);

Status cuda_add_scaled_fwd(void *y, const void *a, float alpha, const void *b, float beta,
                           size_t count, Dtype type, Stream *s);
Status cuda_scale_shift_fwd(void *y, const void *x, float alpha, float beta, size_t count,
                            Dtype type, Stream *s);
Status cuda_channel_affine_fwd(void *y, const void *x, const float *scale, const float *shift,
                               size_t rows, int c, Dtype type, Stream *s);
Status cuda_add_channel_fwd(void *y, const void *x, const void *v, size_t n, size_t hw, int c,
                            Dtype type, Stream *s);
Status cuda_add_channel_dv(void *dv, const void *dy, size_t n, size_t hw, int c, Dtype type,
                           Stream *s);
/* n <= 65535 */
Status cuda_add_rows_fwd(void *y, const void *x, const void *p, size_t n, size_t count, Dtype type,
                         Stream *s);
Status cuda_add_rows_dp(float *dp, const void *dy, size_t n, size_t count, size_t total, Dtype type,
                        Stream *s);

/* x, y[n, per_sample]; rng[3] = seed, step, first sample, in device memory. dx is the same on dy.
 * `element` (a multiple of 4) is the number of the sample's first element in its random stream. */
Status cpu_dropout_fwd(float *y, const float *x, const int32_t *rng, size_t n, size_t per_sample,
                       float rate, uint32_t stream, uint32_t element, Stream *s);
Status cuda_dropout_fwd(void *y, const void *x, const int32_t *rng, size_t n, size_t per_sample,
                        float rate, uint32_t stream, uint32_t element, Dtype type, Stream *s);

/* ---- norms; stats = pairs of mean and 1 / sqrt(variance + eps) ---- */
/* x, y[n, hw, c], stats[n, groups, 2], gain, bias[c]; dx may not be dy */
Status cpu_groupnorm_fwd(float *y, float *stats, const float *x, const float *gain,
                         const float *bias, size_t n, size_t hw, int c, int groups, float eps,
                         Act act, Stream *s);
Status cpu_groupnorm_dx(float *dx, float *dgain, float *dbias, const float *dy, const float *x,
                        const float *gain, const float *bias, const float *stats, size_t n,
                        size_t hw, int c, int groups, float eps, Act act, Stream *s);
/* x, y[rows, d], stats[rows, 2], gain, bias[d] */
Status cpu_layernorm_fwd(float *y, float *stats, const float *x, const float *gain,
                         const float *bias, size_t rows, int d, float eps, Stream *s);
Status cpu_layernorm_dx(float *dx, float *dgain, float *dbias, const float *dy, const float *x,
                        const float *gain, const float *stats, size_t rows, int d, Stream *s);
/* x, y[rows, c], stats[c, 2], all others [c]. train (2 rows or more): by the batch, and the running
 * mean and (unbiased) variance move towards the batch's by momentum; dx of train is told by
 * `train`. */
Status cpu_batchnorm_train_fwd(float *y, float *stats, float *running_mean, float *running_var,
                               const float *x, const float *gain, const float *bias, size_t rows,
                               int c, float eps, float momentum, bool relu, Stream *s);
Status cpu_batchnorm_fwd(float *y, float *stats, const float *running_mean,
                         const float *running_var, const float *x, const float *gain,
                         const float *bias, size_t rows, int c, float eps, bool relu, Stream *s);
Status cpu_batchnorm_dx(float *dx, float *dgain, float *dbias, const float *dy, const float *x,
                        const float *gain, const float *bias, const float *stats, size_t rows,
                        int c, bool train, bool relu, Stream *s);

/* The same in training where the batch lies on several ranks, each with `rows` rows: a rank's moments
 * [c, 2] (mean, biased variance), and from all ranks' [ranks, c, 2] the rest; a rank's sums [2, c]
 * (dgain, dbias), and from all ranks' [ranks, 2, c] dx. Ranks are taken in their order. A rank's
 * moments and sums may lie between the others': they need the alignment of a float only. */
Status cpu_batchnorm_moments(float *moments, const float *x, size_t rows, int c, Stream *s);
Status cpu_batchnorm_sync_fwd(float *y, float *stats, float *running_mean, float *running_var,
                              const float *moments, int ranks, const float *x, const float *gain,
                              const float *bias, size_t rows, int c, float eps, float momentum,
                              bool relu, Stream *s);
Status cpu_batchnorm_sums(float *sums, const float *dy, const float *x, const float *gain,
                          const float *bias, const float *stats, size_t rows, int c, bool relu,
                          Stream *s);
Status cpu_batchnorm_sync_dx(float *dx, const float *sums, int ranks, const float *dy,
                             const float *x, const float *gain, const float *bias,
                             const float *stats, size_t rows, int c, bool relu, Stream *s);

/* the same on a GPU. groupnorm: a group of at most 320 packs, of 16 bytes where they divide c, else
 * of one channel; layernorm: rows of at most 16 KiB, or 4096 elements where packs do not divide d */
Status cuda_groupnorm_fwd(void *y, float *stats, const void *x, const float *gain,
                          const float *bias, size_t n, size_t hw, int c, int groups, float eps,
                          Act act, Dtype type, Stream *s);
Status cuda_groupnorm_dx(void *dx, float *dgain, float *dbias, const void *dy, const void *x,
                         const float *gain, const float *bias, const float *stats, size_t n,
                         size_t hw, int c, int groups, float eps, Act act, Dtype type, Stream *s);
Status cuda_layernorm_fwd(void *y, float *stats, const void *x, const float *gain,
                          const float *bias, size_t rows, int d, float eps, Dtype type, Stream *s);
Status cuda_layernorm_dx(void *dx, float *dgain, float *dbias, const void *dy, const void *x,
                         const float *gain, const float *stats, size_t rows, int d, Dtype type,
                         Stream *s);
Status cuda_batchnorm_train_fwd(void *y, float *stats, float *running_mean, float *running_var,
                                const void *x, const float *gain, const float *bias, size_t rows,
                                int c, float eps, float momentum, bool relu, Dtype type, Stream *s);
Status cuda_batchnorm_fwd(void *y, float *stats, const float *running_mean,
                          const float *running_var, const void *x, const float *gain,
                          const float *bias, size_t rows, int c, float eps, bool relu, Dtype type,
                          Stream *s);
Status cuda_batchnorm_dx(void *dx, float *dgain, float *dbias, const void *dy, const void *x,
                         const float *gain, const float *bias, const float *stats, size_t rows,
                         int c, bool train, bool relu, Dtype type, Stream *s);
Status cuda_batchnorm_moments(float *moments, const void *x, size_t rows, int c, Dtype type,
                              Stream *s);
Status cuda_batchnorm_sync_fwd(void *y, float *stats, float *running_mean, float *running_var,
                               const float *moments, int ranks, const void *x, const float *gain,
                               const float *bias, size_t rows, int c, float eps, float momentum,
                               bool relu, Dtype type, Stream *s);
Status cuda_batchnorm_sums(float *sums, const void *dy, const void *x, const float *gain,
                           const float *bias, const float *stats, size_t rows, int c, bool relu,
                           Dtype type, Stream *s);
Status cuda_batchnorm_sync_dx(void *dx, const float *sums, int ranks, const void *dy, const void *x,
                              const float *gain, const float *bias, const float *stats,
                              size_t rows, int c, bool relu, Dtype type, Stream *s);

#ifdef __cplusplus
}
#endif
#endif
