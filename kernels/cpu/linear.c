/* linear.c - linear layers: forward by dots.c, backward as matrix products, and the column sum that is
 * a bias's gradient. */
#include "dots.h"
#include "prims.h"
#include <limits.h>
#include <omp.h>
#include <string.h>

static Status rows_fit(size_t rows)
{
    return rows <= INT_MAX
               ? OK
               : FAIL(ERR_BUG, "linear layer over %zu rows, expected at most %d", rows, INT_MAX);
}

/* A row is a pixel. */
Status cpu_linear_fwd(float *y, const float *x, const float *w, const float *b, size_t rows, int c,
                      int k, Stream *s)
{
    TRY(rows_fit(rows));
    ConvShape a = {.n = 1, .h = (int)rows, .w = 1, .c = c, .k = k, .r = 1, .s = 1, .stride = 1};
    return dots_conv(y, x, w, b, &a, dots_lanes(), s);
}

/* Lanes of double, then the lanes in order: a vector's sum neither depends on how many there are,
 * nor is its error that of a chain of c roundings. */
SIMD static double dot(const float *restrict x, const float *restrict w, int c)
{
    enum { LANES = 8 };
    double lane[LANES] = {0}, sum = 0;
    int i = 0;
    for (; i + LANES <= c; i += LANES)
        for (int l = 0; l < LANES; l++) lane[l] += (double)x[i + l] * (double)w[i + l];
    for (; i < c; i++) sum += (double)x[i] * (double)w[i];
    for (int l = 0; l < LANES; l++) sum += lane[l];
    return sum;
}

Status cpu_vector_linear_fwd(float *y, const float *x, const float *w, const float *b, size_t n,
                             int c, int k, Stream *s)
{
    (void)s;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < k; i++)
        for (size_t r = 0; r < n; r++) {
            double sum = dot(x + r * (size_t)c, w + (size_t)i * (size_t)c, c);
            y[r * (size_t)k + (size_t)i] = (float)(b ? sum + (double)b[i] : sum);
        }
    return OK;
}

/* A row must not depend on how many there are, nor on the number of threads. Where the product
 * does not promise that, the same sum is taken by a 1x1 convolution over one long image: its
 * order is the same for any width. */
Status cpu_linear_dx(float *dx, const float *dy, const float *w, size_t rows, int c, int k,
                     Stream *s)
{
    TRY(rows_fit(rows));
    bool by_row;
    MatmulShape m = {(int)rows, c, k, false};
    TRY(prim_matmul_by_row(&m, &by_row, s));
    if (by_row) return prim_matmul(&m, dy, w, dx, s);
    ConvShape a = {.n = 1, .h = 1, .w = (int)rows, .c = c, .k = k, .r = 1, .s = 1, .stride = 1};
    return prim_conv_dx(&a, dx, dy, w, s);
}

Status cpu_linear_dw(float *dw, float *db, const float *dy, const float *x, size_t rows, int c,
                     int k, Stream *s)
{
    TRY(rows_fit(rows));
    if (db) TRY(cpu_column_sum(db, dy, rows, k, s));
    return prim_matmul(&(MatmulShape){k, c, (int)rows, true}, dy, x, dw, s);
}

/* Fixed slices of rows, each summed top down, then the slices in order. */
enum { SLICE = 256 };

SIMD static void slice_sum(float *restrict sum, const float *restrict x, size_t rows, size_t k)
{
    memset(sum, 0, k * sizeof *sum);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < k; i++) sum[i] += x[r * k + i];
}

SIMD static void slices_sum(float *restrict sum, const float *restrict part, size_t slices,
                            size_t k)
{
    memcpy(sum, part, k * sizeof *sum);
    for (size_t r = 1; r < slices; r++)
        for (size_t i = 0; i < k; i++) sum[i] += part[r * k + i];
}

Status cpu_column_sum(float *sum, const float *x, size_t rows, int k, Stream *s)
{
    size_t width = (size_t)k, slices = (rows + SLICE - 1) / SLICE;
    float *part = stream_scratch(s, slices * width * sizeof *part);
    if (!part) return FAIL(ERR_SPACE, "no memory for %zu partial sums", slices * width);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < slices; i++) {
        size_t first = i * SLICE, n = rows - first < SLICE ? rows - first : SLICE;
        slice_sum(part + i * width, x + first * width, n, width);
    }
    slices_sum(sum, part, slices, width);
    return OK;
}
