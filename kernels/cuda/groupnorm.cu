/* groupnorm.cu - group normalisation with its activation; formulas in kernels/cpu/groupnorm.c.
 *
 * Where the rows of the fewest groups that fill whole packs fit 97 KiB of shared memory, one block
 * reads them once and writes once: forward up to 6144 packs, backward up to 2560 of each x and dy.
 * In Stable Diffusion's UNet those are the levels of 32x32 pixels and fewer (backward 16x16), but
 * for the widest joins. A thread keeps its column of packs and uses what it has copied itself.
 * Elsewhere the kernels of norm.cuh run over as many images at a time as the second-level cache
 * holds. An image's bits do not depend on the batch. Bound by memory: 2 passes over x forward (3
 * where an image exceeds the cache), 3 backward (5), and 2 rows of c floats an image for the
 * parameters' gradients, which one more kernel sums over the images in order.
 * Groups of a few values go to groupnorm_few.cu. Limits: a group of at most 320 packs of channels.
 */
#include "async.cuh"
#include "groupnorm_few.cuh"
#include "kernels_point.h"
#include "norm_backward.cuh"
#include "totals.cuh"

enum {
    WHOLE_THREADS = 384,      /* most threads of a block that holds whole groups, forward */
    WHOLE_THREADS_BACK = 256, /* and backward, where each needs room for its sums */
    WHOLE_BYTES = 97 << 10,   /* of shared memory; sm_86 and sm_89 have 99 KiB a block */
};
static const size_t CACHE_BYTES = 24 << 20; /* of 40 (A100) to 60 MiB, a part that stays */

/* Threads of a whole-group block: `wide` columns by `high` rows, in whole warps; 0 rows where a
 * column each is more than `most`. */
static int whole_threads(Tiling *t, int pack, int most)
{
    t->wide = norm_unit(t->per, pack);
    t->high = most / t->wide < t->rows ? most / t->wide : t->rows;
    return (t->wide * t->high + 31) / 32 * 32;
}

/* Shared memory for a tensor; more than there is where there are no rows. */
static size_t whole_bytes(const Tiling &t, int threads, int pack, Dtype type)
{
    if (!t.high) return WHOLE_BYTES + 1;
    return (size_t)((t.rows + t.high - 1) / t.high) * threads * pack * dtype_bytes(type);
}

/* This thread's packs to shared memory, `threads` apart; done after async_wait. */
template <class T, int V>
DEVICE void hold(Pack<T, V> *held, const T *from, size_t step, int rows, int threads)
{
#pragma unroll 4
    for (int u = 0; u < rows; u++) {
        const Pack<T, V> *pack = (const Pack<T, V> *)(from + u * step);
        if (V > 1) async_copy16(held + u * threads, pack);
        else held[u * threads] = *pack;
    }
}

/* The groups' sums over the block, for at most V groups: total[g] = sum over threads and channels
 * of v where the channel is of group g. */
template <int V>
DEVICE void group_sums(float *total, float (*part)[V], const float *v, const int *group, int groups)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int g = 0; g < groups; g++) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < V; k++) sum += group[k] == g ? v[k] : 0;
        sum = warp_sum(sum);
        if (!lane) part[warp][g] = sum;
    }
    __syncthreads();
    if ((int)threadIdx.x < groups) {
        float sum = 0;
        for (int w = 0; w < (int)blockDim.x / 32; w++) sum += part[w][threadIdx.x];
        total[threadIdx.x] = sum;
    }
    __syncthreads();
}

/* One block, all rows of the groups that fill t.wide packs. The mean is found twice, the second
 * time about the first, which makes it exact to a rounding. */
