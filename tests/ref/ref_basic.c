/* ref_basic.c - twins of add, fill, cast. */
#include "ref/ref.h"

static void add_twin(const Tensor *y)
{
    for (size_t i = 0; i < tensor_count(y); i++)
        ref_data(y)[i] = ref_data(y->src[0])[i] + ref_data(y->src[1])[i];
}

static void fill_twin(const Tensor *y)
{
    for (size_t i = 0; i < tensor_count(y); i++) ref_data(y)[i] = *(const float *)y->args;
}

static void cast_twin(const Tensor *y)
{
    for (size_t i = 0; i < tensor_count(y); i++) ref_data(y)[i] = ref_data(y->src[0])[i];
}

static const Twin twins[] = {
    {&op_add, add_twin}, {&op_fill, fill_twin}, {&op_cast, cast_twin}};

static Tensor *add_case(Graph *g)
{
    Tensor *a = case_leaf(g, "a", 3, (int[]){2, 3, 5});
    Tensor *b = case_leaf(g, "b", 3, (int[]){2, 3, 5});
    return add(g, add(g, a, b), a); /* a twice: its gradients must be summed */
}

static Tensor *add_large(Graph *g)
{
    float three = 3;
    int dim[] = {23, 109};
    Tensor *a = case_leaf(g, "a", 2, dim), *b = case_leaf(g, "b", 2, dim);
    return add(g, add(g, a, graph_node(g, &op_fill, 2, dim, 0, NULL, &three, sizeof three)), b);
}

static Tensor *reshape_case(Graph *g)
{
    Tensor *a = case_leaf(g, "a", 3, (int[]){2, 3, 5});
    Tensor *b = case_leaf(g, "b", 2, (int[]){6, 5});
    return add(g, reshape(g, add(g, a, a), 2, (int[]){6, 5}), b);
}

static Tensor *fill_case(Graph *g)
{
    float half = 0.5f;
    Tensor *a = case_leaf(g, "a", 1, (int[]){7});
    return add(g, a, graph_node(g, &op_fill, 1, a->dim, 0, NULL, &half, sizeof half));
}

/* Also where there is nothing to change: cast() records no such node. */
static Tensor *cast_to(Graph *g, Tensor *x, Dtype dtype)
{
    return x ? graph_typed(graph_node(g, &op_cast, x->ndim, x->dim, 1, &x, NULL, 0), dtype) : NULL;
}

/* Widened, changed there, narrowed: several blocks and a tail. */
static Tensor *cast_case(Graph *g)
{
    Tensor *a = case_leaf(g, "a", 3, (int[]){7, 31, 11});
    Tensor *wide = cast_to(g, a, DTYPE_F32);
    return cast_to(g, silu(g, wide), g->act);
}

static const OpCase cases[] = {{"add", add_case, NULL, 3},
                               {"add, several blocks", add_large, NULL, 3},
                               {"reshape", reshape_case, NULL, 3},
                               {"fill", fill_case, NULL, 1},
                               {"cast", cast_case, NULL, 3}};

const RefFamily ref_basic = {twins, sizeof twins / sizeof *twins, cases,
                             sizeof cases / sizeof *cases};
