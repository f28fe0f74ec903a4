/* pool.c - maximum and mean over windows, channels innermost so that the inner loop vectorises.
 *
 * Backward passes gather: each input pixel collects from the windows that hold it, in their order,
 * so there are no races and the sum does not depend on threads. Window p covers the rows
 * p*stride - pad .. p*stride - pad + size - 1; so row y lies in the windows
 * ceil((y + pad - size + 1) / stride) .. floor((y + pad) / stride), clipped to 0..p-1. */
#include "cpu.h"
#include "kernels_shape.h"
#include <string.h>

typedef struct { int first, end; } Span;

/* Rows (or columns) of an image of `extent` that window `at` holds. */
static inline Span window(PoolShape a, int at, int extent)
{
    int first = at * a.stride - a.pad, end = first + a.size;
    return (Span){first < 0 ? 0 : first, end > extent ? extent : end};
}

/* Windows, of `count`, that hold row (or column) `at`. */
static inline Span windows_of(PoolShape a, int at, int count)
{
    int low = at + a.pad - a.size + 1, end = (at + a.pad) / a.stride + 1;
    return (Span){low <= 0 ? 0 : (low + a.stride - 1) / a.stride, end > count ? count : end};
}

static Status check(PoolShape a)
{
    bool fits = a.size >= 1 && a.stride >= 1 && a.pad >= 0 && 2 * a.pad <= a.size &&
                (a.p - 1) * a.stride - a.pad < a.h && (a.q - 1) * a.stride - a.pad < a.w;
    return fits ? OK
                : FAIL(ERR_BUG, "pool: size %d, stride %d, padding %d do not fit %dx%d -> %dx%d",
                       a.size, a.stride, a.pad, a.h, a.w, a.p, a.q);
}

SIMD Status cpu_maxpool_fwd(float *y, int32_t *index, const float *x, PoolShape a, Stream *s)
{
    (void)s;
    TRY(check(a));
#pragma omp parallel for
    for (int row = 0; row < a.n * a.p; row++) {
        const float *plane = x + (size_t)(row / a.p) * (size_t)a.h * (size_t)a.w * (size_t)a.c;
        Span in_h = window(a, row % a.p, a.h);
        for (int q = 0; q < a.q; q++) {
            size_t at = ((size_t)row * (size_t)a.q + (size_t)q) * (size_t)a.c;
            float *best = y + at;
            int32_t *where = index + at;
            Span in_w = window(a, q, a.w);
            for (int h = in_h.first; h < in_h.end; h++)
                for (int w = in_w.first; w < in_w.end; w++) {
                    int32_t here = h * a.w + w;
                    const float *v = plane + (size_t)here * (size_t)a.c;
                    bool first = h == in_h.first && w == in_w.first;
#pragma omp simd
                    for (int c = 0; c < a.c; c++) {
                        bool take = first || v[c] > best[c] || v[c] != v[c];
                        best[c] = take ? v[c] : best[c];
                        where[c] = take ? here : where[c];
                    }
                }
        }
    }
    return OK;
}

SIMD Status cpu_maxpool_dx(float *dx, const float *dy, const int32_t *index, PoolShape a, Stream *s)
{
    (void)s;
    TRY(check(a));
#pragma omp parallel for
    for (int row = 0; row < a.n * a.h; row++) {
        Span in_p = windows_of(a, row % a.h, a.p);
        for (int w = 0; w < a.w; w++) {
            float *to = dx + ((size_t)row * (size_t)a.w + (size_t)w) * (size_t)a.c;
            int32_t here = row % a.h * a.w + w;
            Span in_q = windows_of(a, w, a.q);
            memset(to, 0, (size_t)a.c * sizeof *to);
            for (int p = in_p.first; p < in_p.end; p++)
                for (int q = in_q.first; q < in_q.end; q++) {
                    size_t at = (((size_t)(row / a.h) * (size_t)a.p + (size_t)p) * (size_t)a.q +
                                 (size_t)q) *
                                (size_t)a.c;
#pragma omp simd
                    for (int c = 0; c < a.c; c++)
                        to[c] += index[at + (size_t)c] == here ? dy[at + (size_t)c] : 0;
                }
        }
    }
    return OK;
}

