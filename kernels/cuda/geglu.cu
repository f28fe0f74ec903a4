/* geglu.cu - x[rows, 2d] = value, gate -> value * gelu(gate); backward reads x again.
 *
 * A warp takes a row, its lanes the columns in packs of 16 bytes. Bytes: 3 values a result forward,
 * 5 backward. Bound by memory: 0.9 of the copy rate is what to expect.
 */
#include "device.cuh"
#include "kernels_point.h"

static const int WARPS = 8, MOST_BLOCKS = 8192;

template <class T, int V>
static __global__ void __launch_bounds__(32 * WARPS)
    geglu_kernel(T *y, const T *x, size_t rows, int d)
{
    size_t row = blockIdx.x * (size_t)WARPS + threadIdx.x / 32, step = (size_t)gridDim.x * WARPS;
    for (; row < rows; row += step)
        for (int k = threadIdx.x % 32 * V; k < d; k += 32 * V) {
            const T *from = x + row * 2 * d + k;
            Pack<T, V> value = *(const Pack<T, V> *)from, gate = *(const Pack<T, V> *)(from + d);
#pragma unroll
            for (int i = 0; i < V; i++) {
                float g = to_float(gate.v[i]);
                value.v[i] = from_float<T>(to_float(value.v[i]) * (g * normcdff(g)));
            }
            *(Pack<T, V> *)(y + row * d + k) = value;
        }
}

template <class T, int V>
static __global__ void __launch_bounds__(32 * WARPS)
    geglu_dx_kernel(T *dx, const T *x, const T *dy, size_t rows, int d)
{
    size_t row = blockIdx.x * (size_t)WARPS + threadIdx.x / 32, step = (size_t)gridDim.x * WARPS;
    for (; row < rows; row += step)
        for (int k = threadIdx.x % 32 * V; k < d; k += 32 * V) {
            const T *from = x + row * 2 * d + k;
            Pack<T, V> value = *(const Pack<T, V> *)from, gate = *(const Pack<T, V> *)(from + d);
            Pack<T, V> slope = *(const Pack<T, V> *)(dy + row * d + k);
#pragma unroll
            for (int i = 0; i < V; i++) {
                float g = to_float(gate.v[i]), below = normcdff(g), dz = to_float(slope.v[i]);
                float density = 0.398942280f * expf(-0.5f * g * g);
                gate.v[i] = from_float<T>(dz * to_float(value.v[i]) * (g * density + below));
                value.v[i] = from_float<T>(dz * (g * below));
            }
            *(Pack<T, V> *)(dx + row * 2 * d + k) = value;
            *(Pack<T, V> *)(dx + row * 2 * d + d + k) = gate;
        }
}

template <class T> static Status geglu(T *y, const T *x, size_t rows, int d, Stream *s)
{
    const int V = Wide<T>::N;
    size_t blocks = (rows + WARPS - 1) / WARPS;
    unsigned grid = (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS);
    if (d % V == 0) geglu_kernel<T, V><<<grid, 32 * WARPS, 0, s->handle>>>(y, x, rows, d);
    else geglu_kernel<T, 1><<<grid, 32 * WARPS, 0, s->handle>>>(y, x, rows, d);
    return launched("geglu");
}

template <class T>
static Status geglu_dx(T *dx, const T *x, const T *dy, size_t rows, int d, Stream *s)
{
    const int V = Wide<T>::N;
    size_t blocks = (rows + WARPS - 1) / WARPS;
    unsigned grid = (unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS);
    if (d % V == 0) geglu_dx_kernel<T, V><<<grid, 32 * WARPS, 0, s->handle>>>(dx, x, dy, rows, d);
    else geglu_dx_kernel<T, 1><<<grid, 32 * WARPS, 0, s->handle>>>(dx, x, dy, rows, d);
    return launched("geglu_dx");
}

Status cuda_geglu_fwd(void *y, const void *x, size_t rows, int d, Dtype type, Stream *s)
{
    return type == DTYPE_BF16 ? geglu((bf16 *)y, (const bf16 *)x, rows, d, s)
                              : geglu((float *)y, (const float *)x, rows, d, s);
}

Status cuda_geglu_dx(void *dx, const void *x, const void *dy, size_t rows, int d, Dtype type,
                     Stream *s)
{
    return type == DTYPE_BF16
               ? geglu_dx((bf16 *)dx, (const bf16 *)x, (const bf16 *)dy, rows, d, s)
               : geglu_dx((float *)dx, (const float *)x, (const float *)dy, rows, d, s);
}
