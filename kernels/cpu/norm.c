/* norm.c - the passes of norm.h. Each reads x once; four rows share one visit to the sums. */
#include "norm.h"
#include "cpu.h"
#include "vector_math.h"

/* About the block's first row, so that a mean far from zero costs no digits. */
static inline __attribute__((always_inline)) void block_moments(float *sum, float *square, const float *x,
                                                               size_t rows, size_t c)
{
    for (size_t i = 0; i < c; i++) sum[i] = square[i] = 0;
    size_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *row = x + r * c;
#pragma omp simd
        for (size_t i = 0; i < c; i++) {
            float a = row[i] - x[i], b = row[c + i] - x[i], e = row[2 * c + i] - x[i], f = row[3 * c + i] - x[i];
            sum[i] += (a + b) + (e + f);
            square[i] += (a * a + b * b) + (e * e + f * f);
        }
    }
    for (; r < rows; r++) {
#pragma omp simd
        for (size_t i = 0; i < c; i++) {
            float a = x[r * c + i] - x[i];
            sum[i] += a;
            square[i] += a * a;
        }
    }
}

/* Blocks are merged as in Chan, Golub, LeVeque 1983: no difference of large numbers. */
SIMD void norm_moments(double *mean, double *square, float *partial, const float *x, size_t rows, int channels,
                       bool wide)
{
    size_t c = (size_t)channels, block = norm_block_rows(channels), blocks = norm_blocks(rows, channels);
#pragma omp parallel for if (wide)
    for (size_t b = 0; b < blocks; b++) {
        size_t from = b * block, n = rows - from < block ? rows - from : block;
        block_moments(partial + b * 2 * c, partial + b * 2 * c + c, x + from * c, n, c);
    }
    for (size_t b = 0; b < blocks; b++) {
        size_t from = b * block, n = rows - from < block ? rows - from : block;
        const float *s = partial + b * 2 * c, *q = s + c, *pivot = x + from * c;
        double per = 1. / (double)n, share = (double)n / (double)(from + n), weight = (double)from * share;
#pragma omp simd
        for (size_t i = 0; i < c; i++) {
            double m = b ? mean[i] : 0, old = b ? square[i] : 0;
            double delta = (pivot[i] + s[i] * per) - m;
            mean[i] = m + delta * share;
            square[i] = old + (q[i] - (double)s[i] * s[i] * per) + delta * delta * weight;
        }
    }
}

static inline __attribute__((always_inline)) float activate(float z, Act act)
{
    return act == ACT_SILU ? z * vm_logistic(z) : act == ACT_RELU ? (z < 0 ? 0 : z) : z;
}

/* dy times the slope of act at z */
static inline __attribute__((always_inline)) float deactivate(float dy, float z, Act act)
{
    if (act == ACT_RELU) return z > 0 ? dy : 0;
    if (act == ACT_NONE) return dy;
    float l = vm_logistic(z);
    return dy * (l * (z * (1 - l) + 1));
}

static inline __attribute__((always_inline)) void apply_rows(float *y, const float *x, const float *mean,
                                                            const float *scale, const float *bias, size_t rows,
                                                            size_t c, Act act)
{
    for (size_t r = 0; r < rows; r++) {
#pragma omp simd
        for (size_t i = 0; i < c; i++)
            y[r * c + i] = activate((x[r * c + i] - mean[i]) * scale[i] + bias[i], act);
    }
}

SIMD void norm_apply(float *y, const float *x, const float *mean, const float *scale, const float *bias,
                     size_t rows, int channels, Act act, bool wide)
{
    size_t c = (size_t)channels, block = norm_block_rows(channels), blocks = norm_blocks(rows, channels);
#pragma omp parallel for if (wide)
    for (size_t b = 0; b < blocks; b++) {
        size_t at = b * block * c, n = rows - b * block < block ? rows - b * block : block;
        if (act == ACT_SILU) apply_rows(y + at, x + at, mean, scale, bias, n, c, ACT_SILU);
        else if (act == ACT_RELU) apply_rows(y + at, x + at, mean, scale, bias, n, c, ACT_RELU);
        else apply_rows(y + at, x + at, mean, scale, bias, n, c, ACT_NONE);
    }
}

