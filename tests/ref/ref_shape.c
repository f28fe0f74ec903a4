/* ref_shape.c - twins of joins, pools and upsampling. */
#include "base/random.h"
#include "ref/ref.h"
#include <math.h>
#include <string.h>

/* ---- joins ------------------------------------------------------------------------------ */

static void concat_twin(const Tensor *y)
{
    for (size_t row = 0, at = 0; row < rows_of(y); row++)
        for (int i = 0; i < MAX_SRC && y->src[i]; i++)
            for (int c = 0; c < last_dim(y->src[i]); c++)
                ref_data(y)[at++] =
                    ref_data(y->src[i])[row * (size_t)last_dim(y->src[i]) + (size_t)c];
}

static void slice_twin(const Tensor *y)
{
    const Tensor *x = y->src[0];
    int from = ((const SliceArgs *)y->args)->from;
    for (size_t i = 0; i < tensor_count(x); i++) {
        int column = (int)(i % (size_t)last_dim(x)) - from;
        if (column < 0 || column >= last_dim(y)) continue;
        ref_data(y)[i / (size_t)last_dim(x) * (size_t)last_dim(y) + (size_t)column] =
            ref_data(x)[i];
    }
}

static void pad_twin(const Tensor *y)
{
    const Tensor *x = y->src[0];
    int from = ((const SliceArgs *)y->args)->from;
    for (size_t i = 0; i < tensor_count(y); i++) ref_data(y)[i] = 0;
    for (size_t i = 0; i < tensor_count(x); i++)
        ref_data(y)[i / (size_t)last_dim(x) * (size_t)last_dim(y) + (size_t)from +
                    i % (size_t)last_dim(x)] = ref_data(x)[i];
}

/* ---- images ----------------------------------------------------------------------------- */

static size_t pixel(const Tensor *t, int n, int h, int w, int c)
{
    return (((size_t)n * (size_t)t->dim[1] + (size_t)h) * (size_t)t->dim[2] + (size_t)w) *
               (size_t)t->dim[3] +
           (size_t)c;
}

/* Calls f for every element [n,h,w,c] of t. */
#define EACH_PIXEL(t)                                                                              \
    for (int n = 0; n < (t)->dim[0]; n++)                                                          \
        for (int h = 0; h < (t)->dim[1]; h++)                                                      \
            for (int w = 0; w < (t)->dim[2]; w++)                                                  \
                for (int c = 0; c < (t)->dim[3]; c++)

/* floor(i in / out): sizes of the cases are so small that fp32 gives the same. */
static size_t upsample_from(const Tensor *x, const Tensor *y, int n, int h, int w, int c)
{
    return pixel(x, n, h * x->dim[1] / y->dim[1], w * x->dim[2] / y->dim[2], c);
}

static void upsample_twin(const Tensor *y)
{
    const Tensor *x = y->src[0];
    EACH_PIXEL(y)
    ref_data(y)[pixel(y, n, h, w, c)] = ref_data(x)[upsample_from(x, y, n, h, w, c)];
}

static void clear(const Tensor *t) { memset(t->data, 0, tensor_count(t) * sizeof(double)); }

static void upsample_dx_twin(const Tensor *dx)
{
    const Tensor *dy = dx->src[0];
    clear(dx);
    EACH_PIXEL(dy)
    ref_data(dx)[upsample_from(dx, dy, n, h, w, c)] += ref_data(dy)[pixel(dy, n, h, w, c)];
}

static bool inside(const Tensor *x, int h, int w)
{
    return h >= 0 && h < x->dim[1] && w >= 0 && w < x->dim[2];
}

static void maxpool_twin(const Tensor *y)
{
    const Tensor *x = y->src[0];
    const PoolArgs *a = y->args;
    EACH_PIXEL(y)
    {
        double best = -INFINITY;
        int where = -1;
        for (int r = 0; r < a->size; r++)
            for (int s = 0; s < a->size; s++) {
                int row = h * a->stride - a->pad + r, column = w * a->stride - a->pad + s;
                if (!inside(x, row, column) || !(ref_data(x)[pixel(x, n, row, column, c)] > best))
                    continue;
                best = ref_data(x)[pixel(x, n, row, column, c)];
                where = row * x->dim[2] + column;
            }
        ref_data(y)[pixel(y, n, h, w, c)] = best;
        ((int32_t *)y->side[0]->data)[pixel(y, n, h, w, c)] = where;
    }
}

