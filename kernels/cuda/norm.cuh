/* norm.cuh - what group and batch normalisation share on a GPU: x[n, rows, c] in groups of `per`
 * channels; batch normalisation has one image and groups of one channel.
 *
 *   y = act(d * gain / std + bias),  d = x - mean
 *   dx = gain / std * dz + slope * d + shift,  dz = dy * act'
 *   slope = - sum(gain * dz * d) / (N * std^3),  shift = - sum(gain * dz) / (N * std),  N = rows *
 * per
 *
 * A block is a tile of `wide` columns, packs of V channels that hold whole groups, by `high` rows;
 * a thread keeps its column and steps down the block's rows, four packs in flight. Blocks leave
 * sums, which one more kernel takes together in order: moments, merge, apply; slopes, join_slopes,
 * combine. The last of each walks backwards: what the first has read last is still in the
 * second-level cache. The division into blocks depends on the image only, not on n.
 *
 * Backward: norm_backward.cuh. Traffic in passes over x: forward 2 reads and a write, backward 4
 * reads and a write; the second read of what fits the cache does not reach memory.
 */
#pragma once
#include "device.cuh"

enum {
    NORM_THREADS = 320,
    NORM_STEPS = 4,      /* packs in flight, and the least rows of a thread */
    NORM_STEPS_BACK = 2, /* of each x and dy backward */
    NORM_BLOCKS = 512,   /* most blocks along the rows of an image */
};

struct Tiling {
    int rows, c, per, groups;
    int wide, high, tiles; /* tiles lie side by side */
    int block_rows, blocks;
};

static inline int norm_gcd(int a, int b) { return b ? norm_gcd(b, a % b) : a; }

/* Columns of the fewest groups that fill whole packs. */
static inline int norm_unit(int per, int pack) { return per / norm_gcd(per, pack); }

/* False where a group is too wide for a block. */
static inline bool norm_tiling(Tiling *t, size_t rows, int c, int per, int pack)
{
    int unit = norm_unit(per, pack), units = c / pack / (unit ? unit : 1);
    if (c % pack || unit > NORM_THREADS || rows > 0x7fffffff) return false;
    int tiles = (units + NORM_THREADS / unit - 1) / (NORM_THREADS / unit);
    t->rows = (int)rows;
    t->c = c;
    t->per = per;
    t->groups = c / per;
    t->wide = unit * ((units + tiles - 1) / tiles);
    t->tiles = (c / pack + t->wide - 1) / t->wide;
    t->high = NORM_THREADS / t->wide < t->rows ? NORM_THREADS / t->wide : t->rows;
    int least = (t->rows + NORM_BLOCKS - 1) / NORM_BLOCKS, step = t->high * NORM_STEPS;
    t->block_rows = (least + step - 1) / step * step;
    t->blocks = (t->rows + t->block_rows - 1) / t->block_rows;
    return true;
}

static inline dim3 norm_grid(const Tiling &t, size_t n)
{
    return dim3(t.blocks, t.tiles, (unsigned)n);
}
static inline int norm_threads(const Tiling &t) { return t.wide * t.high; }

/* ---- where a thread stands ------------------------------------------------------------------ */
struct Place {
    int row, end, channel; /* first row of the thread, end of the block, first channel */
    bool inside;
    size_t image, at; /* of the image; first element of it */
};

template <int V> DEVICE Place place(const Tiling &t, bool backwards)
{
    Place p;
    int block = backwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
    int down = threadIdx.x / t.wide, col = threadIdx.x - down * t.wide + blockIdx.y * t.wide;
    p.image = backwards ? gridDim.z - 1 - blockIdx.z : blockIdx.z;
    p.at = p.image * t.rows * t.c;
    p.row = block * t.block_rows + down;
    p.end = min(t.rows, (block + 1) * t.block_rows);
    p.channel = col * V;
    p.inside = p.channel < t.c;
    return p;
}

/* f(group, k) for the V channels from `channel` on */
template <int V, class F> DEVICE void each_group(int channel, int per, F f)
{
    int g = channel / per, left = per - (channel - g * per);
#pragma unroll
    for (int k = 0; k < V; k++, left--) {
        if (!left) g++, left = per;
        f(g, k);
    }
}

/* Of a thread's channels: act's argument is x * scale + shift. The rounding of shift costs what
 * that of the mean, kept in fp32, does. */
template <int V> struct Channels {
    float mean[V], scale[V], shift[V];
    DEVICE void load(const float *stats, const float *gain, const float *bias, int channel, int per)
    {
        each_group<V>(channel, per, [&](int g, int k) {
            mean[k] = stats[2 * g];
            scale[k] = stats[2 * g + 1] * gain[channel + k];
            shift[k] = bias[channel + k] - mean[k] * scale[k];
        });
    }
};

/* ---- activations: bf16 results hide the errors of the fast functions, 1e-6 ------------------ */
template <class T> DEVICE float logistic(float z) { return 1 / (1 + expf(-z)); }
template <> DEVICE float logistic<bf16>(float z) { return __fdividef(1, 1 + __expf(-z)); }

