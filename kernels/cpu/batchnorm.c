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

static Norm norm_of(const Room *r, const float *x, const float *bias, size_t rows, int c, bool relu)
{
    return (Norm){.x = x,
                  .mean = r->mean,
                  .scale = r->scale,
                  .bias = bias,
                  .slope = r->slope,
                  .shift = r->shift,
                  .partial = r->partial,
                  .rows = rows,
                  .c = c,
                  .act = relu ? ACT_RELU : ACT_NONE,
                  .wide = true};
}

/* From the moments of a channel over n values: mean, and sum of squares about it. */
static void take_moments(float *stats, float *running_mean, float *running_var, double mean,
                         double square, double n, float eps, float momentum)
{
    double m = momentum;
    stats[0] = (float)mean;
    stats[1] = (float)(1 / sqrt(square / n + eps));
    *running_mean = (float)((1 - m) * *running_mean + m * mean);
    *running_var = (float)((1 - m) * *running_var + m * (square / (n - 1)));
}

Status cpu_batchnorm_train_fwd(float *y, float *stats, float *running_mean, float *running_var,
                               const float *x, const float *gain, const float *bias, size_t rows,
                               int c, float eps, float momentum, bool relu, Stream *s)
{
    Room r;
    if (rows < 2) return FAIL(ERR_BUG, "batch statistics of one row");
    TRY(room(&r, rows, c, s));
    Norm n = norm_of(&r, x, bias, rows, c, relu);
    n.y = y;
    norm_moments(&n, r.first, r.second);
    for (int i = 0; i < c; i++)
        take_moments(stats + 2 * i, running_mean + i, running_var + i, r.first[i], r.second[i],
                     (double)rows, eps, momentum);
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
    Norm n = norm_of(&r, x, bias, rows, c, relu);
    n.y = y;
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
    Norm n = norm_of(&r, x, bias, rows, c, relu);
    n.dy = dy;
    n.dx = dx;
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

/* ---- over ranks ----------------------------------------------------------------------------- */

Status cpu_batchnorm_moments(float *moments, const float *x, size_t rows, int c, Stream *s)
{
    Room r;
    TRY(room(&r, rows, c, s));
    Norm n = norm_of(&r, x, NULL, rows, c, false);
    norm_moments(&n, r.first, r.second);
    for (int i = 0; i < c; i++) {
        moments[2 * i] = (float)r.first[i];
        moments[2 * i + 1] = (float)(r.second[i] / (double)rows);
    }
    return OK;
}

Status cpu_batchnorm_sync_fwd(float *y, float *stats, float *running_mean, float *running_var,
                              const float *moments, int ranks, const float *x, const float *gain,
                              const float *bias, size_t rows, int c, float eps, float momentum,
                              bool relu, Stream *s)
{
    Room r;
    size_t all = rows * (size_t)ranks, each = 2 * (size_t)c;
    if (all < 2) return FAIL(ERR_BUG, "batch statistics of one row");
    TRY(room(&r, rows, c, s));
    Norm n = norm_of(&r, x, bias, rows, c, relu);
    n.y = y;
    for (int i = 0; i < c; i++) {
        const float *m = moments + 2 * i;
        double mean = 0, var = 0;
        for (int k = 0; k < ranks; k++) mean += m[(size_t)k * each];
        mean /= ranks;
        for (int k = 0; k < ranks; k++) {
            double d = m[(size_t)k * each] - mean;
            var += m[(size_t)k * each + 1] + d * d;
        }
        take_moments(stats + 2 * i, running_mean + i, running_var + i, mean,
                     var * (double)rows, (double)all, eps, momentum);
    }
    set_channels(&r, stats, gain, c);
    norm_apply(&n);
    return OK;
}

Status cpu_batchnorm_sums(float *sums, const float *dy, const float *x, const float *gain,
                          const float *bias, const float *stats, size_t rows, int c, bool relu,
                          Stream *s)
{
    Room r;
    TRY(room(&r, rows, c, s));
    Norm n = norm_of(&r, x, bias, rows, c, relu);
    n.dy = dy;
    set_channels(&r, stats, gain, c);
    norm_slopes(&n, r.first);
    for (int i = 0; i < c; i++) {
        sums[i] = (float)(r.second[i] * stats[2 * i + 1]);
        sums[c + i] = (float)r.first[i];
    }
    return OK;
}

Status cpu_batchnorm_sync_dx(float *dx, const float *sums, int ranks, const float *dy,
                             const float *x, const float *gain, const float *bias,
                             const float *stats, size_t rows, int c, bool relu, Stream *s)
{
    Room r;
    TRY(room(&r, rows, c, s));
    Norm n = norm_of(&r, x, bias, rows, c, relu);
    n.dy = dy;
    n.dx = dx;
    set_channels(&r, stats, gain, c);
    for (int i = 0; i < c; i++) {
        double first = 0, second = 0, per_std = stats[2 * i + 1];
        double common = -gain[i] * per_std / ((double)rows * ranks);
        for (size_t k = 0; k < (size_t)ranks; k++) {
            second += sums[2 * k * (size_t)c + (size_t)i];
            first += sums[(2 * k + 1) * (size_t)c + (size_t)i];
        }
        r.slope[i] = (float)(common * second * per_std);
        r.shift[i] = (float)(common * first);
    }
    norm_combine(&n);
    return OK;
}
