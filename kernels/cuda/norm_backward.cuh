/* norm_backward.cuh - the gradient's three kernels: slopes, join_slopes, combine; see norm.cuh. */
#pragma once
#include "norm.cuh"

/* partial[image][block][2][c] = sum of dz, sum of dz * d */
template <class T, int V, Act A>
static __global__ void __launch_bounds__(NORM_THREADS, 2)
    slopes_kernel(float *__restrict__ partial, const T *__restrict__ dy, const T *__restrict__ x,
                  const float *__restrict__ stats, const float *__restrict__ gain,
                  const float *__restrict__ bias, Tiling t)
{
    extern __shared__ float room[];
    Place p = place<V>(t, false);
    float first[V], second[V];
#pragma unroll
    for (int k = 0; k < V; k++) first[k] = second[k] = 0;
    if (p.inside) {
        Channels<V> ch;
        ch.load(stats + p.image * t.groups * 2, gain, bias, p.channel, t.per);
#pragma unroll 1
        for (int r = p.row; r < p.end; r += NORM_STEPS_BACK * t.high) {
            Pack<T, V> held[NORM_STEPS_BACK], given[NORM_STEPS_BACK];
            size_t at = p.at + (size_t)r * t.c + p.channel;
            load_rows(held, x + at, r, p.end, t);
            load_rows(given, dy + at, r, p.end, t);
#pragma unroll
            for (int u = 0; u < NORM_STEPS_BACK; u++)
                if (r + u * t.high < p.end)
#pragma unroll
                    for (int k = 0; k < V; k++) {
                        float value = to_float(held[u].v[k]);
                        float dz = deactivate<T, A>(to_float(given[u].v[k]),
                                                    value * ch.scale[k] + ch.shift[k]);
                        first[k] += dz;
                        second[k] += dz * (value - ch.mean[k]);
                    }
        }
    }
    column_sums<V>(room, first, second, t.wide, t.high);
    float *to = partial + (p.image * t.blocks + blockIdx.x) * 2 * t.c;
    int from = blockIdx.y * t.wide * V, stride = room_stride(blockDim.x, V);
    for (int i = threadIdx.x; i < t.wide * V && from + i < t.c; i += blockDim.x) {
        to[from + i] = room[i % V * stride + i / V];
        to[t.c + from + i] = room[(V + i % V) * stride + i / V];
    }
}

/* coef[image][group] = slope, shift; share[image][c] = the image's part of dbias and dgain. A
 * block takes together, warps by 32 channels by every eighth block, `some` whole groups; frozen:
 * mean and std are constants. */
