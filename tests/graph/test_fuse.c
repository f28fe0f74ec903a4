/* test_fuse.c - what the fusion table does to hand-made graphs, what it must leave alone, and that the
 * models compute the same afterwards, forward and every gradient, in double.
 *
 *   test_fuse [SEED]
 */
#include "graph/plan.h"
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
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { N = 2, H = 6, W = 5, C = 16, K = 8 };

static Tensor *input(Graph *g, int ndim, const int *dim)
{
    return graph_leaf(g, KIND_INPUT, ndim > 1 ? g->act : DTYPE_F32, "x", ndim, dim);
}
static Tensor *image(Graph *g, int c) { return input(g, 4, (int[]){N, H, W, c}); }
static Tensor *vector(Graph *g) { return input(g, 2, (int[]){N, K}); }
static Tensor *filter(Graph *g, int r, int c)
{
    return graph_leaf(g, KIND_PARAM, g->act, "w", 4, (int[]){K, r, r, c});
}

/* 3x3, or whatever r is, with "same" padding: [N,H,W,K] */
static Tensor *conv(Graph *g, Tensor *x, int r)
{
    int pad = (r - 1) / 2;
    return conv2d(g, x, filter(g, r, last_dim(x)), NULL, (ConvArgs){1, pad, pad, pad, pad});
}
static Tensor *dense(Graph *g, Tensor *x)
{
    return linear(g, x, graph_leaf(g, KIND_PARAM, g->act, "w", 2, (int[]){K, last_dim(x)}), NULL);
}

static int count(const Graph *g, const OpDef *op)
{
    int n = 0;
    for (int i = 0; i < g->n; i++) n += g->node[i]->live && g->node[i]->op == op;
    return n;
}

static int finish_and_fuse(Graph *g, Tensor *const *keep, int n_keep)
{
    assert_int_equal(graph_status(g), OK);
    graph_finish(g, keep, n_keep);
    return graph_fuse(g, fusion_table, fusion_count, keep, n_keep);
}

/* ---- hand-made graphs ------------------------------------------------------------------------- */

/* Each returns the output; keep[1] may be set to one more. */
typedef Tensor *Build(Graph *g, Tensor **more);

static Tensor *chain(Graph *g, Tensor **more)
{
    (void)more;
    Tensor *y = add_channel(g, conv(g, image(g, C), 3), vector(g));
    return add(g, relu(g, y), image(g, K));
}
static Tensor *two_readers(Graph *g, Tensor **more)
{
    Tensor *y = conv(g, image(g, C), 3);
    *more = scale_shift(g, y, 2, 0);
    return silu(g, y);
}
static Tensor *twice_in_one(Graph *g, Tensor **more)
{
    (void)more;
    Tensor *y = conv(g, image(g, C), 3);
    return add(g, y, y);
}
static Tensor *kept(Graph *g, Tensor **more) { return silu(g, *more = conv(g, image(g, C), 3)); }
static Tensor *kept_view(Graph *g, Tensor **more)
{
    Tensor *y = conv(g, image(g, C), 3);
    *more = reshape(g, y, 2, (int[]){N * H * W, K});
    return silu(g, y);
}
static float place[N * H * W * K];
static Tensor *pinned(Graph *g, Tensor **more)
{
    (void)more;
    Tensor *y = conv(g, image(g, C), 3);
    graph_pin(y, place);
    return silu(g, y);
}
static Tensor *through_view(Graph *g, Tensor **more)
{
    (void)more;
    Tensor *y = dense(g, input(g, 3, (int[]){N, H * W, C}));
    return add(g, image(g, K), reshape(g, y, 4, (int[]){N, H, W, K}));
}
static Tensor *vector_of_a_view(Graph *g, Tensor **more) /* its images are others */
{
    (void)more;
    Tensor *y = reshape(g, conv(g, image(g, C), 3), 4, (int[]){1, N * H, W, K});
    return add_channel(g, y, input(g, 2, (int[]){1, K}));
}
static Tensor *vector_after_act(Graph *g, Tensor **more)
{
    (void)more;
    return add_channel(g, silu(g, conv(g, image(g, C), 3)), vector(g));
}
static Tensor *act_after_residual(Graph *g, Tensor **more)
{
    (void)more;
    return silu(g, add(g, conv(g, image(g, C), 3), image(g, K)));
}
static Tensor *linear_with_vector(Graph *g, Tensor **more)
{
    (void)more;
    return add_channel(g, dense(g, input(g, 3, (int[]){N, W, C})), vector(g));
}
static Tensor *other_act(Graph *g, Tensor **more)
{
    (void)more;
    return gelu(g, conv(g, image(g, C), 3));
}

