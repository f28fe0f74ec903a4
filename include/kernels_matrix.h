/* kernels_matrix.h - launchers of convolution, linear layers and attention. See kernels.h.
 *
 * Beyond the rules of kernels_base.h: a forward result of one image (one row of a linear layer)
 * has the same bits whatever the number of images in the call.
 * tests/kernels/test_batch_invariance.c holds us to it. On a CPU the gradients of convolutions keep
 * their bits for a fixed number of threads only, for oneDNN may order sums by it. On a GPU a
 * convolution whose one image gives few tiles cuts its sums into as many shares as fill the GPU, so
 * there the number of images does tell. Strides there: 1 and 2.
 */
#ifndef KERNELS_MATRIX_H
#define KERNELS_MATRIX_H
#include "kernels_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y[n,p,q,k] = b[k] + sum over r,s,c of x[n, p*stride+r-top, q*stride+s-left, c] * w[k,r,s,c],
 * x zero outside the image; p and q as conv_out() says. */
typedef struct {
    int n, h, w, c, k, r, s, stride, top, left, bottom, right;
} ConvShape;

static inline int conv_out(int size, int before, int after, int filter, int stride)
{
    return (size + before + after - filter) / stride + 1;
}

Status cpu_conv2d_fwd(float *y, const float *x, const float *w, const float *b /* or NULL */,
                      const ConvShape *a, Stream *s);
Status cpu_conv2d_dx(float *dx, const float *dy, const float *w, const ConvShape *a, Stream *s);
Status cpu_conv2d_dw(float *dw, float *db /* or NULL */, const float *dy, const float *x,
                     const ConvShape *a, Stream *s);

Status cuda_conv2d_fwd(void *y, const void *x, const void *w, const float *b /* or NULL */,
                       const ConvShape *a, Dtype type, Stream *s);
Status cuda_conv2d_dx(void *dx, const void *dy, const void *w, const ConvShape *a, Dtype type,
                      Stream *s);
Status cuda_conv2d_dw(float *dw, float *db /* or NULL */, const void *dy, const void *x,
                      const ConvShape *a, Dtype type, Stream *s);

/* GPU only, to spare passes over memory where nothing needs the values between:
 *   y = act(conv + b + v[image, k]) + r,   v and r stored as `type`, r shaped like y. */
typedef struct {
    const void *v, *r; /* or NULL */
    Act act;
} ConvAfter;
Status cuda_conv2d_after_fwd(void *y, const void *x, const void *w, const float *b /* or NULL */,
                             const ConvAfter *after, const ConvShape *a, Dtype type, Stream *s);
/* x lies in two tensors: x1[n,h,w,c1] has its first channels, x2[n,h,w,c-c1] the others. */
Status cuda_conv2d_join_fwd(void *y, const void *x1, const void *x2, int c1, const void *w,
                            const float *b /* or NULL */, const ConvAfter *after /* or NULL */,
                            const ConvShape *a, Dtype type, Stream *s);
Status cpu_conv2d_join_fwd(float *y, const float *x1, const float *x2, int c1, const float *w,
                           const float *b /* or NULL */, const ConvShape *a, Stream *s);
/* One row of v for all rows. */
Status cuda_linear_after_fwd(void *y, const void *x, const void *w, const float *b /* or NULL */,
                             const ConvAfter *after, size_t rows, int c, int k, Dtype type,
                             Stream *s);
/* y[rows,k/2] = value * gelu(gate), where (value, gate) = x[rows,c] . w[k,c]^T + b[k], each half of the
 * columns: a linear layer and GEGLU without the wide result between. k is even. */
Status cpu_linear_geglu_fwd(float *y, const float *x, const float *w, const float *b /* or NULL */,
                            size_t rows, int c, int k, Stream *s);
Status cuda_linear_geglu_fwd(void *y, const void *x, const void *w, const float *b /* or NULL */,
                             size_t rows, int c, int k, Dtype type, Stream *s);

