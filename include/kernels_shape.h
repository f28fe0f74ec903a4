/* kernels_shape.h - launchers that move data: joins, pools, lookups, diffusion arithmetic. All are
 * bound by memory: each reads its inputs and writes its outputs once. See kernels.h. */
#ifndef KERNELS_SHAPE_H
#define KERNELS_SHAPE_H
#include "kernels_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of n parts side by side: y[rows, sum of c[k]] from x[k][rows, c[k]], n <= 6. */
Status cpu_concat(float *y, const float *const *x, const int *c, int n, size_t rows, Stream *s);
/* y[rows, count] = x[rows, c] from column `from` on. */
Status cpu_slice(float *y, const float *x, size_t rows, int c, int from, int count, Stream *s);
/* y[rows, c] = 0 but for columns from..from+count-1, which are x[rows, count]. */
Status cpu_pad(float *y, const float *x, size_t rows, int c, int from, int count, Stream *s);
Status cuda_concat(void *y, const void *const *x, const int *c, int n, size_t rows, Dtype type,
                   Stream *s);
Status cuda_slice(void *y, const void *x, size_t rows, int c, int from, int count, Dtype type,
                  Stream *s);
Status cuda_pad(void *y, const void *x, size_t rows, int c, int from, int count, Dtype type,
                Stream *s);

/* Nearest, x[n,h,w,c] -> y[n,p,q,c], h <= p, w <= q: row i is of row floor(i * (h / p)), both in
 * fp32 as in PyTorch, columns likewise. */
typedef struct { int n, h, w, c, p, q; } UpsampleShape;
Status cpu_upsample_fwd(float *y, const float *x, UpsampleShape a, Stream *s);
Status cpu_upsample_dx(float *dx, const float *dy, UpsampleShape a, Stream *s);
Status cuda_upsample_fwd(void *y, const void *x, UpsampleShape a, Dtype type, Stream *s);
Status cuda_upsample_dx(void *dx, const void *dy, UpsampleShape a, Dtype type, Stream *s);

/* Pools over size x size windows, moved by stride, of x[n,h,w,c] -> y[n,p,q,c]. Windows may reach
 * over the border by pad pixels. 2*pad <= size, so that none lies outside. */
typedef struct {
    int n, h, w, c, p, q, size, stride, pad;
} PoolShape;
/* index: h*w_total + w of the maximum in its plane; the first of equals, a NaN before all. */
Status cpu_maxpool_fwd(float *y, int32_t *index, const float *x, PoolShape a, Stream *s);
Status cpu_maxpool_dx(float *dx, const float *dy, const int32_t *index, PoolShape a, Stream *s);
/* Divides by size*size everywhere: padding counts as zeros. */
Status cpu_avgpool_fwd(float *y, const float *x, PoolShape a, Stream *s);
Status cpu_avgpool_dx(float *dx, const float *dy, PoolShape a, Stream *s);
/* Mean over hw positions: x[n,hw,c] -> y[n,c]. */
Status cpu_global_avgpool_fwd(float *y, const float *x, int n, int hw, int c, Stream *s);
Status cpu_global_avgpool_dx(float *dx, const float *dy, int n, int hw, int c, Stream *s);
/* the same on a GPU */
Status cuda_maxpool_fwd(void *y, int32_t *index, const void *x, PoolShape a, Dtype type, Stream *s);
Status cuda_maxpool_dx(void *dx, const void *dy, const int32_t *index, PoolShape a, Dtype type,
                       Stream *s);
Status cuda_avgpool_fwd(void *y, const void *x, PoolShape a, Dtype type, Stream *s);
Status cuda_avgpool_dx(void *dx, const void *dy, PoolShape a, Dtype type, Stream *s);
Status cuda_global_avgpool_fwd(void *y, const void *x, int n, int hw, int c, Dtype type, Stream *s);
Status cuda_global_avgpool_dx(void *dx, const void *dy, int n, int hw, int c, Dtype type,
                              Stream *s);

/* y[count,d] = table[ids[i], d]; ERR_INPUT for an id outside 0..rows-1. */
Status cpu_embedding_fwd(float *y, const int32_t *ids, const float *table, size_t count, int rows,
                         int d, Stream *s);
