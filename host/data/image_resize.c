/* image_resize.c - separable resampling with a triangle filter.
 *
 * Output sample o of an axis from n_in to n_out pixels looks at centre c = (o + 1/2) s with
 * s = n_in / n_out; input i has weight max(0, 1 - |i + 1/2 - c| / max(s, 1)), normalised to sum 1.
 */
#include "data/image_codec.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int *first;    /* owned: [n_out] first input that counts            */
    float *weight; /* owned: [n_out, taps], 0 where it reaches too far  */
    int taps;
} Filter;

static void filter_free(Filter *f)
{
    free(f->first);
    free(f->weight);
    *f = (Filter){0};
}

static Status filter_make(Filter *f, int n_in, int n_out)
{
    double scale = (double)n_in / n_out, reach = scale > 1 ? scale : 1;
    int taps = 2 * (int)ceil(reach) + 1;
    if (taps > n_in) taps = n_in;
    *f = (Filter){.first = malloc((size_t)n_out * sizeof(int)),
                  .weight = calloc((size_t)n_out * (size_t)taps, sizeof(float)),
                  .taps = taps};
    if (!f->first || !f->weight) {
        filter_free(f);
        return FAIL(ERR_SPACE, "no memory for a filter from %d to %d pixels", n_in, n_out);
    }
    for (int o = 0; o < n_out; o++) {
        double centre = (o + 0.5) * scale, sum = 0;
        int first = (int)floor(centre - reach);
        if (first < 0) first = 0;
        if (first > n_in - taps) first = n_in - taps;
        f->first[o] = first;
        for (int t = 0; t < taps; t++) {
            double w = 1 - fabs(first + t + 0.5 - centre) / reach;
            if (w > 0) sum += w;
        }
        for (int t = 0; t < taps; t++) {
            double w = 1 - fabs(first + t + 0.5 - centre) / reach;
            f->weight[(size_t)o * taps + t] = w > 0 ? (float)(w / sum) : 0;
        }
    }
    return OK;
}

static void filter_rows(float *out, const float *in, int h, int w_in, int w_out, const Filter *f)
{
    for (int y = 0; y < h; y++)
        for (int o = 0; o < w_out; o++) {
            const float *from = in + (size_t)y * w_in + f->first[o];
            const float *weight = f->weight + (size_t)o * f->taps;
            float sum = 0;
            for (int t = 0; t < f->taps; t++) sum += weight[t] * from[t];
            out[(size_t)y * w_out + o] = sum;
        }
}

static void filter_columns(float *out, const float *in, int h_out, int w, const Filter *f)
{
    memset(out, 0, (size_t)h_out * w * sizeof *out);
    for (int o = 0; o < h_out; o++)
        for (int t = 0; t < f->taps; t++) {
            const float *from = in + (size_t)(f->first[o] + t) * w;
            float weight = f->weight[(size_t)o * f->taps + t];
            for (int x = 0; x < w; x++) out[(size_t)o * w + x] += weight * from[x];
        }
}

Status image_resize(Image *out, const Image *in, int h, int w)
{
    Image r = {.bits = in->bits, .channels = in->channels};
    Filter across = {0}, down = {0};
    float *rows = NULL;
    Status s;
    CHECK(h > 0 && w > 0);
    *out = (Image){0};
    TRY_OR(done, s, image_alloc(&r, h, w, "resized image"));
    TRY_OR(done, s, filter_make(&across, in->w, w));
    TRY_OR(done, s, filter_make(&down, in->h, h));
    rows = malloc((size_t)in->h * w * sizeof *rows);
    if (!rows) {
        s = FAIL(ERR_SPACE, "no memory to resize an image to %d x %d pixels", w, h);
        goto done;
    }
    filter_rows(rows, in->pixel, in->h, in->w, w, &across);
    filter_columns(r.pixel, rows, h, w, &down);
    *out = r;
    r = (Image){0};
done:
    free(rows);
    filter_free(&across);
    filter_free(&down);
    image_free(&r);
    return s;
}

Status image_fit(Image *out, const Image *in, int size)
{
    int longest = in->h > in->w ? in->h : in->w;
    int h = (int)(((int64_t)in->h * size * 2 + longest) / (2 * longest));
    int w = (int)(((int64_t)in->w * size * 2 + longest) / (2 * longest));
    Image small = {0}, r = {.bits = in->bits, .channels = in->channels};
    *out = r;
    TRY(image_resize(&small, in, h > 0 ? h : 1, w > 0 ? w : 1));
    Status s = image_alloc(&r, size, size, "resized image");
    if (!s) {
        memset(r.pixel, 0, (size_t)size * size * sizeof *r.pixel);
        int top = (size - small.h) / 2, left = (size - small.w) / 2;
        for (int y = 0; y < small.h; y++)
            memcpy(r.pixel + (size_t)(top + y) * size + left, small.pixel + (size_t)y * small.w,
                   (size_t)small.w * sizeof *r.pixel);
        *out = r;
    }
    image_free(&small);
    return s;
}
