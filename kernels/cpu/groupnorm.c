/* groupnorm.c - y = act((x - mean) / std * gain + bias), statistics over the hw positions and
 * the per = c / groups channels of a group, for each image of x[n, hw, c].
 *
 * Backward, with dz = dy * act', d = x - mean, N = hw * per and sums over the group:
 *   dx = gain/std * dz - sum(gain * dz) / (N * std) - d * sum(gain * dz * d) / (N * std^3)
 *   dgain = sum over images and positions of dz * d / std,  dbias = ... of dz
 * Traffic: forward 2 reads and a write, backward 4 reads and 1 (silu 2) writes; an image that
 * fits the second-level cache is read from memory once. An image's result depends on nothing
 * else in the batch. Many images are spread over the threads; of few, their blocks of rows.
 */
#include "cpu.h"
#include "kernels_point.h"
#include "norm.h"
#include <math.h>
#include <omp.h>

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
        image_fwd(&image, &r, stats + i * 2 * (size_t)groups, gain, groups, eps);
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
                        size_t hw, int c, int groups, Act act, Stream *s)
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
        image_dx(&image, &r, stats + i * 2 * (size_t)groups, gain, groups);
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
