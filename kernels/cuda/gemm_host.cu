/* gemm_host.cu - which product a convolution is, how it is cut into blocks, and how its
 * splits are summed.
 *
 * Splits: where a product has fewer tiles than a GPU has multiprocessors (weight gradients, small
 * images), the inner sum is cut into shares of equal length. Each writes fp32 to scratch, and
 * finish_kernel adds them in order, bound by memory: 4 * splits bytes per element of out.
 */
#include "gemm.cuh"
#include <limits.h>

/* ---- a convolution as products ------------------------------------------------------------ */

static int at_least_0(int v) { return v < 0 ? 0 : v; }

/* A phase of n x lines x columns pixels that see taps_h x taps_w taps of c channels. */
static Phase phase(int n, int lines, int columns, int taps_h, int taps_w, int c)
{
    Phase p = {};
    p.rows = n * lines * columns;
    p.k = taps_h * taps_w * c;
    p.image = divisor(lines * columns > 0 ? lines * columns : 1);
    p.line = divisor(columns > 0 ? columns : 1);
    p.taps_w = divisor(taps_w > 0 ? taps_w : 1);
    return p;
}

/* Rows are y's pixels; taps reach into x. */
static void from_image(Gemm *g, const ConvShape *a, int y_h, int y_w)
{
    g->image_h = a->h, g->image_w = a->w, g->image_c = a->c;
    g->step = a->stride, g->dir = 1;
    g->out_h = y_h, g->out_w = y_w, g->out_step = 1;
    g->phases = 1;
    g->phase[0] = phase(a->n, y_h, y_w, a->r, a->s, a->c);
    g->phase[0].first_h = -a->top, g->phase[0].first_w = -a->left;
}

/* Pixels at `at`, at + stride ... of a size: the first tap that meets them, how many do, and which
 * line of dy tap 0 sees from pixel 0. */
typedef struct { int pixels, tap, taps, first; } Strided;
static Strided strided(int at, int size, int before, int filter, int stride)
{
    int tap = (at + before) % stride;
    return {at_least_0(size - at + stride - 1) / stride, tap,
            at_least_0(filter - tap + stride - 1) / stride, (at + before - tap) / stride};
}

/* Rows are x's pixels, a phase for each remainder by the stride; taps reach into dy. */
static void from_gradient(Gemm *g, const ConvShape *a, int y_h, int y_w)
{
    g->image_h = y_h, g->image_w = y_w, g->image_c = a->k;
    g->step = 1, g->dir = -1;
    g->out_h = a->h, g->out_w = a->w, g->out_step = a->stride;
    g->filter_c = a->c, g->filter_kc = a->r * a->s * a->c;
    g->phases = a->stride * a->stride;
    for (int i = 0; i < g->phases; i++) {
        Strided h = strided(i / a->stride, a->h, a->top, a->r, a->stride);
        Strided w = strided(i % a->stride, a->w, a->left, a->s, a->stride);
        Phase *p = &g->phase[i];
        *p = phase(a->n, h.pixels, w.pixels, h.taps, w.taps, a->k);
        p->first_h = h.first, p->first_w = w.first;
        p->out_h = i / a->stride, p->out_w = i % a->stride;
        p->tap = h.tap * a->s + w.tap, p->tap_h = a->stride * a->s, p->tap_w = a->stride;
    }
}

static void size_out(Gemm *g, size_t rows)
{
    g->image_rows = (size_t)g->out_h * (size_t)g->out_w;
    g->count = rows * (size_t)g->n;
    g->part = (g->count + 3) / 4 * 4;
}

