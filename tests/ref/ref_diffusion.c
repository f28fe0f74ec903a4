/* ref_diffusion.c - twins of lookups and diffusion arithmetic. */
#include "base/random.h"
#include "ref/ref.h"
#include <math.h>
#include <string.h>

static void clear(const Tensor *t) { memset(t->data, 0, tensor_count(t) * sizeof(double)); }

/* ---- lookups and diffusion -------------------------------------------------------------- */

static void embedding_twin(const Tensor *y)
{
    const int32_t *ids = y->src[0]->data;
    size_t d = (size_t)last_dim(y);
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] = ref_data(y->src[1])[(size_t)ids[i / d] * d + i % d];
}

static void embedding_dw_twin(const Tensor *dtable)
{
    const int32_t *ids = dtable->src[0]->data;
    size_t d = (size_t)last_dim(dtable);
    clear(dtable);
    for (size_t i = 0; i < tensor_count(dtable->src[1]); i++)
        ref_data(dtable)[(size_t)ids[i / d] * d + i % d] += ref_data(dtable->src[1])[i];
}

/* The one twin with float in it: the angle rounded at each step is part of the definition. */
static void timestep_embedding_twin(const Tensor *y)
{
    const TimestepArgs *a = y->args;
    for (int n = 0; n < y->dim[0]; n++)
        for (int k = 0; k < a->dim; k++) {
            int i = k % (a->dim / 2);
            float exponent = (float)-log(10000) * (float)i;
            exponent /= (float)(a->dim / 2) - a->shift;
            float angle = (float)ref_data(y->src[0])[n] * (float)exp((double)exponent);
            bool cosine = (k < a->dim / 2) == (a->flip != 0);
            ref_data(y)[n * a->dim + k] = cosine ? cos((double)angle) : sin((double)angle);
        }
}

static void mix_samples_twin(const Tensor *y)
{
    for (size_t i = 0; i < tensor_count(y); i++) {
        const double *c = ref_data(y->src[2]) + 2 * (i / per_sample(y));
        ref_data(y)[i] = c[0] * ref_data(y->src[0])[i] + c[1] * ref_data(y->src[1])[i];
    }
}

static void mix_samples_dx_twin(const Tensor *dx)
{
    for (size_t i = 0; i < tensor_count(dx); i++)
        ref_data(dx)[i] =
            ref_data(dx->src[1])[2 * (i / per_sample(dx)) + (size_t)(*(const int *)dx->args)] *
            ref_data(dx->src[0])[i];
}

static uint64_t sample_of(const int32_t *words)
{
    return (uint32_t)words[0] | (uint64_t)(uint32_t)words[1] << 32;
}

static void noise_samples_twin(const Tensor *y)
{
    const NoiseArgs *a = y->args;
    for (size_t i = 0; i < tensor_count(y); i++) {
        size_t n = i / per_sample(y);
        const int32_t *key = (const int32_t *)y->src[1]->data + 4 * n;
        const double *mix = ref_data(y->src[2]) + 2 * n, *target = ref_data(y->src[3]) + 2 * n;
        RandomKey k = {(uint32_t)key[0], a->stream, (uint32_t)key[1], sample_of(key + 2)};
        double x = ref_data(y->src[0])[i], z = random_normal(k, (uint32_t)(i % per_sample(y)));
        k.stream = STREAM_NOISE_OFFSET;
        z += (double)a->offset * random_normal(k, (uint32_t)(i % (size_t)last_dim(y)));
        ref_data(y)[i] = mix[0] * x + mix[1] * z;
        ref_data(y->side[0])[i] = target[0] * x + target[1] * z;
    }
}

/* Given, drawn, or none. */
static double step_noise(const Tensor *y, size_t i)
{
    const Tensor *noise = y->src[3];
    if (!noise || noise->dtype != DTYPE_I32) return noise ? ref_data(noise)[i] : 0;
    const int32_t *key = (const int32_t *)noise->data + 3 * (i / per_sample(y));
    RandomKey k = {(uint32_t)key[0], STREAM_STEP, (uint32_t)ref_data(y->src[2])[5],
                   sample_of(key + 1)};
    return random_normal(k, (uint32_t)(i % per_sample(y)));
}

static void ddim_step_twin(const Tensor *y)
{
    const DdimArgs *a = y->args;
    const double *coef = ref_data(y->src[2]), *pred = ref_data(y->src[1]);
    for (size_t i = 0; i < tensor_count(y); i++) {
        double p = pred[i], x = ref_data(y->src[0])[i];
        if (a->guided) p = pred[i] + (double)a->guidance * (pred[tensor_count(y) + i] - pred[i]);
        double clean = (x - coef[1] * p) / coef[0], e = p;
        if (a->prediction == PREDICT_VELOCITY) {
            clean = coef[0] * x - coef[1] * p;
            e = coef[0] * p + coef[1] * x;
        }
        if (a->prediction == PREDICT_SAMPLE) {
            clean = p;
            e = (x - coef[0] * p) / coef[1];
        }
        ref_data(y)[i] = coef[2] * clean + coef[3] * e + coef[4] * step_noise(y, i);
    }
}

