/* test_models_cuda.c - the four models, forward and every gradient, on the device "cuda" at tiny
 * sizes, on random weights and inputs.
 *
 *   test_models_cuda [SEED [NAME]]
 *
 * fp32, against the CPU: outputs within 1e-5 of their norm, each gradient within 1e-4 of its own
 * norm and 1e-7 of the largest gradient's. Inception-V3's training mode is so ill-conditioned at
 * this size (one to five channels a layer, eight rows in the last batch normalisations; of two rows
 * the values become +-1) that the CPU's own error exceeds that. There the error against the twins
 * may instead be four times the larger of the CPU's own and of what that is over all gradients:
 * both are draws of one size. Four is chosen, not derived; and one draw of twelve misses even so,
 * where a relu turns in one of the two only. bf16,
 * against twins in double: the error is at most twice that of the naive evaluation of the same
 * (fused) nodes, each computed in double and rounded to how it is stored; for outputs, and for all
 * gradients together. A single gradient may be a sum of few terms, whose rounding errors are draws of their
 * own: its relative error is at most twice the larger of the naive one's and of that over all
 * gradients of this model.
 * That compares one draw with one draw: of fresh seeds, single gradients exceed it now and then
 * (Inception-V3, AutoencoderKL), the sum over all does not. So the seed is 1 unless one is given.
 */
#include "base/random.h"
#include "models/autoencoder_kl.h"
#include "models/autoencoder_tiny.h"
#include "models/clip_text.h"
#include "models/inception_v3.h"
#include "models/unet.h"
#include "ops/fusions.h"
#include "ref/ref.h"
#include "weights/half.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OUT = 2, VOCAB = 23, MOST = 1024 };

typedef struct {
    const char *name;
    int (*build)(Graph *g, ParamStore *s, Tensor *out[MAX_OUT]); /* returns the number of outputs */
    bool unstable;                                               /* the CPU's own error counts */
    bool sampling; /* no gradients; weights, text and times held */
} Model;

/* Outputs, then the gradients of all leaves that have one; the same order in every graph. */
typedef struct {
    int n, n_out;
    const char *name[MOST];
    size_t count[MOST];
    double *value[MOST]; /* owned, as the names */
} Result;

static void require(Status s)
{
    if (!s) return;
    printf("FAILED: %s\n", status_message());
    exit(1);
}

/* ---- models --------------------------------------------------------------------------------- */

static Tensor *image(Graph *g, const char *name, int n, int h, int w, int c)
{
    Tensor *t = graph_leaf(g, KIND_INPUT, DTYPE_F32, name, 4, (int[]){n, h, w, c});
    t->trainable = true;
    return t;
}

typedef enum { PLAIN, RECOMPUTED, SAMPLED } UnetUse;
static int build_unet_of(Graph *g, ParamStore *s, Tensor *out[MAX_OUT], UnetUse use)
{
    static const UnetConfig c = {.in_channels = 4,
                                 .out_channels = 4,
                                 .n_block = 2,
                                 .channels = {8, 16},
                                 .layers = {1, 1},
                                 .transformers = {1, 1},
                                 .up_transformers = {1, 1},
                                 .heads = {1, 2},
                                 .down_attention = {true, false},
                                 .up_attention = {false, true},
                                 .cross_attention_dim = 12,
                                 .norm_num_groups = 4,
                                 .norm_eps = 1e-5f,
                                 .mid_scale = 1,
                                 .time_dim = 32,
                                 .conv_in_kernel = 3,
                                 .conv_out_kernel = 3,
                                 .flip_sin_to_cos = true,
                                 .downsample_padding = 1};
    Tensor *x = image(g, "sample", 2, 6, 4, 4), *at = NULL;
    int times = use == SAMPLED ? VOCAB : 2;
    Tensor *t = graph_leaf(g, KIND_INPUT, DTYPE_F32, "time", 1, &times);
    if (use == SAMPLED) at = graph_leaf(g, KIND_INPUT, DTYPE_I32, "at", 2, (int[]){2, 1});
    Tensor *text = graph_leaf(g, KIND_INPUT, DTYPE_F32, "context", 3, (int[]){2, 5, 12});
    text->trainable = true;
    out[0] = unet_at(g, s, &c, x, t, at, text, use == RECOMPUTED);
    if (use == SAMPLED) graph_hold(t), graph_hold(text);
    return 1;
}

