/* fusions.c - the table of fusions.h, and what each row asks for. */
#include "ops/fusions.h"
#include "ops/op.h"
#include <string.h>

/* Of a convolution or linear layer, whether or not it already goes on. */
static AfterArgs args_of(const Tensor *t)
{
    AfterArgs a = {.conv.stride = 1};
    if (t->op == &op_conv2d) a.conv = *(const ConvArgs *)t->args;
    else if (t->op != &op_linear) a = *(const AfterArgs *)t->args;
    return a;
}

/* y computes what `from` does, and then what args and the caller add. */
static void become(Graph *g, Tensor *y, const Tensor *from, AfterArgs args)
{
    memmove(y->src, from->src, sizeof y->src); /* of itself, too */
    y->args = memcpy(arena_alloc(&g->arena, sizeof args), &args, sizeof args);
}

/* ---- what follows: act(conv + b + v) + r ------------------------------------------------------ */

static bool fits_vector(const Tensor *from, const Tensor *into, int k)
{
    return k == 0 && into->src[0] == from && !from->src[AFTER_V] && !from->src[AFTER_R] &&
           !args_of(from).act;
}

static void take_vector(Graph *g, Tensor *from, Tensor *into, int k)
{
    (void)k;
    Tensor *v = into->src[1];
    become(g, into, from, args_of(from));
    into->src[AFTER_V] = v;
}

static bool fits_act(const Tensor *from, const Tensor *into, int k)
{
    (void)into;
    return k == 0 && !from->src[AFTER_R] && !args_of(from).act;
}

static void take_act(Graph *g, Tensor *from, Tensor *into, int k)
{
    (void)k;
    AfterArgs a = args_of(from);
    a.act = into->op == &op_silu ? ACT_SILU : ACT_RELU;
    become(g, into, from, a);
}

static bool fits_residual(const Tensor *from, const Tensor *into, int k)
{
    (void)into;
    return k < 2 && !from->src[AFTER_R];
}

static void take_residual(Graph *g, Tensor *from, Tensor *into, int k)
{
    Tensor *r = into->src[1 - k];
    become(g, into, from, args_of(from));
    into->src[AFTER_R] = r;
}

/* The copy that gradients read gates values rounded to their storage, so what is computed twice is
 * not fused: both must be the same bits. */
static bool fits_geglu(const Tensor *from, const Tensor *into, int k)
{
    return k == 0 && last_dim(into->src[0]) == last_dim(from) && /* a view may have other rows */
           !from->segment;
}

static void take_geglu(Graph *g, Tensor *from, Tensor *into, int k)
{
    (void)k;
    become(g, into, from, args_of(from));
}

/* ---- what stands before ----------------------------------------------------------------------- */

static bool fits_upsampling(const Tensor *up, const Tensor *into, int k)
{
    const Tensor *x = up->src[0], *w = into->src[1];
    const ConvArgs *a = into->args;
    return k == 0 && into->src[0] == up && up->dim[1] == 2 * x->dim[1] &&
           up->dim[2] == 2 * x->dim[2] && w->dim[1] == 3 && w->dim[2] == 3 && a->stride == 1 &&
           a->top == 1 && a->left == 1 && a->bottom == 1 && a->right == 1 &&
           !w->op && /* its place in the list may be behind the upsampling's */
           (w->held || rows_of(into) >= FOLD_PAYS);
}

/* The upsampling's place is the folding's. */
static void take_upsampling(Graph *g, Tensor *up, Tensor *into, int k)
{
    (void)k;
    Tensor *w = into->src[1];
    become(g, into, into, args_of(into));
    into->src[AFTER_X] = up->src[0];
    into->src[AFTER_W] = up;
    Tensor fold = {.op = &op_upsample2_fold,
                   .src = {w},
                   .ndim = 4,
                   .dim = {4 * w->dim[0], 2, 2, w->dim[3]},
                   .dtype = w->dtype,
                   .kind = KIND_ACT,
                   .trainable = w->trainable,
                   .held = w->held,
                   .live = true,
                   .id = up->id,
                   .name = arena_printf(&g->arena, "%s+fold", into->name)};
    *up = fold;
}

/* Of bf16, chunks of 16 bytes lie in one of the two: else each value is fetched by itself. */
static bool fits_parts(const Tensor *joined, const Tensor *into, int k)
{
    Tensor *const *x = joined->src;
    if (k != 0 || into->src[0] != joined || !x[1] || x[2]) return false;
    return joined->dtype != DTYPE_BF16 || (last_dim(x[0]) % 8 == 0 && last_dim(x[1]) % 8 == 0);
}

static void take_parts(Graph *g, Tensor *joined, Tensor *into, int k)
{
    (void)k;
    become(g, into, into, args_of(into));
    into->src[AFTER_X] = joined->src[0];
    into->src[AFTER_X2] = joined->src[1];
}

#define GOES_ON(from, as)                                                                          \
    {&op_##from, &op_silu, &op_##as, fits_act, take_act},                                          \
        {&op_##from, &op_relu, &op_##as, fits_act, take_act},                                      \
        {&op_##from, &op_add, &op_##as, fits_residual, take_residual}
#define OF_IMAGES(from, as)                                                                        \
    {&op_##from, &op_add_channel, &op_##as, fits_vector, take_vector}, GOES_ON(from, as)

const FusionRule fusion_table[] = {
    {&op_upsample, &op_conv2d, &op_upsample2_conv2d, fits_upsampling, take_upsampling},
    {&op_concat, &op_conv2d, &op_conv2d_join, fits_parts, take_parts},
    OF_IMAGES(conv2d, conv2d_after),
    OF_IMAGES(conv2d_after, conv2d_after),
    OF_IMAGES(conv2d_join, conv2d_join),
    OF_IMAGES(upsample2_conv2d, upsample2_conv2d),
    {&op_linear, &op_geglu, &op_linear_geglu, fits_geglu, take_geglu},
    GOES_ON(linear, linear_after),
    GOES_ON(linear_after, linear_after),
};
const int fusion_count = sizeof fusion_table / sizeof *fusion_table;