static const Twin twins[] = {
    {&op_embedding, embedding_twin},
    {&op_embedding_dw, embedding_dw_twin},
    {&op_timestep_embedding, timestep_embedding_twin},
    {&op_mix_samples, mix_samples_twin},
    {&op_mix_samples_dx, mix_samples_dx_twin},
    {&op_ddim_step, ddim_step_twin},
    {&op_ddim_step_drawn, ddim_step_twin},
    {&op_noise_samples, noise_samples_twin},
};

/* ---- cases ------------------------------------------------------------------------------ */

static Tensor *embedding_case(Graph *g)
{
    Tensor *ids = case_const(g, "ids", DTYPE_I32, 2, (int[]){3, 5});
    return embedding(g, ids, case_leaf(g, "table", 2, (int[]){7, 67}));
}

/* Fifteen of seven rows: some repeat. The table gets normals. */
static void ids_below_7(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++)
        value[i] = leaf->dtype == DTYPE_I32
                       ? random_below((RandomKey){seed, STREAM_TEST, 3, 0}, (uint32_t)i, 7)
                       : case_normal(seed, leaf, i);
}

static Tensor *embedding_packed_case(Graph *g)
{
    Tensor *ids = case_const(g, "ids", DTYPE_I32, 2, (int[]){3, 5});
    return embedding(g, ids, case_leaf(g, "table", 2, (int[]){7, 24}));
}

static Tensor *embedding_long_case(Graph *g)
{
    Tensor *ids = case_const(g, "ids", DTYPE_I32, 2, (int[]){4, 75});
    return embedding(g, ids, case_leaf(g, "table", 2, (int[]){9, 44}));
}

/* Below 7, and a run of sevens as long as several warps', as padding is; 8 is never used. */
static void ids_padded(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    ids_below_7(leaf, value, count, seed);
    for (size_t i = 30; leaf->dtype == DTYPE_I32 && i < 270; i++) value[i] = 7;
}

static void times(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++)
        value[i] =
            random_below((RandomKey){seed, STREAM_TEST, 4, (uint64_t)leaf->id}, (uint32_t)i, 1000);
}

static Tensor *timestep_case(Graph *g)
{
    return timestep_embedding(g, case_const(g, "t", DTYPE_F32, 1, (int[]){5}), 38, true, 0);
}
static Tensor *timestep_plain_case(Graph *g)
{
    return timestep_embedding(g, case_const(g, "t", DTYPE_F32, 1, (int[]){3}), 10, false, 1);
}

static Tensor *timestep_wide_case(Graph *g)
{
    return timestep_embedding(g, case_const(g, "t", DTYPE_F32, 1, (int[]){3}), 320, true, 0);
}

static Tensor *mix_samples_packed(Graph *g)
{
    Tensor *a = case_leaf(g, "a", 2, (int[]){3, 1032}), *b = case_leaf(g, "b", 2, (int[]){3, 1032});
    return mix_samples(g, a, b, case_const(g, "c", DTYPE_F32, 2, (int[]){3, 2}));
}
static Tensor *mix_samples_case(Graph *g)
{
    Tensor *a = case_leaf(g, "a", 4, (int[]){3, 3, 5, 7}),
           *b = case_leaf(g, "b", 4, (int[]){3, 3, 5, 7});
    return mix_samples(g, a, b, case_const(g, "c", DTYPE_F32, 2, (int[]){3, 2}));
}

static Tensor *ddim_of(Graph *g, int n, int h, DdimArgs a, bool noisy)
{
    int dim[] = {n, h, 3, 4}, pred[] = {a.guided ? 2 * n : n, h, 3, 4};
    return ddim_step(g, case_const(g, "x", g->act, 4, dim), case_const(g, "pred", g->act, 4, pred),
                     noisy ? case_const(g, "noise", g->act, 4, dim) : NULL,
                     case_const(g, "coef", DTYPE_F32, 1, (int[]){6}), a);
}
static Tensor *ddim(Graph *g, DdimArgs a, bool noisy) { return ddim_of(g, 3, 5, a, noisy); }
static Tensor *ddim_large(Graph *g)
{
    return ddim_of(g, 2, 58, (DdimArgs){1, PREDICT_NOISE, 7.5f}, true);
}
static Tensor *ddim_case(Graph *g) { return ddim(g, (DdimArgs){0}, false); }
static Tensor *ddim_guided_case(Graph *g)
{
    return ddim(g, (DdimArgs){1, PREDICT_NOISE, 7.5f}, true);
}
static Tensor *ddim_v_case(Graph *g)
{
    return ddim(g, (DdimArgs){0, PREDICT_VELOCITY, 0}, true);
}
static Tensor *ddim_guided_v_case(Graph *g)
{
    return ddim(g, (DdimArgs){1, PREDICT_VELOCITY, 2.5f}, false);
}
static Tensor *ddim_sample_case(Graph *g)
{
    return ddim(g, (DdimArgs){1, PREDICT_SAMPLE, 1.5f}, true);
}

