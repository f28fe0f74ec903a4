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
#include <math.h>

/* The mean is found twice: the second time about the first, which makes it exact to a rounding
 * even where it is far larger than the spread. */
static inline __attribute__((always_inline)) void row_fwd(float *y, float *stats, const float *x, const float *gain,
                                                         const float *bias, size_t d, float eps)
{
    float sum = 0, rest = 0, square = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < d; i++) sum += x[i];
    float rough = sum / (float)d;
#pragma omp simd reduction(+ : rest, square)
    for (size_t i = 0; i < d; i++) {
        float z = x[i] - rough;
        rest += z;
        square += z * z;
    }
    rest /= (float)d;
    float mean = rough + rest, per_std = 1 / sqrtf(square / (float)d - rest * rest + eps);
#pragma omp simd
    for (size_t i = 0; i < d; i++) y[i] = (x[i] - mean) * per_std * gain[i] + bias[i];
    stats[0] = mean;
    stats[1] = per_std;
}

SIMD Status cpu_layernorm_fwd(float *y, float *stats, const float *x, const float *gain, const float *bias,
                              size_t rows, int d, float eps, Stream *s)
{
    (void)s;
    size_t width = (size_t)d;
#pragma omp parallel for if (rows * width >= PARALLEL_MIN)
    for (size_t r = 0; r < rows; r++)
        row_fwd(y + r * width, stats + 2 * r, x + r * width, gain, bias, width, eps);
    return OK;
}

static inline __attribute__((always_inline)) void row_dx(float *dx, float *dgain, float *dbias, const float *dy,
                                                        const float *x, const float *gain, const float *stats,
                                                        size_t d)
{
    float mean = stats[0], per_std = stats[1], first = 0, second = 0;
#pragma omp simd reduction(+ : first, second)
    for (size_t i = 0; i < d; i++) {
        float h = (x[i] - mean) * per_std, slope = dy[i] * h;
        first += gain[i] * dy[i];
        second += gain[i] * slope;
        dgain[i] += slope;
        dbias[i] += dy[i];
    }
    first /= (float)d;
    second /= (float)d;
#pragma omp simd
    for (size_t i = 0; i < d; i++) {
        float h = (x[i] - mean) * per_std;
        dx[i] = per_std * ((gain[i] * dy[i] - first) - h * second);
    }
}

SIMD Status cpu_layernorm_dx(float *dx, float *dgain, float *dbias, const float *dy, const float *x,
                             const float *gain, const float *stats, size_t rows, int d, Stream *s)
{
    size_t width = (size_t)d, block = norm_block_rows(d), blocks = norm_blocks(rows, d);
    double *total = stream_scratch(s, 2 * width * (sizeof *total + blocks * sizeof(float)));
    if (!total) return FAIL(ERR_SPACE, "no memory for the sums of a layer norm");
    float *partial = (float *)(total + 2 * width);
#pragma omp parallel for if (rows * width >= PARALLEL_MIN)
    for (size_t b = 0; b < blocks; b++) {
        float *sum = partial + b * 2 * width;
        for (size_t i = 0; i < 2 * width; i++) sum[i] = 0;
        size_t end = (b + 1) * block < rows ? (b + 1) * block : rows;
        for (size_t r = b * block; r < end; r++)
            row_dx(dx + r * width, sum, sum + width, dy + r * width, x + r * width, gain, stats + 2 * r, width);
    }
    norm_total(total, partial, blocks, 2 * width);
    for (size_t i = 0; i < width; i++) {
        dgain[i] = (float)total[i];
        dbias[i] = (float)total[width + i];
    }
    return OK;
}
