/* gemm.cuh - convolutions and linear layers as one kind of matrix product, out = A . B.
 *
 * A convolution is a product whose A is never written down: row m of it is a pixel, column k a pair
 * (filter tap, channel), and its element lies at an address in the image that Gemm tells, or is 0
 * outside the image. A linear layer is a 1x1 convolution of one long row of pixels.
 *
 *   pass   rows m     columns n       inner k          A                B
 *   FWD    y pixels   k               taps x c         gathered x       w, as stored: [n][k]
 *   DX     x pixels   c               taps x k         gathered dy      w read in place
 *   DW     k          taps x c        y pixels         dy, transposed   gathered x
 *
 * DX of stride 1 is a convolution with the filter rotated: tap t reads pixel i + top - t. With a
 * stride, the pixels that share their remainder by it (a phase) see the same taps, every stride-th;
 * each phase is a product of its own, and all run in one launch.
 */
#pragma once
#include "device.cuh"
#include "gemm_plan.h"

/* n / d for 0 <= n < 2^31 without a division. */
struct Divisor {
    unsigned mul, shift;
    int d;
    DEVICE int of(int n) const
    {
        return (int)((__umulhi((unsigned)n, mul) + (unsigned)n) >> shift);
    }
};
static inline Divisor divisor(int d)
{
    Divisor v = {0, 0, d};
    while ((1ull << v.shift) < (unsigned)d) v.shift++;
    v.mul = (unsigned)((((1ull << v.shift) - (unsigned)d) << 32) / (unsigned)d + 1);
    return v;
}

/* Rows of a product: a grid of pixels in each image, and the taps they see. */
struct Phase {
    int rows, k;                /* of all images; taps * channels */
    Divisor image, line;        /* pixels of the grid in an image, in a line of it */
    Divisor taps_w;             /* taps in a filter row */
    int first_h, first_w;       /* tap 0 of pixel 0 */
    int out_h, out_w;           /* where pixel 0 of the grid is written */
    int tap, tap_h, tap_w;      /* DX: filter tap = tap + row of taps * tap_h + column * tap_w */
    int filter;                 /* FWD: where the phase's filter begins in b */
};

enum { MAX_PHASES = 4 };

struct Gemm {
    const void *a, *b;          /* FWD: x, w   DX: dy, w   DW: dy, x */
    const void *a2;             /* FWD: x's channels from split_c on, where x is in two tensors */
    void *out;                  /* FWD, DX: as the storage type; DW: float */
    const float *bias;          /* [n] or NULL */
    ConvAfter after;            /* FWD */
    bool geglu;                 /* FWD: even columns values, odd ones their gates; out has n / 2 */
    float *partial;             /* [splits][part] with splits > 1: summed by finish_kernel */
    size_t count, part;         /* elements of rows x n, and rounded up to a multiple of 4 */
    size_t image_rows;          /* rows of out in an image */
    int m, n, k;                /* the largest of all phases */
    int image_h, image_w, image_c; /* what is gathered */
    int split_c;                /* FWD: channels of a; all of them but where there is a2 */
    Divisor channels;           /* image_c */
    int step, dir;              /* source row = grid row * step + first_h + tap * dir */
    int out_h, out_w, out_step; /* out row = grid row * out_step + phase.out_h */
    int filter_c, filter_kc;    /* DX: c, and elements of one k: taps * c */
    int phases, splits;
    int aligned_a, aligned_b;   /* rows are whole chunks of 16 bytes */
    Phase phase[MAX_PHASES];
};

/* By selections, not by address: kernel arguments stay in their bank. */
DEVICE Phase gemm_phase(const Gemm &g, int i)
{
    Phase p = g.phase[0];
#pragma unroll
    for (int k = 1; k < MAX_PHASES; k++)
        if (i == k) p = g.phase[k];
    return p;
}

/* Row m of a phase: image, and line and column in the grid. */
struct Pixel {
    int image, i, j;
};
DEVICE Pixel gemm_pixel(const Phase &p, int m)
{
    int image = p.image.of(m), rest = m - image * p.image.d, i = p.line.of(rest);
    return {image, i, rest - i * p.line.d};
}

/* Inner index (or column of DW) k: filter row, column, channel. */
struct Tap {
    int r, s, c;
};
DEVICE Tap gemm_tap(const Gemm &g, const Phase &p, int k)
{
    int t = g.channels.of(k), r = p.taps_w.of(t);
    return {r, t - r * p.taps_w.d, k - t * g.image_c};
}

/* The image's pixel that a pixel sees through a tap; < 0: outside, where the image is 0. */
DEVICE int gemm_seen(const Gemm &g, const Phase &p, const Pixel &at, const Tap &t)
{
    int h = at.i * g.step + p.first_h + t.r * g.dir, w = at.j * g.step + p.first_w + t.s * g.dir;
    if ((unsigned)h >= (unsigned)g.image_h || (unsigned)w >= (unsigned)g.image_w) return -1;
    return (at.image * g.image_h + h) * g.image_w + w;
}