static Tensor *ddim_drawn(Graph *g, int h, bool guided)
{
    int dim[] = {3, h, 3, 4}, pred[] = {guided ? 6 : 3, h, 3, 4};
    return ddim_step(g, case_const(g, "x", g->act, 4, dim), case_const(g, "pred", g->act, 4, pred),
                     case_const(g, "key", DTYPE_I32, 2, (int[]){3, 3}),
                     case_const(g, "coef", DTYPE_F32, 1, (int[]){6}),
                     (DdimArgs){guided, PREDICT_NOISE, 3});
}
static Tensor *ddim_drawn_case(Graph *g) { return ddim_drawn(g, 3, false); }
static Tensor *ddim_drawn_packed(Graph *g) { return ddim_drawn(g, 14, true); }

/* One step after the other, of each kind. */
static Tensor *ddim_chain(Graph *g, int c)
{
    int dim[] = {2, 3, 3, c}, both[] = {4, 3, 3, c};
    Tensor *x = case_const(g, "x", g->act, 4, dim), *one = case_const(g, "pred", g->act, 4, dim),
           *two = case_const(g, "preds", g->act, 4, both),
           *noise = case_const(g, "noise", g->act, 4, dim),
           *key = case_const(g, "key", DTYPE_I32, 2, (int[]){2, 3}),
           *coef = case_const(g, "coef", DTYPE_F32, 1, (int[]){6});
    for (int k = 0; k < 6; k++)
        x = ddim_step(g, x, k % 2 ? two : one, k < 2 ? NULL : k < 4 ? noise : key, coef,
                      (DdimArgs){k % 2, PREDICT_NOISE, 1.5f});
    return x;
}
static Tensor *ddim_chain_odd(Graph *g) { return ddim_chain(g, 1); }
static Tensor *ddim_chain_packed(Graph *g) { return ddim_chain(g, 8); }

/* Both results count. */
static Tensor *noising(Graph *g, int h, int c, float offset)
{
    int dim[] = {3, h, 3, c}, pair[] = {3, 2};
    Tensor *noisy = noise_samples(g, case_const(g, "x", g->act, 4, dim),
                                  case_const(g, "key", DTYPE_I32, 2, (int[]){3, 4}),
                                  case_const(g, "mix", DTYPE_F32, 2, pair),
                                  case_const(g, "target", DTYPE_F32, 2, pair),
                                  (NoiseArgs){offset, offset > 0 ? STREAM_NOISE : STREAM_START});
    return noisy ? add_scaled(g, noisy, 1, noisy->side[0], 0.5f) : NULL;
}
static Tensor *noising_case(Graph *g) { return noising(g, 3, 4, 0.1f); }
static Tensor *noising_packed(Graph *g) { return noising(g, 22, 4, 0); }
static Tensor *noising_odd(Graph *g) { return noising(g, 3, 1, 0.1f); }

/* The coefficients of a step from t = 981 to 961 with eta about a half: a division by 0.076. */
static void steps(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    static const double coef[6] = {0.0759967, 0.9971081, 0.0860, 0.9905, 0.1065, 7};
    for (size_t i = 0; i < count; i++) {
        value[i] = strcmp(leaf->name, "coef") ? case_normal(seed, leaf, i) : coef[i];
        if (leaf->dtype == DTYPE_I32) value[i] = floor(1e8 * value[i]); /* keys */
    }
}

static const OpCase cases[] = {
    {"embedding", embedding_case, ids_below_7, 15},
    {"embedding, packed", embedding_packed_case, ids_below_7, 15},
    {"embedding, padded", embedding_long_case, ids_padded, 240},
    {"timestep_embedding wide", timestep_wide_case, times, 1},
    {"timestep_embedding cos first", timestep_case, times, 1},
    {"timestep_embedding sin first", timestep_plain_case, times, 1},
    {"mix_samples, packed", mix_samples_packed, NULL, 2},
    {"mix_samples", mix_samples_case, NULL, 2},
    {"ddim", ddim_case, steps, 2},
    {"ddim guided, noise", ddim_guided_case, steps, 3},
    {"ddim v, noise", ddim_v_case, steps, 3},
    {"ddim v, guided", ddim_guided_v_case, steps, 3},
    {"ddim sample, guided, noise", ddim_sample_case, steps, 4},
    {"ddim drawn", ddim_drawn_case, steps, 3},
    {"ddim drawn, guided, packed", ddim_drawn_packed, steps, 3},
    {"noise_samples", noising_case, steps, 4},
    {"noise_samples, packed", noising_packed, steps, 4},
    {"noise_samples, odd", noising_odd, steps, 4},
    {"ddim, every kind, odd", ddim_chain_odd, steps, 20},
    {"ddim, every kind, packed", ddim_chain_packed, steps, 20},
    {"ddim guided, noise, packed", ddim_large, steps, 3},
};

const RefFamily ref_diffusion = {twins, sizeof twins / sizeof *twins, cases,
                                 sizeof cases / sizeof *cases};
