/* groupnorm.c - y = act((x - mean) / std * gain + bias), statistics over the hw positions and
 * the per = c / groups channels of a group, for each image of x[n, hw, c].
 *
 * Backward, with dz = dy * act', d = x - mean, N = hw * per and sums over the group:
 *   dx = gain/std * dz - sum(gain * dz) / (N * std) - d * sum(gain * dz * d) / (N * std^3)
 *   dgain = sum over images and positions of dz * d / std,  dbias = ... of dz
 * Traffic: forward 2 reads and a write, backward 4 reads and 1 (silu 2) writes; an image that
 * fits the second-level cache is read from memory once. An image's result depends on nothing
 * else in the batch. Many images are spread over the threads; of few, their blocks of rows.
 *
 * Groups of a handful of values (the coarsest level of a narrow network on a small image) are
 * computed in double from x on: their values are near one another now and then, and of two values
 * the normalised ones are +-1 but for eps, so that dx is what is left of a difference.
 */
#include "cpu.h"
#include "kernels_point.h"
#include "norm.h"
#include <math.h>
#include <omp.h>

enum { FEW = 8 }; /* values of a group up to which it is computed in double */

/* Scratch of one image, [c] each. */
typedef struct {
    double *first, *second; /* adjacent */
    float *mean, *scale, *slope, *shift, *partial /* norm.h */;
} Room;

static size_t room_bytes(size_t hw, int c)
{
    return ((size_t)c * (8 + 2 * norm_blocks(hw, c)) * sizeof(float) + 63) / 64 * 64;
}

static Room room_at(void *scratch, size_t image, size_t hw, int c)
{
    double *first = (double *)(void *)((char *)scratch + image * room_bytes(hw, c));
    float *mean = (float *)(first + 2 * c);
    return (Room){first, first + c, mean, mean + c, mean + 2 * c, mean + 3 * c, mean + 4 * c};
}

static bool by_image(size_t n)
{
    size_t threads = (size_t)omp_get_max_threads();
    return n % threads == 0 || n >= 4 * threads;
}

static void set_channels(const Room *r, const float *stats, const float *gain, int c, int groups)
{
    int per = c / groups;
    for (int g = 0, i = 0; g < groups; g++)
        for (int k = 0; k < per; k++, i++) {
            r->mean[i] = stats[2 * g];
            r->scale[i] = stats[2 * g + 1] * gain[i];
        }
}

static void image_fwd(const Norm *image, const Room *r, float *stats, const float *gain, int groups,
                      float eps)
{
    int per = image->c / groups;
    double hw = (double)image->rows;
    norm_moments(image, r->first, r->second);
    for (int g = 0; g < groups; g++) {
        const double *mean = r->first + g * per, *square = r->second + g * per;
        double m = 0, q = 0;
        for (int k = 0; k < per; k++) m += mean[k];
        m /= per;
        for (int k = 0; k < per; k++) q += square[k] + hw * (mean[k] - m) * (mean[k] - m);
        stats[2 * g] = (float)m;
        stats[2 * g + 1] = (float)(1 / sqrt(q / (hw * per) + eps));
    }
    set_channels(r, stats, gain, image->c, groups);
    norm_apply(image);
}

static bool few(size_t hw, int c, int groups) { return hw * (size_t)(c / groups) <= FEW; }

/* ---- groups of few values -------------------------------------------------------------- */

static double sigmoid(double z) { return 1 / (1 + exp(-z)); }

static double act_value(double z, Act act)
{
    return act == ACT_SILU ? z * sigmoid(z) : act == ACT_RELU && z < 0 ? 0 : z;
}

static double act_slope(double z, Act act)
{
    double l = sigmoid(z);
    return act == ACT_SILU ? l * (1 + z * (1 - l)) : act == ACT_RELU && !(z > 0) ? 0 : 1;
}

/* Mean and 1 / sqrt(variance + eps) of the group whose first channel is `first`. */
static void few_stats(const Norm *image, int first, int per, double eps, double *mean,
                      double *scale)
{
    double sum = 0, square = 0, count = (double)image->rows * per;
    for (size_t r = 0; r < image->rows; r++)
        for (int k = first; k < first + per; k++) sum += image->x[r * (size_t)image->c + k];
    *mean = sum / count;
    for (size_t r = 0; r < image->rows; r++)
        for (int k = first; k < first + per; k++) {
            double d = image->x[r * (size_t)image->c + k] - *mean;
            square += d * d;
        }
    *scale = 1 / sqrt(square / count + eps);
}

static void few_fwd(const Norm *image, float *stats, const float *gain, int groups, float eps)
{
    int c = image->c, per = c / groups;
    for (int g = 0; g < groups; g++) {
        double mean, scale;
        few_stats(image, g * per, per, eps, &mean, &scale);
        stats[2 * g] = (float)mean;
        stats[2 * g + 1] = (float)scale;
        for (size_t r = 0; r < image->rows; r++)
            for (int k = g * per; k < (g + 1) * per; k++) {
                size_t at = r * (size_t)c + k;
                double z = (image->x[at] - mean) * scale * gain[k] + image->bias[k];
                image->y[at] = (float)act_value(z, image->act);
            }
    }
}

