/* norm.c - the passes of norm.h. Each reads x once; four rows share one visit to the sums. */
#include "norm.h"
#include "cpu.h"
#include "vector_math.h"

#define INLINE static inline __attribute__((always_inline))

/* ---- blocks --------------------------------------------------------------------------- */

typedef struct {
    size_t from, rows, at; /* first row, number of rows, first element */
} Block;

static Block block_of(const Norm *n, size_t b)
{
    size_t most = norm_block_rows(n->c), from = b * most;
    return (Block){from, n->rows - from < most ? n->rows - from : most, from * (size_t)n->c};
}

static void each_block(const Norm *n, void (*pass)(const Norm *n, size_t b))
{
    size_t blocks = norm_blocks(n->rows, n->c);
    if (!n->wide) { /* a parallel region costs a microsecond even where it has one thread */
        for (size_t b = 0; b < blocks; b++) pass(n, b);
        return;
    }
#pragma omp parallel for
    for (size_t b = 0; b < blocks; b++) pass(n, b);
}

SIMD void norm_total(double *total, const float *partial, size_t blocks, size_t width)
{
    for (size_t i = 0; i < width; i++) total[i] = 0;
    for (size_t b = 0; b < blocks; b++) {
#pragma omp simd
        for (size_t i = 0; i < width; i++) total[i] += partial[b * width + i];
    }
}

/* ---- moments -------------------------------------------------------------------------- */

/* About the block's first row, so that a mean far from zero costs no digits. */
SIMD static void block_moments(const Norm *n, size_t index)
{
    Block block = block_of(n, index);
    size_t c = (size_t)n->c, r = 0;
    const float *x = n->x + block.at;
    float *sum = n->partial + index * 2 * c, *square = sum + c;
    for (size_t i = 0; i < 2 * c; i++) sum[i] = 0;
    for (; r + 4 <= block.rows; r += 4) {
        const float *row = x + r * c;
#pragma omp simd
        for (size_t i = 0; i < c; i++) {
            float d0 = row[i] - x[i], d1 = row[c + i] - x[i];
            float d2 = row[2 * c + i] - x[i], d3 = row[3 * c + i] - x[i];
            sum[i] += (d0 + d1) + (d2 + d3);
            square[i] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
        }
    }
    for (; r < block.rows; r++) {
#pragma omp simd
        for (size_t i = 0; i < c; i++) {
            float d = x[r * c + i] - x[i];
            sum[i] += d;
            square[i] += d * d;
        }
    }
}

/* Blocks are merged as in Chan, Golub, LeVeque 1983: no difference of large numbers. */
SIMD static void merge_moments(const Norm *n, double *mean, double *square)
{
    size_t c = (size_t)n->c, blocks = norm_blocks(n->rows, n->c);
    for (size_t b = 0; b < blocks; b++) {
        Block block = block_of(n, b);
        const float *s = n->partial + b * 2 * c, *q = s + c, *pivot = n->x + block.at;
        double per = 1. / (double)block.rows,
               share = (double)block.rows / (double)(block.from + block.rows);
        double weight = (double)block.from * share;
#pragma omp simd
        for (size_t i = 0; i < c; i++) {
            double m = b ? mean[i] : 0, old = b ? square[i] : 0;
            double delta = (pivot[i] + s[i] * per) - m;
            mean[i] = m + delta * share;
            square[i] = old + (q[i] - (double)s[i] * s[i] * per) + delta * delta * weight;
        }
    }
}

void norm_moments(const Norm *n, double *mean, double *square)
{
    each_block(n, block_moments);
    merge_moments(n, mean, square);
}

/* ---- forward -------------------------------------------------------------------------- */

INLINE float activate(float z, Act act)
{
    return act == ACT_SILU ? z / (1 + vm_exp(-z)) : act == ACT_RELU ? (z < 0 ? 0 : z) : z;
}

/* dy times the slope of act at z */
INLINE float deactivate(float dy, float z, Act act)
{
    if (act == ACT_RELU) return z > 0 ? dy : 0;
    if (act == ACT_NONE) return dy;
    float l = vm_logistic(z);
    return dy * (l * (z * (1 - l) + 1));
}

/* Narrow rows are taken k at a time, as one row of k * c channels: numbers per channel repeated. */
enum { FOLDED = 128 };
static size_t fold(size_t c) { return c <= FOLDED / 2 ? FOLDED / c : 1; }
static const float *repeat(float to[FOLDED], const float *v, size_t c)
{
    if (fold(c) == 1) return v;
    for (size_t i = 0; i < fold(c) * c; i++) to[i] = v[i % c];
    return to;
}

