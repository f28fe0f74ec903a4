/* ref_matrix.c - twins of convolution, linear layers and attention. */
#include "kernels_matrix.h"
#include "ref/ref.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void clear(const Tensor *t) { memset(t->data, 0, tensor_count(t) * sizeof(double)); }

/* Element [a,b,c,d] of a tensor of four dimensions. */
static double *at(const Tensor *t, int a, int b, int c, int d)
{
    size_t row = ((size_t)a * (size_t)t->dim[1] + (size_t)b) * (size_t)t->dim[2] + (size_t)c;
    return &ref_data(t)[row * (size_t)t->dim[3] + (size_t)d];
}

/* ---- convolution ------------------------------------------------------------------------ */

/* Calls f(x, w, y) with the three elements of every product that the convolution sums. */
static void each_product(const Tensor *x, const Tensor *w, const Tensor *y, const ConvArgs *a,
                         void (*f)(double *x, double *w, double *y))
{
    for (int n = 0; n < y->dim[0]; n++)
        for (int p = 0; p < y->dim[1]; p++)
            for (int q = 0; q < y->dim[2]; q++)
                for (int k = 0; k < y->dim[3]; k++)
                    for (int r = 0; r < w->dim[1]; r++)
                        for (int s = 0; s < w->dim[2]; s++)
                            for (int c = 0; c < w->dim[3]; c++) {
                                int i = p * a->stride + r - a->top, j = q * a->stride + s - a->left;
                                if (i < 0 || i >= x->dim[1] || j < 0 || j >= x->dim[2]) continue;
                                f(at(x, n, i, j, c), at(w, k, r, s, c), at(y, n, p, q, k));
                            }
}
static void to_y(double *x, double *w, double *y) { *y += *x * *w; }
static void to_x(double *x, double *w, double *y) { *x += *y * *w; }
static void to_w(double *x, double *w, double *y) { *w += *y * *x; }

static void column_sums(const Tensor *sum, const Tensor *x)
{
    clear(sum);
    for (size_t i = 0; i < tensor_count(x); i++)
        ref_data(sum)[i % (size_t)last_dim(x)] += ref_data(x)[i];
}

static void conv2d_twin(const Tensor *y)
{
    const Tensor *b = y->src[2];
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] = b ? ref_data(b)[i % (size_t)last_dim(y)] : 0;
    each_product(y->src[0], y->src[1], y, y->args, to_y);
}

static void conv2d_dx_twin(const Tensor *dx)
{
    clear(dx);
    each_product(dx, dx->src[1], dx->src[0], dx->args, to_x);
}

static void conv2d_dw_twin(const Tensor *dw)
{
    clear(dw);
    each_product(dw->src[1], dw, dw->src[0], dw->args, to_w);
    if (dw->side[0]) column_sums(dw->side[0], dw->src[0]);
}

/* ---- linear ----------------------------------------------------------------------------- */

static void each_term(const Tensor *x, const Tensor *w, const Tensor *y,
                      void (*f)(double *x, double *w, double *y))
{
    size_t k = (size_t)w->dim[0], c = (size_t)w->dim[1];
    for (size_t row = 0; row < rows_of(x); row++)
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < c; j++)
                f(&ref_data(x)[row * c + j], &ref_data(w)[i * c + j], &ref_data(y)[row * k + i]);
}

static void linear_twin(const Tensor *y)
{
    const Tensor *b = y->src[2];
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] = b ? ref_data(b)[i % (size_t)last_dim(y)] : 0;
    each_term(y->src[0], y->src[1], y, to_y);
}

static void linear_dx_twin(const Tensor *dx)
{
    clear(dx);
    each_term(dx, dx->src[1], dx->src[0], to_x);
}

static void linear_dw_twin(const Tensor *dw)
{
    clear(dw);
    each_term(dw->src[1], dw, dw->src[0], to_w);
    if (dw->side[0]) column_sums(dw->side[0], dw->src[0]);
}

static void column_sum_twin(const Tensor *y) { column_sums(y, y->src[0]); }

/* ---- attention -------------------------------------------------------------------------- */

static size_t token(const Tensor *t, int n, int i, int column)
{
    return ((size_t)n * (size_t)t->dim[1] + (size_t)i) * (size_t)t->dim[2] + (size_t)column;
}

/* Scaled product of query i and key j of one head. */
static double score(const Tensor *q, const Tensor *k, int n, int i, int j, int head, int dh)
{
    double sum = 0;
    for (int e = head * dh; e < (head + 1) * dh; e++)
        sum += ref_data(q)[token(q, n, i, e)] * ref_data(k)[token(k, n, j, e)];
    return sum / sqrt(dh);
}

