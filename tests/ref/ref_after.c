/* ref_after.c - twins of what host/ops/fusions.c makes; cases whose graphs are fused by hand, so
 * that a CPU runs them too, and cases with gradients, which a device that fuses runs fused. */
#include "kernels_matrix.h"
#include "ops/fusions.h"
#include "ref/ref.h"
#include <math.h>
#include <string.h>

/* ---- twins ------------------------------------------------------------------------------ */

static double element(const Tensor *t, int a, int b, int c, int d)
{
    return ref_data(t)[(size_t)(((a * t->dim[1] + b) * t->dim[2] + c) * t->dim[3] + d)];
}

/* b, v, act and r around `sum`; i: where in y, which has k channels and `per` elements an image */
static double gone_on(const Tensor *y, double sum, size_t i, size_t k, size_t per)
{
    const Tensor *b = y->src[AFTER_B], *v = y->src[AFTER_V], *r = y->src[AFTER_R];
    const AfterArgs *a = y->args;
    if (b) sum += ref_data(b)[i % k];
    if (v) sum += ref_data(v)[i / per * k + i % k];
    if (a->act == ACT_SILU) sum /= 1 + exp(-sum);
    if (a->act == ACT_RELU) sum = fmax(sum, 0);
    return r ? sum + ref_data(r)[i] : sum;
}

/* Channel c of x, or of x and x2 side by side; 0 outside. */
static double seen(const Tensor *y, int n, int i, int j, int c)
{
    const Tensor *x = y->src[AFTER_X], *x2 = y->src[AFTER_X2];
    if (i < 0 || i >= x->dim[1] || j < 0 || j >= x->dim[2]) return 0;
    return c < x->dim[3] ? element(x, n, i, j, c) : element(x2, n, i, j, c - x->dim[3]);
}

static void conv_after_twin(const Tensor *y)
{
    const Tensor *x = y->src[AFTER_X], *w = y->src[AFTER_W];
    const ConvArgs a = ((const AfterArgs *)y->args)->conv;
    int p = conv_out(x->dim[1], a.top, a.bottom, w->dim[1], a.stride);
    int q = conv_out(x->dim[2], a.left, a.right, w->dim[2], a.stride), k = w->dim[0];
    for (int i = 0; i < (int)tensor_count(y); i++) {
        int n = i / (p * q * k), line = i / (q * k) % p, column = i / k % q;
        double sum = 0;
        for (int r = 0; r < w->dim[1]; r++)
            for (int s = 0; s < w->dim[2]; s++)
                for (int c = 0; c < w->dim[3]; c++) {
                    int up = line * a.stride + r - a.top, left = column * a.stride + s - a.left;
                    sum += element(w, i % k, r, s, c) * seen(y, n, up, left, c);
                }
        ref_data(y)[i] = gone_on(y, sum, (size_t)i, (size_t)k, (size_t)(p * q * k));
    }
}

/* Which line of two a line of three sees, for lines of y that are even (odd 0) or odd: y's line
 * odd + r - 1 from the middle one lies in x's line floor((odd + r - 1) / 2). */
static int folded_line(int odd, int r) { return (odd + r + 1) / 2 - odd; }

static void fold_twin(const Tensor *w4)
{
    const Tensor *w = w4->src[0];
    int k = w->dim[0], c = w->dim[3];
    memset(w4->data, 0, tensor_count(w4) * sizeof(double));
    for (int phase = 0; phase < 4; phase++)
        for (int i = 0; i < k * 9 * c; i++) {
            int filter = i / (9 * c), r = i / (3 * c) % 3, s = i / c % 3;
            int tap = 2 * folded_line(phase / 2, r) + folded_line(phase % 2, s);
            ref_data(w4)[((phase * k + filter) * 4 + tap) * c + i % c] += ref_data(w)[i];
        }
}

static void upsampled_twin(const Tensor *y)
{
    const Tensor *x = y->src[AFTER_X], *w4 = y->src[AFTER_W];
    int k = w4->dim[0] / 4, p = 2 * x->dim[1], q = 2 * x->dim[2];
    for (int i = 0; i < (int)tensor_count(y); i++) {
        int n = i / (p * q * k), line = i / (q * k) % p, column = i / k % q;
        int down = line % 2, across = column % 2, filter = (2 * down + across) * k + i % k;
        double sum = 0;
        for (int t = 0; t < 4; t++)
            for (int c = 0; c < x->dim[3]; c++)
                sum += element(w4, filter, t / 2, t % 2, c) *
                       seen(y, n, line / 2 + t / 2 - 1 + down, column / 2 + t % 2 - 1 + across, c);
        ref_data(y)[i] = gone_on(y, sum, (size_t)i, (size_t)k, (size_t)(p * q * k));
    }
}