static int build_unet(Graph *g, ParamStore *s, Tensor *out[MAX_OUT])
{
    return build_unet_of(g, s, out, PLAIN);
}
static int build_unet_recompute(Graph *g, ParamStore *s, Tensor *out[MAX_OUT])
{
    return build_unet_of(g, s, out, RECOMPUTED);
}
static int build_unet_sampled(Graph *g, ParamStore *s, Tensor *out[MAX_OUT])
{
    return build_unet_of(g, s, out, SAMPLED);
}

static int build_kl(Graph *g, ParamStore *s, Tensor *out[MAX_OUT])
{
    static const KlConfig c = {.in_channels = 3,
                               .out_channels = 3,
                               .latent_channels = 4,
                               .n_block = 2,
                               .channels = {8, 16},
                               .layers_per_block = 1,
                               .norm_num_groups = 4,
                               .quant_conv = true,
                               .post_quant_conv = true,
                               .mid_attention = true,
                               .scaling_factor = 1};
    KlMoments m = autoencoder_kl_encode(g, s, &c, image(g, "film", 1, 10, 6, 3), false);
    out[0] = autoencoder_kl_decode(g, s, &c, m.mean, false);
    out[1] = m.logvar;
    return 2;
}

static int build_tiny(Graph *g, ParamStore *s, Tensor *out[MAX_OUT])
{
    static const TinyConfig c = {.latent_channels = 4,
                                 .width = 8,
                                 .encoder_blocks = {1, 1, 1, 1},
                                 .decoder_blocks = {1, 1, 1, 1},
                                 .pool = true};
    Tensor *latent = autoencoder_tiny_encode(g, s, &c, image(g, "film", 1, 16, 24, 3));
    out[0] = autoencoder_tiny_decode(g, s, &c, latent);
    return 1;
}

static int build_text(Graph *g, ParamStore *s, Tensor *out[MAX_OUT])
{
    static const ClipTextConfig c = {.vocab_size = VOCAB,
                                     .max_position_embeddings = 9,
                                     .hidden_size = 16,
                                     .intermediate_size = 40,
                                     .num_hidden_layers = 2,
                                     .num_attention_heads = 2,
                                     .quick_gelu = true,
                                     .layer_norm_eps = 1e-5f};
    out[0] = clip_text(g, s, &c, graph_leaf(g, KIND_INPUT, DTYPE_I32, "ids", 2, (int[]){2, 7}));
    return 1;
}

static int build_inception_of(Graph *g, ParamStore *s, Tensor *out[MAX_OUT], bool train)
{
    static const InceptionConfig c = {.num_classes = 3, .width = .01, .transform_input = true};
    int px = INCEPTION_LEAST_PX;
    InceptionOut o =
        inception_v3(g, s, &c, image(g, "image", train ? 8 : 2, px, px, 3), NULL, train);
    out[0] = o.logits;
    out[1] = o.features;
    return 2;
}

static int build_inception(Graph *g, ParamStore *s, Tensor *out[MAX_OUT])
{
    return build_inception_of(g, s, out, false);
}
static int build_inception_train(Graph *g, ParamStore *s, Tensor *out[MAX_OUT])
{
    return build_inception_of(g, s, out, true);
}

static const Model model[] = {
    {.name = "unet", .build = build_unet},
    {.name = "unet, recomputed", .build = build_unet_recompute},
    {.name = "unet, sampling", .build = build_unet_sampled, .sampling = true},
    {.name = "autoencoder_kl", .build = build_kl},
    {.name = "autoencoder_kl, sampling", .build = build_kl, .sampling = true},
    {.name = "autoencoder_tiny", .build = build_tiny},
    {.name = "clip_text", .build = build_text},
    {.name = "inception_v3", .build = build_inception},
    {.name = "inception_v3, training", .build = build_inception_train, .unstable = true}};
