/* sums.cuh - sums in double over a block, and the losses' sums over samples.
 *
 * error_sum(): loss = sum over i of weight[i] * (sum over the per elements of a sample of E), over
 * a divisor. Blocks of 4096 elements to a double each in scratch, then one block over those: two
 * launches, the order fixed by the shape.
 */
#pragma once
#include "device.cuh"

static const int ERROR_BLOCK = 4096; /* elements of one partial sum */

/* E: double of(float a, float b). part[n, blocks]. */
template <class E, class T, int V>
static __global__ void __launch_bounds__(256)
    error_part_kernel(double *part, const T *a, const T *b, size_t per)
{
    size_t sample = blockIdx.y, begin = blockIdx.x * (size_t)ERROR_BLOCK;
    double sum = 0;
    a += sample * per;
    b += sample * per;
#pragma unroll 4
    for (int k = 0; k < ERROR_BLOCK; k += 256 * V) {
        size_t i = begin + k + threadIdx.x * V;
        if (i >= per) break;
        Pack<T, V> p = *(const Pack<T, V> *)(a + i), q = *(const Pack<T, V> *)(b + i);
#pragma unroll
        for (int v = 0; v < V; v++) sum += E::of(to_float(p.v[v]), to_float(q.v[v]));
    }
    sum = block_sum<256>(sum);
    if (threadIdx.x == 0) part[sample * gridDim.x + blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(256)
    error_sum_kernel(float *loss, const double *part, const float *weight, size_t n, size_t blocks,
                     double divisor)
{
    double sum = 0;
    for (size_t k = threadIdx.x; k < n * blocks; k += 256) sum += weight[k / blocks] * part[k];
    sum = block_sum<256>(sum);
    if (threadIdx.x == 0) *loss = (float)(sum / divisor);
}

template <class E, class T>
static Status error_sum_as(float *loss, const T *a, const T *b, const float *weight, int n,
                           size_t per, double divisor, Stream *s)
{
    const int V = Wide<T>::N;
    size_t blocks = (per + ERROR_BLOCK - 1) / ERROR_BLOCK, all = blocks * (size_t)n;
    if (n > 65535) return FAIL(ERR_BUG, "%d samples, expected at most 65535", n);
    double *part = (double *)stream_scratch(s, all * sizeof *part);
    if (!part) return FAIL(ERR_SPACE, "no memory for %zu partial sums", all);
    dim3 grid((unsigned)blocks, (unsigned)n);
    if (per % V == 0) error_part_kernel<E, T, V><<<grid, 256, 0, s->handle>>>(part, a, b, per);
    else error_part_kernel<E, T, 1><<<grid, 256, 0, s->handle>>>(part, a, b, per);
    TRY(launched("loss"));
    error_sum_kernel<<<1, 256, 0, s->handle>>>(loss, part, weight, (size_t)n, blocks, divisor);
    return launched("loss");
}

template <class E>
static Status error_sum(float *loss, const void *a, const void *b, const float *weight, int n,
                        size_t per, double divisor, Dtype type, Stream *s)
{
    return type == DTYPE_BF16
               ? error_sum_as<E>(loss, (const bf16 *)a, (const bf16 *)b, weight, n, per, divisor, s)
               : error_sum_as<E>(loss, (const float *)a, (const float *)b, weight, n, per, divisor,
                                 s);
}
