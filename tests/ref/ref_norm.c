/* ref_norm.c - twins of groupnorm, layernorm, batchnorm and their gradients. */
#include "ref/ref.h"
#include <math.h>
#include <string.h>

static double activate(double z, int act)
{
    return act == ACT_SILU ? z / (1 + exp(-z)) : act == ACT_RELU ? (z > 0 ? z : 0) : z;
}
static double slope(double z, int act)
{
    double l = 1 / (1 + exp(-z));
    return act == ACT_SILU ? l * (1 + z * (1 - l)) : act == ACT_RELU ? z > 0 : 1;
}

/* The elements with common statistics: x[n, hw, groups, per], one image and group at a time. Layer
 * norm: images are rows, one position, one group. Batch norm: one image, groups of one channel. */
typedef struct {
    size_t n, hw, groups, per;
    int act;
    bool constant; /* statistics do not depend on x */
} Shape;

static size_t at(const Shape *s, size_t i, size_t p, size_t g, size_t k)
{
    return ((i * s->hw + p) * s->groups + g) * s->per + k;
}

static void moments(const Shape *s, const double *x, size_t i, size_t g, double *mean, double *var)
{
    double count = (double)(s->hw * s->per), sum = 0, square = 0;
    for (size_t p = 0; p < s->hw; p++)
        for (size_t k = 0; k < s->per; k++) sum += x[at(s, i, p, g, k)];
    for (size_t p = 0; p < s->hw; p++)
        for (size_t k = 0; k < s->per; k++) square += pow(x[at(s, i, p, g, k)] - sum / count, 2);
    *mean = sum / count;
    *var = square / count;
}

static void forward(const Shape *s, double *y, const double *x, const double *gain,
                    const double *bias, const double *stats)
{
    for (size_t i = 0; i < s->n; i++)
        for (size_t p = 0; p < s->hw; p++)
            for (size_t g = 0; g < s->groups; g++)
                for (size_t k = 0; k < s->per; k++) {
                    const double *st = stats + 2 * (i * s->groups + g);
                    double h = (x[at(s, i, p, g, k)] - st[0]) * st[1];
                    y[at(s, i, p, g, k)] =
                        activate(h * gain[g * s->per + k] + bias[g * s->per + k], s->act);
                }
}

/* With h = (x - mean) / std and dh = gain * dz: dx = (dh - mean(dh) - h * mean(dh * h)) / std. */
static void group_backward(const Shape *s, const Tensor *dx, size_t i, size_t g)
{
    const double *dy = ref_data(dx->src[0]), *x = ref_data(dx->src[1]),
                 *gain = ref_data(dx->src[2]);
    const double *bias = ref_data(dx->src[3]),
                 *st = ref_data(dx->src[dx->op == &op_layernorm_dx ? 3 : 4]);
    st += 2 * (i * s->groups + g);
    double first = 0, second = 0, count = (double)(s->hw * s->per);
    for (int pass = 0; pass < 2; pass++)
        for (size_t p = 0; p < s->hw; p++)
            for (size_t k = 0; k < s->per; k++) {
                size_t e = at(s, i, p, g, k), c = g * s->per + k;
                double h = (x[e] - st[0]) * st[1];
                double dz = dy[e] * (s->act ? slope(h * gain[c] + bias[c], s->act) : 1),
                       dh = dz * gain[c];
                if (pass) {
                    ref_data(dx)[e] =
                        st[1] * (dh - (s->constant ? 0 : first / count + h * second / count));
                    continue;
                }
                first += dh;
                second += dh * h;
                ref_data(dx->side[0])[c] += dz * h;
                ref_data(dx->side[1])[c] += dz;
            }
}

static void backward(const Shape *s, const Tensor *dx)
{
    for (int k = 0; k < 2; k++)
        memset(dx->side[k]->data, 0, tensor_count(dx->side[k]) * sizeof(double));
    for (size_t i = 0; i < s->n; i++)
        for (size_t g = 0; g < s->groups; g++) group_backward(s, dx, i, g);
}

