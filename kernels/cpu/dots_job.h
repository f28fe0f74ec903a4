/* dots_job.h - what a job of dots.c computes, in vectors of LANES floats (of type Lanes; NAME(f):
 * its functions): dots.c includes this once for each width. */

typedef Lanes NAME(Anywhere) __attribute__((aligned(4), may_alias));

/* sum[p][f] = the dot of x[p]'s lines, `width` apart, with those of w[f], which follow each other,
 * and bias. After CHAIN additions, or up to 2 * CHAIN - 2 where a line ends between, sums are put
 * aside. */
static ALWAYS void NAME(tile)(Group sum[TILE], const float *const x[TILE], size_t width,
                              const float *const w[FILTERS], int lines, size_t length,
                              const Four *bias)
{
    Lanes s[TILE][FILTERS] = {0}, aside[TILE][FILTERS];
    bool some = false;
    size_t chain = 0;
    for (int r = 0; r < lines; r++)
        for (size_t from = 0, to; from < length; from = to) {
            to = length - from < CHAIN * LANES ? length : from + CHAIN * LANES;
            const float *line[TILE], *filter[FILTERS];
            for (int p = 0; p < TILE; p++) line[p] = x[p] + (size_t)r * width;
            for (int f = 0; f < FILTERS; f++) filter[f] = w[f] + (size_t)r * length;
            for (size_t i = from; i < to; i += LANES) {
                Lanes v[TILE], g;
                for (int p = 0; p < TILE; p++) v[p] = *(const NAME(Anywhere) *)(line[p] + i);
                for (int f = 0; f < FILTERS; f++) {
                    g = *(const NAME(Anywhere) *)(filter[f] + i);
                    for (int p = 0; p < TILE; p++) s[p][f] += v[p] * g;
                }
            }
            chain += (to - from) / LANES;
            if (chain < CHAIN) continue;
            for (int p = 0; p < TILE; p++)
                for (int f = 0; f < FILTERS; f++) {
                    aside[p][f] = some ? aside[p][f] + s[p][f] : s[p][f];
                    s[p][f] = (Lanes){0};
                }
            some = true;
            chain = 0;
        }
    for (int p = 0; p < TILE; p++) {
        Eight eight[FILTERS];
        for (int f = 0; f < FILTERS; f++) {
            if (some) s[p][f] += aside[p][f];
            HALVE(eight[f], s[p][f]);
        }
        add_lanes(&sum[p], eight, bias);
    }
}

/* y[pixels, from..to-1] of the pixels that begin at x[0..pixels-1], and as many more as fill a
 * tile. from is a multiple of FILTERS. */
SIMD static void NAME(job)(const Dots *d, const float *const *x, float *y, size_t pixels,
                           size_t from, size_t to)
{
    size_t k = (size_t)d->a.k, filter = (size_t)d->lines * d->length;
    for (size_t f = from; f < to; f += FILTERS) {
        const float *w[FILTERS];
        Four bias = {0};
        size_t real = to - f < FILTERS ? to - f : FILTERS;
        for (size_t i = 0; i < FILTERS; i++) { /* behind the last filter the last again */
            size_t own = i < real ? f + i : to - 1;
            w[i] = d->w + own * filter;
            if (d->b) bias[i] = (double)d->b[own];
        }
        for (size_t p = 0; p < pixels; p += TILE) {
            Group sum[TILE];
            NAME(tile)(sum, x + p, d->width, w, d->lines, d->length, &bias);
            float *at = y + p * k + f;
            if (real == FILTERS && p + TILE <= pixels)
                for (int i = 0; i < TILE; i++, at += k) memcpy(at, &sum[i], sizeof sum[i]);
            else
                for (size_t i = 0; i < TILE && p + i < pixels; i++, at += k)
                    memcpy(at, &sum[i], real * sizeof *at);
        }
    }
}
