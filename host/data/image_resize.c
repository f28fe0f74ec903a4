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
    CHECK(h > 0 && w > 0 && in->planes == 1);
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

/* Plane k of in, a grey image of its own. */
static Status plane_of(Image *out, const Image *in, int k)
{
    *out = (Image){.bits = in->bits, .channels = in->channels};
    TRY(image_alloc(out, in->h, in->w, "image"));
    for (size_t i = 0; i < (size_t)in->h * in->w; i++)
        out->pixel[i] = in->pixel[i * in->planes + k];
    return OK;
}

/* Plane k of in, resized to h x w, into the middle of plane k of out. */
static Status fit_plane(Image *out, const Image *in, int k, int h, int w)
{
    Image plane = {0}, small = {0};
    Status s;
    TRY_OR(done, s, plane_of(&plane, in, k));
    TRY_OR(done, s, image_resize(&small, &plane, h, w));
    size_t top = (size_t)(out->h - h) / 2, left = (size_t)(out->w - w) / 2;
    for (size_t y = 0; y < (size_t)h; y++)
        for (size_t x = 0; x < (size_t)w; x++)
            out->pixel[((top + y) * out->w + left + x) * out->planes + k] = small.pixel[y * w + x];
done:
    image_free(&plane);
    image_free(&small);
    return s;
}

/* round(of * to / from), at least 1 */
static int scaled(int of, int to, int from)
{
    int v = (int)(((int64_t)of * to * 2 + from) / (2 * (int64_t)from));
    return v > 0 ? v : 1;
}

Status image_fit_box(Image *out, const Image *in, int h, int w)
{
    bool tall = (int64_t)in->h * w > (int64_t)in->w * h; /* its height decides the scale */
    int small_h = tall ? h : scaled(in->h, w, in->w), small_w = tall ? scaled(in->w, h, in->h) : w;
    Image r = {.bits = in->bits, .channels = in->channels, .planes = in->planes};
    *out = (Image){0};
    TRY(image_alloc(&r, h, w, "resized image"));
    memset(r.pixel, 0, (size_t)h * w * r.planes * sizeof *r.pixel);
    Status s = OK;
    for (int k = 0; k < in->planes && !s; k++) s = fit_plane(&r, in, k, small_h, small_w);
    if (s) image_free(&r);
    *out = r;
    return s;
}

Status image_fit(Image *out, const Image *in, int size)
{
    return image_fit_box(out, in, size, size);
}
