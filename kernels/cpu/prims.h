/* prims.h - oneDNN behind three calls: the gradients of a convolution, a matrix product.
 *
 * A primitive is made at the first call of its shape (about a millisecond) and kept in the
 * stream. Weights are reordered into the layout that the primitive likes at each call: they
 * change with each training step, and the copy in the stream's scratch memory serves all
 * primitives. All calls use that scratch, so its former content is lost.
 */
#ifndef PRIMS_H
#define PRIMS_H
#include "cpu.h"
#include "kernels_matrix.h"

/* The gradient of x, written. */
Status prim_conv_dx(const ConvShape *a, float *dx, const float *dy, const float *w, Stream *s);

/* The gradient of the weights, written or added to what is there. */
Status prim_conv_dw(const ConvShape *a, float *dw, const float *dy, const float *x, bool add,
                    Stream *s);

/* y[m,n] = A[m,k] . B[k,n]; A is stored [k,m] where turned. */
typedef struct {
    int m, n, k;
    bool turned;
} MatmulShape;

Status prim_matmul(const MatmulShape *a, const float *left, const float *right, float *y,
                   Stream *s);

/* Whether a row of prim_matmul's result has the same bits whatever m is: true of oneDNN's
 * block-wise products (AVX-512), false of its older GEMM, which sums otherwise for few rows. */
Status prim_matmul_by_row(const MatmulShape *a, bool *yes, Stream *s);
#endif
