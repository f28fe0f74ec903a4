/* unary.cu - functions of one element and their derivatives; formulas in kernels/cpu/unary.c.
 *
 * One pass in packs of 16 bytes: count * 2 values move forward, count * 3 backward. Bound by
 * memory: 0.9 of the copy rate is what to expect.
 */
#include "device.cuh"
#include "kernels_point.h"

static const int THREADS = 256; /* more than the longest tail: one element a thread there */

DEVICE float logistic(float x) { return 1 / (1 + expf(-x)); }

/* Each function: y from x, and the slope from what its backward pass keeps. */
struct Silu {
    static DEVICE float value(float x) { return x / (1 + expf(-x)); }
    static DEVICE float slope(float x)
    {
        float l = logistic(x);
        return l * (x * (1 - l) + 1);
    }
};
struct Gelu {
    static DEVICE float value(float x) { return x * normcdff(x); }
    static DEVICE float slope(float x)
    {
        return normcdff(x) + x * 0.398942280f * expf(-0.5f * x * x);
    }
};
struct QuickGelu {
    static DEVICE float value(float x) { return x / (1 + expf(-1.702f * x)); }
    static DEVICE float slope(float x)
    {
        float l = logistic(1.702f * x);
        return l * (1.702f * x * (1 - l) + 1);
    }
};
/* tanh(ln(1 + e)) = w / (w + 2) with w = e (e + 2); 1 in fp32 from x = 20 on. */
struct Mish {
    static DEVICE float value(float x)
    {
        float e = expf(fminf(x, 20.f)), w = e * (e + 2);
        return x * (w / (w + 2));
    }
    static DEVICE float slope(float x)
    {
        float e = expf(fminf(x, 20.f)), w = e * (e + 2), r = 1 / (w + 2);
        return w * r + x * (4 * e * r) * ((e + 1) * r);
    }
};
struct Relu { /* NaN passes, both ways */
    static DEVICE float value(float x) { return x < 0 ? 0 : x; }
    static DEVICE float slope(float y) { return y > 0 ? 1 : 0; }
};
struct SoftClamp {
    static DEVICE float value(float x) { return 3 * tanhf(x * (1 / 3.f)); }
    static DEVICE float slope(float y) { return 1 - y * y * (1 / 9.f); }
};

template <class F, class T> static __global__ void value_kernel(T *y, const T *x, size_t count)
{
    const int V = Wide<T>::N;
    size_t packs = count / V, step = (size_t)gridDim.x * THREADS;
    size_t first = blockIdx.x * (size_t)THREADS + threadIdx.x;
    for (size_t i = first; i < packs; i += step) {
        Pack<T, V> p = ((const Pack<T, V> *)x)[i];
#pragma unroll
        for (int k = 0; k < V; k++) p.v[k] = from_float<T>(F::value(to_float(p.v[k])));
        ((Pack<T, V> *)y)[i] = p;
    }
    size_t i = packs * V + first;
    if (i < count) y[i] = from_float<T>(F::value(to_float(x[i])));
}

/* dx = dy * slope(kept); kept is x or y, whichever the op keeps */
template <class F, class T>
static __global__ void slope_kernel(T *dx, const T *kept, const T *dy, size_t count)
{
    const int V = Wide<T>::N;
    size_t packs = count / V, step = (size_t)gridDim.x * THREADS;
    size_t first = blockIdx.x * (size_t)THREADS + threadIdx.x;
    for (size_t i = first; i < packs; i += step) {
        Pack<T, V> p = ((const Pack<T, V> *)kept)[i], d = ((const Pack<T, V> *)dy)[i];
#pragma unroll
        for (int k = 0; k < V; k++)
            d.v[k] = from_float<T>(to_float(d.v[k]) * F::slope(to_float(p.v[k])));
        ((Pack<T, V> *)dx)[i] = d;
    }
    size_t i = packs * V + first;
    if (i < count) dx[i] = from_float<T>(to_float(dy[i]) * F::slope(to_float(kept[i])));
}

template <class F, class T> static Status value(void *y, const void *x, size_t count, Stream *s)
{
    unsigned blocks = sweep_blocks(count / Wide<T>::N, THREADS);
    value_kernel<F, T><<<blocks, THREADS, 0, s->handle>>>((T *)y, (const T *)x, count);
    return launched("unary");
}

template <class F, class T>
static Status slope(void *dx, const void *kept, const void *dy, size_t count, Stream *s)
{
    unsigned blocks = sweep_blocks(count / Wide<T>::N, THREADS);
    slope_kernel<F, T>
        <<<blocks, THREADS, 0, s->handle>>>((T *)dx, (const T *)kept, (const T *)dy, count);
    return launched("unary_dx");
}

#define LAUNCHERS(name, F)                                                                         \
    Status cuda_##name##_fwd(void *y, const void *x, size_t count, Dtype type, Stream *s)          \
    {                                                                                              \
        return type == DTYPE_BF16 ? value<F, bf16>(y, x, count, s)                                 \
                                  : value<F, float>(y, x, count, s);                               \
    }                                                                                              \
    Status cuda_##name##_dx(void *dx, const void *kept, const void *dy, size_t count, Dtype type,  \
                            Stream *s)                                                             \
    {                                                                                              \
        return type == DTYPE_BF16 ? slope<F, bf16>(dx, kept, dy, count, s)                         \
                                  : slope<F, float>(dx, kept, dy, count, s);                       \
    }
LAUNCHERS(silu, Silu)
LAUNCHERS(gelu, Gelu)
LAUNCHERS(quick_gelu, QuickGelu)
LAUNCHERS(mish, Mish)
LAUNCHERS(relu, Relu)
LAUNCHERS(soft_clamp, SoftClamp)
