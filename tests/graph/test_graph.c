/* test_graph.c - recording: names, errors, gradients, liveness, dumps; what a failing run says. */
#include "exec/exec.h"
#include "ops/op.h"
#include "ops/ops.h"
#include "ref/random_graph.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static Tensor *param(Graph *g, const char *name, int a, int b)
{
    return graph_leaf(g, KIND_PARAM, DTYPE_F32, name, 2, (int[]){a, b});
}
static Tensor *input(Graph *g, const char *name, int a, int b)
{
    return graph_leaf(g, KIND_INPUT, DTYPE_F32, name, 2, (int[]){a, b});
}

static void scopes_make_paths(void **state)
{
    (void)state;
    Graph *g = graph_new();
    assert_string_equal(param(g, "w", 2, 3)->name, "w");
    graph_scope_push(g, "down_blocks.%d", 1);
    graph_scope_push(g, "resnets");
    Tensor *w = param(g, "weight", 2, 3);
    assert_string_equal(w->name, "down_blocks.1.resnets.weight");
    assert_string_equal(add(g, w, w)->name, "down_blocks.1.resnets.add");
    graph_scope_pop(g);
    assert_string_equal(graph_path(g, "x"), "down_blocks.1.x");
    graph_scope_pop(g);
    assert_string_equal(graph_path(g, "x"), "x");
    graph_free(g);
}

static void first_error_stays(void **state)
{
    (void)state;
    Graph *g = graph_new();
    Tensor *a = param(g, "a", 2, 3), *b = param(g, "b", 3, 2);
    graph_scope_push(g, "mid");
    assert_int_equal(graph_status(g), OK);
    Tensor *bad = add(g, a, b);
    assert_null(bad);
    int n = g->n;
    assert_null(add(g, a, a)); /* fits, but comes after */
    assert_null(slice(g, bad, 0, 1));
    assert_null(param(g, "c", 1, 1));
    assert_null(concat(g, 2, (Tensor *[]){a, b}));
    graph_backward(g, 1, &a, NULL);
    assert_int_equal(g->n, n);
    assert_int_equal(graph_status(g), ERR_USAGE);
    assert_string_equal(status_message(), "mid: add: shapes [2,3] and [3,2] differ");
    graph_scope_pop(g);
    graph_free(g);
    graph_free(NULL);
}

/* What builders refuse, and how they put it. */
static Tensor *bad_concat(Graph *g)
{
    return concat(g, 2, (Tensor *[]){param(g, "a", 2, 3), param(g, "b", 1, 3)});
}
static Tensor *bad_concat_many(Graph *g) { return concat(g, 7, NULL); }
static Tensor *bad_slice(Graph *g) { return slice(g, param(g, "a", 2, 3), 2, 2); }
static Tensor *bad_slice_large(Graph *g) { return slice(g, param(g, "a", 2, 3), 1, INT32_MAX); }
static Tensor *bad_pool(Graph *g) { return maxpool(g, param(g, "a", 2, 3), 3, 2, 0); }
static Tensor *bad_window(Graph *g)
{
    return avgpool(g, graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 4, (int[]){1, 2, 9, 1}), 3, 1, 0);
}
static Tensor *bad_reshape(Graph *g) { return reshape(g, param(g, "a", 2, 3), 1, (int[]){7}); }
static Tensor *bad_ids(Graph *g)
{
    return embedding(g, input(g, "ids", 2, 3), param(g, "table", 9, 4));
}
static Tensor *bad_time(Graph *g) { return timestep_embedding(g, input(g, "t", 2, 1), 8, true, 0); }
static Tensor *bad_mix(Graph *g)
{
    return mix_samples(g, param(g, "a", 2, 3), param(g, "b", 2, 3), param(g, "c", 2, 2));
}
static Tensor *bad_step(Graph *g)
{
    return ddim_step(g, input(g, "x", 2, 3), input(g, "p", 2, 3), NULL, input(g, "c", 6, 1),
                     (DdimArgs){1, PREDICT_NOISE, 2});
}
static Tensor *bad_target(Graph *g)
{
    Tensor *w = graph_leaf(g, KIND_INPUT, DTYPE_F32, "w", 1, (int[]){2});
    return weighted_mse(g, input(g, "x", 2, 3), param(g, "target", 2, 3), w);
}
static Tensor *bad_label(Graph *g)
{
    return cross_entropy(g, input(g, "x", 2, 3), input(g, "l", 2, 1), NULL, 0);
}
static Tensor *bad_size(Graph *g) { return param(g, "a", 0, 3); }
static Tensor *bad_wrap(Graph *g) /* 2^64 values */
{
    return graph_leaf(g, KIND_INPUT, DTYPE_F32, "a", 3, (int[]){1 << 20, 1 << 20, 1 << 24});
}
static Tensor *bad_types(Graph *g)
{
    Tensor *x[2];
    for (int i = 0; i < 2; i++)
        x[i] = graph_leaf(g, KIND_INPUT, i ? DTYPE_BF16 : DTYPE_F32, "a", 2, (int[]){2, 3 + i});
    return concat(g, 2, x);
}
static Tensor *bad_huge(Graph *g) { return param(g, "a", INT32_MAX, INT32_MAX); }