static inline __attribute__((always_inline)) void slope_rows(float *sum, float *dz, const float *dy, const float *x,
                                                            const float *mean, const float *scale,
                                                            const float *bias, size_t rows, size_t c, size_t step,
                                                            Act act)
{
#pragma omp simd
    for (size_t i = 0; i < c; i++) {
        float first = 0, second = 0;
        for (size_t k = 0; k < step; k++) {
            float d = x[(rows + k) * c + i] - mean[i];
            float slope = deactivate(dy[(rows + k) * c + i], d * scale[i] + bias[i], act);
            if (act == ACT_SILU) dz[(rows + k) * c + i] = slope;
            first += slope;
            second += slope * d;
        }
        sum[i] += first;
        sum[c + i] += second;
    }
}

static inline __attribute__((always_inline)) void block_slopes(float *sum, float *dz, const float *dy, const float *x,
                                                              const float *mean, const float *scale,
                                                              const float *bias, size_t rows, size_t c, Act act)
{
    for (size_t i = 0; i < 2 * c; i++) sum[i] = 0;
    size_t r = 0;
    for (; r + 4 <= rows; r += 4) slope_rows(sum, dz, dy, x, mean, scale, bias, r, c, 4, act);
    for (; r < rows; r++) slope_rows(sum, dz, dy, x, mean, scale, bias, r, c, 1, act);
}

SIMD void norm_slopes(double *total, float *partial, float *dz, const float *dy, const float *x, const float *mean,
                      const float *scale, const float *bias, size_t rows, int channels, Act act, bool wide)
{
    size_t c = (size_t)channels, block = norm_block_rows(channels), blocks = norm_blocks(rows, channels);
#pragma omp parallel for if (wide)
    for (size_t b = 0; b < blocks; b++) {
        size_t at = b * block * c, n = rows - b * block < block ? rows - b * block : block;
        float *sum = partial + b * 2 * c;
        if (act == ACT_SILU) block_slopes(sum, dz + at, dy + at, x + at, mean, scale, bias, n, c, ACT_SILU);
        else if (act == ACT_RELU) block_slopes(sum, dz, dy + at, x + at, mean, scale, bias, n, c, ACT_RELU);
        else block_slopes(sum, dz, dy + at, x + at, mean, scale, bias, n, c, ACT_NONE);
    }
    norm_total(total, partial, blocks, 2 * c);
}

SIMD void norm_total(double *total, const float *partial, size_t blocks, size_t width)
{
    for (size_t i = 0; i < width; i++) total[i] = 0;
    for (size_t b = 0; b < blocks; b++) {
#pragma omp simd
        for (size_t i = 0; i < width; i++) total[i] += partial[b * width + i];
    }
}

static inline __attribute__((always_inline)) void combine_rows(float *dx, const float *dz, const float *x,
                                                              const float *mean, const float *scale,
                                                              const float *bias, const float *slope,
                                                              const float *shift, size_t rows, size_t c, Act act)
{
    for (size_t r = 0; r < rows; r++) {
#pragma omp simd
        for (size_t i = 0; i < c; i++) {
            float d = x[r * c + i] - mean[i];
            float dzi = deactivate(dz[r * c + i], d * scale[i] + bias[i], act);
            dx[r * c + i] = scale[i] * dzi + (slope[i] * d + shift[i]);
        }
    }
}

SIMD void norm_combine(float *dx, const float *dz, const float *x, const float *mean, const float *scale,
                       const float *bias, const float *slope, const float *shift, size_t rows, int channels,
                       bool relu, bool wide)
{
    size_t c = (size_t)channels, block = norm_block_rows(channels), blocks = norm_blocks(rows, channels);
#pragma omp parallel for if (wide)
    for (size_t b = 0; b < blocks; b++) {
        size_t at = b * block * c, n = rows - b * block < block ? rows - b * block : block;
        if (relu) combine_rows(dx + at, dz + at, x + at, mean, scale, bias, slope, shift, n, c, ACT_RELU);
        else combine_rows(dx + at, dz + at, x + at, mean, scale, bias, slope, shift, n, c, ACT_NONE);
    }
}