/* Of two convolutions in one sum, the larger. */
static Tensor *two_convolutions(Graph *g, Tensor **more)
{
    (void)more;
    return add(g, conv(g, image(g, C), 3), conv(g, image(g, C), 1));
}

static Tensor *joined(Graph *g, int a, int b, int c)
{
    Tensor *part[] = {image(g, a), image(g, b), c ? image(g, c) : NULL};
    return concat(g, c ? 3 : 2, part);
}
static Tensor *join(Graph *g, Tensor **more)
{
    (void)more;
    return add(g, image(g, K), conv(g, joined(g, 8, 24, 0), 3));
}
static Tensor *join_odd(Graph *g, Tensor **more)
{
    (void)more;
    return conv(g, joined(g, 12, 4, 0), 3);
}
static Tensor *join_three(Graph *g, Tensor **more)
{
    (void)more;
    return conv(g, joined(g, 8, 8, 8), 3);
}
static Tensor *join_normed(Graph *g, Tensor **more) /* as in a UNet's up block */
{
    Tensor *x = joined(g, 8, 8, 0), *gain = input(g, 1, (int[]){16});
    *more = groupnorm(g, x, gain, gain, 4, 1e-5f, ACT_SILU);
    return conv(g, x, 1);
}

/* [N,h,w,C] -> [N,2h,2w,K] */
static Tensor *larger(Graph *g, int h, int w, int out_h, int r, bool held, ConvArgs a)
{
    Tensor *x = input(g, 4, (int[]){N, h, w, C}), *f = filter(g, r, C);
    if (held) graph_hold(f);
    return conv2d(g, upsample(g, x, out_h, 2 * w), f, NULL, a);
}
static const ConvArgs same = {1, 1, 1, 1, 1};
static Tensor *upsampled(Graph *g, Tensor **more)
{
    (void)more;
    return add_channel(g, larger(g, 3, 2, 6, 3, true, same), vector(g));
}
static Tensor *upsampled_many_pixels(Graph *g, Tensor **more) /* N * 256 = FOLD_PAYS */
{
    (void)more;
    return larger(g, 8, 8, 16, 3, false, same);
}
static Tensor *upsampled_few_pixels(Graph *g, Tensor **more)
{
    (void)more;
    return larger(g, 8, 7, 16, 3, false, same);
}
static Tensor *upsampled_less(Graph *g, Tensor **more) /* than twice */
{
    (void)more;
    return larger(g, 8, 8, 15, 3, true, same);
}
static Tensor *upsampled_wide(Graph *g, Tensor **more)
{
    (void)more;
    return larger(g, 8, 8, 16, 5, true, (ConvArgs){1, 2, 2, 2, 2});
}
static Tensor *upsampled_stride(Graph *g, Tensor **more)
{
    (void)more;
    return larger(g, 16, 16, 32, 3, true, (ConvArgs){2, 1, 1, 1, 1});
}
static Tensor *upsampled_unpadded(Graph *g, Tensor **more)
{
    (void)more;
    return larger(g, 16, 16, 32, 3, true, (ConvArgs){1, 0, 1, 1, 1});
}
static Tensor *upsampled_computed(Graph *g, Tensor **more) /* filter: comes after the upsampling */
{
    (void)more;
    Tensor *x = upsample2(g, input(g, 4, (int[]){N, 8, 8, C}));
    return conv2d(g, x, scale_shift(g, filter(g, 3, C), 2, 0), NULL, same);
}

static Tensor *held_value(Graph *g, Tensor **more) /* is computed once, its sum is not */
{
    (void)more;
    Tensor *x = input(g, 2, (int[]){N, C}), *y;
    graph_hold(x);
    y = dense(g, x);
    graph_hold(y->src[1]);
    return add(g, y, vector(g));
}
static Tensor *held_both(Graph *g, Tensor **more)
{
    Tensor *y = held_value(g, more), *r = y->src[1];
    graph_hold(r);
    return y;
}

