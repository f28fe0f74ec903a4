/* prims.h - oneDNN behind three calls: a convolution, its weights' gradient, a matrix product.
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

typedef enum { PASS_FWD, PASS_DX, PASS_DW } Pass;

/* FWD writes y, DX writes x. b: NULL without a bias, and for DX. */
Status prim_conv(Pass pass, const ConvShape *a, float *x, float *w, float *b, float *y, Stream *s);

/* The gradient of the weights, written or added to what is there. */
Status prim_conv_dw(const ConvShape *a, float *dw, const float *dy, const float *x, bool add,
                    Stream *s);

/* y[m,n] = A[m,k] . B[k,n] + bias[n]; A is stored [k,m] where a_turned, B [n,k] where b_turned. */
typedef struct {
    int m, n, k;
    bool a_turned, b_turned;
} MatmulShape;

Status prim_matmul(const MatmulShape *a, const float *left, const float *right, const float *bias,
                   float *y, Stream *s);

/* Whether a row of prim_matmul's result has the same bits whatever m is: true of oneDNN's
 * block-wise products (AVX-512), false of its older GEMM, which sums otherwise for few rows. */
Status prim_matmul_by_row(const MatmulShape *a, bool bias, bool *yes, Stream *s);

/* Whether the forward pass computes each image to the bit as it does one alone. oneDNN plans the
 * order of sums with the number of images in view, and about one shape in 200 comes out
 * differently; so the first call for a shape tries it on numbers of its own. */
Status prim_conv_by_image(const ConvShape *a, bool bias, bool *yes, Stream *s);
#endif