/* Leaves dbias and dgain in the room, as image_dx() does. */
static void few_dx(const Norm *image, const Room *r, const float *gain, int groups, float eps)
{
    int c = image->c, per = c / groups;
    for (int g = 0; g < groups; g++) {
        double mean, scale, dz[FEW], shift = 0, slope = 0, count = (double)image->rows * per;
        int first = g * per, i = 0;
        few_stats(image, first, per, eps, &mean, &scale);
        for (int k = first; k < first + per; k++) r->first[k] = r->second[k] = 0;
        for (size_t row = 0; row < image->rows; row++)
            for (int k = first; k < first + per; k++, i++) {
                size_t at = row * (size_t)c + k;
                double xhat = (image->x[at] - mean) * scale;
                dz[i] = image->dy[at] * act_slope(xhat * gain[k] + image->bias[k], image->act);
                r->first[k] += dz[i];
                r->second[k] += dz[i] * xhat;
                shift += gain[k] * dz[i];
                slope += gain[k] * dz[i] * xhat;
            }
        i = 0;
        for (size_t row = 0; row < image->rows; row++)
            for (int k = first; k < first + per; k++, i++) {
                size_t at = row * (size_t)c + k;
                double xhat = (image->x[at] - mean) * scale;
                image->dx[at] =
                    (float)(scale * (gain[k] * dz[i] - shift / count - xhat * slope / count));
            }
    }
}

Status cpu_groupnorm_fwd(float *y, float *stats, const float *x, const float *gain,
                         const float *bias, size_t n, size_t hw, int c, int groups, float eps,
                         Act act, Stream *s)
{
    void *scratch = stream_scratch(s, n * room_bytes(hw, c));
    if (!scratch) return FAIL(ERR_SPACE, "no memory for the sums of a group norm");
    bool wide = !by_image(n);
#pragma omp parallel for if (!wide)
    for (size_t i = 0; i < n; i++) {
        Room r = room_at(scratch, i, hw, c);
        size_t at = i * hw * (size_t)c;
        Norm image = {.x = x + at,
                      .y = y + at,
                      .mean = r.mean,
                      .scale = r.scale,
                      .bias = bias,
                      .partial = r.partial,
                      .rows = hw,
                      .c = c,
                      .act = act,
                      .wide = wide};
        float *own = stats + i * 2 * (size_t)groups;
        if (few(hw, c, groups)) few_fwd(&image, own, gain, groups, eps);
        else image_fwd(&image, &r, own, gain, groups, eps);
    }
    return OK;
}

/* Leaves the image's shares of dbias and dgain in the room's first and second. */
static void image_dx(const Norm *image, const Room *r, const float *stats, const float *gain,
                     int groups)
{
    int per = image->c / groups;
    set_channels(r, stats, gain, image->c, groups);
    norm_slopes(image, r->first);
    for (int g = 0, i = 0; g < groups; g++, i += per) {
        double per_std = stats[2 * g + 1], common = -per_std / ((double)image->rows * per),
               shift = 0, slope = 0;
        for (int k = i; k < i + per; k++) {
            shift += gain[k] * r->first[k];
            slope += gain[k] * r->second[k];
            r->second[k] *= per_std;
        }
        for (int k = i; k < i + per; k++) {
            r->shift[k] = (float)(shift * common);
            r->slope[k] = (float)(slope * common * per_std * per_std);
        }
    }
    norm_combine(image);
}

Status cpu_groupnorm_dx(float *dx, float *dgain, float *dbias, const float *dy, const float *x,
                        const float *gain, const float *bias, const float *stats, size_t n,
                        size_t hw, int c, int groups, float eps, Act act, Stream *s)
{
    void *scratch = stream_scratch(s, n * room_bytes(hw, c));
    if (!scratch) return FAIL(ERR_SPACE, "no memory for the sums of a group norm");
    bool wide = !by_image(n);
#pragma omp parallel for if (!wide)
    for (size_t i = 0; i < n; i++) {
        Room r = room_at(scratch, i, hw, c);
        size_t at = i * hw * (size_t)c;
        Norm image = {.x = x + at,
                      .dy = dy + at,
                      .dx = dx + at,
                      .mean = r.mean,
                      .scale = r.scale,
                      .bias = bias,
                      .slope = r.slope,
                      .shift = r.shift,
                      .partial = r.partial,
                      .rows = hw,
                      .c = c,
                      .act = act,
                      .wide = wide};
        if (few(hw, c, groups)) few_dx(&image, &r, gain, groups, eps);
        else image_dx(&image, &r, stats + i * 2 * (size_t)groups, gain, groups);
    }
    for (int k = 0; k < c; k++) {
        double bias_sum = 0, gain_sum = 0;
        for (size_t i = 0; i < n; i++) {
            Room r = room_at(scratch, i, hw, c);
            bias_sum += r.first[k];
            gain_sum += r.second[k];
        }
        dbias[k] = (float)bias_sum;
        dgain[k] = (float)gain_sum;
    }
    return OK;
}
