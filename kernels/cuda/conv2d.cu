/* conv2d.cu - two-dimensional convolution; formulas in kernels_matrix.h, products in gemm.cuh.
 *
 * 2 n p q k r s c FLOPs a pass. Strides 1 and 2, any filter, padding and number of channels.
 */
#include "gemm.cuh"
#include "product.h"

Status cuda_conv2d_fwd(void *y, const void *x, const void *w, const float *b, const ConvShape *a,
                       Dtype type, Stream *s)
{
    Product p = {GEMM_FWD, y, x, w, b, *a, type, false, {}, NULL, 0, false, false};
    return product_run(&p, s);
}

Status cuda_conv2d_dx(void *dx, const void *dy, const void *w, const ConvShape *a, Dtype type,
                      Stream *s)
{
    Product p = {GEMM_DX, dx, dy, w, NULL, *a, type, false, {}, NULL, 0, false, false};
    return product_run(&p, s);
}

Status cuda_conv2d_dw(float *dw, float *db, const void *dy, const void *x, const ConvShape *a,
                      Dtype type, Stream *s)
{
    size_t p = (size_t)conv_out(a->h, a->top, a->bottom, a->r, a->stride);
    size_t q = (size_t)conv_out(a->w, a->left, a->right, a->s, a->stride);
    if (db) TRY(cuda_column_sum(db, dy, (size_t)a->n * p * q, a->k, type, s));
    Product product = {GEMM_DW, dw, dy, x, NULL, *a, type, false, {}, NULL, 0, false, false};
    return product_run(&product, s);
}

Status cuda_conv2d_after_fwd(void *y, const void *x, const void *w, const float *b,
                             const ConvAfter *after, const ConvShape *a, Dtype type, Stream *s)
{
    Product p = {GEMM_FWD, y, x, w, b, *a, type, false, *after, NULL, 0, false, false};
    return product_run(&p, s);
}

Status cuda_conv2d_join_fwd(void *y, const void *x1, const void *x2, int c1, const void *w,
                            const float *b, const ConvAfter *after, const ConvShape *a, Dtype type,
                            Stream *s)
{
    Product p = {GEMM_FWD, y, x1, w, b, *a, type, false, {}, x2, c1, false, false};
    if (after) p.after = *after;
    return product_run(&p, s);
}

/* w4[phase, k, i, j, c] = sum of the filter lines and columns that see line i, column j: of an even
 * line of y 0 | 1 + 2, of an odd one 0 + 1 | 2. */
template <class T> static __global__ void fold_kernel(T *w4, const T *w, int c, size_t each)
{
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x; at < 4 * each; at += step) {
        int phase = (int)(at / each);
        size_t rest = at % each, k = rest / (4 * c), in = rest % (4 * c);
        int tap = (int)(in / c), r0, r1, s0, s1;
        r0 = tap / 2 == 0 ? 0 : phase / 2 + 1, r1 = tap / 2 == 0 ? phase / 2 : 2;
        s0 = tap % 2 == 0 ? 0 : phase % 2 + 1, s1 = tap % 2 == 0 ? phase % 2 : 2;
        float sum = 0;
        for (int r = r0; r <= r1; r++)
            for (int s = s0; s <= s1; s++) sum += to_float(w[(k * 9 + r * 3 + s) * c + in % c]);
        w4[at] = from_float<T>(sum);
    }
}

Status cuda_upsample2_fold(void *w4, const void *w, int c, int k, Dtype type, Stream *s)
{
    size_t each = (size_t)k * 4 * (size_t)c;
    unsigned blocks = sweep_blocks(4 * each, 256);
    if (type == DTYPE_BF16)
        fold_kernel<<<blocks, 256, 0, s->handle>>>((bf16 *)w4, (const bf16 *)w, c, each);
    else fold_kernel<<<blocks, 256, 0, s->handle>>>((float *)w4, (const float *)w, c, each);
    return launched("upsample2_fold");
}

Status cuda_upsample2_conv2d_fwd(void *y, const void *x, const void *w4, const float *b,
                                 const ConvAfter *after, const ConvShape *a, Dtype type, Stream *s)
{
    Product p = {GEMM_FWD, y, x, w4, b, *a, type, false, {}, NULL, 0, true, false};
    if (after) p.after = *after;
    return product_run(&p, s);
}
