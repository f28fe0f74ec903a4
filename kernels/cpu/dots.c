/* dots.c - convolutions and linear layers forward, each output a dot product in 8 or 16 lanes.
 *
 * Filters w[k,r,s,c] and images NHWC both have a line of a filter, s*c values, side by side: an
 * output is r dots of such lines, of which a vector's lanes each take their share, added up at the
 * end: chains of n / lanes roundings for n products, put aside after CHAIN, where oneDNN's kernels
 * take chains of hundreds (tests/kernels/test_long_sums.c has the bounds, bench/LOG.md the times).
 * A tile is TILE pixels by FILTERS filters, which share what they load; a job, whole rows of an
 * image's result, about PIXELS pixels, and all filters or, where jobs are fewer than threads, a
 * share of them. Traffic: x once (gathered: r*s/stride^2 times) and its border again for each job,
 * w once a job, y once.
 *
 * Images are read as they are where they have no border and channels fill vectors of 8; else a job
 * copies its lines with the border of zeros, or, if channels do not, each pixel's r*s*c values.
 * Whatever stands beside an output, the same instructions compute it from the same values: it
 * depends neither on its place nor on how many there are.
 */
#include "dots.h"
#include <omp.h>
#include <string.h>

enum { EIGHT = 8, TILE = 3, FILTERS = 4, PIXELS = 64, CHAIN = 32 };
#define ALWAYS inline __attribute__((always_inline))

typedef float Eight __attribute__((vector_size(EIGHT * sizeof(float))));
typedef float Sixteen __attribute__((vector_size(2 * EIGHT * sizeof(float))));
typedef double Four __attribute__((vector_size(FILTERS * sizeof(double))));
typedef float Group __attribute__((vector_size(FILTERS * sizeof(float))));

typedef struct {
    const float *x, *w, *b; /* b: or NULL */
    float *y;
    ConvShape a;
    enum { AS_IT_IS, BORDER, GATHER } copy;
    int rows, columns, most; /* of the result; rows in a job                           */
    int lines;               /* of a filter, 1 where gathered                          */
    size_t length, width;    /* floats of a filter's line; from a line to the next     */
    size_t down, step;       /* from a pixel of the result to that below, beside it    */
    size_t pointers, room;   /* of a job: floats for pointers to pixels; for its copy  */
} Dots;

/* bias + the lanes of four vectors, added up, the last time in double. */
static ALWAYS void add_lanes(Group *sum, const Eight v[FILTERS], const Four *bias)
{
#define PAIRS(a, b)                                                                                \
    (__builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) +                                    \
     __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15))
    Eight first = PAIRS(v[0], v[1]), second = PAIRS(v[2], v[3]);
#undef PAIRS
    Eight all = __builtin_shufflevector(first, second, 0, 1, 8, 9, 4, 5, 12, 13) +
                __builtin_shufflevector(first, second, 2, 3, 10, 11, 6, 7, 14, 15);
    Group low = __builtin_shufflevector(all, all, 0, 1, 2, 3),
          high = __builtin_shufflevector(all, all, 4, 5, 6, 7);
    *sum = __builtin_convertvector(
        __builtin_convertvector(low, Four) + __builtin_convertvector(high, Four) + *bias, Group);
}

#define LANES EIGHT
#define Lanes Eight
#define NAME(f) f##_8
#define HALVE(half, v) ((half) = (v))
#include "dots_job.h"
#undef LANES
#undef Lanes
#undef NAME
#undef HALVE

#define LANES (2 * EIGHT)
#define Lanes Sixteen
#define NAME(f) f##_16
#define HALVE(half, v)                                                                             \
    ((half) = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +                              \
              __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15))
#include "dots_job.h"

/* ---- copies ----------------------------------------------------------------------------- */

static const float *pixel_at(const Dots *d, int image, int row, int column)
{
    const ConvShape *a = &d->a;
    return d->x + (((size_t)image * (size_t)a->h + (size_t)row) * (size_t)a->w + (size_t)column) *
                      (size_t)a->c;
}

/* The lines of x that rows first.. of the result read, with their border. */
static void copy_lines(float *to, const Dots *d, int image, int first, int rows)
{
    const ConvShape *a = &d->a;
    int from = first * a->stride - a->top, lines = (rows - 1) * a->stride + a->r;
    memset(to, 0, (size_t)lines * d->width * sizeof *to);
    for (int i = 0; i < lines; i++)
        if (from + i >= 0 && from + i < a->h)
            memcpy(to + (size_t)i * d->width + (size_t)(a->left * a->c),
                   pixel_at(d, image, from + i, 0), (size_t)(a->w * a->c) * sizeof *to);
}

/* What each pixel of rows first.. of the result reads, filled up to d->length. */
static void gather(float *to, const Dots *d, int image, int first, int rows)
{
    const ConvShape *a = &d->a;
    memset(to, 0, (size_t)(rows * d->columns) * d->length * sizeof *to);
    for (int p = 0; p < rows * d->columns; p++, to += d->length) {
        int top = (first + p / d->columns) * a->stride - a->top;
        int left = p % d->columns * a->stride - a->left;
        int from = left < 0 ? -left : 0, end = a->w - left < a->s ? a->w - left : a->s;
        for (int r = 0; r < a->r && from < end; r++)
            if (top + r >= 0 && top + r < a->h)
                memcpy(to + (r * a->s + from) * a->c, pixel_at(d, image, top + r, left + from),
                       (size_t)((end - from) * a->c) * sizeof *to);
    }
}

