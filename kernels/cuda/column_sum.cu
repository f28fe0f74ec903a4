/* column_sum.cu - the sum over rows: a bias's gradient.
 *
 * Slices of rows, at most 256, each to a row of scratch; then the same kernel over those. Bound by
 * memory: reads x once.
 */
#include "device.cuh"
#include "kernels_matrix.h"

/* Block (x, y): columns 32 V x .., rows of slice y. Eight rows at a time, then over the eight. */
template <class T, int V>
static __global__ void __launch_bounds__(256)
    column_sum_kernel(float *sum, const T *x, size_t rows, int n, size_t slice)
{
    int lane = threadIdx.x % 32, row = threadIdx.x / 32, column = (blockIdx.x * 32 + lane) * V;
    size_t begin = blockIdx.y * slice, end = begin + slice < rows ? begin + slice : rows;
    float v[V] = {};
    if (column < n)
        for (size_t i = begin + row; i < end; i += 8) {
            Pack<T, V> p = *(const Pack<T, V> *)&x[i * n + column];
#pragma unroll
            for (int k = 0; k < V; k++) v[k] += to_float(p.v[k]);
        }
    sum_of_warps<V>(v, [&](int channel, float total) {
        int to = blockIdx.x * 32 * V + channel;
        if (to < n) sum[(size_t)blockIdx.y * n + to] = total;
    });
}

template <class T>
static Status column_sum(float *sum, const T *x, size_t rows, int n, size_t slice, Stream *s)
{
    const int V = Wide<T>::N;
    int wide = n % V == 0 ? V : 1;
    dim3 grid((unsigned)((n + 32 * wide - 1) / (32 * wide)),
              (unsigned)((rows + slice - 1) / slice));
    if (wide > 1) column_sum_kernel<T, V><<<grid, 256, 0, s->handle>>>(sum, x, rows, n, slice);
    else column_sum_kernel<T, 1><<<grid, 256, 0, s->handle>>>(sum, x, rows, n, slice);
    return launched("column_sum");
}

Status cuda_column_sum(float *sum, const void *x, size_t rows, int n, Dtype type, Stream *s)
{
    size_t slice = rows / 256 < 256 ? 256 : (rows + 255) / 256, slices = (rows + slice - 1) / slice;
    float *part = sum;
    if (slices > 1) part = (float *)stream_scratch(s, slices * (size_t)n * sizeof(float));
    if (!part) return FAIL(ERR_SPACE, "no memory for a sum of columns");
    TRY(type == DTYPE_BF16 ? column_sum(part, (const bf16 *)x, rows, n, slice, s)
                           : column_sum(part, (const float *)x, rows, n, slice, s));
    return slices > 1 ? column_sum(sum, (const float *)part, slices, n, slices, s) : OK;
}
