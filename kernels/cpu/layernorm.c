/* layernorm.c - y = (x - mean) / std * gain + bias over the d elements of each row.
 *
 * Backward, with h = (x - mean) / std and means over the row:
 *   dx = (gain * dy - mean(gain * dy) - h * mean(gain * dy * h)) / std
 *   dgain = sum over rows of dy * h,  dbias = ... of dy
 * A row stays in the first-level cache, so memory is read once. Rows do not depend on one
 * another; sums over rows are taken in blocks as in norm.h.
 */
#include "cpu.h"
#include "kernels_point.h"
#include "norm.h"
#include "vector_math.h"
#include <math.h>

enum { TOGETHER = 8 }; /* rows per step: the sums of one row overlap with those of the others */

/* The mean is found twice: the second time about the first, which makes it exact to a rounding
 * even where it is far larger than the spread. */
static inline __attribute__((always_inline)) void rows_fwd(float *y, float *stats, const float *x,
                                                           const float *gain, const float *bias,
                                                           size_t n, size_t d, float eps)
{
    float rough[TOGETHER], share = 1 / (float)d;
    for (size_t r = 0; r < n; r++) {
        const float *row = x + r * d;
        Lanes sum = {0};
        size_t i = 0;
        for (; i + LANES <= d; i += LANES) sum += *(const Lanes *)(row + i);
        for (int k = 0; i < d; i++, k++) sum[k] += row[i];
        rough[r] = lanes_sum(&sum) * share;
    }
    for (size_t r = 0; r < n; r++) {
        const float *row = x + r * d;
        Lanes sum = {0}, square = {0};
        size_t i = 0;
        for (; i + LANES <= d; i += LANES) {
            Lanes z = *(const Lanes *)(row + i) - rough[r];
            sum += z;
            square += z * z;
        }
        for (int k = 0; i < d; i++, k++) {
            float z = row[i] - rough[r];
            sum[k] += z;
            square[k] += z * z;
        }
        float rest = lanes_sum(&sum) * share;
        stats[2 * r] = rough[r] + rest;
        stats[2 * r + 1] = 1 / sqrtf(lanes_sum(&square) * share - rest * rest + eps);
    }
    for (size_t r = 0; r < n; r++) {
        float mean = stats[2 * r], per_std = stats[2 * r + 1];
#pragma omp simd
        for (size_t i = 0; i < d; i++)
            y[r * d + i] = (x[r * d + i] - mean) * per_std * gain[i] + bias[i];
    }
}

SIMD Status cpu_layernorm_fwd(float *y, float *stats, const float *x, const float *gain,
                              const float *bias, size_t rows, int width, float eps, Stream *s)
{
    (void)s;
    size_t d = (size_t)width;
#pragma omp parallel for if (rows * d >= PARALLEL_MIN)
    for (size_t r = 0; r < rows; r += TOGETHER) {
        size_t n = rows - r < TOGETHER ? rows - r : TOGETHER;
        rows_fwd(y + r * d, stats + 2 * r, x + r * d, gain, bias, n, d, eps);
    }
    return OK;
}

/* dgain and dbias += the rows' shares */
static inline __attribute__((always_inline)) void add_shares(float *dgain, float *dbias,
                                                             const float *dy, const float *x,
                                                             const float *stats, size_t n, size_t d)
{
#pragma omp simd
    for (size_t i = 0; i < d; i++) {
        float first = 0, second = 0;
        for (size_t r = 0; r < n; r++) {
            first += dy[r * d + i];
            second += dy[r * d + i] * ((x[r * d + i] - stats[2 * r]) * stats[2 * r + 1]);
        }
        dbias[i] += first;
        dgain[i] += second;
    }
}

static inline __attribute__((always_inline)) void rows_dx(float *dx, const float *dy,
                                                          const float *x, const float *gain,
                                                          const float *stats, size_t n, size_t d)
{
    float shift[TOGETHER], factor[TOGETHER], share = 1 / (float)d;
    for (size_t r = 0; r < n; r++) {
        const float *row = x + r * d, *drow = dy + r * d;
        float mean = stats[2 * r], per_std = stats[2 * r + 1];
        Lanes sum = {0}, product = {0};
        size_t i = 0;
        for (; i + LANES <= d; i += LANES) {
            Lanes slope = *(const Lanes *)(gain + i) * *(const Lanes *)(drow + i);
            sum += slope;
            product += slope * (*(const Lanes *)(row + i) - mean);
        }
        for (int k = 0; i < d; i++, k++) {
            float slope = gain[i] * drow[i];
            sum[k] += slope;
            product[k] += slope * (row[i] - mean);
        }
        shift[r] = -per_std * share * lanes_sum(&sum);
        factor[r] = -per_std * share * lanes_sum(&product) * (per_std * per_std);
    }
    for (size_t r = 0; r < n; r++) {
        float mean = stats[2 * r], per_std = stats[2 * r + 1];
#pragma omp simd
        for (size_t i = 0; i < d; i++)
            dx[r * d + i] =
                gain[i] * dy[r * d + i] * per_std + ((x[r * d + i] - mean) * factor[r] + shift[r]);
    }
}

SIMD Status cpu_layernorm_dx(float *dx, float *dgain, float *dbias, const float *dy, const float *x,
                             const float *gain, const float *stats, size_t rows, int width,
                             Stream *s)
{
    size_t d = (size_t)width, block = norm_block_rows(width), blocks = norm_blocks(rows, width);
    double *total = stream_scratch(s, 2 * d * (sizeof *total + blocks * sizeof(float)));
    if (!total) return FAIL(ERR_SPACE, "no memory for the sums of a layer norm");
    float *partial = (float *)(total + 2 * d);
#pragma omp parallel for if (rows * d >= PARALLEL_MIN)
    for (size_t b = 0; b < blocks; b++) {
        float *sum = partial + b * 2 * d;
        for (size_t i = 0; i < 2 * d; i++) sum[i] = 0;
        size_t r = b * block, end = r + block < rows ? r + block : rows;
        for (; r + TOGETHER <= end; r += TOGETHER) {
            add_shares(sum, sum + d, dy + r * d, x + r * d, stats + 2 * r, TOGETHER, d);
            rows_dx(dx + r * d, dy + r * d, x + r * d, gain, stats + 2 * r, TOGETHER, d);
        }
        for (; r < end; r++) {
            add_shares(sum, sum + d, dy + r * d, x + r * d, stats + 2 * r, 1, d);
            rows_dx(dx + r * d, dy + r * d, x + r * d, gain, stats + 2 * r, 1, d);
        }
    }
    norm_total(total, partial, blocks, 2 * d);
    for (size_t i = 0; i < d; i++) {
        dgain[i] = (float)total[i];
        dbias[i] = (float)total[d + i];
    }
    return OK;
}