static void stats_of_x(const Shape *s, const Tensor *y, double eps)
{
    for (size_t i = 0; i < s->n; i++)
        for (size_t g = 0; g < s->groups; g++) {
            double mean, var, *st = ref_data(y->side[0]) + 2 * (i * s->groups + g);
            moments(s, ref_data(y->src[0]), i, g, &mean, &var);
            st[0] = mean;
            st[1] = 1 / sqrt(var + eps);
        }
}

static Shape group_shape(const Tensor *t)
{
    const GroupnormArgs *a = t->args;
    size_t n = (size_t)t->dim[0], groups = (size_t)a->groups;
    return (Shape){n, rows_of(t) / n, groups, (size_t)last_dim(t) / groups, a->act, false};
}

static void groupnorm_twin(const Tensor *y)
{
    Shape s = group_shape(y);
    stats_of_x(&s, y, ((const GroupnormArgs *)y->args)->eps);
    forward(&s, ref_data(y), ref_data(y->src[0]), ref_data(y->src[1]), ref_data(y->src[2]),
            ref_data(y->side[0]));
}

static void groupnorm_dx_twin(const Tensor *dx)
{
    Shape s = group_shape(dx);
    backward(&s, dx);
}

static void layernorm_twin(const Tensor *y)
{
    Shape s = {rows_of(y), 1, 1, (size_t)last_dim(y), ACT_NONE, false};
    stats_of_x(&s, y, ((const LayernormArgs *)y->args)->eps);
    forward(&s, ref_data(y), ref_data(y->src[0]), ref_data(y->src[1]), ref_data(y->src[2]),
            ref_data(y->side[0]));
}

static void layernorm_dx_twin(const Tensor *dx)
{
    Shape s = {rows_of(dx), 1, 1, (size_t)last_dim(dx), ACT_NONE, false};
    backward(&s, dx);
}

static Shape batch_shape(const Tensor *t)
{
    const BatchnormArgs *a = t->args;
    return (Shape){1, rows_of(t), (size_t)last_dim(t), 1, a->relu ? ACT_RELU : ACT_NONE, !a->train};
}

static void batchnorm_twin(const Tensor *y)
{
    const BatchnormArgs *a = y->args;
    Shape s = batch_shape(y);
    double *running_mean = ref_data(y->src[3]), *running_var = ref_data(y->src[4]);
    for (size_t g = 0; g < s.groups; g++) {
        double mean = running_mean[g], var = running_var[g], *st = ref_data(y->side[0]) + 2 * g;
        if (a->train) {
            moments(&s, ref_data(y->src[0]), 0, g, &mean, &var);
            double unbiased = var * (double)s.hw / (double)(s.hw - 1), m = a->momentum;
            running_mean[g] = (1 - m) * running_mean[g] + m * mean;
            running_var[g] = (1 - m) * running_var[g] + m * unbiased;
        }
        st[0] = mean;
        st[1] = 1 / sqrt(var + a->eps);
    }
    forward(&s, ref_data(y), ref_data(y->src[0]), ref_data(y->src[1]), ref_data(y->src[2]),
            ref_data(y->side[0]));
}

static void batchnorm_dx_twin(const Tensor *dx)
{
    Shape s = batch_shape(dx);
    backward(&s, dx);
}

/* Of a batch that one rank has alone; the moments and sums of several are compared in
 * tests/train. */
static Shape sync_shape(const Tensor *x, const Tensor *y)
{
    const BatchSyncArgs *a = y->args;
    return (Shape){1, rows_of(x), (size_t)last_dim(x), 1, a->norm.relu ? ACT_RELU : ACT_NONE,
                   false};
}

static void batchnorm_moments_twin(const Tensor *m)
{
    Shape s = sync_shape(m->src[0], m);
    for (size_t g = 0; g < s.groups; g++)
        moments(&s, ref_data(m->src[0]), 0, g, ref_data(m) + 2 * g, ref_data(m) + 2 * g + 1);
}

