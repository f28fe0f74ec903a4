/* geglu.c - x[rows, 2d] = value, gate -> value * gelu(gate); backward reads x again. */
#include "cpu.h"
#include "kernels_point.h"
#include "vector_math.h"

SIMD Status cpu_geglu_fwd(float *y, const float *x, size_t rows, int d, Stream *s)
{
    (void)s;
    size_t width = (size_t)d;
#pragma omp parallel for if (rows * width >= PARALLEL_MIN)
    for (size_t r = 0; r < rows; r++) {
        const float *value = x + r * 2 * width, *gate = value + width;
#pragma omp simd
        for (size_t i = 0; i < width; i++) {
            float density;
            y[r * width + i] = value[i] * (gate[i] * vm_normal(gate[i], &density));
        }
    }
    return OK;
}

SIMD Status cpu_geglu_dx(float *dx, const float *x, const float *dy, size_t rows, int d, Stream *s)
{
    (void)s;
    size_t width = (size_t)d;
#pragma omp parallel for if (rows * width >= PARALLEL_MIN)
    for (size_t r = 0; r < rows; r++) {
        const float *value = x + r * 2 * width, *gate = value + width;
        float *dvalue = dx + r * 2 * width, *dgate = dvalue + width;
#pragma omp simd
        for (size_t i = 0; i < width; i++) {
            float density, below = vm_normal(gate[i], &density), slope = dy[r * width + i];
            dvalue[i] = slope * (gate[i] * below);
            dgate[i] = slope * value[i] * (gate[i] * density + below);
        }
    }
    return OK;
}