static void builders_refuse(void **state)
{
    (void)state;
    static const struct {
        Tensor *(*build)(Graph *g);
        const char *message;
    } cases[] = {
        {bad_concat, "concat: shapes [2,3] and [1,3] differ"},
        {bad_concat_many, "concat: 7 parts, expected 1 to 6"},
        {bad_slice, "slice: 2 columns from 2 of [2,3]"},
        {bad_slice_large, "slice: 2147483647 columns from 1 of [2,3]"},
        {bad_pool, "maxpool: [2,3] is no image [n,h,w,c]"},
        {bad_window, "avgpool: size 3, stride 1, padding 0 do not fit [1,2,9,1]"},
        {bad_reshape, "reshape: [2,3] does not have 7 elements"},
        {bad_ids, "embedding: ids [2,3] and table [9,4], expected I32 [n,t] and [v,d]"},
        {bad_time,
         "timestep_embedding: times [2,1], width 8, shift 0, expected [n], even, below width/2"},
        {bad_mix, "mix_samples: coefficients trainable [2,2], expected constants [2,2]"},
        {bad_step, "ddim_step, guided: shapes [2,3] and [2,3] differ"},
        {bad_target,
         "weighted_mse: gradients flow into x only, target and weight must be constants"},
        {bad_label, "cross_entropy: logits [2,3] and labels [2,1], expected [n,k] and I32 [n]"},
        {bad_size, "a: dimension 0 is 0, expected 1 or more"},
        {bad_huge, "a: too large"},
        {bad_wrap, "a: too large"},
        {bad_types, "concat: parts of two storage types"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Graph *g = graph_new();
        assert_null(cases[i].build(g));
        assert_int_equal(graph_status(g), ERR_USAGE);
        assert_string_equal(status_message(), cases[i].message);
        graph_free(g);
    }
}

static Status nothing(const Tensor *y, Stream *s)
{
    (void)y, (void)s;
    return OK;
}
static void no_vjp(Graph *g, Tensor *y, Tensor *dy) { grad_add(g, y->src[0], dy); }
static const OpDef updating = {.name = "updating", .cpu = nothing, .vjp = no_vjp, .effect = true};

static void no_gradient_is_an_error(void **state)
{
    (void)state;
    Graph *g = graph_new();
    Tensor *x = param(g, "x", 2, 3),
           *coef = graph_leaf(g, KIND_INPUT, DTYPE_F32, "c", 1, (int[]){6});
    graph_scope_push(g, "sampler");
    Tensor *y = ddim_step(g, x, x, NULL, coef, (DdimArgs){0});
    graph_backward(g, 1, &y, NULL);
    graph_scope_pop(g);
    assert_int_equal(graph_status(g), ERR_USAGE);
    assert_non_null(strstr(status_message(), "sampler.ddim_step: has no gradient"));
    graph_free(g);

    g = graph_new();
    x = param(g, "x", 2, 3);
    graph_recompute_begin(g);
    y = add(g, graph_node(g, &updating, 2, x->dim, 1, &x, NULL, 0), x);
    graph_recompute_end(g);
    graph_backward(g, 1, &y, NULL);
    assert_int_equal(graph_status(g), ERR_USAGE);
    assert_non_null(strstr(status_message(), "updating: updates state, cannot be computed twice"));
    graph_free(g);
}

/* Runs g's live nodes planned; reads t. Parameters are given `value` everywhere. */
static void run(Graph *g, Tensor *t, float value, float *out)
{
    Device *d;
    Exec *e;
    assert_int_equal(device_open(&d, "cpu", "auto", 1, NULL), OK);
    for (int i = 0; i < g->n; i++) {
        Tensor *p = g->node[i];
        if (p->kind != KIND_PARAM) continue;
        assert_int_equal(device_alloc(d, &p->data, tensor_bytes(p), "parameter"), OK);
        for (size_t k = 0; k < tensor_count(p); k++) ((float *)p->data)[k] = value;
    }
    assert_int_equal(exec_new(&e, d, g, &t, 1), OK);
    assert_int_equal(exec_run(e), OK);
    assert_int_equal(exec_read(e, t, out), OK);
    exec_free(e);
    for (int i = 0; i < g->n; i++)
        if (g->node[i]->kind == KIND_PARAM) device_release(d, g->node[i]->data);
    device_close(d);
}

/* x used k times in sums of sums: dx = the number of paths, 2^k + k. */
static void uses_add_up(void **state)
{
    (void)state;
    enum { K = 7 };
    float dx[6];
    Graph *g = graph_new();
    Tensor *x = param(g, "x", 2, 3), *y = x;
    for (int i = 0; i < K; i++) y = add(g, y, y);
    for (int i = 0; i < K; i++) y = add(g, y, x);
    graph_backward(g, 1, &y, NULL);
    assert_int_equal(graph_status(g), OK);
    graph_finish(g, &x->grad, 1);
    run(g, x->grad, 1, dx);
    for (int i = 0; i < 6; i++) assert_true(dx[i] == (1 << K) + K);
    graph_free(g);
}

static void gradients_reach_what_is_used(void **state)
{
    (void)state;
    Graph *g = graph_new();
    Tensor *x = param(g, "x", 2, 3), *idle = param(g, "idle", 2, 3), *in = input(g, "in", 2, 3);
    Tensor *aside = add(g, idle, idle), *frozen = add(g, in, in), *y = add(g, add(g, x, frozen), x);
    Tensor *z = slice(g, y, 0, 1); /* two outputs, one with a gradient given */
    Tensor *dz = input(g, "dz", 2, 1);
    assert_false(frozen->trainable);
    graph_backward(g, 2, (Tensor *[]){y, z}, (Tensor *[]){NULL, dz});
    assert_int_equal(graph_status(g), OK);
    assert_null(idle->grad);
    assert_null(in->grad);
    assert_null(frozen->grad);
    assert_non_null(x->grad);
    graph_finish(g, &x->grad, 1);
    assert_false(aside->live || idle->live || frozen->live || in->live); /* dx does not need them */
    assert_true(dz->live);
    graph_free(g);
}

static void sides_of_copies_are_their_own(void **state)
{
    (void)state;
    Graph *g = graph_new();
    Tensor *x = graph_leaf(g, KIND_PARAM, DTYPE_F32, "x", 4, (int[]){1, 4, 4, 3});
    graph_recompute_begin(g);
    Tensor *h = maxpool(g, x, 3, 1, 1), *y = maxpool(g, h, 2, 2, 0);
    graph_recompute_end(g);
    graph_backward(g, 1, &y, NULL);
    assert_int_equal(graph_status(g), OK);
    graph_finish(g, (Tensor *[]){y, x->grad}, 2);
    int copies = 0;
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        if (t->op == &op_maxpool) {
            assert_ptr_equal(t->side[0]->owner, t);
            assert_int_equal(t->side[0]->id, t->id + 1);
            assert_int_equal(t->side[0]->dtype, DTYPE_I32);
            copies++;
        }
        if (t->op == &op_maxpool_dx) assert_true(t->src[1]->owner->id > y->id); /* the copy's */
        if (t->op) assert_true(!t->src[0] || t->src[0]->id < t->id); /* in order of execution */
    }
    assert_int_equal(copies, 4);
    graph_free(g);
}

