/* linear.cu - linear layers: 1x1 convolutions of one line of `rows` pixels; products in gemm.cuh.
 *
 * 2 rows c k FLOPs a pass.
 */
#include "gemm.cuh"
#include "product.h"
#include <limits.h>

static Status line(ConvShape *a, size_t rows, int c, int k)
{
    if (rows > INT_MAX / 2) return FAIL(ERR_BUG, "linear layer of %zu rows", rows);
    *a = {1, 1, (int)rows, c, k, 1, 1, 1, 0, 0, 0, 0};
    return OK;
}

static Status run(Product p, size_t rows, int c, int k, Stream *s)
{
    TRY(line(&p.shape, rows, c, k));
    return product_run(&p, s);
}

Status cuda_linear_fwd(void *y, const void *x, const void *w, const float *b, size_t rows, int c,
                       int k, Dtype type, Stream *s)
{
    return run({GEMM_FWD, y, x, w, b, {}, type, true, {}, NULL, 0, false, false}, rows, c, k, s);
}

Status cuda_linear_geglu_fwd(void *y, const void *x, const void *w, const float *b, size_t rows,
                             int c, int k, Dtype type, Stream *s)
{
    return run({GEMM_FWD, y, x, w, b, {}, type, true, {}, NULL, 0, false, true}, rows, c, k, s);
}

Status cuda_linear_dx(void *dx, const void *dy, const void *w, size_t rows, int c, int k,
                      Dtype type, Stream *s)
{
    return run({GEMM_DX, dx, dy, w, NULL, {}, type, true, {}, NULL, 0, false, false}, rows, c, k,
               s);
}

Status cuda_linear_dw(float *dw, float *db, const void *dy, const void *x, size_t rows, int c,
                      int k, Dtype type, Stream *s)
{
    if (db) TRY(cuda_column_sum(db, dy, rows, k, type, s));
    return run({GEMM_DW, dw, dy, x, NULL, {}, type, true, {}, NULL, 0, false, false}, rows, c, k,
               s);
}

Status cuda_linear_after_fwd(void *y, const void *x, const void *w, const float *b,
                             const ConvAfter *after, size_t rows, int c, int k, Dtype type,
                             Stream *s)
{
    return run({GEMM_FWD, y, x, w, b, {}, type, true, *after, NULL, 0, false, false}, rows, c, k,
               s);
}