#define EACH_QUERY(q, a)                                                                           \
    for (int n = 0, dh = (q)->dim[2] / (a)->heads; n < (q)->dim[0]; n++)                           \
        for (int head = 0; head < (a)->heads; head++)                                              \
            for (int i = 0; i < (q)->dim[1]; i++)

static int keys_seen(const Tensor *k, const AttentionArgs *a, int i)
{
    return a->causal && i + 1 < k->dim[1] ? i + 1 : k->dim[1];
}

static double exact(double v) { return v; }

/* middle: ref_bf16 rounds the weights of a row, largest 1, as an operand of the second product. */
static void attend(const Tensor *y, double (*middle)(double))
{
    const Tensor *q = y->src[0], *k = y->src[1], *v = y->src[2], *lse = y->side[0];
    const AttentionArgs *a = y->args;
    clear(y);
    EACH_QUERY(q, a)
    {
        double sum = 0, top = -INFINITY;
        for (int j = 0; j < keys_seen(k, a, i); j++)
            top = fmax(top, score(q, k, n, i, j, head, dh));
        for (int j = 0; j < keys_seen(k, a, i); j++)
            sum += exp(score(q, k, n, i, j, head, dh) - top);
        ref_data(lse)[(n * a->heads + head) * q->dim[1] + i] = top + log(sum);
        for (int j = 0; j < keys_seen(k, a, i); j++) {
            double p = middle(exp(score(q, k, n, i, j, head, dh) - top)) / sum;
            for (int e = head * dh; e < (head + 1) * dh; e++)
                ref_data(y)[token(y, n, i, e)] += p * ref_data(v)[token(v, n, j, e)];
        }
    }
}
static void attention_twin(const Tensor *y) { attend(y, exact); }
static void attention_naive(const Tensor *y) { attend(y, ref_bf16); }

/* middle: of P and dS. */
static void attend_back(const Tensor *dq, double (*middle)(double))
{
    const Tensor *q = dq->src[0], *k = dq->src[1], *v = dq->src[2], *y = dq->src[3],
                 *lse = dq->src[4];
    const Tensor *dy = dq->src[5], *dk = dq->side[0], *dv = dq->side[1];
    const AttentionArgs *a = dq->args;
    clear(dq);
    clear(dk);
    clear(dv);
    EACH_QUERY(q, a)
    {
        double dot = 0, scale = 1 / sqrt(dh);
        for (int e = head * dh; e < (head + 1) * dh; e++)
            dot += ref_data(dy)[token(dy, n, i, e)] * ref_data(y)[token(y, n, i, e)];
        for (int j = 0; j < keys_seen(k, a, i); j++) {
            double p = exp(score(q, k, n, i, j, head, dh) -
                           ref_data(lse)[(n * a->heads + head) * q->dim[1] + i]);
            double dp = 0;
            for (int e = head * dh; e < (head + 1) * dh; e++)
                dp += ref_data(dy)[token(dy, n, i, e)] * ref_data(v)[token(v, n, j, e)];
            double ds = middle(p * (dp - dot)) * scale;
            p = middle(p);
            for (int e = head * dh; e < (head + 1) * dh; e++) {
                ref_data(dv)[token(v, n, j, e)] += p * ref_data(dy)[token(dy, n, i, e)];
                ref_data(dq)[token(q, n, i, e)] += ds * ref_data(k)[token(k, n, j, e)];
                ref_data(dk)[token(k, n, j, e)] += ds * ref_data(q)[token(q, n, i, e)];
            }
        }
    }
}
static void attention_bwd_twin(const Tensor *dq) { attend_back(dq, exact); }
static void attention_bwd_naive(const Tensor *dq) { attend_back(dq, ref_bf16); }

static const Twin twins[] = {
    {&op_conv2d, conv2d_twin},
    {&op_conv2d_dx, conv2d_dx_twin},
    {&op_conv2d_dw, conv2d_dw_twin},
    {&op_linear, linear_twin},
    {&op_linear_dx, linear_dx_twin},
    {&op_linear_dw, linear_dw_twin},
    {&op_column_sum, column_sum_twin},
    {&op_attention, attention_twin},
    {&op_attention_bwd, attention_bwd_twin},
};

const Twin ref_naive[] = {
    {&op_attention, attention_naive},
    {&op_attention_bwd, attention_bwd_naive},
};
const int ref_naive_count = sizeof ref_naive / sizeof *ref_naive;

