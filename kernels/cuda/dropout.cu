/* dropout.cu - y = x / (1 - rate) where kept, else 0; the mask as in kernels/cpu/dropout.c, bit for
 * bit, drawn again by the gradient.
 *
 * A thread takes a pack of 16 bytes: one draw (about 60 instructions) gives four elements. Bytes:
 * 2 values an element; in bf16 the draws and the memory take about as long.
 */
#include "kernels_point.h"
#include "random.cuh"

/* V elements, a multiple of 4; PACKED: per is a multiple of V, so packs are aligned. */
template <class T, int V, bool PACKED>
static __global__ void __launch_bounds__(256)
    dropout_kernel(T *y, const T *x, const int32_t *rng, size_t per, uint32_t threshold,
                   float scale, uint32_t stream, uint32_t element)
{
    size_t i = blockIdx.y, at = (blockIdx.x * (size_t)256 + threadIdx.x) * V;
    uint32_t seed = (uint32_t)rng[0], step = (uint32_t)rng[1];
    uint64_t sample = (uint64_t)(uint32_t)rng[2] + i;
    if (at >= per) return;
    const T *from = x + i * per + at;
    T *to = y + i * per + at;
    Pack<T, V> p;
    if (PACKED) p = *(const Pack<T, V> *)from;
    else
#pragma unroll
        for (int k = 0; k < V; k++) p.v[k] = at + k < per ? from[k] : from_float<T>(0);
#pragma unroll
    for (int k = 0; k < V; k += 4) {
        Draw draw = philox(seed, stream, step, sample, element / 4 + (uint32_t)((at + k) / 4));
#pragma unroll
        for (int e = 0; e < 4; e++)
            p.v[k + e] =
                from_float<T>(draw.word[e] >= threshold ? to_float(p.v[k + e]) * scale : 0);
    }
    if (PACKED) *(Pack<T, V> *)to = p;
    else
#pragma unroll
        for (int k = 0; k < V; k++)
            if (at + k < per) to[k] = p.v[k];
}

template <class T>
static Status dropout(T *y, const T *x, const int32_t *rng, size_t n, size_t per, float rate,
                      uint32_t stream, uint32_t element, Stream *s)
{
    const int V = Wide<T>::N;
    double bound = rate * 0x1p32; /* exact; word * 2^-32 >= rate where word >= bound, rounded up */
    uint32_t threshold = (uint32_t)bound + (bound > (uint32_t)bound);
    dim3 grid((unsigned)((per + 256 * V - 1) / (256 * V)), (unsigned)n);
    float scale = 1 / (1 - rate);
    if (per % V == 0)
        dropout_kernel<T, V, true>
            <<<grid, 256, 0, s->handle>>>(y, x, rng, per, threshold, scale, stream, element);
    else
        dropout_kernel<T, V, false>
            <<<grid, 256, 0, s->handle>>>(y, x, rng, per, threshold, scale, stream, element);
    return launched("dropout");
}

Status cuda_dropout_fwd(void *y, const void *x, const int32_t *rng, size_t n, size_t per_sample,
                        float rate, uint32_t stream, uint32_t element, Dtype type, Stream *s)
{
    if (element % 4) return FAIL(ERR_BUG, "first element %u, expected a multiple of 4", element);
    if (n > 65535) return FAIL(ERR_BUG, "dropout: %zu samples, expected at most 65535", n);
    return type == DTYPE_BF16
               ? dropout((bf16 *)y, (const bf16 *)x, rng, n, per_sample, rate, stream, element, s)
               : dropout((float *)y, (const float *)x, rng, n, per_sample, rate, stream, element,
                         s);
}
