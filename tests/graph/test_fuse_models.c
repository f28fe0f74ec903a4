/* test_fuse_models.c - models compute the same after fusing, forward and every gradient, in double; and
 * as much of them is fused as can be.
 *
 *   test_fuse_models [SEED]
 */
#include "base/random.h"
#include "models/autoencoder_tiny.h"
#include "models/unet.h"
#include "ops/fusions.h"
#include "ref/ref.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

enum { N = 2 };

static int count(const Graph *g, const OpDef *op)
{
    int n = 0;
    for (int i = 0; i < g->n; i++) n += g->node[i]->live && g->node[i]->op == op;
    return n;
}

static Tensor *variable(Graph *g, int ndim, const int *dim)
{
    Tensor *t = graph_leaf(g, KIND_INPUT, DTYPE_F32, "variable", ndim, dim);
    t->trainable = true;
    return t;
}

static const UnetConfig unet_config = {
    .in_channels = 4,
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
    .use_linear_projection = true,
    .norm_num_groups = 4,
    .norm_eps = 1e-5f,
    .mid_scale = 1,
    .time_act = UNET_IDENTITY,
    .post_act = UNET_IDENTITY,
    .time_dim = 32,
    .conv_in_kernel = 3,
    .conv_out_kernel = 3,
    .flip_sin_to_cos = true,
    .downsample_padding = 1,
};

static Tensor *small_unet(Graph *g, ParamStore *s, bool recompute)
{
    Tensor *x = variable(g, 4, (int[]){N, 4, 6, 4}), *text = variable(g, 3, (int[]){N, 5, 12});
    Tensor *t = graph_leaf(g, KIND_INPUT, DTYPE_F32, "time", 1, (int[]){N});
    return unet(g, s, &unet_config, x, t, text, recompute);
}
static Tensor *unet_kept(Graph *g, ParamStore *s) { return small_unet(g, s, false); }
static Tensor *unet_again(Graph *g, ParamStore *s) { return small_unet(g, s, true); }
static Tensor *tiny(Graph *g, ParamStore *s)
{
    static const TinyConfig c = {.latent_channels = 4,
                                 .width = 8,
                                 .encoder_blocks = {1, 1, 1, 1},
                                 .decoder_blocks = {1, 1, 1, 1},
                                 .pool = true};
    Tensor *latent = autoencoder_tiny_encode(g, s, &c, variable(g, 4, (int[]){1, 16, 24, 3}));
    return autoencoder_tiny_decode(g, s, &c, latent);
}

typedef struct {
    Graph *g;
    ParamStore s;
    Tensor *keep[256]; /* the output, then every gradient */
    int n_keep;
} Net;

/* filters: held where nothing trains them, so that upsampling is fused in a small model, too */
static void net_open(Net *n, Tensor *(*build)(Graph *, ParamStore *), bool trained)
{
    *n = (Net){.g = graph_new()};
    n->keep[n->n_keep++] = build(n->g, &n->s);
    if (trained) graph_backward(n->g, 1, n->keep, NULL);
    assert_int_equal(graph_status(n->g), OK);
    for (int i = 0; i < n->g->n; i++) {
        Tensor *t = n->g->node[i];
        if (t->kind == KIND_ACT) continue;
        if (t->grad) n->keep[n->n_keep++] = t->grad;
        if (t->kind == KIND_PARAM && !trained) graph_hold(t);
    }
    assert_true(n->n_keep < 256);
    graph_finish(n->g, n->keep, n->n_keep);
}

/* off: how much of itself each number that goes in is off by, up or down */
static void net_run(Net *n, uint32_t seed, double off)
{
    ref_alloc(n->g);
    for (int i = 0; i < n->g->n; i++) {
        Tensor *t = n->g->node[i];
        if (t->kind == KIND_ACT) continue;
        RandomKey key = {seed, STREAM_TEST, 1, (uint64_t)t->id};
        for (size_t k = 0; k < tensor_count(t); k++)
            ref_data(t)[k] =
                case_normal(seed, t, k) * (1 + (random_below(key, (uint32_t)k, 2) ? off : -off));
    }
    ref_run(n->g);
}

static void net_close(Net *n)
{
    ref_release(n->g);
    graph_free(n->g);
    params_free(&n->s);
}

static double largest(const Net *n)
{
    double top = 0;
    for (int i = 0; i < n->n_keep; i++)
        for (size_t k = 0; k < tensor_count(n->keep[i]); k++)
            top = fmax(top, fabs(ref_data(n->keep[i])[k]));
    return top;
}

static double apart(const Net *a, const Net *b)
{
    double most = 0;
    for (int i = 0; i < a->n_keep; i++)
        for (size_t k = 0; k < tensor_count(a->keep[i]); k++)
            most = fmax(most, fabs(ref_data(a->keep[i])[k] - ref_data(b->keep[i])[k]));
    return most;
}

/* Within some 1e4 roundings of 1e-16 of the largest value, as a sum may cancel; or, where a draw's
 * model is so steep, within what moves the plain one where its inputs are off by 128 roundings. */