template <class T, int V, Act A>
static __global__ void __launch_bounds__(WHOLE_THREADS, 2)
    whole_kernel(T *__restrict__ y, float *__restrict__ stats, const T *__restrict__ x,
                 const float *__restrict__ gain, const float *__restrict__ bias, float eps,
                 Tiling t)
{
    extern __shared__ __align__(16) char packs[]; /* [rows of a thread][threads] */
    __shared__ float part[WHOLE_THREADS / 32][V], rough[V], rest[V], square[V], root[V];
    Pack<T, V> *held = (Pack<T, V> *)packs + threadIdx.x;
    int threads = blockDim.x, down = threadIdx.x / t.wide, col = threadIdx.x - down * t.wide;
    int groups = t.wide * V / t.per, from = (blockIdx.x * t.wide + col) * V, group[V];
    float mean[V], sum[V], sum2[V], share = 1 / ((float)t.rows * t.per);
    size_t at = ((size_t)blockIdx.y * t.rows + down) * t.c + from, step = (size_t)t.high * t.c;
    int rows = down < t.high ? (t.rows - down + t.high - 1) / t.high : 0; /* of this thread */

    hold(held, x + at, step, rows, threads);
    async_commit();
    each_group<V>(col * V, t.per, [&](int g, int k) { group[k] = g; });
#pragma unroll
    for (int k = 0; k < V; k++) sum[k] = 0;
    async_wait<0>();
#pragma unroll 2
    for (int u = 0; u < rows; u++) {
        Pack<T, V> p = held[u * threads];
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += to_float(p.v[k]);
    }
    group_sums<V>(rough, part, sum, group, groups);
#pragma unroll
    for (int k = 0; k < V; k++) {
        mean[k] = rough[group[k]] * share;
        sum[k] = sum2[k] = 0;
    }
#pragma unroll 2
    for (int u = 0; u < rows; u++) {
        Pack<T, V> p = held[u * threads];
#pragma unroll
        for (int k = 0; k < V; k++) {
            float d = to_float(p.v[k]) - mean[k];
            sum[k] += d;
            sum2[k] += d * d;
        }
    }
    group_sums<V>(rest, part, sum, group, groups);
    group_sums<V>(square, part, sum2, group, groups);
    if ((int)threadIdx.x < groups) {
        int g = threadIdx.x;
        float more = rest[g] * share, m = rough[g] * share + more;
        float per_std = 1 / sqrtf(square[g] * share - more * more + eps);
        float *to = stats + 2 * (blockIdx.y * (size_t)t.groups + blockIdx.x * groups + g);
        to[0] = rough[g] = m;
        to[1] = root[g] = per_std;
    }
    __syncthreads();
    if (!rows) return;
    float scale[V], shift[V];
#pragma unroll
    for (int k = 0; k < V; k++) {
        scale[k] = root[group[k]] * gain[from + k];
        shift[k] = bias[from + k] - rough[group[k]] * scale[k];
    }
#pragma unroll 2
    for (int u = 0; u < rows; u++) {
        Pack<T, V> p = held[u * threads];
#pragma unroll
        for (int k = 0; k < V; k++)
            p.v[k] = from_float<T>(activate<T, A>(to_float(p.v[k]) * scale[k] + shift[k]));
        *(Pack<T, V> *)(y + at + u * step) = p;
    }
}