/* dtable[rows,d]: rows of dy[count,d] summed in order of position. Bound by zeroing the table. */
Status cpu_embedding_dw(float *dtable, const int32_t *ids, const float *dy, size_t count, int rows,
                        int d, Stream *s);
/* On a GPU the caller has seen to it that ids lie inside: one outside gives zeros and no gradient.
 * Rows of an id are summed in a fixed order, eight sums side by side. */
Status cuda_embedding_fwd(void *y, const int32_t *ids, const void *table, size_t count, int rows,
                          int d, Dtype type, Stream *s);
Status cuda_embedding_dw(float *dtable, const int32_t *ids, const void *dy, size_t count, int rows,
                         int d, Dtype type, Stream *s);

/* y[n,dim] = sin then cos (flip: cos then sin) of t[n] * 10000^(-i/(dim/2 - shift)); the angle
 * is computed in fp32, as in diffusers. */
Status cpu_timestep_embedding(float *y, const float *t, int n, int dim, int flip, float shift,
                              Stream *s);
/* y[n,per] = c[i,0]*a + c[i,1]*b for sample i. */
Status cpu_mix_samples_fwd(float *y, const float *a, const float *b, const float *c, int n,
                           size_t per, Stream *s);
/* dx = c[i,which] * dy: the gradient of a (which 0) or b (1). */
Status cpu_mix_samples_dx(float *dx, const float *dy, const float *c, int which, int n, size_t per,
                          Stream *s);
/* One DDIM step of count elements; pred holds 2*count when guided; coef[6] and noise as in ops.h, coef[5] unused;
 * prediction 0 noise, 1 velocity, 2 x0. */
Status cpu_ddim_step(float *y, const float *x, const float *pred, const float *noise /* or NULL */,
                     const float *coef, size_t count, int guided, int prediction, float guidance,
                     Stream *s);

/* noisy, wanted[n,per] = mix[i,0]*x + mix[i,1]*noise and the same by target[i], where noise is that
 * of random_normals(seed, stream, step, sample), key[n,4] = seed, step, sample's low and high
 * word, and where offset > 0 that times a normal for each of the last dimension's channels is added
 * (STREAM_NOISE_OFFSET). In place: noisy or wanted may be x. */
Status cpu_noise_samples(float *noisy, float *wanted, const float *x, const int32_t *key,
                         const float *mix, const float *target, float offset, uint32_t stream,
                         int n, size_t per, int channels, Stream *s);
/* cpu_ddim_step() with noise drawn by (seed, STREAM_STEP, coef[5], sample); key[n,3] = seed,
 * sample's low and high word. */
Status cpu_ddim_step_drawn(float *y, const float *x, const float *pred, const int32_t *key,
                           const float *coef, int n, size_t per, int guided, int prediction,
                           float guidance, Stream *s);

/* n <= 65535 */
Status cuda_noise_samples(void *noisy, void *wanted, const void *x, const int32_t *key,
                          const float *mix, const float *target, float offset, uint32_t stream,
                          int n, size_t per, int channels, Dtype type, Stream *s);
Status cuda_ddim_step_drawn(void *y, const void *x, const void *pred, const int32_t *key,
                            const float *coef, int n, size_t per, int guided, int prediction,
                            float guidance, Dtype type, Stream *s);
Status cuda_timestep_embedding(void *y, const float *t, int n, int dim, int flip, float shift,
                               Dtype type, Stream *s);
Status cuda_mix_samples_fwd(void *y, const void *a, const void *b, const float *c, int n,
                            size_t per, Dtype type, Stream *s);
Status cuda_mix_samples_dx(void *dx, const void *dy, const float *c, int which, int n, size_t per,
                           Dtype type, Stream *s);
Status cuda_ddim_step(void *y, const void *x, const void *pred, const void *noise /* or NULL */,
                      const float *coef, size_t count, int guided, int prediction, float guidance,
                      Dtype type, Stream *s);

#ifdef __cplusplus
}
#endif
#endif