static void linear_after_twin(const Tensor *y)
{
    const Tensor *x = y->src[AFTER_X], *w = y->src[AFTER_W];
    size_t k = (size_t)w->dim[0], c = (size_t)w->dim[1];
    for (size_t i = 0; i < tensor_count(y); i++) {
        double sum = 0;
        for (size_t e = 0; e < c; e++)
            sum += ref_data(x)[i / k * c + e] * ref_data(w)[i % k * c + e];
        ref_data(y)[i] = gone_on(y, sum, i, k, tensor_count(y));
    }
}

static void linear_geglu_twin(const Tensor *y)
{
    const Tensor *x = y->src[AFTER_X], *w = y->src[AFTER_W], *b = y->src[AFTER_B];
    size_t d = (size_t)w->dim[0] / 2, c = (size_t)w->dim[1];
    for (size_t i = 0; i < tensor_count(y); i++) {
        double half[2] = {0};
        for (size_t h = 0; h < 2; h++) {
            size_t k = i % d + h * d;
            for (size_t e = 0; e < c; e++)
                half[h] += ref_data(x)[i / d * c + e] * ref_data(w)[k * c + e];
            if (b) half[h] += ref_data(b)[k];
        }
        ref_data(y)[i] = half[0] * half[1] * 0.5 * erfc(-half[1] / sqrt(2));
    }
}

static const Twin twins[] = {
    {&op_conv2d_after, conv_after_twin},   {&op_conv2d_join, conv_after_twin},
    {&op_upsample2_fold, fold_twin},       {&op_upsample2_conv2d, upsampled_twin},
    {&op_linear_after, linear_after_twin}, {&op_linear_geglu, linear_geglu_twin},
};

/* ---- cases ------------------------------------------------------------------------------ */

/* What a case is of, and what follows it, in this order. */
enum { CHANNEL = 1, SILU = 2, RELU = 4, RESIDUAL = 8, NO_BIAS = 16, VIEWED = 32, TRAINED = 64 };
enum { GATED = 128 };
typedef enum { CONV, JOIN, UPSAMPLED, LINEAR } What;

static Tensor *leaf(Graph *g, int how, const char *name, int ndim, const int *dim)
{
    return how & TRAINED ? case_leaf(g, name, ndim, dim)
                         : case_const(g, name, ndim > 1 ? g->act : DTYPE_F32, ndim, dim);
}

static Tensor *start(Graph *g, What what, int how, ConvShape s)
{
    Tensor *b = how & NO_BIAS ? NULL : leaf(g, how, "b", 1, (int[]){s.k});
    if (what == LINEAR)
        return linear(g, leaf(g, how, "x", 3, (int[]){s.n, s.w, s.c}),
                      leaf(g, how, "w", 2, (int[]){s.k, s.c}), b);
    /* a trained filter's gradient reads the large image: it is not fused */
    Tensor *w = leaf(g, what == UPSAMPLED ? 0 : how, "w", 4, (int[]){s.k, s.r, s.s, s.c});
    int c1 = what == JOIN ? s.c / 16 * 8 + s.c % 8 : s.c;
    Tensor *x = leaf(g, how, "x", 4, (int[]){s.n, s.h, s.w, c1});
    if (what == JOIN)
        x = concat(g, 2, (Tensor *[]){x, leaf(g, how, "x2", 4, (int[]){s.n, s.h, s.w, s.c - c1})});
    if (what == UPSAMPLED) {
        x = upsample2(g, x);
        if (!(how & TRAINED)) graph_hold(w);
    }
    return conv2d(g, x, w, b, (ConvArgs){s.stride, s.top, s.left, s.bottom, s.right});
}

static Tensor *build(Graph *g, What what, int how, ConvShape s)
{
    Tensor *y = start(g, what, how, s);
    if (how & CHANNEL) y = add_channel(g, y, leaf(g, how, "v", 2, (int[]){s.n, s.k}));
    if (how & VIEWED) y = reshape(g, y, 2, (int[]){(int)rows_of(y), s.k});
    if (how & SILU) y = silu(g, y);
    if (how & RELU) y = relu(g, y);
    if (how & GATED) y = geglu(g, y);
    if (how & RESIDUAL) y = add(g, leaf(g, how, "r", y->ndim, y->dim), y);
    if (how & TRAINED || !y) return y;
    graph_finish(g, &y, 1);
    int n = graph_fuse(g, fusion_table, fusion_count, &y, 1), nodes = 0;
    for (int i = 0; i < g->n; i++) nodes += g->node[i]->live && g->node[i]->op;
    CHECK(n > 0 && nodes == (what == UPSAMPLED ? 2 : 1)); /* all in one */
    return y;
}

