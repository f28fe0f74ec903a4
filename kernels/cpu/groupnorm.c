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

typedef struct {
    const float *x, *gain, *bias, *dy;
    float *y, *dx, *stats;
    size_t hw;
    int c, groups;
    float eps;
    Act act;
    bool wide;
} Job;

/* Scratch of one image. */
typedef struct {
    double *first, *second;                      /* [c] each, adjacent */
    float *mean, *scale, *slope, *shift, *partial; /* [c] each; partial: norm.h */
} Room;

static size_t room_bytes(const Job *j)
{
    size_t floats = (size_t)j->c * (4 + 4 + 2 * norm_blocks(j->hw, j->c));
    return (floats * sizeof(float) + 63) / 64 * 64;
}

static Room room_at(void *scratch, const Job *j, size_t image)
{
    size_t c = (size_t)j->c;
    Room r = {.first = (double *)(void *)((char *)scratch + image * room_bytes(j))};
    r.second = r.first + c;
    r.mean = (float *)(r.second + c);
    r.scale = r.mean + c;
    r.slope = r.scale + c;
    r.shift = r.slope + c;
    r.partial = r.shift + c;
    return r;
}

static bool by_image(size_t n)
{
    size_t threads = (size_t)omp_get_max_threads();
    return n % threads == 0 || n >= 4 * threads;
}

static void set_channels(Room *r, const Job *j, const float *stats)
{
    int per = j->c / j->groups;
    for (int g = 0, i = 0; g < j->groups; g++)
        for (int k = 0; k < per; k++, i++) {
            r->mean[i] = stats[2 * g];
            r->scale[i] = stats[2 * g + 1] * j->gain[i];
        }
}

static void image_fwd(const Job *j, Room r, size_t image)
{
    size_t at = image * j->hw * (size_t)j->c;
    int per = j->c / j->groups;
    float *stats = j->stats + image * 2 * (size_t)j->groups;
    norm_moments(r.first, r.second, r.partial, j->x + at, j->hw, j->c, j->wide);
    for (int g = 0; g < j->groups; g++) {
        const double *mean = r.first + g * per, *square = r.second + g * per;
        double m = 0, q = 0;
        for (int k = 0; k < per; k++) m += mean[k];
        m /= per;
        for (int k = 0; k < per; k++) q += square[k] + (double)j->hw * (mean[k] - m) * (mean[k] - m);
        stats[2 * g] = (float)m;
        stats[2 * g + 1] = (float)(1 / sqrt(q / ((double)j->hw * per) + j->eps));
    }
    set_channels(&r, j, stats);
    norm_apply(j->y + at, j->x + at, r.mean, r.scale, j->bias, j->hw, j->c, j->act, j->wide);
}

Status cpu_groupnorm_fwd(float *y, float *stats, const float *x, const float *gain, const float *bias, size_t n,
                         size_t hw, int c, int groups, float eps, Act act, Stream *s)
{
    Job j = {.x = x, .gain = gain, .bias = bias, .y = y, .stats = stats, .hw = hw, .c = c, .groups = groups,
             .eps = eps, .act = act, .wide = !by_image(n)};
    void *scratch = stream_scratch(s, n * room_bytes(&j));
    if (!scratch) return FAIL(ERR_SPACE, "no memory for the sums of a group norm");
#pragma omp parallel for if (!j.wide)
    for (size_t i = 0; i < n; i++) image_fwd(&j, room_at(scratch, &j, i), i);
    return OK;
}

static void image_dx(const Job *j, Room r, size_t image)
{
    size_t at = image * j->hw * (size_t)j->c;
    int per = j->c / j->groups;
    const float *stats = j->stats + image * 2 * (size_t)j->groups;
    const float *x = j->x + at, *dy = j->dy + at;
    float *dx = j->dx + at;
    set_channels(&r, j, stats);
    norm_slopes(r.first, r.partial, dx, dy, x, r.mean, r.scale, j->bias, j->hw, j->c, j->act, j->wide);
    for (int g = 0, i = 0; g < j->groups; g++, i += per) {
        double per_std = stats[2 * g + 1], count = (double)j->hw * per, shift = 0, slope = 0;
        for (int k = i; k < i + per; k++) {
            shift += j->gain[k] * r.first[k];
            slope += j->gain[k] * r.second[k];
            r.second[k] *= per_std; /* now the image's share of dgain */
        }
        for (int k = i; k < i + per; k++) {
            r.shift[k] = (float)(-shift * per_std / count);
            r.slope[k] = (float)(-slope * per_std * per_std * per_std / count);
        }
    }
    norm_combine(dx, j->act == ACT_SILU ? dx : dy, x, r.mean, r.scale, j->bias, r.slope, r.shift, j->hw, j->c,
                 j->act == ACT_RELU, j->wide);
}

Status cpu_groupnorm_dx(float *dx, float *dgain, float *dbias, const float *dy, const float *x, const float *gain,
                        const float *bias, const float *stats, size_t n, size_t hw, int c, int groups, Act act,
                        Stream *s)
{
    Job j = {.x = x, .gain = gain, .bias = bias, .dy = dy, .dx = dx, .stats = (float *)(uintptr_t)stats, .hw = hw,
             .c = c, .groups = groups, .act = act, .wide = !by_image(n)};
    void *scratch = stream_scratch(s, n * room_bytes(&j));
    if (!scratch) return FAIL(ERR_SPACE, "no memory for the sums of a group norm");
#pragma omp parallel for if (!j.wide)
    for (size_t i = 0; i < n; i++) image_dx(&j, room_at(scratch, &j, i), i);
    for (int k = 0; k < c; k++) {
        double bias_sum = 0, gain_sum = 0;
        for (size_t i = 0; i < n; i++) {
            Room r = room_at(scratch, &j, i);
            bias_sum += r.first[k];
            gain_sum += r.second[k];
        }
        dbias[k] = (float)bias_sum;
        dgain[k] = (float)gain_sum;
    }
    return OK;
}
