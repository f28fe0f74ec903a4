/* ref_loss.c - twins of the losses. */
#include "ref/ref.h"
#include "base/random.h"
#include <math.h>
#include <string.h>

static void weighted_mse_twin(const Tensor *y)
{
    const Tensor *x = y->src[0];
    double sum = 0, all = (double)tensor_count(x);
    for (size_t i = 0; i < tensor_count(x); i++)
        sum += ref_data(y->src[2])[i / per_sample(x)] *
               pow(ref_data(x)[i] - ref_data(y->src[1])[i], 2) / all;
    ref_data(y)[0] = sum;
}

static void weighted_mse_dx_twin(const Tensor *dx)
{
    for (size_t i = 0; i < tensor_count(dx); i++)
        ref_data(dx)[i] = ref_data(dx->src[0])[0] * 2 * ref_data(dx->src[3])[i / per_sample(dx)] *
                          (ref_data(dx->src[1])[i] - ref_data(dx->src[2])[i]) /
                          (double)tensor_count(dx);
}

static void weighted_l1_twin(const Tensor *y)
{
    const Tensor *x = y->src[0];
    double sum = 0, all = (double)tensor_count(x);
    for (size_t i = 0; i < tensor_count(x); i++)
        sum += ref_data(y->src[2])[i / per_sample(x)] *
               fabs(ref_data(x)[i] - ref_data(y->src[1])[i]) / all;
    ref_data(y)[0] = sum;
}

static void weighted_l1_dx_twin(const Tensor *dx)
{
    for (size_t i = 0; i < tensor_count(dx); i++) {
        double e = ref_data(dx->src[1])[i] - ref_data(dx->src[2])[i];
        ref_data(dx)[i] = ref_data(dx->src[0])[0] * ref_data(dx->src[3])[i / per_sample(dx)] *
                          ((e > 0) - (e < 0)) / (double)tensor_count(dx);
    }
}

static double class_weight(const Tensor *weight, int k) { return weight ? ref_data(weight)[k] : 1; }

/* The target distribution q of row i is (1-s) at its label and s/k everywhere; the loss is
 * sum over j of q[j] w[j] (-log p[j]), over the sum of the labels' weights. */
static double target(int label, int j, int k, const CrossEntropyArgs *a)
{
    return (double)a->smoothing / k + (j == label ? 1 - (double)a->smoothing : 0);
}

static double divisor(const Tensor *label, const Tensor *weight)
{
    double sum = 0;
    for (int i = 0; i < label->dim[0]; i++) {
        int l = ((int32_t *)label->data)[i];
        if (l != -1) sum += class_weight(weight, l);
    }
    return sum;
}

static void cross_entropy_twin(const Tensor *y)
{
    const Tensor *x = y->src[0], *label = y->src[1], *weight = y->src[2];
    int k = x->dim[1];
    double loss = 0, w = divisor(label, weight);
    for (int i = 0; i < x->dim[0]; i++) {
        double sum = 0;
        for (int j = 0; j < k; j++) sum += exp(ref_data(x)[i * k + j]);
        for (int j = 0; j < k; j++) {
            double p = ref_data(y->side[0])[i * k + j] = exp(ref_data(x)[i * k + j]) / sum;
            int l = ((int32_t *)label->data)[i];
            if (l != -1) loss -= target(l, j, k, y->args) * class_weight(weight, j) * log(p);
        }
    }
    ref_data(y)[0] = w > 0 ? loss / w : 0;
}

static void cross_entropy_dx_twin(const Tensor *dx)
{
    const Tensor *prob = dx->src[1], *label = dx->src[2], *weight = dx->src[3];
    int k = dx->dim[1];
    double w = divisor(label, weight);
    for (int i = 0; i < dx->dim[0]; i++)
        for (int j = 0; j < k; j++) {
            int l = ((int32_t *)label->data)[i];
            double sum = 0; /* d/dx[j] of -log p[m] is p[j] - [m = j] */
            for (int m = 0; m < k; m++)
                sum += target(l, m, k, dx->args) * class_weight(weight, m) *
                       (ref_data(prob)[i * k + j] - (m == j));
            ref_data(dx)[i * k + j] = l == -1 || w <= 0 ? 0 : ref_data(dx->src[0])[0] * sum / w;
        }
}

static const Twin twins[] = {
    {&op_weighted_mse, weighted_mse_twin},
    {&op_weighted_mse_dx, weighted_mse_dx_twin},
    {&op_weighted_l1, weighted_l1_twin},
    {&op_weighted_l1_dx, weighted_l1_dx_twin},
    {&op_cross_entropy, cross_entropy_twin},
    {&op_cross_entropy_dx, cross_entropy_dx_twin},
};

/* ---- cases ------------------------------------------------------------------------------ */

