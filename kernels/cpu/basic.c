/* basic.c - fill and add: one pass each. */
#include "cpu.h"
#include "kernels_point.h"

SIMD Status cpu_fill(float *y, float value, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd
    for (size_t i = 0; i < count; i++) y[i] = value;
    return OK;
}

SIMD Status cpu_add(float *y, const float *a, const float *b, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd
    for (size_t i = 0; i < count; i++) y[i] = a[i] + b[i];
    return OK;
}