static void batchnorm_sync_twin(const Tensor *y)
{
    const BatchSyncArgs *a = y->args;
    Shape s = sync_shape(y, y);
    double *running_mean = ref_data(y->src[3]), *running_var = ref_data(y->src[4]);
    for (size_t g = 0; g < s.groups; g++) {
        const double *m = ref_data(y->src[5]) + 2 * g;
        double *st = ref_data(y->side[0]) + 2 * g, move = a->norm.momentum;
        double unbiased = m[1] * (double)s.hw / (double)(s.hw - 1);
        running_mean[g] = (1 - move) * running_mean[g] + move * m[0];
        running_var[g] = (1 - move) * running_var[g] + move * unbiased;
        st[0] = m[0];
        st[1] = 1 / sqrt(m[1] + a->norm.eps);
    }
    forward(&s, ref_data(y), ref_data(y->src[0]), ref_data(y->src[1]), ref_data(y->src[2]),
            ref_data(y->side[0]));
}

/* h = (x - mean) / std and dz at an element of channel g. */
static void element(const Tensor *const *src, const Shape *s, size_t e, size_t g, double *h,
                    double *dz)
{
    const double *st = ref_data(src[4]) + 2 * g;
    *h = (ref_data(src[1])[e] - st[0]) * st[1];
    double z = *h * ref_data(src[2])[g] + ref_data(src[3])[g];
    *dz = ref_data(src[0])[e] * (s->act ? slope(z, s->act) : 1);
}

static void batchnorm_sums_twin(const Tensor *sums)
{
    const Tensor *const *src = (const Tensor *const *)sums->src;
    Shape s = sync_shape(src[1], sums);
    memset(sums->data, 0, tensor_count(sums) * sizeof(double));
    for (size_t p = 0; p < s.hw; p++)
        for (size_t g = 0; g < s.groups; g++) {
            double h, dz;
            element(src, &s, p * s.groups + g, g, &h, &dz);
            ref_data(sums)[g] += dz * h;
            ref_data(sums)[s.groups + g] += dz;
        }
}

static void batchnorm_sync_dx_twin(const Tensor *dx)
{
    const Tensor *const *src = (const Tensor *const *)dx->src;
    Shape s = sync_shape(dx, dx);
    const double *sums = ref_data(src[5]), n = (double)s.hw;
    for (size_t p = 0; p < s.hw; p++)
        for (size_t g = 0; g < s.groups; g++) {
            size_t e = p * s.groups + g;
            double h, dz, gain = ref_data(src[2])[g], per_std = ref_data(src[4])[2 * g + 1];
            element(src, &s, e, g, &h, &dz);
            ref_data(dx)[e] =
                gain * per_std * (dz - sums[s.groups + g] / n - h * sums[g] / n);
        }
}

static const Twin twins[] = {
    {&op_groupnorm, groupnorm_twin},       {&op_groupnorm_dx, groupnorm_dx_twin},
    {&op_layernorm, layernorm_twin},       {&op_layernorm_dx, layernorm_dx_twin},
    {&op_batchnorm, batchnorm_twin},       {&op_batchnorm_train, batchnorm_twin},
    {&op_batchnorm_dx, batchnorm_dx_twin}, {&op_batchnorm_moments, batchnorm_moments_twin},
    {&op_batchnorm_sync, batchnorm_sync_twin}, {&op_batchnorm_sums, batchnorm_sums_twin},
    {&op_batchnorm_sync_dx, batchnorm_sync_dx_twin},
};

/* ---- cases ---------------------------------------------------------------------------- */

