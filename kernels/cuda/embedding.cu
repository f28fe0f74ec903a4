/* embedding.cu - rows of a table by number, and the gradient of the table.
 *
 * Forward: a warp copies a row; bound by memory, 2 values an element. Backward: zeros to the table,
 * which is what bounds it, then a block for each position and 32 packs of columns; the first
 * position of an id sums all of its rows: each of 8 warps those of its own groups of 32 positions
 * in order, then the 8 in order. Reads count ids a block (they stay in the caches), dy once.
 */
#include "device.cuh"
#include "kernels_point.h"
#include "kernels_shape.h"

template <class T, int V>
static __global__ void __launch_bounds__(256)
    embedding_kernel(T *y, const int32_t *ids, const T *table, size_t count, int rows, int d)
{
    size_t i = blockIdx.x * (size_t)8 + threadIdx.x / 32;
    if (i >= count) return;
    int id = ids[i];
    bool known = id >= 0 && id < rows;
    const T *from = table + (known ? (size_t)id * d : 0);
    for (int k = threadIdx.x % 32 * V; k < d; k += 32 * V) {
        Pack<T, V> p;
        if (known) p = *(const Pack<T, V> *)(from + k);
        else
#pragma unroll
            for (int e = 0; e < V; e++) p.v[e] = from_float<T>(0);
        *(Pack<T, V> *)(y + i * d + k) = p;
    }
}

template <class T, int V> DEVICE void add_row(float *sum, const T *dy, size_t position, int d)
{
    Pack<T, V> p = *(const Pack<T, V> *)(dy + position * d);
#pragma unroll
    for (int e = 0; e < V; e++) sum[e] += to_float(p.v[e]);
}

template <class T, int V>
static __global__ void __launch_bounds__(256)
    embedding_dw_kernel(float *dtable, const int32_t *ids, const T *dy, size_t count, int rows,
                        int d)
{
    __shared__ int before[8];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = (blockIdx.y * 32 + lane) * V;
    size_t i = blockIdx.x, own = i / 32 * 32; /* groups of 32 positions; own is this one's first */
    int id = ids[i];
    if (id < 0 || id >= rows) return;

    bool seen = false;
    for (size_t j = warp * 32 + lane; j < i; j += 256) seen = seen || ids[j] == id;
    seen = __any_sync(~0u, seen);
    if (lane == 0) before[warp] = seen;
    __syncthreads();
    for (int w = 0; w < 8; w++)
        if (before[w]) return;

    float sum[V] = {};
    for (size_t from = own + warp * 32; from < count; from += 256) {
        bool same = from + lane < count && ids[from + lane] == id;
        unsigned mask = __ballot_sync(~0u, same);
        if (column >= d) continue;
        if (mask == ~0u) { /* padding: the reads of many rows at once */
#pragma unroll 8
            for (int k = 0; k < 32; k++) add_row<T, V>(sum, dy + column, from + k, d);
        } else
            for (; mask; mask &= mask - 1)
                add_row<T, V>(sum, dy + column, from + __clz((int)__brev(mask)), d);
    }
    sum_of_warps<V>(sum, [&](int channel, float total) {
        int to = blockIdx.y * 32 * V + channel;
        if (to < d) dtable[(size_t)id * d + to] = total;
    });
}

template <class T>
static Status embedding(T *y, const int32_t *ids, const T *table, size_t count, int rows, int d,
                        Stream *s)
{
    const int V = Wide<T>::N;
    unsigned blocks = (unsigned)((count + 7) / 8);
    if (d % V == 0)
        embedding_kernel<T, V><<<blocks, 256, 0, s->handle>>>(y, ids, table, count, rows, d);
    else embedding_kernel<T, 1><<<blocks, 256, 0, s->handle>>>(y, ids, table, count, rows, d);
    return launched("embedding");
}

template <class T>
static Status embedding_dw(float *dtable, const int32_t *ids, const T *dy, size_t count, int rows,
                           int d, Stream *s)
{
    int wide = d % 4 == 0 ? 4 : 1;
    dim3 grid((unsigned)count, (unsigned)((d + 32 * wide - 1) / (32 * wide)));
    if (wide > 1)
        embedding_dw_kernel<T, 4><<<grid, 256, 0, s->handle>>>(dtable, ids, dy, count, rows, d);
    else embedding_dw_kernel<T, 1><<<grid, 256, 0, s->handle>>>(dtable, ids, dy, count, rows, d);
    return launched("embedding_dw");
}

Status cuda_embedding_fwd(void *y, const int32_t *ids, const void *table, size_t count, int rows,
                          int d, Dtype type, Stream *s)
{
    return type == DTYPE_BF16 ? embedding((bf16 *)y, ids, (const bf16 *)table, count, rows, d, s)
                              : embedding((float *)y, ids, (const float *)table, count, rows, d, s);
}

Status cuda_embedding_dw(float *dtable, const int32_t *ids, const void *dy, size_t count, int rows,
                         int d, Dtype type, Stream *s)
{
    TRY(cuda_fill(dtable, 0, (size_t)rows * (size_t)d, DTYPE_F32, s));
    return type == DTYPE_BF16 ? embedding_dw(dtable, ids, (const bf16 *)dy, count, rows, d, s)
                              : embedding_dw(dtable, ids, (const float *)dy, count, rows, d, s);
}