enum { N_MODEL = sizeof model / sizeof *model };

/* ---- one graph of it --------------------------------------------------------------------------
 */

typedef struct {
    Graph *g;
    Tensor *out[MAX_OUT], *dy[MAX_OUT], *keep[MOST];
    int n_out, n_keep;
} Built;

static void build(Built *b, const Model *m, ParamStore *s, Dtype act)
{
    *b = (Built){.g = graph_new()};
    b->g->act = act;
    b->n_out = m->build(b->g, s, b->out);
    require(graph_status(b->g));
    for (int i = 0; i < b->n_out; i++) {
        char name[8] = {'d', 'y', (char)('0' + i)};
        CHECK(b->out[i]->dtype == DTYPE_F32);
        b->dy[i] = graph_leaf(b->g, KIND_INPUT, DTYPE_F32, name, b->out[i]->ndim, b->out[i]->dim);
    }
    if (m->sampling) params_hold(b->g);
    else graph_backward(b->g, b->n_out, b->out, b->dy);
    require(graph_status(b->g));
    for (int i = 0; i < b->n_out; i++) b->keep[b->n_keep++] = b->out[i];
    for (int i = 0; i < b->g->n; i++) {
        Tensor *t = b->g->node[i];
        if (t->op || t->owner || !t->grad) continue;
        CHECK(b->n_keep < MOST);
        if (t->grad->dtype != DTYPE_F32) {
            printf("FAILED %s: gradient of %s is not fp32\n", m->name, t->name);
            exit(1);
        }
        b->keep[b->n_keep++] = t->grad;
    }
    graph_finish(b->g, b->keep, b->n_keep);
}

static void note(Result *r, const Built *b)
{
    *r = (Result){.n = b->n_keep, .n_out = b->n_out};
    int k = 0;
    for (; k < b->n_out; k++) r->name[k] = strdup("output");
    for (int i = 0; i < b->g->n && k < r->n; i++) {
        const Tensor *t = b->g->node[i];
        if (!t->op && !t->owner && t->grad) r->name[k++] = strdup(t->name);
    }
    for (k = 0; k < r->n; k++) {
        r->count[k] = tensor_count(b->keep[k]);
        r->value[k] = calloc(r->count[k], sizeof(double));
        CHECK(r->name[k] && r->value[k]);
    }
}

static void result_free(Result *r)
{
    for (int k = 0; k < r->n; k++) {
        free((char *)r->name[k]);
        free(r->value[k]);
    }
}

/* The values of an input, by its name. */
static void draw(double *v, const Tensor *t, uint32_t seed)
{
    uint64_t id = 0;
    for (const char *c = t->name; *c; c++) id = id * 31 + (unsigned char)*c;
    RandomKey key = {seed, STREAM_TEST, 0, id};
    for (size_t i = 0; i < tensor_count(t); i++) {
        if (t->dtype == DTYPE_I32) v[i] = random_below(key, (uint32_t)i, VOCAB);
        else if (!strcmp(t->name, "time")) v[i] = random_below(key, (uint32_t)i, 1000);
        else v[i] = (float)random_normal(key, (uint32_t)i);
    }
}

/* ---- on a device ------------------------------------------------------------------------------
 */

static void write_inputs(Exec *e, const Graph *g, uint32_t seed)
{
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        size_t n = tensor_count(t);
        if (t->kind != KIND_INPUT) continue;
        double *v = malloc(n * sizeof *v);
        int32_t *whole = malloc(n * sizeof *whole);
        float *real = malloc(n * sizeof *real);
        CHECK(v && whole && real);
        draw(v, t, seed);
        for (size_t k = 0; k < n; k++) whole[k] = (int32_t)v[k], real[k] = (float)v[k];
        require(exec_write(e, t, t->dtype == DTYPE_I32 ? (void *)whole : real));
        free(v);
        free(whole);
        free(real);
    }
}

/* Variances as if a batch had been seen: about what the convolution before makes of unit inputs,
 * for otherwise values die out over forty layers. Its weight stands four parameters before. */
