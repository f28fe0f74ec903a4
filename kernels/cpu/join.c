/* join.c - concatenation along the last dimension, its slices, and nearest upsampling: copies. */
#include "cpu.h"
#include "kernels_shape.h"
#include <string.h>

enum { MAX_PARTS = 6 };

Status cpu_concat(float *y, const float *const *x, const int *c, int n, size_t rows, Stream *s)
{
    (void)s;
    if (n < 1 || n > MAX_PARTS)
        return FAIL(ERR_BUG, "concat: %d parts, expected 1 to %d", n, MAX_PARTS);
    size_t width = 0;
    for (int k = 0; k < n; k++) width += (size_t)c[k];
#pragma omp parallel for
    for (size_t row = 0; row < rows; row++) {
        float *to = y + row * width;
        for (int k = 0; k < n; k++) {
            memcpy(to, x[k] + row * (size_t)c[k], (size_t)c[k] * sizeof *to);
            to += c[k];
        }
    }
    return OK;
}

Status cpu_slice(float *y, const float *x, size_t rows, int c, int from, int count, Stream *s)
{
    (void)s;
#pragma omp parallel for
    for (size_t row = 0; row < rows; row++)
        memcpy(y + row * (size_t)count, x + row * (size_t)c + from, (size_t)count * sizeof *y);
    return OK;
}

Status cpu_pad(float *y, const float *x, size_t rows, int c, int from, int count, Stream *s)
{
    (void)s;
#pragma omp parallel for
    for (size_t row = 0; row < rows; row++) {
        float *to = y + row * (size_t)c;
        memset(to, 0, (size_t)from * sizeof *to);
        memcpy(to + from, x + row * (size_t)count, (size_t)count * sizeof *to);
        memset(to + from + count, 0, (size_t)(c - from - count) * sizeof *to);
    }
    return OK;
}

Status cpu_upsample2_fwd(float *y, const float *x, int n, int h, int w, int c, Stream *s)
{
    (void)s;
    size_t pixel = (size_t)c * sizeof *y, width = (size_t)w * (size_t)c;
#pragma omp parallel for
    for (size_t row = 0; row < (size_t)n * (size_t)h; row++) {
        float *to = y + row * 4 * width; /* two rows of twice the width */
        for (size_t q = 0; q < (size_t)w; q++) {
            memcpy(to + 2 * q * (size_t)c, x + row * width + q * (size_t)c, pixel);
            memcpy(to + (2 * q + 1) * (size_t)c, x + row * width + q * (size_t)c, pixel);
        }
        memcpy(to + 2 * width, to, 2 * width * sizeof *y);
    }
    return OK;
}

SIMD Status cpu_upsample2_dx(float *dx, const float *dy, int n, int h, int w, int c, Stream *s)
{
    (void)s;
    size_t width = (size_t)w * (size_t)c;
#pragma omp parallel for
    for (size_t row = 0; row < (size_t)n * (size_t)h; row++)
        for (size_t q = 0; q < (size_t)w; q++) {
            const float *top = dy + row * 4 * width + 2 * q * (size_t)c, *low = top + 2 * width;
            float *to = dx + row * width + q * (size_t)c;
#pragma omp simd
            for (int k = 0; k < c; k++) to[k] = (top[k] + top[k + c]) + (low[k] + low[k + c]);
        }
    return OK;
}