/* ---- cases ------------------------------------------------------------------------------ */

static Tensor *conv_case(Graph *g, ConvShape c, bool bias)
{
    Tensor *x = case_leaf(g, "x", 4, (int[]){c.n, c.h, c.w, c.c});
    Tensor *w = case_leaf(g, "w", 4, (int[]){c.k, c.r, c.s, c.c});
    Tensor *b = bias ? case_leaf(g, "b", 1, (int[]){c.k}) : NULL;
    return conv2d(g, x, w, b, (ConvArgs){c.stride, c.top, c.left, c.bottom, c.right});
}

/* name, bias, n h w c, k r s, stride, top left bottom right */
#define CONV_CASES(X)                                                                              \
    X(conv_3x3, true, 2, 5, 7, 20, 24, 3, 3, 1, 1, 1, 1, 1)                                        \
    X(conv_valid, false, 2, 6, 5, 16, 33, 3, 3, 1, 0, 0, 0, 0)                                     \
    X(conv_stride, true, 3, 9, 8, 17, 16, 3, 3, 2, 1, 1, 1, 1)                                     \
    X(conv_down, true, 2, 8, 6, 16, 16, 3, 3, 2, 0, 0, 1, 1)                                       \
    X(conv_lopsided, true, 1, 5, 7, 8, 5, 3, 2, 1, 2, 0, 0, 1)                                     \
    X(conv_1x7, false, 2, 4, 9, 12, 16, 1, 7, 1, 0, 3, 0, 3)                                       \
    X(conv_7x1, false, 2, 9, 4, 16, 12, 7, 1, 1, 3, 0, 3, 0)                                       \
    X(conv_5x5, true, 2, 7, 6, 9, 16, 5, 5, 1, 2, 2, 2, 2)                                         \
    X(conv_1x1, true, 3, 5, 7, 19, 23, 1, 1, 1, 0, 0, 0, 0)                                        \
    X(conv_1x1_stride, false, 2, 7, 6, 16, 8, 1, 1, 2, 0, 0, 0, 0)                                 \
    X(conv_1x1_padded, true, 2, 3, 4, 5, 6, 1, 1, 1, 1, 1, 1, 1)                                   \
    X(conv_from_1, true, 2, 8, 7, 1, 16, 3, 3, 2, 1, 1, 1, 1)                                      \
    X(conv_from_3, false, 2, 9, 9, 3, 16, 3, 3, 2, 0, 0, 0, 0)                                     \
    X(conv_from_4, true, 2, 6, 6, 4, 32, 3, 3, 1, 1, 1, 1, 1)                                      \
    X(conv_to_4, true, 2, 6, 7, 32, 4, 3, 3, 1, 1, 1, 1, 1)                                        \
    X(conv_to_3, true, 1, 8, 8, 16, 3, 3, 3, 1, 1, 1, 1, 1)                                        \
    X(conv_to_1, false, 2, 5, 5, 9, 1, 3, 3, 1, 1, 1, 1, 1)                                        \
    X(conv_one_pixel, true, 2, 1, 1, 6, 7, 3, 3, 1, 1, 1, 1, 1)                                    \
    X(conv_tiles, true, 1, 9, 9, 16, 72, 3, 3, 1, 1, 1, 1, 1)                                      \
    X(conv_1x7_tiles, false, 2, 5, 9, 16, 24, 1, 7, 1, 0, 3, 0, 3)                                 \
    X(conv_stride_tiles, true, 2, 11, 9, 8, 24, 3, 3, 2, 1, 1, 0, 1)                               \
    X(conv_long_fwd, true, 1, 4, 5, 40, 8, 3, 3, 1, 1, 1, 1, 1)                                    \
    X(conv_long_dx, true, 2, 3, 5, 8, 40, 3, 3, 1, 1, 1, 1, 1)                                     \
    X(conv_long_dw, true, 2, 12, 13, 8, 8, 3, 3, 1, 1, 1, 1, 1)\
    X(conv_long, true, 3, 4, 5, 101, 9, 3, 3, 1, 1, 1, 1, 1)                                       \
    X(conv_long_down, false, 2, 5, 4, 70, 20, 3, 3, 2, 0, 0, 1, 1)

#define CONV_BUILD(name, bias, ...)                                                                \
    static Tensor *name(Graph *g) { return conv_case(g, (ConvShape){__VA_ARGS__}, bias); }
