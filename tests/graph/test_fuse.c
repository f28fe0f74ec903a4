/* test_fuse.c - what the fusion table does to hand-made graphs, and what it must leave alone. */
#include "graph/plan.h"
#include "ops/fusions.h"
#include "ops/op.h"
#include "ops/ops.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
static Tensor *two_vectors(Graph *g, Tensor **more)
{
    (void)more;
    return add_channel(g, add_channel(g, conv(g, image(g, C), 3), vector(g)), vector(g));
}
static Tensor *vector_after_residual(Graph *g, Tensor **more)
{
    (void)more;
    return add_channel(g, add(g, conv(g, image(g, C), 3), image(g, K)), vector(g));
}
static Tensor *two_acts(Graph *g, Tensor **more)
{
    (void)more;
    return silu(g, relu(g, conv(g, image(g, C), 3)));
}
static Tensor *two_residuals(Graph *g, Tensor **more)
{
    (void)more;
    return add(g, add(g, conv(g, image(g, C), 3), image(g, K)), image(g, K));
}
static Tensor *other_storage(Graph *g, Tensor **more)
{
    (void)more;
    return graph_typed(silu(g, conv(g, image(g, C), 3)), DTYPE_F32);
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

static Tensor *gated(Graph *g, Tensor **more) /* once more than one may */
{
    (void)more;
    return add(g, geglu(g, dense(g, input(g, 3, (int[]){N, W, C}))),
               input(g, 3, (int[]){N, W, K / 2}));
}
static Tensor *gated_act(Graph *g, Tensor **more)
{
    (void)more;
    return geglu(g, silu(g, dense(g, input(g, 3, (int[]){N, W, C}))));
}
static Tensor *gated_wider_view(Graph *g, Tensor **more)
{
    (void)more;
    Tensor *y = dense(g, input(g, 3, (int[]){N, 4, C}));
    return geglu(g, reshape(g, y, 2, (int[]){2 * N, 2 * K}));
}
static Tensor *gated_view(Graph *g, Tensor **more)
{
    (void)more;
    Tensor *y = dense(g, input(g, 3, (int[]){N, 4, C}));
    return geglu(g, reshape(g, y, 2, (int[]){4 * N, K}));
}

/* Of two convolutions in one sum, the larger. */
static Tensor *two_convolutions(Graph *g, Tensor **more)
{
    (void)more;
    return add(g, conv(g, image(g, C), 1), conv(g, image(g, C), 3));
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

/* [N,h,w,C] -> [N,2h,2w,K], or less by what is said */
static Tensor *larger_less(Graph *g, int h, int w, int less_h, int less_w, int r, bool held,
                           ConvArgs a)
{
    Tensor *x = input(g, 4, (int[]){N, h, w, C}), *f = filter(g, r, C);
    if (held) graph_hold(f);
    return conv2d(g, upsample(g, x, 2 * h - less_h, 2 * w - less_w), f, NULL, a);
}
static Tensor *larger(Graph *g, int h, int w, int r, bool held, ConvArgs a)
{
    return larger_less(g, h, w, 0, 0, r, held, a);
}
static const ConvArgs same = {1, 1, 1, 1, 1};
static Tensor *upsampled(Graph *g, Tensor **more)
{
    (void)more;
    return add_channel(g, larger(g, 3, 2, 3, true, same), vector(g));
}
static Tensor *upsampled_many_pixels(Graph *g, Tensor **more) /* N * 256 = FOLD_PAYS */
{
    (void)more;
    return larger(g, 8, 8, 3, false, same);
}
static Tensor *upsampled_few_pixels(Graph *g, Tensor **more)
{
    (void)more;
    return larger(g, 8, 7, 3, false, same);
}
static Tensor *upsampled_lower(Graph *g, Tensor **more)
{
    (void)more;
    return larger_less(g, 8, 8, 1, 0, 3, true, same);
}
static Tensor *upsampled_narrower(Graph *g, Tensor **more)
{
    (void)more;
    return larger_less(g, 8, 8, 0, 1, 3, true, same);
}
static Tensor *upsampled_wide(Graph *g, Tensor **more)
{
    (void)more;
    return larger(g, 8, 8, 5, true, same);
}
static Tensor *upsampled_stride(Graph *g, Tensor **more)
{
    (void)more;
    return larger(g, 16, 16, 3, true, (ConvArgs){2, 1, 1, 1, 1});
}
#define UNPADDED(name, top, left, bottom, right)                                                   \
    static Tensor *name(Graph *g, Tensor **more)                                                   \
    {                                                                                              \
        (void)more;                                                                                \
        return larger(g, 16, 16, 3, true, (ConvArgs){1, top, left, bottom, right});                \
    }
UNPADDED(upsampled_no_top, 0, 1, 1, 1)
UNPADDED(upsampled_no_left, 1, 0, 1, 1)
UNPADDED(upsampled_no_bottom, 1, 1, 0, 1)
UNPADDED(upsampled_no_right, 1, 1, 1, 0)
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
    {"two vectors", two_vectors, &op_add_channel, 1, DTYPE_F32},
    {"vector after residual", vector_after_residual, &op_add_channel, 1, DTYPE_F32},
    {"two acts", two_acts, &op_silu, 1, DTYPE_F32},
    {"two residuals", two_residuals, &op_add, 1, DTYPE_F32},
    {"other storage", other_storage, &op_silu, 0, DTYPE_BF16},
    {"linear with a vector", linear_with_vector, &op_add_channel, 0, DTYPE_F32},
    {"other act", other_act, &op_gelu, 0, DTYPE_F32},
    {"gated", gated, &op_add, 1, DTYPE_BF16},
    {"gated after an act", gated_act, &op_geglu, 1, DTYPE_F32},
    {"gated, wider view", gated_wider_view, &op_geglu, 0, DTYPE_F32},
    {"gated, view", gated_view, &op_linear_geglu, 1, DTYPE_F32},
    {"two convolutions", two_convolutions, &op_conv2d_after, 1, DTYPE_F32},
    {"join", join, &op_conv2d_join, 2, DTYPE_BF16},
    {"join of odd channels, bf16", join_odd, &op_conv2d, 0, DTYPE_BF16},
    {"join of odd channels, fp32", join_odd, &op_conv2d_join, 1, DTYPE_F32},
    {"join of three", join_three, &op_conv2d, 0, DTYPE_F32},
    {"join, normed too", join_normed, &op_conv2d, 0, DTYPE_F32},
    {"upsampled", upsampled, &op_upsample2_conv2d, 2, DTYPE_BF16},
    {"upsampled, many pixels", upsampled_many_pixels, &op_upsample2_conv2d, 1, DTYPE_F32},
    {"upsampled, few pixels", upsampled_few_pixels, &op_conv2d, 0, DTYPE_F32},
    {"upsampled to less lines", upsampled_lower, &op_conv2d, 0, DTYPE_F32},
    {"upsampled to less columns", upsampled_narrower, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, 5x5", upsampled_wide, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, stride 2", upsampled_stride, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, no top", upsampled_no_top, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, no left", upsampled_no_left, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, no bottom", upsampled_no_bottom, &op_conv2d, 0, DTYPE_F32},
    {"upsampled, no right", upsampled_no_right, &op_conv2d, 0, DTYPE_F32},
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_apply_where_they_may),
        cmocka_unit_test(larger_one_takes_the_sum),
        cmocka_unit_test(what_went_has_no_memory),
        cmocka_unit_test(gradients_are_readers),
        cmocka_unit_test(segments_fuse_each_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
