/* ref_gaussian.c - twins of the ops of a variational autoencoder's latent. */
#include "ref/ref.h"
#include <math.h>
#include <string.h>

static bool outside(const ClampArgs *a, double x)
{
    return x < (double)a->least || x > (double)a->most;
}

static void clamp_twin(const Tensor *y)
{
    const ClampArgs *a = y->args;
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] = fmin(fmax(ref_data(y->src[0])[i], (double)a->least), (double)a->most);
}

static void clamp_dx_twin(const Tensor *dx)
{
    for (size_t i = 0; i < tensor_count(dx); i++)
        ref_data(dx)[i] = outside(dx->args, ref_data(dx->src[0])[i]) ? 0 : ref_data(dx->src[1])[i];
}

static void sample_gaussian_twin(const Tensor *y)
{
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] = ref_data(y->src[0])[i] +
                         sqrt(exp(ref_data(y->src[1])[i])) * ref_data(y->src[2])[i];
}

static void sample_gaussian_dlogvar_twin(const Tensor *dv)
{
    for (size_t i = 0; i < tensor_count(dv); i++)
        ref_data(dv)[i] = ref_data(dv->src[0])[i] * ref_data(dv->src[2])[i] *
                          sqrt(exp(ref_data(dv->src[1])[i])) / 2;
}

static void gaussian_kl_twin(const Tensor *y)
{
    const Tensor *mean = y->src[0];
    double sum = 0;
    for (size_t i = 0; i < tensor_count(mean); i++) {
        double m = ref_data(mean)[i], v = ref_data(y->src[1])[i];
        sum += ref_data(y->src[2])[i / per_sample(mean)] * (m * m + exp(v) - 1 - v) / 2;
    }
    ref_data(y)[0] = sum / mean->dim[0];
}

static void gaussian_kl_dx_twin(const Tensor *dm)
{
    for (size_t i = 0; i < tensor_count(dm); i++) {
        double scale =
            ref_data(dm->src[0])[0] * ref_data(dm->src[3])[i / per_sample(dm)] / dm->dim[0];
        ref_data(dm)[i] = scale * ref_data(dm->src[1])[i];
        ref_data(dm->side[0])[i] = scale * (exp(ref_data(dm->src[2])[i]) - 1) / 2;
    }
}

static const Twin twins[] = {
    {&op_clamp, clamp_twin},
    {&op_clamp_dx, clamp_dx_twin},
    {&op_sample_gaussian, sample_gaussian_twin},
    {&op_sample_gaussian_dlogvar, sample_gaussian_dlogvar_twin},
    {&op_gaussian_kl, gaussian_kl_twin},
    {&op_gaussian_kl_dx, gaussian_kl_dx_twin},
};

/* ---- cases ------------------------------------------------------------------------------ */

static Tensor *clamp_case(Graph *g)
{
    return clamp(g, case_leaf(g, "x", 3, (int[]){3, 5, 7}), -0.75f, 0.5f);
}
static Tensor *clamp_large(Graph *g)
{
    return clamp(g, case_leaf(g, "x", 2, (int[]){173, 101}), -1.25f, 0.125f);
}

static Tensor *sample(Graph *g, int n, int width)
{
    int dim[] = {n, width};
    return sample_gaussian(g, case_leaf(g, "mean", 2, dim), case_leaf(g, "logvar", 2, dim),
                           case_const(g, "noise", g->act, 2, dim));
}
static Tensor *sample_case(Graph *g) { return sample(g, 3, 35); }
static Tensor *sample_large(Graph *g) { return sample(g, 173, 101); }

static Tensor *kl(Graph *g, int c)
{
    int dim[] = {3, 5, 7, c};
    return gaussian_kl(g, case_leaf(g, "mean", 4, dim), case_leaf(g, "logvar", 4, dim),
                       case_const(g, "weight", DTYPE_F32, 1, dim));
}

static Tensor *kl_case(Graph *g) { return kl(g, 4); }
static Tensor *kl_odd(Graph *g) { return kl(g, 1); }
static Tensor *kl_packed(Graph *g) { return kl(g, 8); }

/* Multiples of 1/8 and a half step: no value near a kink of the cases above. */
static void between_steps(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++)
        value[i] = (floor(8 * case_normal(seed, leaf, i)) + 0.5) / 8;
}

/* Log-variances as an encoder gives them before training to its bound; weights are positive. */
static void latent_leaves(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        value[i] = case_normal(seed, leaf, i);
        if (!strcmp(leaf->name, "logvar")) value[i] *= 2;
        if (!strcmp(leaf->name, "weight")) value[i] = 0.1 + fabs(value[i]);
    }
}

static const OpCase cases[] = {
    {"clamp", clamp_case, between_steps, 1},
    {"clamp on two threads", clamp_large, between_steps, 1},
    {"sample_gaussian", sample_case, latent_leaves, 1},
    {"sample_gaussian on two threads", sample_large, latent_leaves, 1},
    {"gaussian_kl", kl_case, latent_leaves, 420},
    {"gaussian_kl, odd", kl_odd, latent_leaves, 105},
    {"gaussian_kl, packed", kl_packed, latent_leaves, 840},
};

const RefFamily ref_gaussian = {twins, sizeof twins / sizeof *twins, cases,
                                sizeof cases / sizeof *cases};
