/* ref_point.c - twins of the elementwise ops and their gradients. */
#include "base/random.h"
#include "ref/ref.h"
#include <math.h>

static double logistic(double x) { return 1 / (1 + exp(-x)); }
static double below(double x)
{
    return erfc(-x * 0.70710678118654752440) / 2;
} /* of a standard normal */
static double density(double x) { return 0.39894228040143267794 * exp(-x * x / 2); }

static double f_silu(double x) { return x * logistic(x); }
static double f_gelu(double x) { return x * below(x); }
static double f_quick_gelu(double x) { return x * logistic((double)1.702f * x); }
static double f_mish(double x) { return x * tanh(log1p(exp(x))); }
static double f_relu(double x) { return x > 0 ? x : 0; }
static double f_soft_clamp(double x) { return 3 * tanh(x / 3); }

/* Slopes; those of relu and soft_clamp are given y. */
static double s_silu(double x) { return logistic(x) * (1 + x * (1 - logistic(x))); }
static double s_gelu(double x) { return below(x) + x * density(x); }
static double s_quick_gelu(double x)
{
    double z = (double)1.702f * x;
    return logistic(z) * (1 + z * (1 - logistic(z)));
}
static double s_mish(double x)
{
    double t = tanh(log1p(exp(x)));
    return t + x * (1 - t * t) * logistic(x);
}
static double s_relu(double y) { return y > 0; }
static double s_soft_clamp(double y) { return 1 - y * y / 9; }

static void map(const Tensor *y, double (*f)(double))
{
    for (size_t i = 0; i < tensor_count(y); i++) ref_data(y)[i] = f(ref_data(y->src[0])[i]);
}
static void map_dx(const Tensor *dx, double (*f)(double))
{
    for (size_t i = 0; i < tensor_count(dx); i++)
        ref_data(dx)[i] = f(ref_data(dx->src[0])[i]) * ref_data(dx->src[1])[i];
}

#define UNARY(X) X(silu) X(gelu) X(quick_gelu) X(mish) X(relu) X(soft_clamp)
#define UNARY_TWIN(f)                                                                              \
    static void f##_twin(const Tensor *y) { map(y, f_##f); }                                       \
    static void f##_dx_twin(const Tensor *dx) { map_dx(dx, s_##f); }                               \
    static Tensor *f##_case(Graph *g) { return f(g, case_leaf(g, "x", 3, (int[]){3, 5, 7})); }     \
    static Tensor *f##_large(Graph *g) { return f(g, case_leaf(g, "x", 2, (int[]){173, 101})); }
UNARY(UNARY_TWIN)

static void geglu_twin(const Tensor *y)
{
    size_t d = (size_t)last_dim(y);
    for (size_t i = 0; i < tensor_count(y); i++) {
        const double *x = ref_data(y->src[0]) + i / d * 2 * d + i % d;
        ref_data(y)[i] = x[0] * f_gelu(x[d]);
    }
}

static void geglu_dx_twin(const Tensor *dx)
{
    const Tensor *dy = dx->src[1];
    size_t d = (size_t)last_dim(dy);
    for (size_t i = 0; i < tensor_count(dy); i++) {
        size_t k = i / d * 2 * d + i % d;
        const double *x = ref_data(dx->src[0]) + k;
        ref_data(dx)[k] = ref_data(dy)[i] * f_gelu(x[d]);
        ref_data(dx)[k + d] = ref_data(dy)[i] * x[0] * s_gelu(x[d]);
    }
}

static void add_scaled_twin(const Tensor *y)
{
    const ScaleArgs *a = y->args;
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] =
            (double)a->alpha * ref_data(y->src[0])[i] + (double)a->beta * ref_data(y->src[1])[i];
}

static void scale_shift_twin(const Tensor *y)
{
    const ScaleArgs *a = y->args;
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] = (double)a->alpha * ref_data(y->src[0])[i] + (double)a->beta;
}

static void channel_affine_twin(const Tensor *y)
{
    const ChannelAffineArgs *a = y->args;
    int c = last_dim(y);
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] = (double)a->scale[i % (size_t)c] * ref_data(y->src[0])[i] +
                         (double)a->shift[i % (size_t)c];
}

static void add_channel_twin(const Tensor *y)
{
    size_t c = (size_t)last_dim(y), per = per_sample(y);
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] = ref_data(y->src[0])[i] + ref_data(y->src[1])[i / per * c + i % c];
}