static const struct {
    const char *name;
    Build *build;
    const OpDef *becomes; /* what computes the output */
    int fused;            /* how many rules applied */
    Dtype act;
} cases[] = {
    {"chain", chain, &op_conv2d_after, 3, DTYPE_F32},
    {"two readers", two_readers, &op_silu, 0, DTYPE_F32},
    {"twice in one", twice_in_one, &op_add, 0, DTYPE_F32},
    {"kept", kept, &op_silu, 0, DTYPE_F32},
    {"kept view", kept_view, &op_silu, 0, DTYPE_F32},
    {"pinned", pinned, &op_silu, 0, DTYPE_F32},
    {"through a view", through_view, &op_linear_after, 1, DTYPE_BF16},
    {"vector of a view", vector_of_a_view, &op_add_channel, 0, DTYPE_F32},
    {"vector after act", vector_after_act, &op_add_channel, 1, DTYPE_F32},
    {"act after residual", act_after_residual, &op_silu, 1, DTYPE_F32},
    {"linear with a vector", linear_with_vector, &op_add_channel, 0, DTYPE_F32},
    {"other act", other_act, &op_gelu, 0, DTYPE_F32},
    {"two convolutions", two_convolutions, &op_conv2d_after, 1, DTYPE_F32},
    {"join", join, &op_conv2d_join, 2, DTYPE_BF16},
    {"join of odd channels, bf16", join_odd, &op_conv2d, 0, DTYPE_BF16},
    {"join of odd channels, fp32", join_odd, &op_conv2d_join, 1, DTYPE_F32},
    {"join of three", join_three, &op_conv2d, 0, DTYPE_F32},
    {"join, normed too", join_normed, &op_conv2d, 0, DTYPE_F32},
    {"upsampled", upsampled, &op_upsample2_conv2d, 2, DTYPE_BF16},
    {"upsampled, many pixels", upsampled_many_pixels, &op_upsample2_conv2d, 1, DTYPE_F32},
    {"upsampled, few pixels", upsampled_few_pixels, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, not by 2", upsampled_less, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, 5x5", upsampled_wide, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, stride 2", upsampled_stride, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, unpadded", upsampled_unpadded, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, computed filter", upsampled_computed, &op_conv2d, 0, DTYPE_F32},
    {"held value", held_value, &op_add, 0, DTYPE_F32},
    {"held value and sum", held_both, &op_linear_after, 1, DTYPE_F32},
};

static void rules_apply_where_they_may(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Graph *g = graph_new();
        g->act = cases[i].act;
        Tensor *keep[2] = {NULL};
        keep[0] = cases[i].build(g, &keep[1]);
        int fused = finish_and_fuse(g, keep, keep[1] ? 2 : 1);
        if (fused != cases[i].fused || keep[0]->op != cases[i].becomes)
            fail_msg("%s: %d rules applied, output of %s", cases[i].name, fused, keep[0]->op->name);
        assert_int_equal(graph_fuse(g, fusion_table, fusion_count, keep, keep[1] ? 2 : 1), 0);
        graph_free(g);
    }
}

static void larger_one_takes_the_sum(void **state)
{
    (void)state;
    Graph *g = graph_new();
    Tensor *y = two_convolutions(g, NULL);
    finish_and_fuse(g, &y, 1);
    assert_int_equal(y->src[AFTER_W]->dim[1], 3);
    assert_int_equal(y->src[AFTER_R]->src[1]->dim[1], 1);
    graph_free(g);
}

/* What went has no memory; nodes come after what they read; the dump says what happened. */
static void what_went_has_no_memory(void **state)
{
    (void)state;
    size_t image_bytes = sizeof(float) * N * H * W * K;
    Graph *g = graph_new();
    Plan before, after;
    Text dump = {0};
    graph_scope_push(g, "block");
    Tensor *y = chain(g, NULL);
    graph_scope_pop(g);
    graph_finish(g, &y, 1);
    plan_make(&before, g, &y, 1);
    assert_int_equal(graph_fuse(g, fusion_table, fusion_count, &y, 1), 3);
    plan_make(&after, g, &y, 1);
    assert_true(before.unplanned - after.unplanned >= 3 * image_bytes);
    graph_dump_text(g, &dump);
    assert_non_null(strstr(dump.s, "conv2d_after"));
    assert_non_null(strstr(dump.s, "block.conv2d+add_channel+relu+add"));
    assert_null(strstr(dump.s, " relu"));
    free(dump.s);
    plan_free(&before);
    plan_free(&after);
    graph_free(g);
}

/* Training: silu's gradient reads what silu reads, add_channel's does not. */
static void gradients_are_readers(void **state)
{
    (void)state;
    Graph *g = graph_new();
    Tensor *h = add_channel(g, conv(g, image(g, C), 3), vector(g)), *y = silu(g, conv(g, h, 3));
    graph_backward(g, 1, &y, NULL);
    Tensor *keep[] = {y, h->src[0]->src[1]->grad};
    assert_int_equal(finish_and_fuse(g, keep, 2), 1);
    assert_ptr_equal(h->op, &op_conv2d_after);
    assert_ptr_equal(y->op, &op_silu);
    graph_free(g);
}