/* share_bias, share_gain[n][c]: the image's part of dbias and dgain */
template <class T, int V, Act A>
static __global__ void __launch_bounds__(WHOLE_THREADS_BACK, 3)
    whole_dx_kernel(T *__restrict__ dx, float *__restrict__ share_bias,
                    float *__restrict__ share_gain, const T *__restrict__ dy,
                    const T *__restrict__ x, const float *__restrict__ gain,
                    const float *__restrict__ bias, const float *__restrict__ stats, Tiling t)
{
    extern __shared__ __align__(16) char packs[]; /* x and dy as above, then column_sums' room */
    __shared__ float slope[V], shift[V];
    Channels<V> ch;
    int threads = blockDim.x, lane = threadIdx.x % 32, each = (t.rows + t.high - 1) / t.high;
    int down = threadIdx.x / t.wide, col = threadIdx.x - down * t.wide;
    int channels = t.wide * V, groups = channels / t.per, from = (blockIdx.x * t.wide + col) * V;
    Pack<T, V> *held = (Pack<T, V> *)packs + threadIdx.x, *given = held + each * threads;
    float *room = (float *)((Pack<T, V> *)packs + 2 * each * threads), first[V], second[V];
    size_t at = ((size_t)blockIdx.y * t.rows + down) * t.c + from, step = (size_t)t.high * t.c;
    int rows = down < t.high ? (t.rows - down + t.high - 1) / t.high : 0; /* of this thread */

    hold(held, x + at, step, rows, threads);
    hold(given, dy + at, step, rows, threads);
    async_commit();
    stats += 2 * (size_t)blockIdx.y * t.groups;
    ch.load(stats, gain, bias, from, t.per);
#pragma unroll
    for (int k = 0; k < V; k++) first[k] = second[k] = 0;
    async_wait<0>();
#pragma unroll 2
    for (int u = 0; u < rows; u++) {
        Pack<T, V> p = held[u * threads], d = given[u * threads];
#pragma unroll
        for (int k = 0; k < V; k++) {
            float value = to_float(p.v[k]), z = value * ch.scale[k] + ch.shift[k];
            float dz = deactivate<T, A>(to_float(d.v[k]), z);
            first[k] += dz;
            second[k] += dz * (value - ch.mean[k]);
        }
    }
    column_sums<V>(room, first, second, t.wide, t.high);

    int channel = blockIdx.x * channels, stride = room_stride(threads, V);
    const float *per_std = stats + 2 * blockIdx.x * groups + 1;
    for (int i = threadIdx.x; i < channels; i += threads) {
        size_t to = (size_t)blockIdx.y * t.c + channel + i;
        share_bias[to] = room[i % V * stride + i / V];
        share_gain[to] = room[(V + i % V) * stride + i / V] * per_std[2 * (i / t.per)];
    }
    for (int g = threadIdx.x / 32; g < groups; g += threads / 32) {
        float a = 0, b = 0;
        for (int i = g * t.per + lane; i < (g + 1) * t.per; i += 32) {
            a += gain[channel + i] * room[i % V * stride + i / V];
            b += gain[channel + i] * room[(V + i % V) * stride + i / V];
        }
        a = warp_sum(a);
        b = warp_sum(b);
        float root = per_std[2 * g], common = -root / ((float)t.rows * t.per);
        if (lane) continue;
        shift[g] = common * a;
        slope[g] = common * b * root * root;
    }
    __syncthreads();
    if (!rows) return;
    float slopes[V], shifts[V];
    each_group<V>(col * V, t.per, [&](int g, int k) {
        slopes[k] = slope[g];
        shifts[k] = shift[g] - slope[g] * ch.mean[k];
    });
#pragma unroll 2
    for (int u = 0; u < rows; u++) {
        Pack<T, V> p = held[u * threads], d = given[u * threads];
#pragma unroll
        for (int k = 0; k < V; k++) {
            float value = to_float(p.v[k]), z = value * ch.scale[k] + ch.shift[k];
            float dz = deactivate<T, A>(to_float(d.v[k]), z);
            p.v[k] = from_float<T>(ch.scale[k] * dz + (slopes[k] * value + shifts[k]));
        }
        *(Pack<T, V> *)(dx + at + u * step) = p;
    }
}

/* Beyond 48 KiB, static memory included, a kernel must ask, once; asking again costs less than a
 * microsecond. */
template <class K> static Status ask_room(K *kernel)
{
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         WHOLE_BYTES);
    return e == cudaSuccess ? OK : FAIL(ERR_DEVICE, "groupnorm: %s", cudaGetErrorString(e));
}

template <class T, int V, Act A>
static Status whole(void *y, float *stats, const void *x, const float *gain, const float *bias,
                    size_t n, float eps, int threads, size_t bytes, const Tiling &t, Stream *s)
{
    dim3 grid(t.c / V / t.wide, (unsigned)n);
    TRY(ask_room(whole_kernel<T, V, A>));
    whole_kernel<T, V, A>
        <<<grid, threads, bytes, s->handle>>>((T *)y, stats, (const T *)x, gain, bias, eps, t);
    return launched("groupnorm");
}

template <class T, int V, Act A>
static Status whole_dx(const Backward &b, size_t n, int threads, size_t bytes, const Tiling &t,
                       Stream *s)
{
    dim3 grid(t.c / V / t.wide, (unsigned)n);
    TRY(ask_room(whole_dx_kernel<T, V, A>));
    whole_dx_kernel<T, V, A><<<grid, threads, bytes, s->handle>>>(
        (T *)b.dx, b.share_bias, b.share_gain, (const T *)b.dy, (const T *)b.x, b.gain, b.bias,
        b.stats, t);
    return launched("groupnorm_dx");
}

/* 1: packs, 0: one channel at a time, -1: not supported. */
static int tile(Tiling *t, size_t hw, int c, int groups, Dtype type)
{
    int pack = type == DTYPE_BF16 ? Wide<bf16>::N : Wide<float>::N;
    if (groups < 1 || c % groups) return -1;
    if (norm_tiling(t, hw, c, c / groups, pack)) return 1;
    return norm_tiling(t, hw, c, c / groups, 1) ? 0 : -1;
}

static int pack_of(int packs, Dtype type) { return packs ? 16 / (int)dtype_bytes(type) : 1; }