static void same_values(const Net *a, const Net *b, double moved, const char *name)
{
    double bound = fmax(1e-12 * largest(a), moved);
    for (int i = 0; i < a->n_keep; i++)
        for (size_t k = 0; k < tensor_count(a->keep[i]); k++) {
            double x = ref_data(a->keep[i])[k], y = ref_data(b->keep[i])[k];
            if (!(fabs(x - y) <= bound))
                fail_msg("%s: %s[%zu] is %.15g, unfused %.15g", name, a->keep[i]->name, k, y, x);
        }
}

static void models_compute_the_same(void **state)
{
    uint32_t seed = *(uint32_t *)*state;
    static const struct {
        const char *name;
        Tensor *(*build)(Graph *, ParamStore *);
        bool trained;
        int conv, join, up, linear, geglu; /* fused nodes of each kind there must be */
    } models[] = {
        /* conv: conv1 and a residual of each of 8 resnets, conv1's copies; linear: of each of 4
         * transformers two attentions, feed-forward and projection, all but the last again; of the
         * time two activations. geglu: of each transformer where nothing takes gradients.
         * tiny: three of each of 8 blocks, 2 pools, the decoder's first */
        {"unet", unet_kept, false, 16, 0, 1, 18, 4},
        {"unet, trained", unet_kept, true, 16, 0, 0, 16, 0},
        {"unet, recomputed", unet_again, true, 24, 0, 0, 28, 0},
        {"tiny", tiny, false, 27, 0, 3, 0, 0},
        {"tiny, trained", tiny, true, 27, 0, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        Net plain, fused, moved;
        net_open(&plain, models[i].build, models[i].trained);
        net_open(&moved, models[i].build, models[i].trained);
        net_open(&fused, models[i].build, models[i].trained);
        graph_fuse(fused.g, fusion_table, fusion_count, fused.keep, fused.n_keep);
        int found[] = {count(fused.g, &op_conv2d_after), count(fused.g, &op_conv2d_join),
                       count(fused.g, &op_upsample2_conv2d), count(fused.g, &op_linear_after),
                       count(fused.g, &op_linear_geglu)};
        if (found[0] != models[i].conv || found[1] != models[i].join || found[2] != models[i].up ||
            found[3] != models[i].linear || found[4] != models[i].geglu)
            fail_msg("%s: %d, %d, %d, %d and %d fused nodes", models[i].name, found[0], found[1],
                     found[2], found[3], found[4]);
        assert_int_equal(count(fused.g, &op_upsample2_fold), models[i].up);
        assert_int_equal(count(fused.g, &op_add_channel), 0);
        net_run(&plain, seed, 0);
        net_run(&fused, seed, 0);
        net_run(&moved, seed, 0x1p-46);
        same_values(&plain, &fused, apart(&plain, &moved), models[i].name);
        net_close(&plain);
        net_close(&fused);
        net_close(&moved);
    }
}

/* In sampling with times and text held, a step computes neither the time MLP nor any projection of
 * time or text. */
static void sampling_holds_what_it_can(void **state)
{
    (void)state;
    int held[2] = {0}, linears = 0; /* linear layers, others */
    Net n = {.g = graph_new()};
    Tensor *x = graph_leaf(n.g, KIND_INPUT, DTYPE_F32, "x", 4, (int[]){N, 4, 6, 4});
    Tensor *text = graph_leaf(n.g, KIND_INPUT, DTYPE_F32, "text", 3, (int[]){N, 5, 12});
    Tensor *times = graph_leaf(n.g, KIND_INPUT, DTYPE_F32, "times", 1, (int[]){7});
    Tensor *at = graph_leaf(n.g, KIND_INPUT, DTYPE_I32, "at", 2, (int[]){N, 1});
    Tensor *y = unet_at(n.g, &n.s, &unet_config, x, times, at, text, false);
    assert_int_equal(graph_status(n.g), OK);
    params_hold(n.g);
    graph_hold(times);
    graph_hold(text);
    graph_finish(n.g, &y, 1);
    graph_fuse(n.g, fusion_table, fusion_count, &y, 1);
    for (int i = 0; i < n.g->n; i++) {
        const Tensor *t = n.g->node[i];
        if (!t->live || !t->op || t->view_of) continue;
        bool linear = t->op == &op_linear || t->op == &op_linear_after || t->op == &op_linear_geglu;
        linears += linear;
        held[!linear] += t->held;
    }
    /* time MLP 2, projections 8, keys and values of 4 attentions; sinusoids and a folded filter */
    assert_int_equal(held[0], 2 + 8 + 2 * 4);
    assert_int_equal(held[1], 2);
    assert_true(linears > held[0]);
    graph_free(n.g);
    params_free(&n.s);
}

int main(int argc, char **argv)
{
    uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("seed %u (give it as an argument to repeat)\n", seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(models_compute_the_same, &seed),
        cmocka_unit_test(sampling_holds_what_it_can),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