/* In a segment silu's gradient reads the copy: the convolution that ran first has one reader left. */
static void segments_fuse_each_by_itself(void **state)
{
    (void)state;
    Graph *g = graph_new();
    Tensor *x = conv(g, image(g, C), 3);
    graph_recompute_begin(g);
    Tensor *h = add_channel(g, conv(g, x, 3), vector(g)), *y = silu(g, conv(g, h, 3));
    graph_recompute_end(g);
    graph_backward(g, 1, &y, NULL);
    Tensor *keep[] = {y, h->src[0]->src[1]->grad, x->src[1]->grad};
    assert_int_equal(finish_and_fuse(g, keep, 3), 3);
    assert_int_equal(count(g, &op_conv2d_after), 3); /* add_channel twice, silu once */
    assert_int_equal(count(g, &op_conv2d), 2);       /* x, and what silu's gradient reads */
    assert_int_equal(count(g, &op_add_channel), 0);
    assert_int_equal(count(g, &op_silu), 0); /* the copy's has no reader, it is not live */
    graph_free(g);
}

/* ---- models ------------------------------------------------------------------------------------- */

static Tensor *variable(Graph *g, int ndim, const int *dim)
{
    Tensor *t = graph_leaf(g, KIND_INPUT, DTYPE_F32, "variable", ndim, dim);
    t->trainable = true;
    return t;
}

static Tensor *small_unet(Graph *g, ParamStore *s, bool recompute)
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
                                 .use_linear_projection = true,
                                 .norm_num_groups = 4,
                                 .norm_eps = 1e-5f,
                                 .mid_scale = 1,
                                 .time_dim = 32,
                                 .conv_in_kernel = 3,
                                 .conv_out_kernel = 3,
                                 .flip_sin_to_cos = true,
                                 .downsample_padding = 1};
    Tensor *x = variable(g, 4, (int[]){N, 4, 6, 4}), *text = variable(g, 3, (int[]){N, 5, 12});
    Tensor *t = graph_leaf(g, KIND_INPUT, DTYPE_F32, "time", 1, (int[]){N});
    return unet(g, s, &c, x, t, text, recompute);
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

static void net_run(Net *n, uint32_t seed)
{
    ref_alloc(n->g);
    for (int i = 0; i < n->g->n; i++) {
        Tensor *t = n->g->node[i];
        if (t->kind == KIND_ACT) continue;
        for (size_t k = 0; k < tensor_count(t); k++) ref_data(t)[k] = case_normal(seed, t, k);
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

/* Within some 1e4 roundings of 1e-16 of the largest value: a sum may cancel. */
static void same_values(const Net *a, const Net *b, const char *name)
{
    double bound = 1e-12 * largest(a);
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
        int conv, join, up, linear; /* fused nodes of each kind there must be */
    } models[] = {
        /* conv: conv1 and a residual of each of 8 resnets, conv1's copies; linear: of each of 4
         * transformers two attentions, feed-forward and projection, all but the last again; of the
         * time two activations. tiny: three of each of 8 blocks, 2 pools, the decoder's first */
        {"unet", unet_kept, false, 16, 0, 1, 18},
        {"unet, trained", unet_kept, true, 16, 0, 0, 16},
        {"unet, recomputed", unet_again, true, 24, 0, 0, 28},
        {"tiny", tiny, false, 27, 0, 3, 0},
        {"tiny, trained", tiny, true, 27, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        Net plain, fused;
        net_open(&plain, models[i].build, models[i].trained);
        net_open(&fused, models[i].build, models[i].trained);
        graph_fuse(fused.g, fusion_table, fusion_count, fused.keep, fused.n_keep);
        int found[] = {count(fused.g, &op_conv2d_after), count(fused.g, &op_conv2d_join),
                       count(fused.g, &op_upsample2_conv2d), count(fused.g, &op_linear_after)};
        if (found[0] != models[i].conv || found[1] != models[i].join || found[2] != models[i].up ||
            found[3] != models[i].linear)
            fail_msg("%s: %d, %d, %d and %d fused nodes", models[i].name, found[0], found[1],
                     found[2], found[3]);
        assert_int_equal(count(fused.g, &op_upsample2_fold), models[i].up);
        assert_int_equal(count(fused.g, &op_add_channel), 0);
        net_run(&plain, seed);
        net_run(&fused, seed);
        same_values(&plain, &fused, models[i].name);
        net_close(&plain);
        net_close(&fused);
    }
}

int main(int argc, char **argv)
{
    uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("seed %u (give it as an argument to repeat)\n", seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_apply_where_they_may),
        cmocka_unit_test(larger_one_takes_the_sum),
        cmocka_unit_test(what_went_has_no_memory),
        cmocka_unit_test(gradients_are_readers),
        cmocka_unit_test(segments_fuse_each_by_itself),
        cmocka_unit_test_prestate(models_compute_the_same, &seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