SIMD Status cpu_avgpool_fwd(float *y, const float *x, PoolShape a, Stream *s)
{
    (void)s;
    TRY(check(a));
    float share = 1.0f / (float)(a.size * a.size);
#pragma omp parallel for
    for (int row = 0; row < a.n * a.p; row++) {
        const float *plane = x + (size_t)(row / a.p) * (size_t)a.h * (size_t)a.w * (size_t)a.c;
        Span in_h = window(a, row % a.p, a.h);
        for (int q = 0; q < a.q; q++) {
            float *to = y + ((size_t)row * (size_t)a.q + (size_t)q) * (size_t)a.c;
            Span in_w = window(a, q, a.w);
            memset(to, 0, (size_t)a.c * sizeof *to);
            for (int h = in_h.first; h < in_h.end; h++)
                for (int w = in_w.first; w < in_w.end; w++) {
                    const float *v = plane + ((size_t)h * (size_t)a.w + (size_t)w) * (size_t)a.c;
#pragma omp simd
                    for (int c = 0; c < a.c; c++) to[c] += v[c];
                }
#pragma omp simd
            for (int c = 0; c < a.c; c++) to[c] *= share;
        }
    }
    return OK;
}

SIMD Status cpu_avgpool_dx(float *dx, const float *dy, PoolShape a, Stream *s)
{
    (void)s;
    TRY(check(a));
    float share = 1.0f / (float)(a.size * a.size);
#pragma omp parallel for
    for (int row = 0; row < a.n * a.h; row++) {
        Span in_p = windows_of(a, row % a.h, a.p);
        for (int w = 0; w < a.w; w++) {
            float *to = dx + ((size_t)row * (size_t)a.w + (size_t)w) * (size_t)a.c;
            Span in_q = windows_of(a, w, a.q);
            memset(to, 0, (size_t)a.c * sizeof *to);
            for (int p = in_p.first; p < in_p.end; p++)
                for (int q = in_q.first; q < in_q.end; q++) {
                    const float *v =
                        dy + (((size_t)(row / a.h) * (size_t)a.p + (size_t)p) * (size_t)a.q +
                              (size_t)q) *
                                 (size_t)a.c;
#pragma omp simd
                    for (int c = 0; c < a.c; c++) to[c] += v[c];
                }
#pragma omp simd
            for (int c = 0; c < a.c; c++) to[c] *= share;
        }
    }
    return OK;
}

SIMD Status cpu_global_avgpool_fwd(float *y, const float *x, int n, int hw, int c, Stream *s)
{
    (void)s;
    float share = 1.0f / (float)hw;
#pragma omp parallel for
    for (int i = 0; i < n; i++) {
        float *to = y + (size_t)i * (size_t)c;
        memset(to, 0, (size_t)c * sizeof *to);
        for (int p = 0; p < hw; p++) {
            const float *v = x + ((size_t)i * (size_t)hw + (size_t)p) * (size_t)c;
#pragma omp simd
            for (int k = 0; k < c; k++) to[k] += v[k];
        }
#pragma omp simd
        for (int k = 0; k < c; k++) to[k] *= share;
    }
    return OK;
}

SIMD Status cpu_global_avgpool_dx(float *dx, const float *dy, int n, int hw, int c, Stream *s)
{
    (void)s;
    float share = 1.0f / (float)hw;
#pragma omp parallel for
    for (size_t row = 0; row < (size_t)n * (size_t)hw; row++) {
        const float *from = dy + row / (size_t)hw * (size_t)c;
        float *to = dx + row * (size_t)c;
#pragma omp simd
        for (int k = 0; k < c; k++) to[k] = share * from[k];
    }
    return OK;
}