/* Nearest upsampling by 2, then a 3x3 convolution with padding 1, without the large image
 * and with 4 of 9 taps: y[n,2h,2w,k] from x[n,h,w,c]. Lines of y see two lines of x, and filter
 * lines that see the same one are summed beforehand, in fp32, rounded once: w4[4,k,2,2,c], the four
 * for y's (even, even), (even, odd), (odd, even), (odd, odd) lines and columns. Of a, only n h w c
 * k are read. */
Status cuda_upsample2_fold(void *w4, const void *w /* [k,3,3,c] */, int c, int k, Dtype type,
                           Stream *s);
Status cuda_upsample2_conv2d_fwd(void *y, const void *x, const void *w4,
                                 const float *b /* or NULL */, const ConvAfter *after /* or NULL */,
                                 const ConvShape *a, Dtype type, Stream *s);
Status cpu_upsample2_fold(float *w4, const float *w, int c, int k, Stream *s);
Status cpu_upsample2_conv2d_fwd(float *y, const float *x, const float *w4,
                                const float *b /* or NULL */, const ConvShape *a, Stream *s);

/* y[rows,k] = x[rows,c] . w[k,c]^T + b[k] */
Status cpu_linear_fwd(float *y, const float *x, const float *w, const float *b /* or NULL */,
                      size_t rows, int c, int k, Stream *s);
/* The same over one vector for each image: a rounding there moves all of the image's values alike, and
 * a norm behind may magnify that. So each result is summed in double. */
Status cpu_vector_linear_fwd(float *y, const float *x, const float *w, const float *b /* or NULL */,
                             size_t n, int c, int k, Stream *s);
Status cpu_linear_dx(float *dx, const float *dy, const float *w, size_t rows, int c, int k,
                     Stream *s);
Status cpu_linear_dw(float *dw, float *db /* or NULL */, const float *dy, const float *x,
                     size_t rows, int c, int k, Stream *s);

Status cuda_linear_fwd(void *y, const void *x, const void *w, const float *b /* or NULL */,
                       size_t rows, int c, int k, Dtype type, Stream *s);
Status cuda_linear_dx(void *dx, const void *dy, const void *w, size_t rows, int c, int k,
                      Dtype type, Stream *s);
Status cuda_linear_dw(float *dw, float *db /* or NULL */, const void *dy, const void *x,
                      size_t rows, int c, int k, Dtype type, Stream *s);

/* sum[k] = sum over rows of x[rows,k]: the gradient of a bias */
Status cpu_column_sum(float *sum, const float *x, size_t rows, int k, Stream *s);
Status cuda_column_sum(float *sum, const void *x, size_t rows, int k, Dtype type, Stream *s);

/* For each image and head, with head h at columns h*dh .. h*dh+dh-1 of q[n,tq,heads*dh] and of
 * k, v[n,tk,heads*dh]:   s = q.k' / sqrt(dh),   lse[n,heads,tq] = log sum over keys exp(s),
 * y = exp(s - lse).v;    causal: a query sees keys up to its own index. */
typedef struct {
    int n, tq, tk, heads, dh, causal;
} AttentionShape;

Status cpu_attention_fwd(float *y, float *lse, const float *q, const float *k, const float *v,
                         const AttentionShape *a, Stream *s);
Status cpu_attention_bwd(float *dq, float *dk, float *dv, const float *dy, const float *y,
                         const float *lse, const float *q, const float *k, const float *v,
                         const AttentionShape *a, Stream *s);
/* Head sizes up to 512. bf16 heads that are a multiple of 8 run on tensor cores (backward: up to
 * 160), where P and dS are rounded to bf16 between two products. */
Status cuda_attention_fwd(void *y, float *lse, const void *q, const void *k, const void *v,
                          const AttentionShape *a, Dtype type, Stream *s);
Status cuda_attention_bwd(void *dq, void *dk, void *dv, const void *dy, const void *y,
                          const float *lse, const void *q, const void *k, const void *v,
                          const AttentionShape *a, Dtype type, Stream *s);

#ifdef __cplusplus
}
#endif
#endif