static void maxpool_dx_twin(const Tensor *dx)
{
    const Tensor *dy = dx->src[0];
    clear(dx);
    EACH_PIXEL(dy)
    {
        int where = ((int32_t *)dx->src[1]->data)[pixel(dy, n, h, w, c)];
        int row = where / dx->dim[2], column = where % dx->dim[2];
        ref_data(dx)[pixel(dx, n, row, column, c)] += ref_data(dy)[pixel(dy, n, h, w, c)];
    }
}

/* Mean over windows (to_y), or its transpose. */
static void window_mean(const Tensor *x, const Tensor *y, const PoolArgs *a, bool to_y)
{
    EACH_PIXEL(y)
    for (int r = 0; r < a->size; r++)
        for (int s = 0; s < a->size; s++) {
            int row = h * a->stride - a->pad + r, column = w * a->stride - a->pad + s;
            if (!inside(x, row, column)) continue;
            double *vx = &ref_data(x)[pixel(x, n, row, column, c)],
                   *vy = &ref_data(y)[pixel(y, n, h, w, c)];
            if (to_y) *vy += *vx / (a->size * a->size);
            else *vx += *vy / (a->size * a->size);
        }
}

static void avgpool_twin(const Tensor *y)
{
    clear(y);
    window_mean(y->src[0], y, y->args, true);
}

static void avgpool_dx_twin(const Tensor *dx)
{
    clear(dx);
    window_mean(dx, dx->src[0], dx->args, false);
}

static void global_avgpool_twin(const Tensor *y)
{
    const Tensor *x = y->src[0];
    clear(y);
    EACH_PIXEL(x)
    ref_data(y)[n * y->dim[1] + c] += ref_data(x)[pixel(x, n, h, w, c)] / (x->dim[1] * x->dim[2]);
}

static void global_avgpool_dx_twin(const Tensor *dx)
{
    EACH_PIXEL(dx)
    ref_data(dx)[pixel(dx, n, h, w, c)] =
        ref_data(dx->src[0])[n * dx->dim[3] + c] / (dx->dim[1] * dx->dim[2]);
}

static const Twin twins[] = {
    {&op_concat, concat_twin},
    {&op_slice, slice_twin},
    {&op_pad, pad_twin},
    {&op_upsample, upsample_twin},
    {&op_upsample_dx, upsample_dx_twin},
    {&op_maxpool, maxpool_twin},
    {&op_maxpool_dx, maxpool_dx_twin},
    {&op_avgpool, avgpool_twin},
    {&op_avgpool_dx, avgpool_dx_twin},
    {&op_global_avgpool, global_avgpool_twin},
    {&op_global_avgpool_dx, global_avgpool_dx_twin},
};

/* ---- cases ------------------------------------------------------------------------------ */

static Tensor *concat_case(Graph *g)
{
    Tensor *a = case_leaf(g, "a", 3, (int[]){2, 3, 5}), *b = case_leaf(g, "b", 3, (int[]){2, 3, 1});
    Tensor *c = case_const(g, "c", g->act, 3, (int[]){2, 3, 7});
    return concat(g, 6, (Tensor *[]){a, b, c, a, slice(g, a, 1, 3), b}); /* a thrice: summed */
}

static Tensor *slice_case(Graph *g)
{
    Tensor *x = case_leaf(g, "x", 4, (int[]){2, 1, 3, 7});
    return add(g, slice(g, x, 0, 4), slice(g, x, 3, 4));
}

/* Values a tenth apart in keyed order, so that a difference quotient never changes the maximum. */
static void distinct(const Tensor *leaf, double *value, size_t count, uint32_t seed)
{
    RandomKey k = {seed, STREAM_TEST, 2, (uint64_t)leaf->id};
    for (size_t i = 0; i < count; i++)
        value[i] =
            0.1 * (double)random_permute(k, (uint32_t)i, (uint32_t)count) - 0.05 * (double)count;
}