INLINE void apply_rows(float *y, const float *x, const float *mean, const float *scale,
                       const float *bias, size_t rows, size_t c, Act act)
{
    for (size_t r = 0; r < rows; r++) {
#pragma omp simd
        for (size_t i = 0; i < c; i++)
            y[r * c + i] = activate((x[r * c + i] - mean[i]) * scale[i] + bias[i], act);
    }
}

SIMD static void block_apply(const Norm *n, size_t index)
{
    Block block = block_of(n, index);
    float folded[3][FOLDED], *y = n->y + block.at;
    const float *x = n->x + block.at, *mean = repeat(folded[0], n->mean, (size_t)n->c);
    const float *scale = repeat(folded[1], n->scale, (size_t)n->c),
                *bias = repeat(folded[2], n->bias, (size_t)n->c);
    size_t left = block.rows, k = fold((size_t)n->c);
    for (; left; left %= k, k = 1) { /* the second time: rows that are no k */
        size_t rows = left / k, c = k * (size_t)n->c;
        if (n->act == ACT_SILU) apply_rows(y, x, mean, scale, bias, rows, c, ACT_SILU);
        else if (n->act == ACT_RELU) apply_rows(y, x, mean, scale, bias, rows, c, ACT_RELU);
        else apply_rows(y, x, mean, scale, bias, rows, c, ACT_NONE);
        x += rows * c;
        y += rows * c;
    }
}

void norm_apply(const Norm *n) { each_block(n, block_apply); }

/* ---- backward ------------------------------------------------------------------------- */

/* `step` rows from the given ones on */
INLINE void slope_rows(float *sum, float *dz, const float *dy, const float *x, const Norm *n,
                       size_t step, Act act)
{
    const float *mean = n->mean, *scale = n->scale, *bias = n->bias;
    size_t c = (size_t)n->c;
#pragma omp simd
    for (size_t i = 0; i < c; i++) {
        float first = 0, second = 0;
        for (size_t r = 0; r < step; r++) {
            float d = x[r * c + i] - mean[i];
            float slope = deactivate(dy[r * c + i], d * scale[i] + bias[i], act);
            if (act == ACT_SILU) dz[r * c + i] = slope;
            first += slope;
            second += slope * d;
        }
        sum[i] += first;
        sum[c + i] += second;
    }
}

INLINE void slopes(const Norm *n, size_t index, Act act)
{
    Block block = block_of(n, index);
    size_t c = (size_t)n->c, r = 0;
    float *sum = n->partial + index * 2 * c, *dz = act == ACT_SILU ? n->dx + block.at : NULL;
    const float *dy = n->dy + block.at, *x = n->x + block.at;
    for (size_t i = 0; i < 2 * c; i++) sum[i] = 0;
    for (; r + 4 <= block.rows; r += 4)
        slope_rows(sum, dz ? dz + r * c : NULL, dy + r * c, x + r * c, n, 4, act);
    for (; r < block.rows; r++)
        slope_rows(sum, dz ? dz + r * c : NULL, dy + r * c, x + r * c, n, 1, act);
}

SIMD static void block_slopes(const Norm *n, size_t index)
{
    if (n->act == ACT_SILU) slopes(n, index, ACT_SILU);
    else if (n->act == ACT_RELU) slopes(n, index, ACT_RELU);
    else slopes(n, index, ACT_NONE);
}

void norm_slopes(const Norm *n, double *total)
{
    each_block(n, block_slopes);
    norm_total(total, n->partial, norm_blocks(n->rows, n->c), 2 * (size_t)n->c);
}

INLINE void combine_rows(const Norm *n, Block block, const float *dz, Act act)
{
    const float *mean = n->mean, *scale = n->scale, *bias = n->bias, *slope = n->slope,
                *shift = n->shift;
    size_t c = (size_t)n->c;
    for (size_t r = 0; r < block.rows; r++) {
        const float *x = n->x + block.at + r * c, *given = dz + block.at + r * c;
        float *dx = n->dx + block.at + r * c;
#pragma omp simd
        for (size_t i = 0; i < c; i++) {
            float d = x[i] - mean[i];
            dx[i] = scale[i] * deactivate(given[i], d * scale[i] + bias[i], act) +
                    (slope[i] * d + shift[i]);
        }
    }
}

SIMD static void block_combine(const Norm *n, size_t index)
{
    Block block = block_of(n, index);
    if (n->act == ACT_SILU) combine_rows(n, block, n->dx, ACT_NONE); /* already dz */
    else if (n->act == ACT_RELU) combine_rows(n, block, n->dy, ACT_RELU);
    else combine_rows(n, block, n->dy, ACT_NONE);
}

void norm_combine(const Norm *n) { each_block(n, block_combine); }