static Tensor *group_case(Graph *g, int ndim, const int *dim, int groups, Act act)
{
    Tensor *x = case_leaf(g, "x", ndim, dim), *gain = case_leaf(g, "gain", 1, dim + ndim - 1);
    return groupnorm(g, x, gain, case_leaf(g, "bias", 1, dim + ndim - 1), groups, 1e-5f, act);
}
static Tensor *gn_plain(Graph *g) { return group_case(g, 4, (int[]){3, 5, 3, 12}, 4, ACT_NONE); }
static Tensor *gn_silu(Graph *g) { return group_case(g, 4, (int[]){2, 17, 19, 35}, 5, ACT_SILU); }
static Tensor *gn_relu(Graph *g) { return group_case(g, 3, (int[]){5, 7, 33}, 3, ACT_RELU); }
static Tensor *gn_each(Graph *g)
{
    return group_case(g, 3, (int[]){2, 5, 6}, 6, ACT_SILU);
} /* groups of one */
static Tensor *gn_vector(Graph *g)
{
    return group_case(g, 2, (int[]){3, 40}, 2, ACT_SILU);
} /* no positions */
/* dx is all cancellation: the normalised values are +-1 but for eps */
static Tensor *gn_pairs(Graph *g) { return group_case(g, 3, (int[]){4, 2, 8}, 8, ACT_NONE); }
static Tensor *gn_one(Graph *g) { return group_case(g, 4, (int[]){1, 1, 1, 9}, 1, ACT_NONE); }
static Tensor *gn_image(Graph *g)
{
    return group_case(g, 4, (int[]){1, 31, 18, 64}, 32, ACT_SILU);
} /* rows spread */

/* More than a GPU's block holds, forward and backward or backward only. */
static Tensor *gn_tall(Graph *g) { return group_case(g, 4, (int[]){1, 83, 61, 10}, 2, ACT_SILU); }
static Tensor *gn_tallish(Graph *g) { return group_case(g, 4, (int[]){2, 53, 49, 5}, 1, ACT_RELU); }
static Tensor *gn_taller(Graph *g) { return group_case(g, 4, (int[]){1, 83, 61, 20}, 2, ACT_SILU); }
/* To a byte the 48 KiB that a GPU's block has without asking; kernels have some of their own besides.
 * The one in fp32 first: the other asks for more there, which lasts. */
static Tensor *gn_brim(Graph *g) { return group_case(g, 4, (int[]){1, 52, 52, 8}, 1, ACT_NONE); }
static Tensor *gn_brim_four(Graph *g) { return group_case(g, 3, (int[]){1, 2704, 4}, 1, ACT_NONE); }
/* One group, of more packs in fp32, or channels, than a block of the backward pass has threads. */
static Tensor *gn_one_wide(Graph *g) { return group_case(g, 3, (int[]){2, 3, 1040}, 1, ACT_NONE); }
static Tensor *gn_one_odd(Graph *g) { return group_case(g, 3, (int[]){1, 5, 259}, 1, ACT_SILU); }
static Tensor *gn_packs(Graph *g) { return group_case(g, 4, (int[]){2, 5, 3, 32}, 4, ACT_NONE); }
static Tensor *gn_packs_relu(Graph *g) { return group_case(g, 3, (int[]){3, 7, 16}, 2, ACT_RELU); }
static Tensor *gn_packs_tall(Graph *g)
{
    return group_case(g, 4, (int[]){1, 89, 71, 16}, 2, ACT_SILU);
}
static Tensor *gn_ten(Graph *g) /* groups of ten channels: not whole packs */
{
    return group_case(g, 4, (int[]){2, 9, 7, 80}, 8, ACT_SILU);
}
static Tensor *gn_ten_tall(Graph *g) { return group_case(g, 3, (int[]){1, 1231, 40}, 4, ACT_NONE); }