static void draw_variances(ParamStore *s, float *block, uint32_t seed)
{
    for (int i = 4; i < s->n; i++) {
        const Param *p = &s->param[i], *w = p - 4;
        size_t n = strlen(p->name), fan_in = w->count / (size_t)w->dim[0];
        if (n < 11 || strcmp(p->name + n - 11, "running_var")) continue;
        for (size_t k = 0; k < p->count; k++) {
            double u = random_uniform((RandomKey){seed, STREAM_TEST, 1, (uint64_t)i}, (uint32_t)k);
            block[p->offset + k] = (float)(.005 * (double)fan_in * (.5 + u));
        }
    }
}

/* block: values for the store; NULL: drawn, and copied to *drawn. */
static void run_device(Result *r, const Model *m, const char *which, Dtype act, uint32_t seed,
                       const float *block, float **drawn)
{
    Device *d;
    ParamStore s = {0};
    Built b;
    Exec *e;
    require(device_open(&d, which, act == DTYPE_BF16 ? "bf16" : "fp32", 2, NULL));
    build(&b, m, &s, act);
    require(params_alloc(&s, d, false));
    if (block) require(params_write(&s, block));
    else {
        require(params_init(&s, seed));
        *drawn = malloc(s.count * sizeof **drawn);
        CHECK(*drawn);
        require(params_read(&s, *drawn));
        draw_variances(&s, *drawn, seed);
        require(params_write(&s, *drawn));
    }
    params_bind(b.g);
    require(exec_new(&e, d, b.g, b.keep, b.n_keep));
    write_inputs(e, b.g, seed);
    require(exec_run(e));
    note(r, &b);
    for (int k = 0; k < r->n; k++) {
        float *v = malloc(r->count[k] * sizeof *v);
        CHECK(v);
        require(exec_read(e, b.keep[k], v));
        for (size_t i = 0; i < r->count[k]; i++) r->value[k][i] = (double)v[i];
        free(v);
    }
    exec_free(e);
    graph_free(b.g);
    params_free(&s);
    device_close(d);
}

/* ---- twins --------------------------------------------------------------------------------------
 */

static void fill_twin(const Graph *g, ParamStore *s, const float *block, uint32_t seed)
{
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        if (t->op || t->owner || !t->live) continue;
        const Param *p = t->kind == KIND_INPUT ? NULL : params_find(s, t->name);
        double *v = calloc(tensor_count(t), sizeof *v);
        CHECK(v && (p || t->kind == KIND_INPUT));
        if (!p) draw(v, t, seed);
        for (size_t k = 0; k < tensor_count(t); k++) {
            float f = p ? block[p->offset + k] : (float)v[k];
            uint16_t half;
            if (t->dtype == DTYPE_BF16) {
                float_to_bf16(&half, &f, 1);
                bf16_to_float(&f, &half, 1);
            }
            if (t->dtype == DTYPE_I32) ((int32_t *)t->data)[k] = (int32_t)v[k];
            else ref_data(t)[k] = (double)f;
        }
        free(v);
    }
}

static void run_twin(Result *r, const Model *m, Dtype act, uint32_t seed, const float *block)
{
    Device *d;
    ParamStore s = {0};
    Built b;
    require(device_open(&d, "cpu", "fp32", 2, NULL));
    build(&b, m, &s, act);
    require(params_alloc(&s, d, false)); /* for the offsets */
    if (act == DTYPE_BF16) graph_fuse(b.g, fusion_table, fusion_count, b.keep, b.n_keep);
    ref_alloc(b.g);
    fill_twin(b.g, &s, block, seed);
    if (act == DTYPE_BF16) ref_run_rounded(b.g);
    else ref_run(b.g);
    note(r, &b);
    for (int k = 0; k < r->n; k++)
        memcpy(r->value[k], b.keep[k]->data, r->count[k] * sizeof(double));
    ref_release(b.g);
    graph_free(b.g);
    params_free(&s);
    device_close(d);
}

/* ---- comparing
 * ------------------------------------------------------------------------------------ */