/* ---- dumps ------------------------------------------------------------------------------- */

static void same_build_same_dump(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 20; seed++) {
        RandomGraph a, b;
        Text ta = {0}, tb = {0};
        random_graph_make(&a, seed, true);
        random_graph_make(&b, seed, true);
        graph_dump_text(a.g, &ta);
        graph_dump_text(b.g, &tb);
        assert_string_equal(ta.s, tb.s);
        int lines = 0, live = 0;
        for (const char *c = ta.s; *c; c++) lines += *c == '\n';
        for (int i = 0; i < a.g->n; i++) live += a.g->node[i]->live;
        assert_int_equal(lines, live);
        free(ta.s);
        free(tb.s);
        random_graph_free(&a);
        random_graph_free(&b);
    }
}

/* ---- what a failing run says --------------------------------------------------------------- */

static void dot_is_whole(void **state)
{
    (void)state;
    RandomGraph r;
    Text dot = {0};
    random_graph_make(&r, 7, true);
    graph_dump_dot(r.g, &dot);
    assert_true(!strncmp(dot.s, "digraph equipoise {\n", 20));
    assert_string_equal(dot.s + dot.n - 3, "\n}\n");
    bool *declared = calloc((size_t)r.g->n, sizeof *declared);
    int edges = 0, from, to;
    for (char *line = strtok(dot.s, "\n"); line; line = strtok(NULL, "\n")) {
        if (sscanf(line, "  n%d -> n%d;", &from, &to) == 2) {
            assert_true(from < to && declared[from] && declared[to]);
            edges++;
        } else if (sscanf(line, "  n%d [label=\"", &to) == 1) {
            assert_false(declared[to]);
            declared[to] = true;
        }
    }
    assert_true(edges > 10);
    free(declared);
    free(dot.s);
    random_graph_free(&r);
}