static Status describe(Gemm *g, GemmPass pass, const ConvShape *c)
{
    int y_h = conv_out(c->h, c->top, c->bottom, c->r, c->stride);
    int y_w = conv_out(c->w, c->left, c->right, c->s, c->stride);
    double x_pixels = (double)c->n * c->h * c->w, y_pixels = (double)c->n * y_h * y_w;
    double filter = (double)c->r * c->s * c->c * c->k;
    *g = {};
    if (x_pixels > INT_MAX / 2 || y_pixels > INT_MAX / 2 || filter > INT_MAX / 2)
        return FAIL(ERR_BUG, "convolution of %.0f pixels and %.0f weights", x_pixels, filter);
    if (c->stride * c->stride > MAX_PHASES)
        return FAIL(ERR_BUG, "convolution of stride %d: up to 2 is built", c->stride);
    if (pass == GEMM_DX) from_gradient(g, c, y_h, y_w);
    else from_image(g, c, y_h, y_w);
    g->channels = divisor(g->image_c);
    g->split_c = g->image_c;
    for (int i = 0; i < g->phases; i++) {
        if (g->phase[i].rows > g->m) g->m = g->phase[i].rows;
        if (g->phase[i].k > g->k) g->k = g->phase[i].k;
    }
    g->n = pass == GEMM_DX ? c->c : c->k;
    size_t rows = (size_t)g->out_h * (size_t)g->out_w * (size_t)c->n;
    if (pass == GEMM_DW) {
        g->n = g->k;
        g->k = g->m;
        rows = (size_t)(g->m = c->k);
    }
    g->aligned_a = (pass == GEMM_FWD ? c->c : c->k) % 8 == 0;
    g->aligned_b = c->c % 8 == 0;
    size_out(g, rows);
    return OK;
}

/* ---- tile and splits ---------------------------------------------------------------------- */

enum { PROCESSORS = 132, SHORTEST_SHARE = 128 };

/* Two blocks for each multiprocessor, none with a share too short to be worth its sum: for fp32. */
static int splits(const Gemm *g, size_t tiles)
{
    if (tiles >= PROCESSORS) return 1;
    int wish = (int)(2 * PROCESSORS / tiles), most = g->k / SHORTEST_SHARE;
    if (most > MOST_SPLITS) most = MOST_SPLITS;
    return most < 1 ? 1 : wish > most ? most : wish;
}

static size_t tiles_of(const Gemm *g, int m, int n)
{
    return (size_t)((g->m + m - 1) / m) * (size_t)((g->n + n - 1) / n) * (size_t)g->phases;
}

/* What a plan should take on an H200, in microseconds: rounds of tiles over the multiprocessors,
 * and for splits the launch and the traffic of their sum. */
static double predicted(const Gemm *g, int m, int n, int rate, int cut)
{
    const double flops = 3.0e6, bytes = 4.3e6, launch = 3; /* of one multiprocessor; of memory */
    size_t rounds = (tiles_of(g, m, n) * (size_t)cut + PROCESSORS - 1) / PROCESSORS;
    double time = (double)rounds * 2 * m * n * g->k / cut / (flops * rate / 100);
    return cut == 1 ? time : time + launch + 8.0 * cut * (double)g->count / bytes;
}

/* Plans into best[most], the shortest first; how many there are. */
static int plans_for(const Gemm *g, GemmPass pass, bool thin, GemmPlan *best, int most)
{
    static const struct { int m, n, rate; } tile[] = {
#define ROW(m, n, wm, wn, stages, blocks, rate) {m, n, rate},
        GEMM_TILES(ROW)
#undef ROW
    };
    double time[MOST_PLANS];
    int count = 0;
    for (int i = 0; i < TILE_COUNT; i++)
        for (int cut = 1; cut == 1 || (cut <= MOST_SPLITS && cut * SHORTEST_SHARE <= g->k); cut++) {
            if (!gemm_has_tile(pass, (GemmTile)i, thin)) continue;
            double takes = predicted(g, tile[i].m, tile[i].n, tile[i].rate, cut);
            int at = count < most ? count++ : most;
            for (; at > 0 && takes < time[at - 1]; at--)
                if (at < most) time[at] = time[at - 1], best[at] = best[at - 1];
            if (at < most) time[at] = takes, best[at] = {(GemmTile)i, cut};
        }
    return count;
}

static bool is_thin(const Gemm *g, Dtype type)
{
    return type == DTYPE_BF16 && !(g->aligned_a && g->aligned_b);
}

