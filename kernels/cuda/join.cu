/* join.cu - concatenation along the last dimension, its slices and their gradient: copies.
 *
 * All three put parts of rows side by side: columns of one of at most six sources, or zeros. A
 * thread moves a pack of 16 bytes where all widths allow it, else an element. Bound by memory:
 * y is written once, and what of x lies in it read once.
 */
#include "device.cuh"
#include "divide.cuh"
#include "kernels_shape.h"

static const int THREADS = 256;

enum { MAX_PARTS = 6 };

/* In packs: part k ends before column end[k] and comes from column `from[k]` of x[k][rows,
 * stride[k]]; x NULL: zeros. */
struct Parts {
    const void *x[MAX_PARTS];
    int end[MAX_PARTS], from[MAX_PARTS], stride[MAX_PARTS];
    int n;
};

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    join_kernel(T *y, Parts parts, uint32_t packs, Divide width)
{
    for (uint32_t i = blockIdx.x * THREADS + threadIdx.x; i < packs; i += gridDim.x * THREADS) {
        uint32_t row = width.quotient(i);
        int column = i - row * width.by, start = 0;
        const T *x = (const T *)parts.x[0];
        int stride = parts.stride[0], from = parts.from[0];
#pragma unroll
        for (int k = 1; k < MAX_PARTS; k++)
            if (k < parts.n && column >= parts.end[k - 1]) {
                x = (const T *)parts.x[k];
                stride = parts.stride[k];
                from = parts.from[k];
                start = parts.end[k - 1];
            }
        Pack<T, V> p;
#pragma unroll
        for (int k = 0; k < V; k++) p.v[k] = from_float<T>(0);
        if (x) p = ((const Pack<T, V> *)x)[(size_t)row * stride + (from + column - start)];
        ((Pack<T, V> *)y)[i] = p;
    }
}

template <class T, int V>
static Status launch(void *y, const Parts &parts, size_t rows, int width, Stream *s)
{
    size_t packs = rows * width;
    if (packs > DIVIDE_MOST) return FAIL(ERR_BUG, "join: more than 2^31 packs");
    join_kernel<T, V><<<sweep_blocks(packs, THREADS), THREADS, 0, s->handle>>>(
        (T *)y, parts, (uint32_t)packs, divide_by(width));
    return launched("join");
}

/* `parts` in elements */
static Status join(void *y, Parts parts, size_t rows, int width, Dtype type, Stream *s)
{
    int pack = 16 / (int)dtype_bytes(type), all = width;
    for (int k = 0; k < parts.n; k++) all |= parts.end[k] | parts.from[k] | parts.stride[k];
    if (all % pack) pack = 1;
    for (int k = 0; k < parts.n; k++) {
        parts.end[k] /= pack;
        parts.from[k] /= pack;
        parts.stride[k] /= pack;
    }
    if (type == DTYPE_BF16)
        return pack > 1 ? launch<bf16, 8>(y, parts, rows, width / 8, s)
                        : launch<bf16, 1>(y, parts, rows, width, s);
    return pack > 1 ? launch<float, 4>(y, parts, rows, width / 4, s)
                    : launch<float, 1>(y, parts, rows, width, s);
}

Status cuda_concat(void *y, const void *const *x, const int *c, int n, size_t rows, Dtype type,
                   Stream *s)
{
    Parts parts = {};
    int width = 0;
    if (n < 1 || n > MAX_PARTS)
        return FAIL(ERR_BUG, "concat: %d parts, expected 1 to %d", n, MAX_PARTS);
    parts.n = n;
    for (int k = 0; k < n; k++) {
        parts.x[k] = x[k];
        parts.stride[k] = c[k];
        parts.end[k] = width += c[k];
    }
    return join(y, parts, rows, width, type, s);
}

Status cuda_slice(void *y, const void *x, size_t rows, int c, int from, int count, Dtype type,
                  Stream *s)
{
    Parts parts = {{x}, {count}, {from}, {c}, 1};
    return join(y, parts, rows, count, type, s);
}

Status cuda_pad(void *y, const void *x, size_t rows, int c, int from, int count, Dtype type,
                Stream *s)
{
    Parts parts = {{NULL, x, NULL}, {from, from + count, c}, {0, 0, 0}, {0, count, 0}, 3};
    return join(y, parts, rows, c, type, s);
}