static __global__ void __launch_bounds__(256)
    join_slopes_kernel(float2 *coef, float *share_bias, float *share_gain, const float *partial,
                       const float *stats, const float *gain, bool frozen, int some, Tiling t)
{
    extern __shared__ float total[]; /* [2][channels] */
    __shared__ float part[2][8][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, from = blockIdx.x * some * t.per;
    int channels = min(some * t.per, t.c - from);
    size_t image = blockIdx.y;
    const float *in = partial + image * t.blocks * 2 * t.c + from;
    stats += image * t.groups * 2;
    for (int i = lane; i - lane < channels; i += 32) {
        float first = 0, second = 0;
        if (i < channels) {
#pragma unroll 4
            for (int b = warp; b < t.blocks; b += 8) {
                first += in[(size_t)b * 2 * t.c + i];
                second += in[((size_t)b * 2 + 1) * t.c + i];
            }
        }
        part[0][warp][lane] = first;
        part[1][warp][lane] = second;
        __syncthreads();
        if (warp < 2 && i < channels) {
            float sum = 0;
            for (int w = 0; w < 8; w++) sum += part[warp][w][lane];
            total[warp * channels + i] = sum;
            if (!warp) share_bias[image * t.c + from + i] = sum;
            else share_gain[image * t.c + from + i] = sum * stats[(from + i) / t.per * 2 + 1];
        }
        __syncthreads();
    }
    for (int g = warp; g < channels / t.per; g += 8) {
        float first = 0, second = 0;
        for (int i = g * t.per + lane; i < (g + 1) * t.per; i += 32) {
            first += gain[from + i] * total[i];
            second += gain[from + i] * total[channels + i];
        }
        first = warp_sum(first);
        second = warp_sum(second);
        if (lane) continue;
        float per_std = stats[2 * (from / t.per + g) + 1];
        float common = frozen ? 0 : -per_std / ((float)t.rows * t.per);
        coef[image * t.groups + from / t.per + g] =
            make_float2(common * second * per_std * per_std, common * first);
    }
}

template <class T, int V, Act A>
static __global__ void __launch_bounds__(NORM_THREADS, 2)
    combine_kernel(T *__restrict__ dx, const T *__restrict__ dy, const T *__restrict__ x,
                   const float *__restrict__ stats, const float *__restrict__ gain,
                   const float *__restrict__ bias, const float2 *__restrict__ coef, Tiling t)
{
    Place p = place<V>(t, true);
    if (!p.inside) return;
    Channels<V> ch;
    float slope[V], shift[V];
    ch.load(stats + p.image * t.groups * 2, gain, bias, p.channel, t.per);
    each_group<V>(p.channel, t.per, [&](int g, int k) {
        float2 f = coef[p.image * t.groups + g];
        slope[k] = f.x;
        shift[k] = f.y - f.x * ch.mean[k];
    });
#pragma unroll 1
    for (int r = p.row; r < p.end; r += NORM_STEPS_BACK * t.high) {
        Pack<T, V> held[NORM_STEPS_BACK], given[NORM_STEPS_BACK];
        size_t at = p.at + (size_t)r * t.c + p.channel, step = (size_t)t.high * t.c;
        load_rows(held, x + at, r, p.end, t);
        load_rows(given, dy + at, r, p.end, t);
#pragma unroll
        for (int u = 0; u < NORM_STEPS_BACK; u++)
            if (r + u * t.high < p.end) {
#pragma unroll
                for (int k = 0; k < V; k++) {
                    float value = to_float(held[u].v[k]);
                    float dz = deactivate<T, A>(to_float(given[u].v[k]),
                                                value * ch.scale[k] + ch.shift[k]);
                    held[u].v[k] = from_float<T>(ch.scale[k] * dz + (slope[k] * value + shift[k]));
                }
                *(Pack<T, V> *)(dx + at + u * step) = held[u];
            }
    }
}

/* Of `images` from the given addresses on. */
struct Backward {
    void *dx;
    const void *dy, *x;
    const float *stats, *gain, *bias;
    float *share_bias, *share_gain; /* [images][c] */
    float *partial;                 /* scratch [images][blocks][2][c] */
    float2 *coef;                   /* scratch [images][groups] */
    bool frozen;
};

template <class T, int V, Act A>
static Status norm_slopes(const Backward &b, size_t images, const Tiling &t, Stream *s)
{
    const T *dy = (const T *)b.dy, *x = (const T *)b.x;
    slopes_kernel<T, V, A>
        <<<norm_grid(t, images), norm_threads(t), room_bytes(norm_threads(t), V), s->handle>>>(
            b.partial, dy, x, b.stats, b.gain, b.bias, t);
    TRY(launched("slopes"));
    int some = t.per < 32 ? 32 / t.per : 1;
    dim3 grid((t.groups + some - 1) / some, (unsigned)images);
    join_slopes_kernel<<<grid, 256, (size_t)some * t.per * 2 * sizeof(float), s->handle>>>(
        b.coef, b.share_bias, b.share_gain, b.partial, b.stats, b.gain, b.frozen, some, t);
    return launched("join_slopes");
}

template <class T, int V, Act A>
static Status norm_combine(const Backward &b, size_t images, const Tiling &t, Stream *s)
{
    const T *dy = (const T *)b.dy, *x = (const T *)b.x;
    combine_kernel<T, V, A><<<norm_grid(t, images), norm_threads(t), 0, s->handle>>>(
        (T *)b.dx, dy, x, b.stats, b.gain, b.bias, b.coef, t);
    return launched("combine");
}

template <class T, int V, Act A>
static Status norm_backward(const Backward &b, size_t images, const Tiling &t, Stream *s)
{
    TRY((norm_slopes<T, V, A>(b, images, t, s)));
    return norm_combine<T, V, A>(b, images, t, s);
}