static Tensor *ln_odd(Graph *g)
{
    int d = 37;
    Tensor *x = case_leaf(g, "x", 3, (int[]){3, 5, d}), *gain = case_leaf(g, "gain", 1, &d);
    return layernorm(g, x, gain, case_leaf(g, "bias", 1, &d), 1e-5f);
}
static Tensor *ln_many(Graph *g) /* several blocks of rows */
{
    int d = 80;
    Tensor *x = case_leaf(g, "x", 2, (int[]){611, d}), *gain = case_leaf(g, "gain", 1, &d);
    return layernorm(g, x, gain, case_leaf(g, "bias", 1, &d), 1e-5f);
}
static Tensor *ln_rows(Graph *g, int rows, int d)
{
    Tensor *x = case_leaf(g, "x", 2, (int[]){rows, d}), *gain = case_leaf(g, "gain", 1, &d);
    return layernorm(g, x, gain, case_leaf(g, "bias", 1, &d), 1e-5f);
}
static Tensor *ln_wide(Graph *g) { return ln_rows(g, 5, 2088); }
static Tensor *ln_wide_odd(Graph *g) { return ln_rows(g, 3, 515); }
static Tensor *ln_packs(Graph *g) { return ln_rows(g, 21, 320); }

static Tensor *batch_case(Graph *g, int ndim, const int *dim, bool train, bool use_relu)
{
    const int *c = dim + ndim - 1;
    Tensor *x = case_leaf(g, "x", ndim, dim), *gain = case_leaf(g, "gain", 1, c),
           *bias = case_leaf(g, "bias", 1, c);
    Tensor *mean = case_state(g, "mean", 1, c), *var = case_state(g, "var", 1, c);
    return batchnorm(g, x, gain, bias, mean, var, 1e-3f, 0.1f, train, use_relu);
}
static Tensor *bn_train(Graph *g) { return batch_case(g, 4, (int[]){3, 4, 5, 7}, true, false); }
static Tensor *bn_train_relu(Graph *g)
{
    return batch_case(g, 4, (int[]){2, 23, 17, 19}, true, true);
}
static Tensor *bn_vector(Graph *g) { return batch_case(g, 2, (int[]){6, 5}, true, false); }
static Tensor *bn_wide(Graph *g) { return batch_case(g, 2, (int[]){5, 2576}, true, true); }
static Tensor *bn_wide_odd(Graph *g) { return batch_case(g, 2, (int[]){7, 331}, false, true); }
static Tensor *bn_tall(Graph *g) { return batch_case(g, 3, (int[]){9, 211, 16}, true, true); }
static Tensor *bn_eval(Graph *g) { return batch_case(g, 4, (int[]){1, 3, 5, 18}, false, false); }
static Tensor *bn_eval_relu(Graph *g)
{
    return batch_case(g, 4, (int[]){2, 3, 3, 16}, false, true);
}

static Tensor *sync_case(Graph *g, int ndim, const int *dim, bool use_relu)
{
    const int *c = dim + ndim - 1;
    Tensor *x = case_leaf(g, "x", ndim, dim), *gain = case_leaf(g, "gain", 1, c),
           *bias = case_leaf(g, "bias", 1, c);
    Tensor *mean = case_state(g, "mean", 1, c), *var = case_state(g, "var", 1, c);
    return batchnorm_sync(g, x, gain, bias, mean, var, 1e-3f, 0.1f, use_relu, NULL);
}
static Tensor *sn_plain(Graph *g) { return sync_case(g, 4, (int[]){3, 4, 5, 7}, false); }
static Tensor *sn_relu(Graph *g) { return sync_case(g, 4, (int[]){2, 23, 17, 19}, true); }
static Tensor *sn_wide(Graph *g) { return sync_case(g, 2, (int[]){5, 2576}, true); }
static Tensor *sn_tall(Graph *g) { return sync_case(g, 3, (int[]){9, 211, 16}, true); }

static bool is(const Tensor *leaf, const char *name) { return !strcmp(leaf->name, name); }

/* Spread 1 about 30: a variance from raw squares would lose three digits, while the rounding of the
 * mean, kept in fp32, is 1e-6 of the spread. Gains are 0.5 .. 1.5. */
static void far_fill(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        value[i] = case_normal(seed, leaf, i);
        if (is(leaf, "x")) value[i] += 30;
        if (is(leaf, "gain")) value[i] = 1 + 0.5 * tanh(value[i]);
    }
}