static Tensor *mse_case(Graph *g)
{
    int dim[] = {3, 5, 7, 4};
    return weighted_mse(g, case_leaf(g, "x", 4, dim), case_const(g, "target", g->act, 4, dim),
                        case_const(g, "weight", DTYPE_F32, 1, dim));
}

static Tensor *mse_long_case(Graph *g) /* more than two partial sums a sample */
{
    int dim[] = {2, 8197};
    return weighted_mse(g, case_leaf(g, "x", 2, dim), case_const(g, "target", g->act, 2, dim),
                        case_const(g, "weight", DTYPE_F32, 1, dim));
}

static Tensor *mse_packed_case(Graph *g) /* samples of whole packs */
{
    int dim[] = {3, 2, 4100};
    return weighted_mse(g, case_leaf(g, "x", 3, dim), case_const(g, "target", g->act, 3, dim),
                        case_const(g, "weight", DTYPE_F32, 1, dim));
}

static Tensor *l1_case(Graph *g)
{
    int dim[] = {3, 5, 7, 4};
    return weighted_l1(g, case_leaf(g, "x", 4, dim), case_const(g, "target", g->act, 4, dim),
                       case_const(g, "weight", DTYPE_F32, 1, dim));
}

static Tensor *l1_long_case(Graph *g)
{
    int dim[] = {2, 8197};
    return weighted_l1(g, case_leaf(g, "x", 2, dim), case_const(g, "target", g->act, 2, dim),
                       case_const(g, "weight", DTYPE_F32, 1, dim));
}

static Tensor *l1_packed_case(Graph *g)
{
    int dim[] = {3, 2, 100};
    return weighted_l1(g, case_leaf(g, "x", 3, dim), case_const(g, "target", g->act, 3, dim),
                       case_const(g, "weight", DTYPE_F32, 1, dim));
}

static Tensor *entropy(Graph *g, int n, int k, bool weighted, float smoothing)
{
    Tensor *logits = case_leaf(g, "logits", 2, (int[]){n, k}),
           *label = case_const(g, "label", DTYPE_I32, 1, &n);
    return cross_entropy(g, logits, label,
                         weighted ? case_const(g, "weight", DTYPE_F32, 1, &k) : NULL, smoothing);
}
static Tensor *entropy_case(Graph *g) { return entropy(g, 9, 4, false, 0); }
static Tensor *entropy_weighted_case(Graph *g) { return entropy(g, 11, 4, true, 0.1f); }
static Tensor *entropy_smooth_case(Graph *g) { return entropy(g, 3, 4, false, 0.3f); }
static Tensor *entropy_many_case(Graph *g) { return entropy(g, 13, 77, true, 0.1f); }
static Tensor *entropy_none_case(Graph *g) { return entropy(g, 3, 4, true, 0.1f); }

/* Labels -1..3, weights positive, the rest normals. */
static void loss_leaves(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        value[i] = case_normal(seed, leaf, i);
        if (leaf->dtype == DTYPE_I32)
            value[i] =
                (double)random_below((RandomKey){seed, STREAM_TEST, 5, 0}, (uint32_t)i, 5) - 1;
        else if (leaf->ndim == 1) value[i] = 0.1 + fabs(value[i]);
    }
    if (leaf->dtype == DTYPE_I32) value[0] = 2; /* at least one row counts */
}

/* x above 0.01, the target below -0.01: farther from the kink of |x - target| than a step of the
 * differences; odd elements the other way round. */
static void apart(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        bool up = (i % 2 == 0) == !strcmp(leaf->name, "x");
        double size = 0.01 + fabs(case_normal(seed, leaf, i));
        value[i] = up || leaf->ndim == 1 ? size : -size;
    }
}

static void all_left_out(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    loss_leaves(leaf, value, count, seed);
    for (size_t i = 0; leaf->dtype == DTYPE_I32 && i < count; i++) value[i] = -1;
}

static const OpCase cases[] = {
    {"weighted_mse", mse_case, loss_leaves, 420},
    {"weighted_mse, long", mse_long_case, loss_leaves, 16394},
    {"weighted_mse, packed", mse_packed_case, loss_leaves, 24600},
    {"weighted_l1", l1_case, apart, 420},
    {"weighted_l1, packed", l1_packed_case, apart, 600},
    {"weighted_l1, long", l1_long_case, apart, 16394},
    {"cross_entropy", entropy_case, loss_leaves, 9},
    {"cross_entropy weighted, smooth", entropy_weighted_case, loss_leaves, 11},
    {"cross_entropy smooth", entropy_smooth_case, loss_leaves, 3},
    {"cross_entropy, many classes", entropy_many_case, loss_leaves, 77},
    {"cross_entropy, no label", entropy_none_case, all_left_out, 3},
};

const RefFamily ref_loss = {twins, sizeof twins / sizeof *twins, cases,
                            sizeof cases / sizeof *cases};
