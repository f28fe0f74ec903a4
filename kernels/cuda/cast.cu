/* cast.cu - the same values stored as another type.
 *
 * One pass, four elements a thread at a time: 6 bytes an element between fp32 and bf16. Bound by
 * memory: 0.9 of the copy rate is what to expect.
 */
#include "device.cuh"
#include "kernels_point.h"

static const int THREADS = 256, WIDTH = 4;

template <class To, class From>
static __global__ void cast_kernel(To *y, const From *x, size_t count)
{
    size_t packs = count / WIDTH, step = (size_t)gridDim.x * THREADS;
    size_t first = blockIdx.x * (size_t)THREADS + threadIdx.x;
    for (size_t i = first; i < packs; i += step) {
        Pack<From, WIDTH> p = ((const Pack<From, WIDTH> *)x)[i];
        Pack<To, WIDTH> q;
#pragma unroll
        for (int k = 0; k < WIDTH; k++) q.v[k] = from_float<To>(to_float(p.v[k]));
        ((Pack<To, WIDTH> *)y)[i] = q;
    }
    size_t i = packs * WIDTH + first;
    if (i < count) y[i] = from_float<To>(to_float(x[i]));
}

template <class To, class From> static Status cast(void *y, const void *x, size_t count, Stream *s)
{
    unsigned blocks = sweep_blocks(count / WIDTH, THREADS);
    cast_kernel<To, From><<<blocks, THREADS, 0, s->handle>>>((To *)y, (const From *)x, count);
    return launched("cast");
}

Status cuda_cast(void *y, Dtype to, const void *x, Dtype from, size_t count, Stream *s)
{
    bool wide = to == DTYPE_F32, from_wide = from == DTYPE_F32;
    if (wide && from_wide) return cast<float, float>(y, x, count, s);
    if (wide) return cast<float, bf16>(y, x, count, s);
    return from_wide ? cast<bf16, float>(y, x, count, s) : cast<bf16, bf16>(y, x, count, s);
}