static Tensor *image(Graph *g, int n, int h, int w, int c)
{
    return case_leaf(g, "x", 4, (int[]){n, h, w, c});
}
static Tensor *maxpool_case(Graph *g) { return maxpool(g, image(g, 2, 7, 9, 5), 3, 2, 0); }
static Tensor *maxpool_padded_case(Graph *g) { return maxpool(g, image(g, 1, 5, 4, 17), 3, 1, 1); }
static Tensor *maxpool_gap_case(Graph *g) { return maxpool(g, image(g, 1, 8, 7, 3), 2, 3, 1); }
static Tensor *avgpool_case(Graph *g) { return avgpool(g, image(g, 2, 5, 4, 17), 3, 1, 1); }
static Tensor *avgpool_wide_case(Graph *g) { return avgpool(g, image(g, 1, 9, 8, 3), 5, 3, 0); }
/* Channels that fill packs. */
static Tensor *concat_packs_case(Graph *g)
{
    Tensor *a = case_leaf(g, "a", 2, (int[]){37, 8}), *b = case_leaf(g, "b", 2, (int[]){37, 24});
    Tensor *both = concat(g, 3, (Tensor *[]){a, b, a});
    return add(g, slice(g, both, 8, 24), slice(g, both, 16, 24));
}
static Tensor *maxpool_packs_case(Graph *g) { return maxpool(g, image(g, 2, 9, 7, 16), 3, 2, 1); }
static Tensor *avgpool_packs_case(Graph *g) { return avgpool(g, image(g, 2, 6, 7, 24), 3, 1, 1); }
static Tensor *upsample2_packs_case(Graph *g) { return upsample2(g, image(g, 2, 5, 3, 16)); }
static Tensor *global_packs_case(Graph *g) { return global_avgpool(g, image(g, 2, 3, 9, 264)); }
static Tensor *global_small_case(Graph *g) { return global_avgpool(g, image(g, 2, 1, 2, 40)); }
static Tensor *upsample2_case(Graph *g) { return upsample2(g, image(g, 2, 3, 5, 9)); }
static Tensor *upsample_less_case(Graph *g) { return upsample(g, image(g, 2, 3, 4, 19), 5, 7); }
static Tensor *upsample_more_case(Graph *g) { return upsample(g, image(g, 2, 3, 4, 9), 7, 9); }
static Tensor *upsample_same_case(Graph *g) { return upsample(g, image(g, 1, 5, 1, 17), 5, 1); }
static Tensor *upsample_far_case(Graph *g) { return upsample(g, image(g, 1, 2, 3, 5), 9, 4); }
static Tensor *global_avgpool_case(Graph *g) { return global_avgpool(g, image(g, 3, 5, 7, 9)); }

static const OpCase cases[] = {
    {"concat", concat_case, NULL, 3},
    {"slice", slice_case, NULL, 2},
    {"concat of packs", concat_packs_case, NULL, 3},
    {"upsample2", upsample2_case, NULL, 4},
    {"upsample 3x4 to 5x7", upsample_less_case, NULL, 4},
    {"upsample 3x4 to 7x9", upsample_more_case, NULL, 9},
    {"upsample 5x1 to 5x1", upsample_same_case, NULL, 1},
    {"upsample 2x3 to 9x4", upsample_far_case, NULL, 10},
    {"upsample2 of packs", upsample2_packs_case, NULL, 4},
    {"maxpool 3/2", maxpool_case, distinct, 4},
    {"maxpool 3/1 padded", maxpool_padded_case, distinct, 9},
    {"maxpool 2/3 with gaps", maxpool_gap_case, distinct, 1},
    {"maxpool 3/2 padded, packs", maxpool_packs_case, distinct, 4},
    {"avgpool 3/1 padded", avgpool_case, NULL, 9},
    {"avgpool 5/3", avgpool_wide_case, NULL, 25},
    {"avgpool 3/1 padded, packs", avgpool_packs_case, NULL, 9},
    {"global_avgpool", global_avgpool_case, NULL, 35},
    {"global_avgpool of packs", global_packs_case, NULL, 27},
    {"global_avgpool of two pixels", global_small_case, NULL, 2},
};

const RefFamily ref_shape = {twins, sizeof twins / sizeof *twins, cases,
                             sizeof cases / sizeof *cases};
