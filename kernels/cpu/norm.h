/* norm.h - what group and batch normalisation share: x[rows, c], with statistics per channel.
 *
 * Rows are taken in blocks whose size depends on c only. Sums are fp32 within a block and double
 * over the blocks, in order: the same bits for any number of threads. `wide` spreads the blocks
 * over the threads; without it a function is meant to be called by many threads at once.
 *
 *   y = act(d * scale[c] + bias[c]),  d = x - mean[c]
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

/* Sizes below: partial[norm_blocks][2 * c] is scratch, all others [c] but where stated. */

/* mean, and sum of squares about it */
void norm_moments(double *mean, double *square, float *partial, const float *x, size_t rows, int c, bool wide);

void norm_apply(float *y, const float *x, const float *mean, const float *scale, const float *bias,
                size_t rows, int c, Act act, bool wide);

/* total[2 * c] = sum of dz, then sum of dz * d, where dz = dy * act'. For ACT_SILU dz[rows, c] is written. */
void norm_slopes(double *total, float *partial, float *dz, const float *dy, const float *x, const float *mean,
                 const float *scale, const float *bias, size_t rows, int c, Act act, bool wide);

/* dx = scale * dz + slope * d + shift. dz is as given (it may be dx), or relu: masked by the sign of y. */
void norm_combine(float *dx, const float *dz, const float *x, const float *mean, const float *scale,
                  const float *bias, const float *slope, const float *shift, size_t rows, int c, bool relu,
                  bool wide);

/* total[width] = sum over blocks of partial[blocks][width] */
void norm_total(double *total, const float *partial, size_t blocks, size_t width);
#endif
