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

/* Of `in` pixels the one that is nearest to pixel i of `out`. */
static int nearest(int i, int in, int out)
{
    int from = (int)((float)i * ((float)in / (float)out));
    return from < in ? from : in - 1;
}

/* The first of `out` pixels, from `at` on, whose nearest is `from` or a later one. */
static int first_of(int from, int at, int in, int out)
{
    while (at < out && nearest(at, in, out) < from) at++;
    return at;
}

Status cpu_upsample_fwd(float *y, const float *x, UpsampleShape a, Stream *s)
{
    (void)s;
    size_t c = (size_t)a.c, w = (size_t)a.w, q = (size_t)a.q;
#pragma omp parallel for collapse(2)
    for (int n = 0; n < a.n; n++)
        for (int i = 0; i < a.p; i++) {
            const float *row =
                x + ((size_t)n * (size_t)a.h + (size_t)nearest(i, a.h, a.p)) * w * c;
            float *to = y + ((size_t)n * (size_t)a.p + (size_t)i) * q * c;
            for (int j = 0; j < a.q; j++, to += c)
                memcpy(to, row + (size_t)nearest(j, a.w, a.q) * c, c * sizeof *to);
        }
    return OK;
}

/* to[c] = the sum of high x wide pixels whose rows lie `row` floats apart; 2 x 2 are nearly all. */
SIMD static void sum_pixels(float *to, const float *from, int high, int wide, int c, size_t row)
{
    if (high == 2 && wide == 2) {
        const float *low = from + row;
#pragma omp simd
        for (int k = 0; k < c; k++) to[k] = (from[k] + from[k + c]) + (low[k] + low[k + c]);
        return;
    }
    memset(to, 0, (size_t)c * sizeof *to);
    for (int i = 0; i < high; i++)
        for (int j = 0; j < wide; j++) {
            const float *pixel = from + (size_t)i * row + (size_t)j * (size_t)c;
#pragma omp simd
            for (int k = 0; k < c; k++) to[k] += pixel[k];
        }
}

Status cpu_upsample_dx(float *dx, const float *dy, UpsampleShape a, Stream *s)
{
    (void)s;
    size_t c = (size_t)a.c, w = (size_t)a.w, row = (size_t)a.q * c;
#pragma omp parallel for collapse(2)
    for (int n = 0; n < a.n; n++)
        for (int i = 0; i < a.h; i++) {
            int top = first_of(i, 0, a.h, a.p), end = first_of(i + 1, top, a.h, a.p);
            const float *from = dy + ((size_t)n * (size_t)a.p + (size_t)top) * row;
            float *to = dx + ((size_t)n * (size_t)a.h + (size_t)i) * w * c;
            for (int j = 0, left = 0, right; j < a.w; j++, left = right, to += c) {
                right = first_of(j + 1, left, a.w, a.q);
                sum_pixels(to, from + (size_t)left * c, end - top, right - left, a.c, row);
            }
        }
    return OK;
}