/* As gemm_ffma() cuts gradients. Forward always 64x64: with more splits the number of images would
 * tell in more shapes. */
static size_t ffma_tiles(const Gemm *g, GemmPass pass)
{
    if (pass == GEMM_DX && g->n <= 16) return tiles_of(g, 256, 16);
    if (pass == GEMM_DW && g->m <= 16) return tiles_of(g, 16, 256);
    return tiles_of(g, 64, 64);
}

static int plans(const Gemm *g, GemmPass pass, Dtype type, GemmPlan *best, int most)
{
    if (type == DTYPE_BF16) return plans_for(g, pass, is_thin(g, type), best, most);
    best[0] = {TILE_64x64, splits(g, ffma_tiles(g, pass))};
    if (most == 1 || best[0].splits == 1) return 1;
    best[1] = {TILE_64x64, 1};
    return 2;
}

/* out = sum over splits, in order, and what follows it */
template <class T> static __global__ void finish_kernel(const Gemm g)
{
    size_t step = (size_t)gridDim.x * blockDim.x * 4;
    for (size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < g.count; i += step) {
        Pack<float, 4> sum = {};
        for (int k = 0; k < g.splits; k++) {
            const float *from = &g.partial[k * g.part + i];
            Pack<float, 4> v = {};
            if (i + 4 <= g.count) v = *(const Pack<float, 4> *)from;
            else {
#pragma unroll
                for (int e = 0; e < 3; e++)
                    if (i + e < g.count) v.v[e] = from[e];
            }
#pragma unroll
            for (int e = 0; e < 4; e++) sum.v[e] += v.v[e];
        }
        Pack<T, 4> y;
        size_t row = i / g.n;
        int n = (int)(i - row * g.n);
        if (g.geglu) {
#pragma unroll
            for (int e = 0; e < 4; e += 2, n = n + 2 == g.n ? 0 : n + 2) {
                if (i + e >= g.count) break;
                float value = sum.v[e] + (g.bias ? g.bias[gemm_filter_row(g, n)] : 0);
                float gate = sum.v[e + 1] + (g.bias ? g.bias[gemm_filter_row(g, n + 1)] : 0);
                ((T *)g.out)[(i + e) / 2] = from_float<T>(gemm_gated(value, gate));
            }
            continue;
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float v[1] = {sum.v[e] + (g.bias ? g.bias[n] : 0)};
            if (i + e < g.count && gemm_has_after(g))
                gemm_after<T, 1>(g, v, (int)(row / g.image_rows), i + e, n);
            y.v[e] = from_float<T>(v[0]);
            if (++n == g.n) n = 0, row++;
        }
        if (i + 4 <= g.count) *(Pack<T, 4> *)((T *)g.out + i) = y;
        else {
#pragma unroll
            for (int e = 0; e < 3; e++)
                if (i + e < g.count) ((T *)g.out)[i + e] = y.v[e];
        }
    }
}

static Status finish(const Gemm *g, Dtype type, Stream *s)
{
    unsigned blocks = sweep_blocks((g->count + 3) / 4, 256);
    if (type == DTYPE_BF16) finish_kernel<bf16><<<blocks, 256, 0, s->handle>>>(*g);
    else finish_kernel<float><<<blocks, 256, 0, s->handle>>>(*g);
    return launched("gemm_finish");
}

static Status run(Gemm *g, GemmPass pass, const GemmPlan *plan, Dtype type, Stream *s)
{
    bool thin = is_thin(g, type);
    GemmPlan own;
    if (!plan) plans(g, pass, type, &own, 1);
    if (!plan) plan = &own;
    g->splits = plan->splits;
    if (g->splits > 1) {
        g->partial = (float *)stream_scratch(s, g->part * (size_t)g->splits * sizeof(float));
        if (!g->partial) return FAIL(ERR_SPACE, "no memory for the splits of a convolution");
    }
    if (type == DTYPE_F32) TRY(gemm_ffma(g, pass, s));
    else if (pass == GEMM_FWD) TRY(gemm_fwd(g, plan->tile, thin, s));
    else if (pass == GEMM_DX) TRY(gemm_dx(g, plan->tile, thin, s));
    else TRY(gemm_dw(g, plan->tile, thin, s));
    return g->splits == 1 ? OK : finish(g, pass == GEMM_DW ? DTYPE_F32 : type, s);
}