/* Running variances are positive. */
static void state_fill(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        value[i] = case_normal(seed, leaf, i);
        if (is(leaf, "var")) value[i] = 0.5 + value[i] * value[i];
    }
}

/* No result of the norm near the kink of relu: each channel is all positive or all negative,
 * for |gain| = 0.05 .. 0.1, and |bias| = 3 outweighs twenty deviations. */
static void kink_fill(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    state_fill(leaf, value, count, seed);
    for (size_t i = 0; i < count; i++) {
        if (is(leaf, "gain")) value[i] = 0.05 + 0.05 * fabs(tanh(value[i]));
        if (is(leaf, "bias")) value[i] = i % 3 ? 3 : -3;
    }
}

static const OpCase cases[] = {
    {"groupnorm", gn_plain, NULL, 45},
    {"groupnorm silu, 2 blocks of rows", gn_silu, NULL, 2261},
    {"groupnorm relu", gn_relu, kink_fill, 77},
    {"groupnorm of one channel", gn_each, NULL, 5},
    {"groupnorm of a vector", gn_vector, NULL, 20},
    {"groupnorm of one position", gn_one, NULL, 9},
    {"groupnorm of pairs", gn_pairs, NULL, 2},
    {"groupnorm of one image", gn_image, NULL, 1116},
    {"groupnorm of many rows", gn_tall, NULL, 25315},
    {"groupnorm of half as many", gn_tallish, kink_fill, 12985},
    {"groupnorm of twice as many", gn_taller, NULL, 50630},
    {"groupnorm of 48 KiB, in fp32", gn_brim_four, NULL, 10816},
    {"groupnorm of 48 KiB", gn_brim, NULL, 21632},
    {"groupnorm of one wide group", gn_one_wide, NULL, 3120},
    {"groupnorm of one odd group", gn_one_odd, NULL, 1295},
    {"groupnorm of packs", gn_packs, NULL, 120},
    {"groupnorm of packs, relu", gn_packs_relu, kink_fill, 56},
    {"groupnorm of packs, many rows", gn_packs_tall, NULL, 50552},
    {"groupnorm of ten channels", gn_ten, NULL, 630},
    {"groupnorm of ten channels, many rows", gn_ten_tall, NULL, 12310},
    {"groupnorm far from zero", gn_plain, far_fill, 45},
    {"groupnorm of many rows far from zero", gn_tall, far_fill, 25315},
    {"layernorm", ln_odd, NULL, 37},
    {"layernorm, many rows", ln_many, NULL, 611},
    {"layernorm of packs", ln_packs, NULL, 320},
    {"layernorm, wide", ln_wide, NULL, 2088},
    {"layernorm, wide and odd", ln_wide_odd, NULL, 515},
    {"layernorm far from zero", ln_odd, far_fill, 37},
    {"batchnorm train", bn_train, state_fill, 60},
    {"batchnorm train relu", bn_train_relu, kink_fill, 782},
    {"batchnorm of vectors", bn_vector, state_fill, 6},
    {"batchnorm of wide vectors", bn_wide, kink_fill, 5},
    {"batchnorm of many rows", bn_tall, kink_fill, 1899},
    {"batchnorm eval, wide and odd", bn_wide_odd, kink_fill, 7},
    {"batchnorm train far from zero", bn_train, far_fill, 60},
    {"batchnorm over ranks", sn_plain, state_fill, 60},
    {"batchnorm over ranks, relu", sn_relu, kink_fill, 782},
    {"batchnorm over ranks of wide vectors", sn_wide, kink_fill, 5},
    {"batchnorm over ranks of many rows", sn_tall, kink_fill, 1899},
    {"batchnorm over ranks far from zero", sn_plain, far_fill, 60},
    {"batchnorm eval", bn_eval, state_fill, 15},
    {"batchnorm eval relu", bn_eval_relu, kink_fill, 18},
};

const RefFamily ref_norm = {twins, sizeof twins / sizeof *twins, cases,
                            sizeof cases / sizeof *cases};