/* name, what, how, n h w c, k r s, stride, top left bottom right */
#define AFTER_CASES(X)                                                                             \
    X(after_channel, CONV, CHANNEL, 3, 5, 7, 20, 9, 3, 3, 1, 1, 1, 1, 1)                           \
    X(after_silu, CONV, SILU | NO_BIAS, 2, 5, 6, 16, 24, 3, 3, 1, 1, 1, 1, 1)                      \
    X(after_relu, CONV, RELU, 2, 7, 5, 8, 5, 3, 3, 2, 1, 1, 0, 1)                                  \
    X(after_residual, CONV, RESIDUAL, 2, 9, 8, 24, 72, 1, 1, 1, 0, 0, 0, 0)                        \
    X(after_all, CONV, CHANNEL | SILU | RESIDUAL, 3, 5, 6, 16, 72, 3, 3, 1, 1, 1, 1, 1)            \
    X(after_viewed, CONV, CHANNEL | VIEWED | RELU | RESIDUAL, 2, 6, 5, 3, 9, 3, 3, 1, 1, 1, 1, 1)  \
    X(join_plain, JOIN, 0, 2, 5, 7, 24, 16, 3, 3, 1, 1, 1, 1, 1)                                   \
    X(join_all, JOIN, CHANNEL | RELU | RESIDUAL, 1, 9, 8, 56, 72, 1, 1, 1, 0, 0, 0, 0)             \
    X(upsampled_plain, UPSAMPLED, NO_BIAS, 2, 5, 7, 16, 24, 3, 3, 1, 1, 1, 1, 1)                   \
    X(upsampled_all, UPSAMPLED, CHANNEL | SILU | RESIDUAL, 2, 3, 4, 72, 8, 3, 3, 1, 1, 1, 1, 1)    \
    X(upsampled_thin, UPSAMPLED, RELU, 1, 4, 3, 3, 5, 3, 3, 1, 1, 1, 1, 1)                         \
    X(linear_silu, LINEAR, SILU, 3, 1, 7, 37, 21, 1, 1, 1, 0, 0, 0, 0)                             \
    X(linear_residual, LINEAR, RESIDUAL | VIEWED | NO_BIAS, 2, 1, 35, 72, 40, 1, 1, 1, 0, 0, 0, 0) \
    X(linear_relu_residual, LINEAR, RELU | RESIDUAL, 1, 1, 70, 264, 72, 1, 1, 1, 0, 0, 0, 0)       \
    X(geglu_plain, LINEAR, GATED, 3, 1, 7, 37, 22, 1, 1, 1, 0, 0, 0, 0)                            \
    X(geglu_wide, LINEAR, GATED | VIEWED, 2, 1, 75, 40, 336, 1, 1, 1, 0, 0, 0, 0)                  \
    X(geglu_few, LINEAR, GATED | NO_BIAS, 1, 1, 5, 24, 6, 1, 1, 1, 0, 0, 0, 0)                     \
    X(geglu_split, LINEAR, GATED, 1, 1, 9, 520, 56, 1, 1, 1, 0, 0, 0, 0)                           \
    X(grad_channel, CONV, TRAINED | CHANNEL, 3, 5, 7, 20, 9, 3, 3, 1, 1, 1, 1, 1)                  \
    X(grad_residual, CONV, TRAINED | CHANNEL | RESIDUAL, 2, 7, 5, 8, 16, 3, 3, 2, 1, 1, 0, 1)      \
    X(grad_silu, CONV, TRAINED | SILU | RESIDUAL, 2, 5, 6, 16, 8, 3, 3, 1, 1, 1, 1, 1)             \
    X(grad_join, JOIN, TRAINED | RESIDUAL, 2, 5, 6, 24, 16, 3, 3, 1, 1, 1, 1, 1)                   \
    X(grad_upsampled, UPSAMPLED, TRAINED | RESIDUAL, 1, 12, 11, 8, 16, 3, 3, 1, 1, 1, 1, 1)        \
    X(grad_linear, LINEAR, TRAINED | VIEWED | RESIDUAL, 2, 1, 35, 24, 16, 1, 1, 1, 0, 0, 0, 0)     \
    X(grad_geglu, LINEAR, TRAINED | GATED, 2, 1, 9, 24, 16, 1, 1, 1, 0, 0, 0, 0)

#define AFTER_BUILD(name, what, how, ...)                                                          \
    static Tensor *name(Graph *g) { return build(g, what, how, (ConvShape){__VA_ARGS__}); }
AFTER_CASES(AFTER_BUILD)

/* The longest sum: of a weight's gradient, 528 pixels; forward 72 * 9 taps in parts of fewer. */
#define AFTER_ROW(name, ...) {#name, name, NULL, 528},
static const OpCase cases[] = {AFTER_CASES(AFTER_ROW)};

const RefFamily ref_after = {twins, sizeof twins / sizeof *twins, cases,
                             sizeof cases / sizeof *cases};