template <class T, Act A> DEVICE float activate(float z)
{
    return A == ACT_SILU ? z * logistic<T>(z) : A == ACT_RELU ? (z < 0 ? 0 : z) : z;
}
template <class T, Act A> DEVICE float deactivate(float dy, float z)
{
    if (A == ACT_NONE) return dy;
    if (A == ACT_RELU) return z > 0 ? dy : 0;
    float l = logistic<T>(z);
    return dy * (l * (z * (1 - l) + 1));
}

/* run<T, V, A>(...): V is the widest pack or, where channels do not allow it, 1 */
#define NORM_BY_ACT(run, T, V, act, ...)                                                           \
    ((act) == ACT_SILU   ? run<T, V, ACT_SILU>(__VA_ARGS__)                                        \
     : (act) == ACT_RELU ? run<T, V, ACT_RELU>(__VA_ARGS__)                                        \
                         : run<T, V, ACT_NONE>(__VA_ARGS__))
#define NORM_DISPATCH(run, type, packs, act, ...)                                                  \
    ((type) == DTYPE_BF16 ? (packs) ? NORM_BY_ACT(run, bf16, 8, act, __VA_ARGS__)                  \
                                    : NORM_BY_ACT(run, bf16, 1, act, __VA_ARGS__)                  \
     : (packs) ? NORM_BY_ACT(run, float, 4, act, __VA_ARGS__)                                      \
                          : NORM_BY_ACT(run, float, 1, act, __VA_ARGS__))

/* ---- sums ----------------------------------------------------------------------------------- */

/* Floats between the sums of a column's neighbouring channels: reading channels in order then meets
 * 32 banks. */
static __host__ DEVICE int room_stride(int threads, int pack)
{
    return (threads + 31) / 32 * 32 + 32 / pack;
}
static inline size_t room_bytes(int threads, int pack)
{
    return sizeof(float) * 2 * pack * room_stride(threads, pack);
}

/* Sums over the rows of a tile by halving: room[(which * V + k) * stride + column] holds those of
 * channel k of each column; every thread of the block calls it. */
template <int V>
DEVICE void column_sums(float *room, const float *first, const float *second, int wide, int high)
{
    int stride = room_stride(blockDim.x, V), at = threadIdx.x, down = at / wide;
#pragma unroll
    for (int k = 0; k < V; k++) {
        room[k * stride + at] = first[k];
        room[(V + k) * stride + at] = second[k];
    }
    __syncthreads();
    int half = 1;
    while (2 * half < high) half *= 2;
    for (; high > 1; high = half, half /= 2) {
        if (down < half && down + half < high) {
#pragma unroll
            for (int k = 0; k < 2 * V; k++)
                room[k * stride + at] += room[k * stride + at + half * wide];
        }
        __syncthreads();
    }
}

/* ---- forward -------------------------------------------------------------------------------- */

/* partial[image][group][block] = mean, sum of squares about it. Thread sums are taken about the
 * block's first row, so that a mean far from zero costs no digits. */
template <class T, int V>
static __global__ void __launch_bounds__(NORM_THREADS, 2)
    moments_kernel(float2 *partial, const T *x, Tiling t)
{
    extern __shared__ float room[];
    Place p = place<V>(t, false);
    float pivot[V], sum[V], square[V];
    int top = blockIdx.x * t.block_rows;
    const T *column = x + p.at + p.channel;
#pragma unroll
    for (int k = 0; k < V; k++) pivot[k] = sum[k] = square[k] = 0;
    if (p.inside) {
        Pack<T, V> held[NORM_STEPS], first = *(const Pack<T, V> *)(column + (size_t)top * t.c);
#pragma unroll
        for (int k = 0; k < V; k++) pivot[k] = to_float(first.v[k]);
#pragma unroll 1
        for (int r = p.row; r < p.end; r += NORM_STEPS * t.high) {
#pragma unroll
            for (int u = 0; u < NORM_STEPS; u++)
                if (r + u * t.high < p.end)
                    held[u] = *(const Pack<T, V> *)(column + (size_t)(r + u * t.high) * t.c);
#pragma unroll
            for (int u = 0; u < NORM_STEPS; u++)
                if (r + u * t.high < p.end)
#pragma unroll
                    for (int k = 0; k < V; k++) {
                        float d = to_float(held[u].v[k]) - pivot[k];
                        sum[k] += d;
                        square[k] += d * d;
                    }
        }
    }
    column_sums<V>(room, sum, square, t.wide, t.high);

    int stride = room_stride(blockDim.x, V), count = p.end - top;
    float share = 1.f / count;
    if (threadIdx.x < t.wide) /* channel sums to means and squares */
#pragma unroll
        for (int k = 0; k < V; k++) {
            float *s = room + k * stride + threadIdx.x, *q = s + V * stride;
            *q -= *s * *s * share;
            *s = pivot[k] + *s * share;
        }
    __syncthreads();
    int first_group = blockIdx.y * t.wide * V / t.per,
        end_group = min(t.groups, (int)(blockIdx.y + 1) * t.wide * V / t.per);
    for (int g = first_group + threadIdx.x; g < end_group; g += blockDim.x) {
        int from = (g - first_group) * t.per;
        float mean = 0, m2 = 0, base = room[from % V * stride + from / V];
        for (int i = from; i < from + t.per; i++) mean += room[i % V * stride + i / V] - base;
        mean = base + mean / t.per;
        for (int i = from; i < from + t.per; i++) {
            float d = room[i % V * stride + i / V] - mean;
            m2 += room[(V + i % V) * stride + i / V] + count * d * d;
        }
        partial[(p.image * t.groups + g) * t.blocks + blockIdx.x] = make_float2(mean, m2);
    }
}

