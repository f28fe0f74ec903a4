/* unary.c - functions of one element and their derivatives: one pass each, bound by memory.
 *   silu x/(1+e^-x), gelu x*Phi(x), quick_gelu x/(1+e^-1.702x), mish x*tanh(ln(1+e^x)), relu,
 *   soft_clamp 3*tanh(x/3)
 */
#include "cpu.h"
#include "kernels_point.h"
#include "vector_math.h"

SIMD Status cpu_silu_fwd(float *y, const float *x, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) y[i] = x[i] / (1 + vm_exp(-x[i]));
    return OK;
}

SIMD Status cpu_silu_dx(float *dx, const float *x, const float *dy, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) {
        float l = vm_logistic(x[i]);
        dx[i] = dy[i] * (l * (x[i] * (1 - l) + 1));
    }
    return OK;
}

SIMD Status cpu_gelu_fwd(float *y, const float *x, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) {
        float density;
        y[i] = x[i] * vm_normal(x[i], &density);
    }
    return OK;
}

SIMD Status cpu_gelu_dx(float *dx, const float *x, const float *dy, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) {
        float density, below = vm_normal(x[i], &density);
        dx[i] = dy[i] * (x[i] * density + below);
    }
    return OK;
}

SIMD Status cpu_quick_gelu_fwd(float *y, const float *x, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) y[i] = x[i] / (1 + vm_exp(-1.702f * x[i]));
    return OK;
}

SIMD Status cpu_quick_gelu_dx(float *dx, const float *x, const float *dy, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) {
        float z = 1.702f * x[i], l = vm_logistic(z);
        dx[i] = dy[i] * (l * (z * (1 - l) + 1));
    }
    return OK;
}

/* tanh(ln(1 + e^x)) = w / (w + 2), w = e^x (e^x + 2); it is 1 to rounding from x = 20 on. */
SIMD Status cpu_mish_fwd(float *y, const float *x, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) {
        float e = vm_exp(x[i] < 20 ? x[i] : 20), w = e * (e + 2);
        y[i] = x[i] * (w / (w + 2));
    }
    return OK;
}

SIMD Status cpu_mish_dx(float *dx, const float *x, const float *dy, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) {
        float e = vm_exp(x[i] < 20 ? x[i] : 20), w = e * (e + 2), r = 1 / (w + 2);
        dx[i] = dy[i] * (w * r + x[i] * (4 * e * r) * ((e + 1) * r));
    }
    return OK;
}

/* x < 0 ? 0 : x, and not x > 0 ? x : 0, so that NaN passes. */
SIMD Status cpu_relu_fwd(float *y, const float *x, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) y[i] = x[i] < 0 ? 0 : x[i];
    return OK;
}

SIMD Status cpu_relu_dx(float *dx, const float *y, const float *dy, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) dx[i] = y[i] > 0 ? dy[i] : 0;
    return OK;
}

SIMD Status cpu_soft_clamp_fwd(float *y, const float *x, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) y[i] = 3 * vm_tanh(x[i] * (1 / 3.f));
    return OK;
}

SIMD Status cpu_soft_clamp_dx(float *dx, const float *y, const float *dy, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) dx[i] = dy[i] * (1 - y[i] * y[i] * (1 / 9.f));
    return OK;
}