/* ---- a convolution ---------------------------------------------------------------------- */

static bool fits(const ConvShape *a)
{
    bool some = a->n > 0 && a->h > 0 && a->w > 0 && a->c > 0 && a->k > 0 && a->r > 0 && a->s > 0;
    return some && a->stride > 0 && a->top >= 0 && a->left >= 0 && a->bottom >= 0 &&
           a->right >= 0 && a->top + a->h + a->bottom >= a->r && a->left + a->w + a->right >= a->s;
}

static Dots plan(const ConvShape *a)
{
    Dots d = {.a = *a, .copy = a->c % EIGHT ? GATHER : AS_IT_IS, .lines = a->r};
    size_t c = (size_t)a->c, stride = (size_t)a->stride;
    if (!d.copy && (a->top || a->left || a->bottom || a->right)) d.copy = BORDER;
    d.rows = conv_out(a->h, a->top, a->bottom, a->r, a->stride);
    d.columns = conv_out(a->w, a->left, a->right, a->s, a->stride);
    d.most = d.columns < PIXELS ? PIXELS / d.columns : 1;
    if (d.most > d.rows) d.most = d.rows;
    size_t pixels = (size_t)(d.most * d.columns + TILE - 1);
    d.pointers = (pixels * sizeof(float *) / sizeof(float) + 15) / 16 * 16;
    d.length = (size_t)a->s * c;
    d.width = (size_t)(a->left + a->w + a->right) * c;
    d.step = stride * c;
    d.down = stride * d.width;
    if (d.copy == BORDER) d.room = (size_t)((d.most - 1) * a->stride + a->r) * d.width;
    if (d.copy != GATHER) return d;
    d.lines = 1;
    d.step = d.length = ((size_t)a->r * d.length + EIGHT - 1) / EIGHT * EIGHT;
    d.down = (size_t)d.columns * d.length;
    d.room = (size_t)d.most * d.down;
    return d;
}

/* Filters from..to-1 over rows first.. of the image's result; room: for pointers to its pixels,
 * then the copy. */
static void run(const Dots *d, int image, int first, size_t from, size_t to, float *room, bool wide)
{
    int rows = d->rows - first < d->most ? d->rows - first : d->most;
    size_t pixels = (size_t)(rows * d->columns), width = (size_t)d->columns, i = 0;
    const float **at = (const float **)(void *)room, *x = room += d->pointers;
    if (d->copy == BORDER) copy_lines(room, d, image, first, rows);
    else if (d->copy == GATHER) gather(room, d, image, first, rows);
    else x = pixel_at(d, image, first * d->a.stride, 0);
    for (; i < pixels; i++) at[i] = x + i / width * d->down + i % width * d->step;
    for (; i % TILE; i++) at[i] = at[pixels - 1]; /* the last again */
    float *y = d->y + ((size_t)image * (size_t)d->rows + (size_t)first) * width * (size_t)d->a.k;
    (wide ? job_16 : job_8)(d, at, y, pixels, from, to);
}

Status dots_conv(float *y, const float *x, const float *w, const float *b, const ConvShape *a,
                 int lanes, Stream *s)
{
    if (a->n == 0 || a->h == 0) return OK; /* no image, no row */
    if (!fits(a))
        return FAIL(ERR_BUG, "convolution of %d x %d, padding %d %d %d %d, by %d x %d, stride %d",
                    a->h, a->w, a->top, a->left, a->bottom, a->right, a->r, a->s, a->stride);
    Dots d = plan(a);
    d.x = x, d.w = w, d.b = b, d.y = y;
    size_t k = (size_t)a->k, taps = (size_t)(a->r * a->s * a->c);
    size_t own = d.pointers + (d.room + 15) / 16 * 16; /* of a thread */
    size_t filters = d.copy == GATHER ? (k * d.length + 15) / 16 * 16 : 0;
    size_t threads = (size_t)omp_get_max_threads();
    size_t bytes = (filters + threads * own + 16) * sizeof(float);
    float *room = stream_scratch(s, bytes);
    if (!room) return FAIL(ERR_SPACE, "no memory for %zu bytes of scratch", bytes);
    if (filters) {
        memset(room, 0, filters * sizeof *room);
        for (size_t i = 0; i < k; i++) memcpy(room + i * d.length, w + i * taps, taps * sizeof *w);
        d.w = room;
    }
    size_t parts = (size_t)((d.rows - 1) / d.most + 1), jobs = (size_t)a->n * parts;
    size_t work = jobs * (size_t)(d.most * d.columns) * k * taps;
    size_t groups = (k + FILTERS - 1) / FILTERS, shares = 1;
    bool wide = lanes == 2 * EIGHT && d.length % (2 * EIGHT) == 0, many = work >= 16 * PARALLEL_MIN;
    if (many && jobs < threads) shares = (threads + jobs - 1) / jobs;
    if (shares > groups) shares = groups;
#pragma omp parallel for schedule(static) if (many)
    for (size_t i = 0; i < jobs * shares; i++) {
        size_t job = i / shares, share = i % shares, end = (share + 1) * groups / shares * FILTERS;
        run(&d, (int)(job / parts), (int)(job % parts) * d.most, share * groups / shares * FILTERS,
            end < k ? end : k, room + filters + (size_t)omp_get_thread_num() * own, wide);
    }
    return OK;
}

int dots_lanes(void)
{
#if SIMD_CLONES
    return __builtin_cpu_supports("avx512vl") ? 2 * EIGHT : EIGHT;
#else
    return EIGHT;
#endif
}
