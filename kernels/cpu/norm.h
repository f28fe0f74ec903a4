/* norm.h - what group and batch normalisation share: x[rows, c], with statistics per channel.
 *
 *   y = act(d * scale[c] + bias[c]),  d = x - mean[c]
 *
 * Rows are taken in blocks whose size depends on c only. Sums are fp32 within a block and double
 * over the blocks, in order: the same bits for any number of threads.
 */
#ifndef NORM_H
#define NORM_H
#include "kernels_base.h"
#include <stdbool.h>

static inline size_t norm_block_rows(int c)
{
    int rows = 16384 / c / 4 * 4;
    return rows < 32 ? 32 : rows > 256 ? 256 : (size_t)rows;
}
static inline size_t norm_blocks(size_t rows, int c)
{
    return (rows + norm_block_rows(c) - 1) / norm_block_rows(c);
}

typedef struct {
    const float *x, *dy;              /* [rows, c] */
    float *y, *dx;                    /* [rows, c] */
    const float *mean, *scale, *bias; /* [c] */
    const float *slope, *shift;       /* [c], of norm_combine */
    float *partial;                   /* scratch [norm_blocks][2 * c] */
    size_t rows;
    int c;
    Act act;
    bool wide; /* blocks are spread over the threads; else the caller's own thread does all */
} Norm;

/* mean[c] of x, and square[c]: sum of squares about it */
void norm_moments(const Norm *n, double *mean, double *square);

void norm_apply(const Norm *n);

/* total[2 * c] = sum of dz, then sum of dz * d, where dz = dy * act'. With ACT_SILU, dx receives
 * dz. */
void norm_slopes(const Norm *n, double *total);

/* dx = scale * dz + slope * d + shift, behind norm_slopes. */
void norm_combine(const Norm *n);

/* total[width] = sum over blocks of partial[blocks][width] */
void norm_total(double *total, const float *partial, size_t blocks, size_t width);
#endif