struct Running { /* batch normalisation's running statistics, or NULL */
    float *mean, *var;
    float momentum;
    bool raw; /* the moments are to be joined with others': variances instead of 1 / std */
};

/* The packs of rows r, r + high, ... before `end`; from: that of row r. */
template <class T, int V, int N>
DEVICE void load_rows(Pack<T, V> (&held)[N], const T *__restrict__ from, int r, int end,
                      const Tiling &t)
{
#pragma unroll
    for (int u = 0; u < N; u++)
        if (r + u * t.high < end) held[u] = *(const Pack<T, V> *)(from + (size_t)u * t.high * t.c);
}

/* stats of `count` groups from the blocks' moments; a warp for each. */
static __global__ void __launch_bounds__(128)
    merge_kernel(float *stats, const float2 *partial, size_t count, float eps, Running run,
                 Tiling t)
{
    size_t group = blockIdx.x * (size_t)4 + threadIdx.x / 32;
    if (group >= count) return;
    const float2 *part = partial + group * t.blocks;
    float base = part[0].x, mean = 0, m2 = 0;
    for (int b = threadIdx.x % 32; b < t.blocks; b += 32)
        mean += min(t.block_rows, t.rows - b * t.block_rows) * (part[b].x - base);
    mean = base + warp_sum(mean) / t.rows;
    for (int b = threadIdx.x % 32; b < t.blocks; b += 32) {
        float d = part[b].x - mean, rows = min(t.block_rows, t.rows - b * t.block_rows);
        m2 += part[b].y + rows * t.per * d * d;
    }
    m2 = warp_sum(m2);
    if (threadIdx.x % 32) return;
    float values = (float)t.rows * t.per;
    stats[2 * group] = mean;
    stats[2 * group + 1] = run.raw ? m2 / values : 1 / sqrtf(m2 / values + eps);
    if (!run.mean) return;
    float keep = 1 - run.momentum;
    run.mean[group] = keep * run.mean[group] + run.momentum * mean;
    run.var[group] = keep * run.var[group] + run.momentum * (m2 / (values - 1));
}

template <class T, int V, Act A>
static __global__ void __launch_bounds__(NORM_THREADS, 2)
    apply_kernel(T *__restrict__ y, const T *__restrict__ x, const float *__restrict__ stats,
                 const float *__restrict__ gain, const float *__restrict__ bias, Tiling t)
{
    Place p = place<V>(t, true);
    if (!p.inside) return;
    Channels<V> ch;
    ch.load(stats + p.image * t.groups * 2, gain, bias, p.channel, t.per);
#pragma unroll 1
    for (int r = p.row; r < p.end; r += NORM_STEPS * t.high) {
        Pack<T, V> held[NORM_STEPS];
        size_t at = p.at + (size_t)r * t.c + p.channel, step = (size_t)t.high * t.c;
        load_rows(held, x + at, r, p.end, t);
#pragma unroll
        for (int u = 0; u < NORM_STEPS; u++)
            if (r + u * t.high < p.end) {
#pragma unroll
                for (int k = 0; k < V; k++) {
                    float z = to_float(held[u].v[k]) * ch.scale[k] + ch.shift[k];
                    held[u].v[k] = from_float<T>(activate<T, A>(z));
                }
                *(Pack<T, V> *)(y + at + u * step) = held[u];
            }
    }
}

/* ---- launches: `images` of them from the given addresses on --------------------------------- */

template <class T, int V, Act A>
static Status norm_moments(float *stats, float2 *partial, const void *x, size_t images, float eps,
                           Running run, const Tiling &t, Stream *s)
{
    size_t groups = images * t.groups;
    moments_kernel<T, V>
        <<<norm_grid(t, images), norm_threads(t), room_bytes(norm_threads(t), V), s->handle>>>(
            partial, (const T *)x, t);
    TRY(launched("moments"));
    merge_kernel<<<(unsigned)((groups + 3) / 4), 128, 0, s->handle>>>(stats, partial, groups, eps,
                                                                      run, t);
    return launched("merge");
}

template <class T, int V, Act A>
static Status norm_apply(void *y, const void *x, const float *stats, const float *gain,
                         const float *bias, size_t images, const Tiling &t, Stream *s)
{
    apply_kernel<T, V, A><<<norm_grid(t, images), norm_threads(t), 0, s->handle>>>(
        (T *)y, (const T *)x, stats, gain, bias, t);
    return launched("apply");
}