static double norm(const Result *a, const Result *b, int k) /* of a - b, or of a */
{
    double sum = 0;
    for (size_t i = 0; i < a->count[k]; i++) {
        double v = a->value[k][i] - (b ? b->value[k][i] : 0);
        sum += v * v;
    }
    return sqrt(sum);
}

static double together(const Result *a, const Result *b, int first, int end)
{
    double sum = 0;
    for (int k = first; k < end; k++) sum += norm(a, b, k) * norm(a, b, k);
    return sqrt(sum);
}

static int compare_f32(const Model *m, const Result *got, const Result *want, const Result *exact)
{
    int failed = 0;
    double top = 0, worst = 0,
           usual = together(want, exact, want->n_out, want->n) /
                   together(exact, NULL, want->n_out, want->n);
    for (int k = want->n_out; k < want->n; k++) top = fmax(top, norm(want, NULL, k));
    for (int k = 0; k < want->n; k++) {
        bool output = k < want->n_out;
        double size = norm(want, NULL, k), apart = norm(got, want, k);
        double limit = output ? 1e-5 * size : 1e-4 * size + 1e-7 * top;
        if (m->unstable && !(apart <= limit)) {
            apart = norm(got, exact, k);
            limit = 4 * fmax(norm(want, exact, k), usual * norm(exact, NULL, k));
        }
        worst = fmax(worst, apart / limit);
        if (apart <= limit) continue;
        printf("FAILED %s: %s is off by %.3g of %.3g, limit %.3g\n", m->name, want->name[k], apart,
               size, limit);
        failed++;
    }
    printf("%s: fp32, %d tensors, worst %.3g of its limit\n", m->name, want->n, worst);
    return failed;
}

static int compare_bf16(const Model *m, const Result *got, const Result *naive, const Result *want)
{
    int failed = 0, first = want->n_out;
    double all = together(got, want, first, want->n),
           naively = together(naive, want, first, want->n);
    double usual = naively / together(want, NULL, first, want->n);
    for (int k = 0; k < want->n; k++) {
        double size = norm(want, NULL, k), apart = norm(got, want, k),
               limit = 2 * fmax(norm(naive, want, k), k < first ? 0 : usual * size);
        if (apart <= limit) continue;
        printf("FAILED %s (bf16): %s is off by %.3g of %.3g, naive %.3g\n", m->name, want->name[k],
               apart, size, norm(naive, want, k));
        failed++;
    }
    if (!(all <= 2 * naively)) {
        printf("FAILED %s (bf16): gradients are off by %.3g, naive %.3g\n", m->name, all, naively);
        failed++;
    }
    printf("%s: bf16, outputs %.2f, gradients %.2f times the naive error\n", m->name,
           together(got, want, 0, first) / together(naive, want, 0, first),
           naively > 0 ? all / naively : 0);
    return failed;
}

static int check(const Model *m, uint32_t seed)
{
    Result cpu, gpu, half, naive, exact;
    float *block = NULL;
    run_device(&cpu, m, "cpu", DTYPE_F32, seed, NULL, &block);
    run_device(&gpu, m, "cuda", DTYPE_F32, seed, block, NULL);
    run_twin(&exact, m, DTYPE_F32, seed, block);
    int failed = compare_f32(m, &gpu, &cpu, &exact);
    run_device(&half, m, "cuda", DTYPE_BF16, seed, block, NULL);
    run_twin(&naive, m, DTYPE_BF16, seed, block);
    CHECK(cpu.n == gpu.n && half.n == cpu.n && naive.n == cpu.n && exact.n == cpu.n);
    failed += compare_bf16(m, &half, &naive, &exact);
    Result *all[] = {&cpu, &gpu, &half, &naive, &exact};
    for (int i = 0; i < 5; i++) result_free(all[i]);
    free(block);
    return failed;
}

int main(int argc, char **argv)
{
    uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1;
    int failed = 0;
    printf("seed %u (give it as an argument to repeat)\n", seed);
    for (int i = 0; i < N_MODEL; i++)
        if (argc < 3 || !strcmp(argv[2], model[i].name))
            failed += check(&model[i], seed);
    printf("%d failed\n", failed);
    return failed != 0;
}
