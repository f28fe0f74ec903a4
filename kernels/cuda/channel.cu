/* channel.cu - a vector of channels added to each position of its sample, and its gradient.
 *
 * A warp takes a row, its lanes the columns in packs of 16 bytes. Bytes: 2 values an element (v
 * stays in the caches), the gradient 1. Bound by memory: 0.9 of the copy rate is what to expect.
 */
#include "device.cuh"
#include "kernels_point.h"

static const int WARPS = 8, MOST_BLOCKS = 8192;

/* rows = n * hw */
template <class T, int V>
static __global__ void __launch_bounds__(32 * WARPS)
    add_channel_kernel(T *y, const T *x, const T *v, size_t rows, size_t hw, int c)
{
    size_t row = blockIdx.x * (size_t)WARPS + threadIdx.x / 32, step = (size_t)gridDim.x * WARPS;
    for (; row < rows; row += step) {
        const T *own = v + row / hw * c;
        for (int k = threadIdx.x % 32 * V; k < c; k += 32 * V) {
            Pack<T, V> a = *(const Pack<T, V> *)(x + row * c + k);
            Pack<T, V> b = *(const Pack<T, V> *)(own + k);
#pragma unroll
            for (int i = 0; i < V; i++) a.v[i] = from_float<T>(to_float(a.v[i]) + to_float(b.v[i]));
            *(Pack<T, V> *)(y + row * c + k) = a;
        }
    }
}

/* Block (x, slice, sample): columns 32 V x .., positions of one slice; eight rows at a time, then
 * over the eight. Sums of slices are fp32 until the last. */
template <class From, class To, int V>
static __global__ void __launch_bounds__(32 * WARPS)
    add_channel_dv_kernel(To *dv, const From *dy, size_t hw, int c, size_t slice)
{
    __shared__ float part[WARPS][32 * V];
    int lane = threadIdx.x % 32, row = threadIdx.x / 32, column = (blockIdx.x * 32 + lane) * V;
    size_t begin = blockIdx.y * slice, end = begin + slice < hw ? begin + slice : hw;
    float v[V] = {};
    dy += blockIdx.z * hw * c;
    if (column < c)
        for (size_t i = begin + row; i < end; i += WARPS) {
            Pack<From, V> p = *(const Pack<From, V> *)(dy + i * c + column);
#pragma unroll
            for (int k = 0; k < V; k++) v[k] += to_float(p.v[k]);
        }
#pragma unroll
    for (int k = 0; k < V; k++) part[row][k * 32 + lane] = v[k];
    __syncthreads();
    for (int i = threadIdx.x; i < 32 * V; i += 32 * WARPS) {
        int to = (blockIdx.x * 32 + i % 32) * V + i / 32;
        float total = 0;
#pragma unroll
        for (int k = 0; k < WARPS; k++) total += part[k][i];
        if (to < c)
            dv[(blockIdx.z * (size_t)gridDim.y + blockIdx.y) * c + to] = from_float<To>(total);
    }
}

template <class T>
static Status add_channel(T *y, const T *x, const T *v, size_t n, size_t hw, int c, Stream *s)
{
    const int V = Wide<T>::N;
    size_t rows = n * hw, blocks = (rows + WARPS - 1) / WARPS;
    unsigned grid = (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS);
    if (c % V == 0)
        add_channel_kernel<T, V><<<grid, 32 * WARPS, 0, s->handle>>>(y, x, v, rows, hw, c);
    else add_channel_kernel<T, 1><<<grid, 32 * WARPS, 0, s->handle>>>(y, x, v, rows, hw, c);
    return launched("add_channel");
}

template <class From, class To>
static Status sum_slices(To *dv, const From *dy, size_t n, size_t hw, int c, size_t slice,
                         Stream *s)
{
    const int V = Wide<From>::N;
    int wide = c % V == 0 ? V : 1;
    dim3 grid((unsigned)((c + 32 * wide - 1) / (32 * wide)), (unsigned)((hw + slice - 1) / slice),
              (unsigned)n);
    if (n > 65535) return FAIL(ERR_BUG, "add_channel_dv: %zu samples, expected at most 65535", n);
    if (wide > 1)
        add_channel_dv_kernel<From, To, V>
            <<<grid, 32 * WARPS, 0, s->handle>>>(dv, dy, hw, c, slice);
    else
        add_channel_dv_kernel<From, To, 1>
            <<<grid, 32 * WARPS, 0, s->handle>>>(dv, dy, hw, c, slice);
    return launched("add_channel_dv");
}

/* Slices depend on hw alone: a sample has the same bits whatever the batch. */
template <class T>
static Status add_channel_dv(T *dv, const T *dy, size_t n, size_t hw, int c, Stream *s)
{
    size_t slice = hw / 64 < 128 ? 128 : (hw + 63) / 64, slices = (hw + slice - 1) / slice;
    if (slices == 1) return sum_slices(dv, dy, n, hw, c, slice, s);
    float *part = (float *)stream_scratch(s, n * slices * (size_t)c * sizeof(float));
    if (!part) return FAIL(ERR_SPACE, "no memory for sums over positions");
    TRY(sum_slices(part, dy, n, hw, c, slice, s));
    return sum_slices(dv, (const float *)part, n, slices, c, slices, s);
}

Status cuda_add_channel_fwd(void *y, const void *x, const void *v, size_t n, size_t hw, int c,
                            Dtype type, Stream *s)
{
    return type == DTYPE_BF16
               ? add_channel((bf16 *)y, (const bf16 *)x, (const bf16 *)v, n, hw, c, s)
               : add_channel((float *)y, (const float *)x, (const float *)v, n, hw, c, s);
}

Status cuda_add_channel_dv(void *dv, const void *dy, size_t n, size_t hw, int c, Dtype type,
                           Stream *s)
{
    return type == DTYPE_BF16 ? add_channel_dv((bf16 *)dv, (const bf16 *)dy, n, hw, c, s)
                              : add_channel_dv((float *)dv, (const float *)dy, n, hw, c, s);
}
