/* batchnorm.cu - batch normalisation with relu; formulas in kernels/cpu/batchnorm.c, kernels in
 * norm.cuh: the batch is one image whose groups are single channels.
 *
 * Bound by memory. Training moves 3 times the size of x forward (2 reads, a write), 5 times
 * backward; evaluation 2. Inception-V3, 299 pixels, bf16: 18 MB of results an image.
 */
#include "kernels_point.h"
#include "norm_backward.cuh"

/* False: one channel at a time. */
static bool tile(Tiling *t, size_t rows, int c, Dtype type)
{
    int pack = type == DTYPE_BF16 ? Wide<bf16>::N : Wide<float>::N;
    if (norm_tiling(t, rows, c, 1, pack)) return true;
    norm_tiling(t, rows, c, 1, 1);
    return false;
}

static Act act_of(bool relu) { return relu ? ACT_RELU : ACT_NONE; }

Status cuda_batchnorm_train_fwd(void *y, float *stats, float *running_mean, float *running_var,
                                const void *x, const float *gain, const float *bias, size_t rows,
                                int c, float eps, float momentum, bool relu, Dtype type, Stream *s)
{
    Tiling t;
    if (rows < 2) return FAIL(ERR_BUG, "batch statistics of one row");
    bool packs = tile(&t, rows, c, type);
    float2 *partial = (float2 *)stream_scratch(s, (size_t)c * t.blocks * sizeof(float2));
    if (!partial) return FAIL(ERR_SPACE, "no memory for the sums of a batch norm");
    Running run = {running_mean, running_var, momentum, false};
    TRY(NORM_DISPATCH(norm_moments, type, packs, ACT_NONE, stats, partial, x, 1, eps, run, t, s));
    return NORM_DISPATCH(norm_apply, type, packs, act_of(relu), y, x, stats, gain, bias, 1, t, s);
}

static __global__ void running_stats_kernel(float *stats, const float *mean, const float *var,
                                            int c, float eps)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= c) return;
    stats[2 * i] = mean[i];
    stats[2 * i + 1] = 1 / sqrtf(var[i] + eps);
}

Status cuda_batchnorm_fwd(void *y, float *stats, const float *running_mean,
                          const float *running_var, const void *x, const float *gain,
                          const float *bias, size_t rows, int c, float eps, bool relu, Dtype type,
                          Stream *s)
{
    Tiling t;
    bool packs = tile(&t, rows, c, type);
    running_stats_kernel<<<(c + 127) / 128, 128, 0, s->handle>>>(stats, running_mean, running_var,
                                                                 c, eps);
    TRY(launched("running_stats"));
    return NORM_DISPATCH(norm_apply, type, packs, act_of(relu), y, x, stats, gain, bias, 1, t, s);
}

Status cuda_batchnorm_dx(void *dx, float *dgain, float *dbias, const void *dy, const void *x,
                         const float *gain, const float *bias, const float *stats, size_t rows,
                         int c, bool train, bool relu, Dtype type, Stream *s)
{
    Tiling t;
    bool packs = tile(&t, rows, c, type);
    size_t sums = (size_t)t.blocks * 2 * c;
    float *scratch = (float *)stream_scratch(s, (sums + 2 * c) * sizeof(float));
    if (!scratch) return FAIL(ERR_SPACE, "no memory for the sums of a batch norm");
    Backward b = {
        dx, dy, x, stats, gain, bias, dbias, dgain, scratch, (float2 *)(scratch + sums), !train};
    return NORM_DISPATCH(norm_backward, type, packs, act_of(relu), b, 1, t, s);
}

/* ---- over ranks ----------------------------------------------------------------------------- */

Status cuda_batchnorm_moments(float *moments, const void *x, size_t rows, int c, Dtype type,
                              Stream *s)
{
    Tiling t;
    bool packs = tile(&t, rows, c, type);
    float2 *partial = (float2 *)stream_scratch(s, (size_t)c * t.blocks * sizeof(float2));
    if (!partial) return FAIL(ERR_SPACE, "no memory for the sums of a batch norm");
    Running raw = {NULL, NULL, 0, true};
    return NORM_DISPATCH(norm_moments, type, packs, ACT_NONE, moments, partial, x, 1, 0, raw, t, s);
}