/* Where in a; < 0: outside. */
DEVICE long long gemm_source(const Gemm &g, const Phase &p, const Pixel &at, const Tap &t)
{
    int pixel = gemm_seen(g, p, at, t);
    return pixel < 0 ? -1 : (long long)pixel * g.image_c + t.c;
}

/* FWD, a channel of x: the tensor that has it, channels there, and which of them it is. */
struct Channel {
    const void *of;
    int width, c;
};
DEVICE Channel gemm_channel(const Gemm &g, int c)
{
    bool second = c >= g.split_c;
    return {second ? g.a2 : g.a, second ? g.image_c - g.split_c : g.split_c,
            second ? c - g.split_c : c};
}

/* DX: where the filter has row k, column 0 of B. */
DEVICE long long gemm_filter(const Gemm &g, const Phase &p, int k)
{
    Tap t = gemm_tap(g, p, k);
    return (long long)t.c * g.filter_kc + (p.tap + t.r * p.tap_h + t.s * p.tap_w) * g.filter_c;
}

/* FWD: the row of the filter, and of the bias, behind column n. */
DEVICE int gemm_filter_row(const Gemm &g, int n)
{
    return g.geglu ? n / 2 + n % 2 * (g.n / 2) : n;
}
DEVICE float gemm_gated(float value, float gate) { return value * (gate * normcdff(gate)); }

/* Where row m of out begins; with geglu twice as far. */
template <GemmPass PASS> DEVICE size_t gemm_out_row(const Gemm &g, const Phase &p, int m)
{
    if (PASS == GEMM_DW) return (size_t)m * g.n;
    Pixel at = gemm_pixel(p, m);
    int h = at.i * g.out_step + p.out_h, w = at.j * g.out_step + p.out_w;
    return (size_t)((at.image * g.out_h + h) * g.out_w + w) * g.n;
}

/* Element (m, k) of A and (k, n) of B, 0 outside; inner indices from `end` on are outside. */
template <GemmPass PASS, class T>
DEVICE T gemm_a(const Gemm &g, const Phase &p, int m, int k, int end)
{
    if (k >= end || m >= (PASS == GEMM_DW ? g.m : p.rows)) return T(0.f);
    if (PASS == GEMM_DW) return ((const T *)g.a)[(size_t)k * g.m + m];
    Tap t = gemm_tap(g, p, k);
    Channel x = PASS == GEMM_FWD ? gemm_channel(g, t.c) : Channel{g.a, g.image_c, t.c};
    int pixel = gemm_seen(g, p, gemm_pixel(p, m), t);
    return pixel < 0 ? T(0.f) : ((const T *)x.of)[(long long)pixel * x.width + x.c];
}

template <GemmPass PASS, class T>
DEVICE T gemm_b(const Gemm &g, const Phase &p, int k, int n, int end)
{
    if (k >= end || n >= g.n) return T(0.f);
    long long at;
    if (PASS == GEMM_FWD) at = p.filter + (long long)gemm_filter_row(g, n) * p.k + k;
    if (PASS == GEMM_DX) at = gemm_filter(g, p, k) + n;
    if (PASS == GEMM_DW) at = gemm_source(g, p, gemm_pixel(p, k), gemm_tap(g, p, n));
    return at < 0 ? T(0.f) : ((const T *)g.b)[at];
}

/* What follows the bias, for V neighbours of a row of out: at = index of the first. */
template <class T, int V>
DEVICE void gemm_after(const Gemm &g, float (&v)[V], int image, size_t at, int n)
{
    if (g.after.v) {
        Pack<T, V> p = *(const Pack<T, V> *)((const T *)g.after.v + (size_t)image * g.n + n);
#pragma unroll
        for (int e = 0; e < V; e++) v[e] += to_float(p.v[e]);
    }
#pragma unroll
    for (int e = 0; e < V; e++) {
        if (g.after.act == ACT_RELU) v[e] = v[e] < 0 ? 0 : v[e];
        if (g.after.act == ACT_SILU) v[e] = v[e] / (1 + expf(-v[e]));
    }
    if (g.after.r) {
        Pack<T, V> p = *(const Pack<T, V> *)((const T *)g.after.r + at);
#pragma unroll
        for (int e = 0; e < V; e++) v[e] += to_float(p.v[e]);
    }
}
DEVICE bool gemm_has_after(const Gemm &g) { return g.after.v || g.after.r || g.after.act; }

/* One launch over all tiles, phases and splits. */
Status gemm_ffma(const Gemm *g, GemmPass pass, Stream *s);             /* fp32 */
Status gemm_fwd(const Gemm *g, GemmTile tile, bool thin, Stream *s);   /* bf16 */
Status gemm_dx(const Gemm *g, GemmTile tile, bool thin, Stream *s);
Status gemm_dw(const Gemm *g, GemmTile tile, bool thin, Stream *s);