CONV_CASES(CONV_BUILD)

/* Frozen weight, trained bias; and a constant image, whose gradient must not be asked for. */
static Tensor *conv_bias_only(Graph *g)
{
    Tensor *x = case_const(g, "x", g->act, 4, (int[]){3, 11, 9, 5});
    Tensor *w = case_const(g, "w", g->act, 4, (int[]){6, 3, 3, 5});
    Tensor *b = case_leaf(g, "b", 1, (int[]){6});
    return conv2d(g, x, w, b, (ConvArgs){1, 1, 1, 1, 1});
}

static Tensor *linear_rows(Graph *g)
{
    Tensor *x = case_leaf(g, "x", 3, (int[]){3, 7, 37});
    return linear(g, x, case_leaf(g, "w", 2, (int[]){21, 37}), case_leaf(g, "b", 1, (int[]){21}));
}
/* Two tiles each way, and sums long enough to be split. */
static Tensor *linear_tiles(Graph *g)
{
    Tensor *x = case_leaf(g, "x", 3, (int[]){2, 35, 264});
    return linear(g, x, case_leaf(g, "w", 2, (int[]){72, 264}), case_leaf(g, "b", 1, (int[]){72}));
}
/* One vector for each image. */
static Tensor *linear_vectors(Graph *g)
{
    Tensor *x = case_leaf(g, "x", 2, (int[]){11, 203});
    return linear(g, x, case_leaf(g, "w", 2, (int[]){17, 203}), case_leaf(g, "b", 1, (int[]){17}));
}
static Tensor *linear_one_row(Graph *g)
{
    return linear(g, case_leaf(g, "x", 2, (int[]){1, 130}), case_leaf(g, "w", 2, (int[]){5, 130}),
                  NULL);
}
static Tensor *linear_long(Graph *g)
{
    return linear(g, case_leaf(g, "x", 3, (int[]){1, 7, 1234}),
                  case_leaf(g, "w", 2, (int[]){19, 1234}), case_leaf(g, "b", 1, (int[]){19}));
}
static Tensor *linear_to_one(Graph *g)
{
    Tensor *x = case_leaf(g, "x", 4, (int[]){2, 3, 5, 16});
    return linear(g, x, case_leaf(g, "w", 2, (int[]){1, 16}), NULL);
}
/* The same weight twice: gradients are summed. More rows than one slice of the column sum. */
static Tensor *linear_twice(Graph *g)
{
    Tensor *w = case_leaf(g, "w", 2, (int[]){8, 8}), *b = case_leaf(g, "b", 1, (int[]){8});
    return linear(g, linear(g, case_leaf(g, "x", 3, (int[]){3, 100, 8}), w, b), w, b);
}
static Tensor *linear_bias_only(Graph *g)
{
    Tensor *x = case_leaf(g, "x", 3, (int[]){2, 265, 9}),
           *w = case_const(g, "w", g->act, 2, (int[]){6, 9});
    return linear(g, x, w, case_leaf(g, "b", 1, (int[]){6}));
}

static Tensor *attention_case(Graph *g, int n, int tq, int tk, int heads, int dh, bool causal)
{
    Tensor *q = case_leaf(g, "q", 3, (int[]){n, tq, heads * dh});
    Tensor *k = case_leaf(g, "k", 3, (int[]){n, tk, heads * dh});
    Tensor *v = case_leaf(g, "v", 3, (int[]){n, tk, heads * dh});
    return attention(g, q, k, v, heads, causal);
}