/* A thread a channel. */
static __global__ void join_moments_kernel(float *stats, Running run, const float *moments,
                                           int ranks, size_t rows, int c, float eps)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= c) return;
    float base = moments[2 * i], mean = 0, var = 0, all = (float)rows * ranks;
    for (int k = 0; k < ranks; k++) mean += moments[2 * (k * c + i)] - base;
    mean = base + mean / ranks;
    for (int k = 0; k < ranks; k++) {
        float d = moments[2 * (k * c + i)] - mean;
        var += moments[2 * (k * c + i) + 1] + d * d;
    }
    var /= ranks;
    stats[2 * i] = mean;
    stats[2 * i + 1] = 1 / sqrtf(var + eps);
    float keep = 1 - run.momentum;
    run.mean[i] = keep * run.mean[i] + run.momentum * mean;
    run.var[i] = keep * run.var[i] + run.momentum * (var * (all / (all - 1)));
}

Status cuda_batchnorm_sync_fwd(void *y, float *stats, float *running_mean, float *running_var,
                               const float *moments, int ranks, const void *x, const float *gain,
                               const float *bias, size_t rows, int c, float eps, float momentum,
                               bool relu, Dtype type, Stream *s)
{
    Tiling t;
    if (rows * ranks < 2) return FAIL(ERR_BUG, "batch statistics of one row");
    bool packs = tile(&t, rows, c, type);
    Running run = {running_mean, running_var, momentum, false};
    join_moments_kernel<<<(c + 127) / 128, 128, 0, s->handle>>>(stats, run, moments, ranks, rows, c,
                                                                eps);
    TRY(launched("join_moments"));
    return NORM_DISPATCH(norm_apply, type, packs, act_of(relu), y, x, stats, gain, bias, 1, t, s);
}

Status cuda_batchnorm_sums(float *sums, const void *dy, const void *x, const float *gain,
                           const float *bias, const float *stats, size_t rows, int c, bool relu,
                           Dtype type, Stream *s)
{
    Tiling t;
    bool packs = tile(&t, rows, c, type);
    size_t partial = (size_t)t.blocks * 2 * c;
    float *scratch = (float *)stream_scratch(s, (partial + 2 * c) * sizeof(float));
    if (!scratch) return FAIL(ERR_SPACE, "no memory for the sums of a batch norm");
    Backward b = {NULL,     dy,   x,       stats,   gain,
                  bias,     sums + c, sums, scratch, (float2 *)(scratch + partial),
                  true};
    return NORM_DISPATCH(norm_slopes, type, packs, act_of(relu), b, 1, t, s);
}

/* coef[c] = slope, shift; a thread a channel. */
static __global__ void join_sums_kernel(float2 *coef, const float *sums, int ranks,
                                        const float *stats, const float *gain, size_t rows, int c)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= c) return;
    float first = 0, second = 0, per_std = stats[2 * i + 1];
    for (int k = 0; k < ranks; k++) {
        second += sums[2 * k * c + i];
        first += sums[(2 * k + 1) * c + i];
    }
    float common = -gain[i] * per_std / ((float)rows * ranks);
    coef[i] = make_float2(common * second * per_std, common * first);
}

Status cuda_batchnorm_sync_dx(void *dx, const float *sums, int ranks, const void *dy, const void *x,
                              const float *gain, const float *bias, const float *stats,
                              size_t rows, int c, bool relu, Dtype type, Stream *s)
{
    Tiling t;
    bool packs = tile(&t, rows, c, type);
    float2 *coef = (float2 *)stream_scratch(s, (size_t)c * sizeof *coef);
    if (!coef) return FAIL(ERR_SPACE, "no memory for the sums of a batch norm");
    join_sums_kernel<<<(c + 127) / 128, 128, 0, s->handle>>>(coef, sums, ranks, stats, gain, rows,
                                                             c);
    TRY(launched("join_sums"));
    Backward b = {dx, dy, x, stats, gain, bias, NULL, NULL, NULL, coef, false};
    return NORM_DISPATCH(norm_combine, type, packs, act_of(relu), b, 1, t, s);
}