static Status unsupported(int c, int groups)
{
    return FAIL(ERR_BUG, "groupnorm: %d channels in %d groups, expected groups of at most %d packs",
                c, groups, NORM_THREADS);
}

/* As many images as keep their `tensors` in the second-level cache. */
static size_t images_at_once(size_t n, size_t image_bytes, int tensors)
{
    size_t most = CACHE_BYTES / (tensors * image_bytes);
    return most < 1 ? 1 : most < n ? most : n;
}

Status cuda_groupnorm_fwd(void *y, float *stats, const void *x, const float *gain,
                          const float *bias, size_t n, size_t hw, int c, int groups, float eps,
                          Act act, Dtype type, Stream *s)
{
    Tiling t, w;
    int packs = tile(&t, hw, c, groups, type);
    if (packs < 0) return unsupported(c, groups);
    if (hw * (c / groups) <= FEW)
        return groupnorm_few_fwd(y, stats, x, gain, bias, n, hw, c, groups, eps, act, type, s);
    w = t;
    int pack = pack_of(packs, type), threads = whole_threads(&w, pack, WHOLE_THREADS);
    size_t bytes = whole_bytes(w, threads, pack, type);
    if (bytes <= WHOLE_BYTES)
        return NORM_DISPATCH(whole, type, packs, act, y, stats, x, gain, bias, n, eps, threads,
                             bytes, w, s);
    size_t image = hw * c * dtype_bytes(type), some = images_at_once(n, image, 1);
    float2 *partial = (float2 *)stream_scratch(s, some * groups * t.blocks * sizeof(float2));
    if (!partial) return FAIL(ERR_SPACE, "no memory for the sums of a group norm");
    for (size_t i = 0; i < n; i += some) {
        size_t count = n - i < some ? n - i : some;
        const char *from = (const char *)x + i * image;
        float *st = stats + i * groups * 2;
        TRY(NORM_DISPATCH(norm_moments, type, packs, act, st, partial, from, count, eps,
                          (Running){0}, t, s));
        TRY(NORM_DISPATCH(norm_apply, type, packs, act, (char *)y + i * image, from, st, gain, bias,
                          count, t, s));
    }
    return OK;
}

Status cuda_groupnorm_dx(void *dx, float *dgain, float *dbias, const void *dy, const void *x,
                         const float *gain, const float *bias, const float *stats, size_t n,
                         size_t hw, int c, int groups, float eps, Act act, Dtype type, Stream *s)
{
    Tiling t, w;
    int packs = tile(&t, hw, c, groups, type);
    if (packs < 0) return unsupported(c, groups);
    w = t;
    int pack = pack_of(packs, type), threads = whole_threads(&w, pack, WHOLE_THREADS_BACK);
    size_t bytes = 2 * whole_bytes(w, threads, pack, type) + room_bytes(threads, pack);
    bool few = hw * (c / groups) <= FEW, whole = few || bytes <= WHOLE_BYTES;
    size_t image = hw * c * dtype_bytes(type), some = images_at_once(n, image, 2), wide = c;
    size_t sums = whole ? 0 : some * t.blocks * 2 * wide, coefs = whole ? 0 : some * groups * 2;
    float *scratch = (float *)stream_scratch(s, (sums + coefs + n * 2 * wide) * sizeof(float));
    if (!scratch) return FAIL(ERR_SPACE, "no memory for the sums of a group norm");
    float *shares = scratch + sums + coefs, *shares2 = shares + n * wide;
    Backward b = {
        dx, dy, x, stats, gain, bias, shares, shares2, scratch, (float2 *)(scratch + sums), false};
    if (few)
        TRY(groupnorm_few_dx(dx, shares, shares2, dy, x, gain, bias, n, hw, c, groups, eps, act,
                             type, s));
    else if (whole) TRY(NORM_DISPATCH(whole_dx, type, packs, act, b, n, threads, bytes, w, s));
    for (size_t i = 0; i < n && !whole; i += some) {
        b.dx = (char *)dx + i * image;
        b.dy = (const char *)dy + i * image;
        b.x = (const char *)x + i * image;
        b.stats = stats + i * groups * 2;
        b.share_bias = shares + i * wide;
        b.share_gain = shares2 + i * wide;
        TRY(NORM_DISPATCH(norm_backward, type, packs, act, b, n - i < some ? n - i : some, t, s));
    }
    return column_totals(dbias, dgain, shares, shares2, n, wide, c, s);
}
