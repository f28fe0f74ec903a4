/* sweep.cuh - one pass over arrays of equal size: the kernel behind most elementwise launchers.
 *
 * A launcher gives a struct F of its scalars with
 *     void begin(size_t sample)                          once a thread: reads what a sample needs
 *     void operator()(float *y, const float *x, size_t i)  results from the inputs' element i
 * sweep() loads each input and stores each result once, in packs of 16 bytes. In place is allowed.
 * Where samples are no whole number of packs, or an input begins between packs, one by one.
 */
#pragma once
#include "device.cuh"

template <class T, int OUT, int IN> struct Arrays {
    T *y[OUT];
    const T *x[IN];
    size_t skip[IN]; /* elements to the next sample's: `per`, or 0 where samples share it */
};

template <int V, class F, class T, int OUT, int IN>
DEVICE void sweep_pack(const Arrays<T, OUT, IN> &a, F &f, size_t sample, size_t per, size_t i)
{
    Pack<T, V> x[IN], y[OUT];
#pragma unroll
    for (int k = 0; k < IN; k++) x[k] = *(const Pack<T, V> *)(a.x[k] + sample * a.skip[k] + i);
#pragma unroll
    for (int v = 0; v < V; v++) {
        float in[IN], out[OUT];
#pragma unroll
        for (int k = 0; k < IN; k++) in[k] = to_float(x[k].v[v]);
        f(out, in, i + v);
#pragma unroll
        for (int k = 0; k < OUT; k++) y[k].v[v] = from_float<T>(out[k]);
    }
#pragma unroll
    for (int k = 0; k < OUT; k++) *(Pack<T, V> *)(a.y[k] + sample * per + i) = y[k];
}

template <int V, class F, class T, int OUT, int IN>
static __global__ void __launch_bounds__(256) sweep_kernel(Arrays<T, OUT, IN> a, F f, size_t per)
{
    size_t packs = per / V, step = (size_t)gridDim.x * 256, sample = blockIdx.y;
    size_t first = blockIdx.x * (size_t)256 + threadIdx.x;
    f.begin(sample);
    for (size_t i = first; i < packs; i += step) sweep_pack<V>(a, f, sample, per, i * V);
    if (packs * V + first < per) sweep_pack<1>(a, f, sample, per, packs * V + first);
}

template <class T, class F, int OUT, int IN>
static Status sweep_as(const char *name, F f, void *const (&y)[OUT], const void *const (&x)[IN],
                       unsigned shared, size_t n, size_t per, Stream *s)
{
    const int V = Wide<T>::N;
    Arrays<T, OUT, IN> a = {};
    for (int k = 0; k < OUT; k++) a.y[k] = (T *)y[k];
    bool wide = n == 1 || per % V == 0;
    for (int k = 0; k < IN; k++) {
        a.x[k] = (const T *)x[k];
        a.skip[k] = shared >> k & 1 ? 0 : per;
        wide = wide && (uintptr_t)x[k] % 16 == 0;
    }
    if (n > 65535) return FAIL(ERR_BUG, "%s: %zu samples, expected at most 65535", name, n);
    dim3 grid(sweep_blocks(wide ? per / V : per, 256), (unsigned)n);
    if (wide) sweep_kernel<V><<<grid, 256, 0, s->handle>>>(a, f, per);
    else sweep_kernel<1><<<grid, 256, 0, s->handle>>>(a, f, per);
    return launched(name);
}

/* Results y[..][n, per] from x[..][n, per], all stored as `type`; bit k of `shared`: input k is
 * [per], the same for each sample. */
template <class F, int OUT, int IN>
static Status sweep(const char *name, F f, void *const (&y)[OUT], const void *const (&x)[IN],
                    unsigned shared, size_t n, size_t per, Dtype type, Stream *s)
{
    return type == DTYPE_BF16 ? sweep_as<bf16>(name, f, y, x, shared, n, per, s)
                              : sweep_as<float>(name, f, y, x, shared, n, per, s);
}

/* The same over elements without samples. */
template <class F, int OUT, int IN>
static Status sweep(const char *name, F f, void *const (&y)[OUT], const void *const (&x)[IN],
                    size_t count, Dtype type, Stream *s)
{
    return sweep(name, f, y, x, 0, 1, count, type, s);
}