/* name, n tq tk heads dh causal */
#define ATTENTION_CASES(X)                                                                         \
    X(attention_small, 2, 9, 9, 2, 5, false)                                                       \
    X(attention_cross, 2, 10, 13, 3, 16, false)                                                    \
    X(attention_blocks, 1, 70, 17, 1, 8, false)                                                    \
    X(attention_causal, 2, 13, 13, 2, 16, true)                                                    \
    X(attention_causal_blocks, 1, 67, 67, 1, 5, true)                                              \
    X(attention_causal_few_keys, 1, 9, 4, 2, 6, true)                                              \
    X(attention_causal_few_queries, 1, 4, 9, 2, 6, true)                                           \
    X(attention_wide, 1, 3, 5, 1, 64, false)                                                       \
    X(attention_two_keys, 3, 4, 2, 2, 7, false)                                                    \
    X(attention_vae, 1, 5, 7, 1, 512, false)                                                       \
    X(attention_d101, 1, 9, 13, 1, 101, false)                                                     \
    X(attention_d165, 1, 5, 6, 1, 165, false)                                                      \
    X(attention_d200_causal, 1, 67, 67, 1, 200, true)                                              \
    X(attention_d328, 2, 18, 40, 1, 328, false)                                                    \
    X(attention_d8, 2, 131, 20, 2, 8, false)                                                       \
    X(attention_d24_causal, 1, 70, 70, 2, 24, true)                                                \
    X(attention_d32, 1, 20, 131, 2, 32, false)                                                     \
    X(attention_d40, 1, 72, 77, 2, 40, false)                                                      \
    X(attention_d40_causal, 1, 150, 150, 1, 40, true)                                              \
    X(attention_d48, 2, 17, 33, 1, 48, false)                                                      \
    X(attention_d64_causal, 2, 77, 77, 1, 64, true)                                                \
    X(attention_d80, 1, 33, 77, 2, 80, false)                                                      \
    X(attention_d80_causal, 1, 67, 67, 1, 80, true)                                                \
    X(attention_d160, 1, 66, 77, 1, 160, false)                                                    \
    X(attention_d160_causal, 1, 35, 35, 2, 160, true)

#define ATTENTION_BUILD(name, ...)                                                                 \
    static Tensor *name(Graph *g) { return attention_case(g, __VA_ARGS__); }
ATTENTION_CASES(ATTENTION_BUILD)

/* Scores up to some 150, where exp of an unshifted score overflows; keys in pairs of nearly equal
 * scores, so that the gradient is not all zeros. */
static Tensor *attention_far(Graph *g) { return attention_case(g, 1, 21, 34, 2, 16, false); }
static void attention_far_fill(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    bool is_q = !strcmp(leaf->name, "q"), is_k = !strcmp(leaf->name, "k");
    size_t d = (size_t)last_dim(leaf);
    for (size_t i = 0; i < count; i++) {
        value[i] = case_normal(seed, leaf, i) * (is_q ? 40 : 1);
        if (is_k && i / d % 2) value[i] = value[i - d] + value[i] / 64;
    }
}

/* All scores at some -200: where keys end inside a tile, exp(0 - lse) overflows. */
static Tensor *attention_below(Graph *g) { return attention_case(g, 1, 21, 37, 2, 16, false); }
static void attention_below_fill(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    attention_far_fill(leaf, value, count, seed);
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(leaf->name, "q")) value[i] = 2 * fabs(value[i]);
        if (!strcmp(leaf->name, "k")) value[i] = -fabs(value[i]);
    }
}

/* Self-attention of one tensor: three gradients meet in it. */
static Tensor *attention_self(Graph *g)
{
    Tensor *x = case_leaf(g, "x", 3, (int[]){2, 6, 8});
    return attention(g, x, x, x, 2, false);
}

/* The longest sum: of a weight's gradient, n*p*q, or of r*s*c, r*s*k. 400 bounds all cases: longer
 * sums forward are taken in parts of fewer. (No bias where there is one output: its gradient, one
 * sum that may be near zero, has no scale.)
 */
#define CONV_ROW(name, ...) {#name, name, NULL, 400},
/* Scores over dh, then sums over keys or queries. */
#define ATTENTION_ROW(name, n, tq, tk, heads, dh, causal)                                          \
    {#name, name, NULL, (dh) + ((tq) > (tk) ? (tq) : (tk))},
static const OpCase cases[] = {
    CONV_CASES(CONV_ROW){"conv_bias_only", conv_bias_only, NULL, 297},
    {"linear_rows", linear_rows, NULL, 37},
    {"linear_tiles", linear_tiles, NULL, 264},
    {"linear_vectors", linear_vectors, NULL, 203},
    {"linear_one_row", linear_one_row, NULL, 130},
    {"linear_long", linear_long, NULL, 400}, /* taken in parts */
    {"linear_to_one", linear_to_one, NULL, 30},
    {"linear_twice", linear_twice, NULL, 300},
    {"linear_bias_only", linear_bias_only, NULL, 530},
    /* Far: a score of 150 is off by 150 * 2^-24 in each of two roundings; so is its weight. */
    ATTENTION_CASES(ATTENTION_ROW){"attention_far", attention_far, attention_far_fill, 36 * 36},
    {"attention_below", attention_below, attention_below_fill, 99 * 99}, /* so is one of 400 */
    {"attention_self", attention_self, NULL, 20},
};

const RefFamily ref_matrix = {twins, sizeof twins / sizeof *twins, cases,
                              sizeof cases / sizeof *cases};