static void failures_name_the_node(void **state)
{
    (void)state;
    Device *d;
    Exec *e;
    assert_int_equal(device_open(&d, "cpu", "auto", 1, NULL), OK);
    Graph *g = graph_new();
    graph_scope_push(g, "text_model");
    Tensor *ids = graph_leaf(g, KIND_INPUT, DTYPE_I32, "ids", 2, (int[]){1, 2}),
           *table = param(g, "table", 9, 4);
    Tensor *y = embedding(g, ids, table);
    graph_scope_pop(g);
    graph_finish(g, &y, 1);
    assert_int_equal(exec_new(&e, d, g, &y, 1), ERR_BUG);
    assert_string_equal(status_message(), "text_model.table: has no memory");
    assert_null(e);
    float rows[36] = {0};
    table->data = rows;
    assert_int_equal(exec_new(&e, d, g, &y, 1), OK);
    assert_int_equal(exec_write(e, ids, (int32_t[]){3, 9}), OK);
    assert_int_equal(exec_run(e), ERR_INPUT);
    assert_string_equal(status_message(), "text_model.embedding: embedding [1,2] [9,4] -> [1,2,4]: "
                                          "position 1: id 9, expected 0 to 8");
    exec_free(e);
    graph_free(g);
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scopes_make_paths),       cmocka_unit_test(first_error_stays),
        cmocka_unit_test(builders_refuse),         cmocka_unit_test(no_gradient_is_an_error),
        cmocka_unit_test(uses_add_up),             cmocka_unit_test(gradients_reach_what_is_used),
        cmocka_unit_test(sides_of_copies_are_their_own),
        cmocka_unit_test(same_build_same_dump),        cmocka_unit_test(dot_is_whole),
        cmocka_unit_test(failures_name_the_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