static void add_channel_dv_twin(const Tensor *dv)
{
    const Tensor *dy = dv->src[0];
    size_t c = (size_t)last_dim(dy), per = per_sample(dy);
    for (size_t i = 0; i < tensor_count(dv); i++) {
        ref_data(dv)[i] = 0;
        for (size_t k = i % c; k < per; k += c) ref_data(dv)[i] += ref_data(dy)[i / c * per + k];
    }
}

static void add_rows_twin(const Tensor *y)
{
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] = ref_data(y->src[0])[i] + ref_data(y->src[1])[i % per_sample(y)];
}

static void add_rows_dp_twin(const Tensor *dp)
{
    const Tensor *dy = dp->src[0];
    for (size_t k = 0; k < tensor_count(dp); k++) ref_data(dp)[k] = 0;
    for (size_t i = 0; i < tensor_count(dy); i++)
        ref_data(dp)[i % per_sample(dy)] += ref_data(dy)[i];
}

static void dropout_twin(const Tensor *y)
{
    const DropoutArgs *a = y->args;
    const int32_t *rng = y->src[1]->data;
    size_t per = per_sample(y);
    for (size_t i = 0; i < tensor_count(y); i++) {
        RandomKey key = {(uint32_t)rng[0], a->stream, (uint32_t)rng[1],
                         (uint64_t)(uint32_t)rng[2] + i / per};
        bool kept = random_uniform(key, a->element + (uint32_t)(i % per)) >= (double)a->rate;
        ref_data(y)[i] = kept ? ref_data(y->src[0])[i] / (1 - (double)a->rate) : 0;
    }
}

#define UNARY_ROWS(f) {&op_##f, f##_twin}, {&op_##f##_dx, f##_dx_twin},
static const Twin twins[] = {
    UNARY(UNARY_ROWS){&op_geglu, geglu_twin},  {&op_geglu_dx, geglu_dx_twin},
    {&op_add_scaled, add_scaled_twin},         {&op_scale_shift, scale_shift_twin},
    {&op_channel_affine, channel_affine_twin}, {&op_add_channel, add_channel_twin},
    {&op_add_channel_dv, add_channel_dv_twin}, {&op_add_rows, add_rows_twin},
    {&op_add_rows_dp, add_rows_dp_twin},       {&op_dropout, dropout_twin},
};

/* ---- cases ---------------------------------------------------------------------------- */

static Tensor *geglu_case(Graph *g) { return geglu(g, case_leaf(g, "x", 3, (int[]){2, 3, 14})); }
static Tensor *geglu_large(Graph *g)
{
    return geglu(g, case_leaf(g, "x", 2, (int[]){131, 2 * 133}));
}

static Tensor *geglu_packed(Graph *g) /* more packs than a warp has lanes */
{
    return geglu(g, case_leaf(g, "x", 2, (int[]){11, 2 * 264}));
}

static Tensor *add_scaled_case(Graph *g)
{
    Tensor *a = case_leaf(g, "a", 3, (int[]){2, 3, 5}), *b = case_leaf(g, "b", 3, (int[]){2, 3, 5});
    return add_scaled(g, add_scaled(g, a, 1, b, -0.3f), 0.7f, a, 2);
}
static Tensor *scale_shift_case(Graph *g)
{
    return scale_shift(g, case_leaf(g, "x", 2, (int[]){7, 3}), -1.3f, 0.4f);
}

