/* affine.c - sums and multiples of tensors, one pass each; rows and channels broadcast. */
#include "cpu.h"
#include "kernels_point.h"
#include "norm.h"

SIMD Status cpu_add_scaled_fwd(float *y, const float *a, float alpha, const float *b, float beta,
                               size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) y[i] = alpha * a[i] + beta * b[i];
    return OK;
}

SIMD Status cpu_scale_shift_fwd(float *y, const float *x, float alpha, float beta, size_t count,
                                Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) y[i] = alpha * x[i] + beta;
    return OK;
}

SIMD Status cpu_channel_affine_fwd(float *y, const float *x, const float *scale, const float *shift,
                                   size_t rows, int c, Stream *s)
{
    (void)s;
    if (c > 4) return FAIL(ERR_BUG, "%d channels, expected 4 or fewer", c);
    /* 16 rows are a whole number of vectors for any c */
    float a[64], b[64];
    size_t period = 16 * (size_t)c, count = rows * (size_t)c;
    for (size_t i = 0; i < period; i++) {
        a[i] = scale[i % (size_t)c];
        b[i] = shift[i % (size_t)c];
    }
#pragma omp parallel for if (count >= PARALLEL_MIN)
    for (size_t at = 0; at < count; at += period) {
        size_t n = count - at < period ? count - at : period;
#pragma omp simd
        for (size_t i = 0; i < n; i++) y[at + i] = a[i] * x[at + i] + b[i];
    }
    return OK;
}

SIMD Status cpu_add_channel_fwd(float *y, const float *x, const float *v, size_t n, size_t hw,
                                int c, Stream *s)
{
    (void)s;
    size_t width = (size_t)c;
#pragma omp parallel for collapse(2) if (n * hw * width >= PARALLEL_MIN)
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < hw; r++) {
            size_t at = (i * hw + r) * width;
#pragma omp simd
            for (size_t k = 0; k < width; k++) y[at + k] = x[at + k] + v[i * width + k];
        }
    return OK;
}

/* y[c] = sum of the rows of x[rows, c], in blocks as in norm.h */
static inline __attribute__((always_inline)) void sum_rows(float *y, double *total,
                                                           float *block_sum, const float *x,
                                                           size_t rows, size_t c, size_t block)
{
    for (size_t k = 0; k < c; k++) total[k] = 0;
    for (size_t from = 0; from < rows; from += block) {
        size_t end = from + block < rows ? from + block : rows;
        for (size_t k = 0; k < c; k++) block_sum[k] = 0;
        size_t r = from;
        for (; r + 4 <= end; r += 4) {
            const float *row = x + r * c;
#pragma omp simd
            for (size_t k = 0; k < c; k++)
                block_sum[k] += (row[k] + row[c + k]) + (row[2 * c + k] + row[3 * c + k]);
        }
        for (; r < end; r++) {
#pragma omp simd
            for (size_t k = 0; k < c; k++) block_sum[k] += x[r * c + k];
        }
#pragma omp simd
        for (size_t k = 0; k < c; k++) total[k] += block_sum[k];
    }
    for (size_t k = 0; k < c; k++) y[k] = (float)total[k];
}

SIMD Status cpu_add_channel_dv(float *dv, const float *dy, size_t n, size_t hw, int c, Stream *s)
{
    size_t width = (size_t)c, block = norm_block_rows(c), each = (width * 12 + 63) / 64 * 64;
    char *scratch = stream_scratch(s, n * each);
    if (!scratch) return FAIL(ERR_SPACE, "no memory for sums over positions");
#pragma omp parallel for if (n * hw * width >= PARALLEL_MIN)
    for (size_t i = 0; i < n; i++) {
        double *total = (double *)(void *)(scratch + i * each);
        sum_rows(dv + i * width, total, (float *)(total + width), dy + i * hw * width, hw, width,
                 block);
    }
    return OK;
}

SIMD Status cpu_add_rows_fwd(float *y, const float *x, const float *p, size_t n, size_t count,
                             Stream *s)
{
    (void)s;
#pragma omp parallel for if (n * count >= PARALLEL_MIN)
    for (size_t i = 0; i < n; i++) {
#pragma omp simd
        for (size_t k = 0; k < count; k++) y[i * count + k] = x[i * count + k] + p[k];
    }
    return OK;
}

SIMD Status cpu_add_rows_dp(float *dp, const float *dy, size_t n, size_t count, size_t total,
                            Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (n * count >= PARALLEL_MIN)
    for (size_t k = 0; k < count; k++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += dy[i * count + k];
        dp[k] = (float)sum;
    }
    for (size_t k = count; k < total; k++) dp[k] = 0;
    return OK;
}
