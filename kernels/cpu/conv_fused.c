/* conv_fused.c - convolutions that read two tensors, or an image before its upsampling, and linear
 * layers that gate their own result: of plain launchers and copies. A CPU gains nothing by them;
 * they are what the GPU's kernels are compared with (EQ_COMPARE), so they allocate as they please.
 */
#include "kernels_matrix.h"
#include "kernels_point.h"
#include "kernels_shape.h"
#include <stdlib.h>
#include <string.h>

static Status need(float **p, size_t count)
{
    *p = malloc(count * sizeof **p);
    return *p ? OK : FAIL(ERR_SPACE, "no memory for %zu values of a product", count);
}

Status cpu_conv2d_join_fwd(float *y, const float *x1, const float *x2, int c1, const float *w,
                           const float *b, const ConvShape *a, Stream *s)
{
    size_t pixels = (size_t)a->n * (size_t)a->h * (size_t)a->w;
    float *x;
    TRY(need(&x, pixels * (size_t)a->c));
    Status status = cpu_concat(x, (const float *[]){x1, x2}, (int[]){c1, a->c - c1}, 2, pixels, s);
    if (!status) status = cpu_conv2d_fwd(y, x, w, b, a, s);
    free(x);
    return status;
}

Status cpu_linear_geglu_fwd(float *y, const float *x, const float *w, const float *b, size_t rows,
                            int c, int k, Stream *s)
{
    float *wide;
    TRY(need(&wide, rows * (size_t)k));
    Status status = cpu_linear_fwd(wide, x, w, b, rows, c, k, s);
    if (!status) status = cpu_geglu_fwd(y, wide, rows, k / 2, s);
    free(wide);
    return status;
}

/* Filter lines that see line i of the two, of an even (odd 0) or odd line of y: from..to. */
static int line_from(int odd, int i) { return i ? odd + 1 : 0; }
static int line_to(int odd, int i) { return i ? 2 : odd; }

Status cpu_upsample2_fold(float *w4, const float *w, int c, int k, Stream *s)
{
    (void)s;
    for (int phase = 0; phase < 4; phase++)
        for (int filter = 0; filter < k; filter++)
            for (int tap = 0; tap < 4; tap++, w4 += c) {
                int down = phase / 2, across = phase % 2;
                memset(w4, 0, (size_t)c * sizeof *w4);
                for (int r = line_from(down, tap / 2); r <= line_to(down, tap / 2); r++)
                    for (int q = line_from(across, tap % 2); q <= line_to(across, tap % 2); q++) {
                        const float *from = w + (size_t)(filter * 9 + r * 3 + q) * (size_t)c;
                        for (int i = 0; i < c; i++) w4[i] += from[i];
                    }
            }
    return OK;
}

/* Lines down, down + 2 .. and columns across, across + 2 .. of y[n,2h,2w,k] from part[n,h,w,k]. */
static void spread(float *y, const float *part, int down, int across, const ConvShape *a)
{
    size_t k = (size_t)a->k, w = (size_t)a->w;
    for (size_t line = 0; line < (size_t)a->n * (size_t)a->h; line++)
        for (size_t q = 0; q < w; q++)
            memcpy(y + ((2 * line + (size_t)down) * 2 * w + 2 * q + (size_t)across) * k,
                   part + (line * w + q) * k, k * sizeof *y);
}

Status cpu_upsample2_conv2d_fwd(float *y, const float *x, const float *w4, const float *b,
                                const ConvShape *a, Stream *s)
{
    float *part;
    TRY(need(&part, (size_t)a->n * (size_t)a->h * (size_t)a->w * (size_t)a->k));
    Status status = OK;
    for (int phase = 0; phase < 4 && !status; phase++) {
        int down = phase / 2, across = phase % 2;
        ConvShape one = {a->n, a->h, a->w, a->c, a->k, 2, 2, 1, 1 - down, 1 - across, down, across};
        status = cpu_conv2d_fwd(part, x, w4, b, &one, s);
        w4 += (size_t)a->k * 4 * (size_t)a->c;
        spread(y, part, down, across, a);
    }
    free(part);
    return status;
}