static Tensor *channel_affine_case(Graph *g)
{
    float scale[] = {4.37f, -2, 0.5f}, shift[] = {-0.1f, 0.2f, 1};
    return channel_affine(g, case_leaf(g, "x", 4, (int[]){3, 5, 7, 3}), scale, shift);
}
static Tensor *channel_affine_1(Graph *g)
{
    return channel_affine(g, case_leaf(g, "x", 2, (int[]){83, 1}), (float[]){3}, (float[]){-1});
}
static Tensor *channel_affine_2(Graph *g)
{
    float scale[] = {4.37f, -2}, shift[] = {-0.1f, 0.2f};
    return channel_affine(g, case_leaf(g, "x", 2, (int[]){83, 2}), scale, shift);
}
static Tensor *channel_affine_4(Graph *g)
{
    float scale[] = {4.37f, -2, 0.5f, 1.5f}, shift[] = {-0.1f, 0.2f, 1, 3};
    return channel_affine(g, case_leaf(g, "x", 2, (int[]){611, 4}), scale, shift);
}
static Tensor *add_channel_case(Graph *g)
{
    return add_channel(g, case_leaf(g, "x", 4, (int[]){3, 5, 7, 11}),
                       case_leaf(g, "v", 2, (int[]){3, 11}));
}
static Tensor *add_channel_large(Graph *g) /* several blocks of rows */
{
    return add_channel(g, case_leaf(g, "x", 3, (int[]){2, 613, 17}),
                       case_leaf(g, "v", 2, (int[]){2, 17}));
}
static Tensor *add_channel_packed(Graph *g)
{
    return add_channel(g, case_leaf(g, "x", 3, (int[]){3, 143, 40}),
                       case_leaf(g, "v", 2, (int[]){3, 40}));
}
static Tensor *add_channel_wide(Graph *g) /* more packs than a warp has lanes */
{
    return add_channel(g, case_leaf(g, "x", 3, (int[]){2, 9, 264}),
                       case_leaf(g, "v", 2, (int[]){2, 264}));
}
static Tensor *add_rows_packed(Graph *g)
{
    return add_rows(g, case_leaf(g, "x", 3, (int[]){5, 9, 136}),
                    case_leaf(g, "p", 2, (int[]){11, 136}));
}
static Tensor *add_rows_case(Graph *g)
{
    return add_rows(g, case_leaf(g, "x", 3, (int[]){4, 5, 9}), case_leaf(g, "p", 2, (int[]){7, 9}));
}

/* Two masks of one stream. */
static Tensor *dropout_case(Graph *g)
{
    Tensor *x = case_leaf(g, "x", 3, (int[]){3, 7, 11}),
           *rng = case_const(g, "rng", DTYPE_I32, 1, (int[]){3});
    return dropout(g, dropout(g, x, rng, 0.3f, STREAM_DROPOUT), rng, 0.4f, STREAM_DROPOUT);
}
static Tensor *dropout_packed(Graph *g)
{
    Tensor *x = case_leaf(g, "x", 3, (int[]){3, 130, 8}),
           *rng = case_const(g, "rng", DTYPE_I32, 1, (int[]){3});
    return dropout(g, dropout(g, x, rng, 0.2f, STREAM_DROPOUT), rng, 0.5f, STREAM_DROPOUT);
}
static void rng_fill(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++)
        value[i] = leaf->dtype == DTYPE_I32 ? seed % 1000 + i : case_normal(seed, leaf, i);
}

/* Farther from relu's kink than a step of the differences; up to six deviations out. */
static void kink_fill(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        value[i] = 2 * case_normal(seed, leaf, i);
        value[i] += value[i] < 0 ? -0.01 : 0.01;
    }
}

#define UNARY_CASES(f)                                                                             \
    {#f, f##_case, kink_fill, 1}, {#f " on two threads", f##_large, kink_fill, 1},
static const OpCase cases[] = {
    UNARY(UNARY_CASES){"geglu", geglu_case, NULL, 1},
    {"geglu on two threads", geglu_large, NULL, 1},
    {"geglu, packed", geglu_packed, NULL, 1},
    {"add_scaled", add_scaled_case, NULL, 3},
    {"scale_shift", scale_shift_case, NULL, 1},
    {"channel_affine", channel_affine_case, NULL, 1},
    {"channel_affine of 1", channel_affine_1, NULL, 1},
    {"channel_affine of 2", channel_affine_2, NULL, 1},
    {"channel_affine of 4", channel_affine_4, NULL, 1},
    {"add_channel", add_channel_case, NULL, 35},
    {"add_channel, many rows", add_channel_large, NULL, 613},
    {"add_channel, packed", add_channel_packed, NULL, 143},
    {"add_channel, wide", add_channel_wide, NULL, 9},
    {"add_rows, packed", add_rows_packed, NULL, 5},
    {"add_rows", add_rows_case, NULL, 4},
    {"dropout", dropout_case, rng_fill, 1},
    {"dropout, packed", dropout_packed, rng_fill, 1},
};

const RefFamily ref_point = {twins, sizeof twins / sizeof *twins, cases,
                             sizeof cases / sizeof *cases};
