/* conv2d.cu - two-dimensional convolution; formulas in kernels_matrix.h, products in gemm.cuh.
 *
 * 2 n p q k r s c FLOPs a pass. Strides 1 and 2, any filter, padding and number of channels.
 */
#include "gemm.cuh"

Status cuda_conv2d_fwd(void *y, const void *x, const void *w, const float *b, const ConvShape *a,
                       Dtype type, Stream *s)
{
    return gemm_conv(GEMM_FWD, y, x, w, b, a, NULL, type, s);
}

Status cuda_conv2d_dx(void *dx, const void *dy, const void *w, const ConvShape *a, Dtype type,
                      Stream *s)
{
    return gemm_conv(GEMM_DX, dx, dy, w, NULL, a, NULL, type, s);
}

Status cuda_conv2d_dw(float *dw, float *db, const void *dy, const void *x, const ConvShape *a,
                      Dtype type, Stream *s)
{
    size_t p = (size_t)conv_out(a->h, a->top, a->bottom, a->r, a->stride);
    size_t q = (size_t)conv_out(a->w, a->left, a->right, a->s, a->stride);
    if (db) TRY(cuda_column_sum(db, dy, (size_t)a->n * p * q, a->k, type, s));
    return gemm_conv(GEMM_DW, dw, dy, x, NULL, a, NULL, type, s);
}
