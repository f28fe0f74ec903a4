/* batchnorm.c - y = relu?((x - mean) / std * gain + bias), statistics over the rows of x[rows, c].
 *
 * Training takes mean and biased variance from x and moves the running ones, by momentum,
 * towards the batch's mean and unbiased variance. Otherwise the running ones are used and,
 * backward, are constants:
 *   dx = gain/std * dz [ - (sum(dz) + d * sum(dz * d) / std^2) * gain / (rows * std) in training ]
 *   dgain = sum(dz * d) / std,  dbias = sum(dz),  d = x - mean,  dz = dy where y > 0
 * Whether y > 0 is computed again from x: y need not be kept. Traffic: training 2 reads and a
 * write, backward 4 reads and a write.
 */
#include "cpu.h"
#include "kernels_point.h"
#include "norm.h"
#include <math.h>

/* Scratch: doubles first[c], second[c]; floats mean, scale, slope, shift [c], partial. */
static double *room(Stream *s, size_t rows, int c)
{
    return stream_scratch(s, (size_t)c * (2 * sizeof(double) + (4 + 2 * norm_blocks(rows, c)) * sizeof(float)));
}

static void apply(float *y, const float *stats, const float *x, const float *gain, const float *bias, float *mean,
                  size_t rows, int c, bool relu)
{
    float *scale = mean + c;
    for (int i = 0; i < c; i++) {
        mean[i] = stats[2 * i];
        scale[i] = stats[2 * i + 1] * gain[i];
    }
    norm_apply(y, x, mean, scale, bias, rows, c, relu ? ACT_RELU : ACT_NONE, true);
}

Status cpu_batchnorm_train_fwd(float *y, float *stats, float *running_mean, float *running_var, const float *x,
                               const float *gain, const float *bias, size_t rows, int c, float eps, float momentum,
                               bool relu, Stream *s)
{
    if (rows < 2) return FAIL(ERR_BUG, "batch statistics of one row");
    double *first = room(s, rows, c), *second = first + c;
    if (!first) return FAIL(ERR_SPACE, "no memory for the sums of a batch norm");
    float *mean = (float *)(second + c);
    norm_moments(first, second, mean + 4 * c, x, rows, c, true);
    for (int i = 0; i < c; i++) {
        stats[2 * i] = (float)first[i];
        stats[2 * i + 1] = (float)(1 / sqrt(second[i] / (double)rows + eps));
        double unbiased = second[i] / (double)(rows - 1);
        running_mean[i] = (float)((1 - (double)momentum) * running_mean[i] + momentum * first[i]);
        running_var[i] = (float)((1 - (double)momentum) * running_var[i] + momentum * unbiased);
    }
    apply(y, stats, x, gain, bias, mean, rows, c, relu);
    return OK;
}

Status cpu_batchnorm_fwd(float *y, float *stats, const float *running_mean, const float *running_var, const float *x,
                         const float *gain, const float *bias, size_t rows, int c, float eps, bool relu, Stream *s)
{
    double *first = room(s, rows, c);
    if (!first) return FAIL(ERR_SPACE, "no memory for the sums of a batch norm");
    for (int i = 0; i < c; i++) {
        stats[2 * i] = running_mean[i];
        stats[2 * i + 1] = (float)(1 / sqrt((double)running_var[i] + eps));
    }
    apply(y, stats, x, gain, bias, (float *)(first + 2 * c), rows, c, relu);
    return OK;
}

Status cpu_batchnorm_dx(float *dx, float *dgain, float *dbias, const float *dy, const float *x, const float *gain,
                        const float *bias, const float *stats, size_t rows, int c, bool train, bool relu, Stream *s)
{
    double *first = room(s, rows, c), *second = first + c;
    if (!first) return FAIL(ERR_SPACE, "no memory for the sums of a batch norm");
    float *mean = (float *)(second + c), *scale = mean + c, *slope = scale + c, *shift = slope + c;
    for (int i = 0; i < c; i++) {
        mean[i] = stats[2 * i];
        scale[i] = stats[2 * i + 1] * gain[i];
    }
    norm_slopes(first, shift + c, dx, dy, x, mean, scale, bias, rows, c, relu ? ACT_RELU : ACT_NONE, true);
    for (int i = 0; i < c; i++) {
        double per_std = stats[2 * i + 1], common = train ? gain[i] * per_std / (double)rows : 0;
        slope[i] = (float)(-common * second[i] * per_std * per_std);
        shift[i] = (float)(-common * first[i]);
        dgain[i] = (float)(second[i] * per_std);
        dbias[i] = (float)first[i];
    }
    norm_combine(dx, dy, x, mean, scale, bias, slope, shift, rows, c, relu, true);
    return OK;
}
