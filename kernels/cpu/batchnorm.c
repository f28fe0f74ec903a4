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

/* Scratch, [c] each. */
typedef struct {
    double *first, *second; /* adjacent */
    float *mean, *scale, *slope, *shift, *partial /* norm.h */;
} Room;

static Status room(Room *r, size_t rows, int c, Stream *s)
{
    size_t floats = (size_t)c * (8 + 2 * norm_blocks(rows, c));
    double *first = stream_scratch(s, floats * sizeof(float));
    if (!first) return FAIL(ERR_SPACE, "no memory for the sums of a batch norm");
    float *mean = (float *)(first + 2 * c);
    *r = (Room){first, first + c, mean, mean + c, mean + 2 * c, mean + 3 * c, mean + 4 * c};
    return OK;
}

static void set_channels(const Room *r, const float *stats, const float *gain, int c)
{
    for (int i = 0; i < c; i++) {
        r->mean[i] = stats[2 * i];
        r->scale[i] = stats[2 * i + 1] * gain[i];
    }
}

Status cpu_batchnorm_train_fwd(float *y, float *stats, float *running_mean, float *running_var,
                               const float *x, const float *gain, const float *bias, size_t rows,
                               int c, float eps, float momentum, bool relu, Stream *s)
{
    Room r;
    if (rows < 2) return FAIL(ERR_BUG, "batch statistics of one row");
    TRY(room(&r, rows, c, s));
    Norm n = {.x = x,
              .y = y,
              .mean = r.mean,
              .scale = r.scale,
              .bias = bias,
              .partial = r.partial,
              .rows = rows,
              .c = c,
              .act = relu ? ACT_RELU : ACT_NONE,
              .wide = true};
    norm_moments(&n, r.first, r.second);
    for (int i = 0; i < c; i++) {
        stats[2 * i] = (float)r.first[i];
        stats[2 * i + 1] = (float)(1 / sqrt(r.second[i] / (double)rows + eps));
        double unbiased = r.second[i] / (double)(rows - 1);
        running_mean[i] = (float)((1 - (double)momentum) * running_mean[i] + momentum * r.first[i]);
        running_var[i] = (float)((1 - (double)momentum) * running_var[i] + momentum * unbiased);
    }
    set_channels(&r, stats, gain, c);
    norm_apply(&n);
    return OK;
}

Status cpu_batchnorm_fwd(float *y, float *stats, const float *running_mean,
                         const float *running_var, const float *x, const float *gain,
                         const float *bias, size_t rows, int c, float eps, bool relu, Stream *s)
{
    Room r;
    TRY(room(&r, rows, c, s));
    Norm n = {.x = x,
              .y = y,
              .mean = r.mean,
              .scale = r.scale,
              .bias = bias,
              .rows = rows,
              .c = c,
              .act = relu ? ACT_RELU : ACT_NONE,
              .wide = true};
    for (int i = 0; i < c; i++) {
        stats[2 * i] = running_mean[i];
        stats[2 * i + 1] = (float)(1 / sqrt((double)running_var[i] + eps));
    }
    set_channels(&r, stats, gain, c);
    norm_apply(&n);
    return OK;
}

Status cpu_batchnorm_dx(float *dx, float *dgain, float *dbias, const float *dy, const float *x,
                        const float *gain, const float *bias, const float *stats, size_t rows,
                        int c, bool train, bool relu, Stream *s)
{
    Room r;
    TRY(room(&r, rows, c, s));
    Norm n = {.x = x,
              .dy = dy,
              .dx = dx,
              .mean = r.mean,
              .scale = r.scale,
              .bias = bias,
              .slope = r.slope,
              .shift = r.shift,
              .partial = r.partial,
              .rows = rows,
              .c = c,
              .act = relu ? ACT_RELU : ACT_NONE,
              .wide = true};
    set_channels(&r, stats, gain, c);
    norm_slopes(&n, r.first);
    for (int i = 0; i < c; i++) {
        double per_std = stats[2 * i + 1], common = -gain[i] * per_std / (double)rows;
        r.slope[i] = train ? (float)(common * r.second[i] * per_std * per_std) : 0;
        r.shift[i] = train ? (float)(common * r.first[i]) : 0;
        dgain[i] = (float)(r.second[i] * per_std);
        dbias[i] = (float)r.first[i];
    }
    norm_combine(&n);
    return OK;
}