Status gemm_conv(GemmPass pass, void *out, const void *a, const void *b, const float *bias,
                 const ConvAfter *after, const ConvShape *shape, const GemmPlan *plan, Dtype type,
                 Stream *s)
{
    Gemm g;
    TRY(describe(&g, pass, shape));
    g.out = out, g.a = a, g.b = b, g.bias = bias;
    if (after) g.after = *after;
    return run(&g, pass, plan, type, s);
}

Status gemm_geglu(void *y, const void *x, const void *w, const float *bias, const ConvShape *shape,
                  const GemmPlan *plan, Dtype type, Stream *s)
{
    Gemm g;
    TRY(describe(&g, GEMM_FWD, shape));
    if (g.n % 2) return FAIL(ERR_BUG, "geglu of %d columns", g.n);
    g.out = y, g.a = x, g.b = w, g.bias = bias;
    g.geglu = true;
    return run(&g, GEMM_FWD, plan, type, s);
}

static Status describe_joined(Gemm *g, const ConvShape *shape, int c1)
{
    TRY(describe(g, GEMM_FWD, shape));
    if (c1 < 1 || c1 >= shape->c)
        return FAIL(ERR_BUG, "convolution: %d of %d channels in the first tensor", c1, shape->c);
    g->split_c = c1;
    g->aligned_a = c1 % 8 == 0 && shape->c % 8 == 0;
    return OK;
}

static Status describe_upsampled(Gemm *g, const ConvShape *shape)
{
    ConvShape a = *shape;
    a.r = a.s = 2, a.stride = 1; /* one output line of two: the taps it sees */
    a.top = a.left = 1, a.bottom = a.right = 0;
    TRY(describe(g, GEMM_FWD, &a));
    g->phases = 4;
    for (int i = 0; i < 4; i++) {
        Phase *p = &g->phase[i];
        *p = g->phase[0];
        p->out_h = i / 2, p->out_w = i % 2;
        p->first_h = i / 2 - 1, p->first_w = i % 2 - 1;
        p->filter = i * a.k * p->k;
    }
    g->out_h = 2 * a.h, g->out_w = 2 * a.w, g->out_step = 2;
    size_out(g, (size_t)a.n * (size_t)g->out_h * (size_t)g->out_w);
    return OK;
}

Status gemm_plans(int *count, GemmPass pass, const ConvShape *shape, int c1, bool upsampled,
                  Dtype type, GemmPlan best[MOST_PLANS])
{
    Gemm g;
    *count = 0;
    TRY(upsampled ? describe_upsampled(&g, shape)
        : c1      ? describe_joined(&g, shape, c1)
                  : describe(&g, pass, shape));
    *count = plans(&g, pass, type, best, MOST_PLANS);
    return OK;
}

Status gemm_joined(void *y, const void *x1, const void *x2, int c1, const void *w,
                   const float *bias, const ConvAfter *after, const ConvShape *shape,
                   const GemmPlan *plan, Dtype type, Stream *s)
{
    Gemm g;
    TRY(describe_joined(&g, shape, c1));
    g.out = y, g.a = x1, g.a2 = x2, g.b = w, g.bias = bias;
    if (after) g.after = *after;
    return run(&g, GEMM_FWD, plan, type, s);
}

Status gemm_upsampled(void *y, const void *x, const void *w4, const float *bias,
                      const ConvAfter *after, const ConvShape *shape, const GemmPlan *plan,
                      Dtype type, Stream *s)
{
    Gemm g;
    TRY(describe_upsampled(&g, shape));
    g.out = y, g.a = x, g.b = w4, g.bias = bias;
    if (after) g.after = *after;
    return run(&g, GEMM_FWD, plan, type, s);
}
