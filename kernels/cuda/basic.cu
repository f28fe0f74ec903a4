/* basic.cu - fill, sums and multiples of tensors: one pass each.
 *
 * Bytes: count * 1 value (fill), 2 (scale_shift, channel_affine), 3 (add, add_scaled), add_rows
 * 2 and the rows once. Bound by memory: 0.9 of the copy rate is what to expect.
 */
#include "kernels_point.h"
#include "sweep.cuh"

/* Given y as its input: what is not used is not loaded. */
struct Fill {
    float value;
    DEVICE void begin(size_t) {}
    DEVICE void operator()(float *y, const float *, size_t) const { y[0] = value; }
};
struct Add {
    DEVICE void begin(size_t) {}
    DEVICE void operator()(float *y, const float *x, size_t) const { y[0] = x[0] + x[1]; }
};
struct AddScaled {
    float alpha, beta;
    DEVICE void begin(size_t) {}
    DEVICE void operator()(float *y, const float *x, size_t) const
    {
        y[0] = alpha * x[0] + beta * x[1];
    }
};
struct ScaleShift {
    float alpha, beta;
    DEVICE void begin(size_t) {}
    DEVICE void operator()(float *y, const float *x, size_t) const { y[0] = alpha * x[0] + beta; }
};

/* C is known to the compiler: no division, and i mod C of neighbours comes from registers. */
template <int C> struct ChannelAffine {
    float scale[C], shift[C];
    DEVICE void begin(size_t) {}
    DEVICE void operator()(float *y, const float *x, size_t i) const
    {
        int channel = (int)(i % C);
        float a = scale[0], b = shift[0];
#pragma unroll
        for (int k = 1; k < C; k++) {
            a = channel == k ? scale[k] : a;
            b = channel == k ? shift[k] : b;
        }
        y[0] = a * x[0] + b;
    }
};

Status cuda_fill(void *y, float value, size_t count, Dtype type, Stream *s)
{
    return sweep("fill", Fill{value}, {y}, {y}, count, type, s);
}

Status cuda_add(void *y, const void *a, const void *b, size_t count, Dtype type, Stream *s)
{
    return sweep("add", Add{}, {y}, {a, b}, count, type, s);
}

Status cuda_add_scaled_fwd(void *y, const void *a, float alpha, const void *b, float beta,
                           size_t count, Dtype type, Stream *s)
{
    return sweep("add_scaled", AddScaled{alpha, beta}, {y}, {a, b}, count, type, s);
}

Status cuda_scale_shift_fwd(void *y, const void *x, float alpha, float beta, size_t count,
                            Dtype type, Stream *s)
{
    return sweep("scale_shift", ScaleShift{alpha, beta}, {y}, {x}, count, type, s);
}

template <int C>
static Status channel_affine(void *y, const void *x, const float *scale, const float *shift,
                             size_t count, Dtype type, Stream *s)
{
    ChannelAffine<C> f;
    for (int k = 0; k < C; k++) {
        f.scale[k] = scale[k];
        f.shift[k] = shift[k];
    }
    return sweep("channel_affine", f, {y}, {x}, count, type, s);
}

Status cuda_channel_affine_fwd(void *y, const void *x, const float *scale, const float *shift,
                               size_t rows, int c, Dtype type, Stream *s)
{
    size_t count = rows * (size_t)c;
    switch (c) {
    case 1:
        return channel_affine<1>(y, x, scale, shift, count, type, s);
    case 2:
        return channel_affine<2>(y, x, scale, shift, count, type, s);
    case 3:
        return channel_affine<3>(y, x, scale, shift, count, type, s);
    case 4:
        return channel_affine<4>(y, x, scale, shift, count, type, s);
    default:
        return FAIL(ERR_BUG, "%d channels, expected 1 to 4", c);
    }
}

Status cuda_add_rows_fwd(void *y, const void *x, const void *p, size_t n, size_t count, Dtype type,
                         Stream *s)
{
    return sweep("add_rows", Add{}, {y}, {x, p}, 2, n, count, type, s);
}

/* A thread sums its columns over the samples, in order. */
template <class T, int V>
static __global__ void __launch_bounds__(128)
    add_rows_dp_kernel(float *dp, const T *dy, size_t n, size_t count, size_t total)
{
    size_t at = (blockIdx.x * (size_t)128 + threadIdx.x) * V;
    if (at >= total) return;
    double sum[V] = {};
    if (at < count)
        for (size_t i = 0; i < n; i++) {
            Pack<T, V> p = *(const Pack<T, V> *)(dy + i * count + at);
#pragma unroll
            for (int k = 0; k < V; k++) sum[k] += to_float(p.v[k]);
        }
    Pack<float, V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.v[k] = (float)sum[k];
    *(Pack<float, V> *)(dp + at) = out;
}

template <class T>
static Status add_rows_dp(float *dp, const T *dy, size_t n, size_t count, size_t total, Stream *s)
{
    int wide = count % 4 == 0 && total % 4 == 0 ? 4 : 1;
    unsigned blocks = (unsigned)((total / wide + 127) / 128);
    if (wide > 1) add_rows_dp_kernel<T, 4><<<blocks, 128, 0, s->handle>>>(dp, dy, n, count, total);
    else add_rows_dp_kernel<T, 1><<<blocks, 128, 0, s->handle>>>(dp, dy, n, count, total);
    return launched("add_rows_dp");
}

Status cuda_add_rows_dp(float *dp, const void *dy, size_t n, size_t count, size_t total, Dtype type,
                        Stream *s)
{
    return type == DTYPE_BF16 ? add_rows_dp(dp, (const bf16 *)dy, n, count, total, s)
                              : add_rows_dp(dp, (const float *)dy, n, count, total, s);
}
