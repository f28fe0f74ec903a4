/* test_plan.c - the planner on hundreds of random graphs: nothing that is still needed is
 * overwritten, shared memory computes what memory apart computes, recomputing changes no bit. */
#include "exec/exec.h"
#include "graph/plan.h"
#include "ops/ops.h"
#include "ref/random_graph.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { PLANNED_GRAPHS = 300, RUN_GRAPHS = 60 };

typedef struct { size_t from, end; } Bytes;

static Bytes place(const Plan *p, const Tensor *t)
{
    return (Bytes){p->offset[t->id], p->offset[t->id] + tensor_bytes(t)};
}

/* The last tensor that was written over any byte of t, as the list has run up to `now`: a play of
 * the run with names in place of numbers. Inputs are written before it, held nodes run first. */
static const Tensor *holder(const Plan *p, const Graph *g, const Tensor *t, int now)
{
    const Tensor *last = NULL;
    int when = -g->n - 2;
    Bytes want = place(p, t);
    for (int i = 0; i < g->n; i++) {
        const Tensor *w = g->node[i];
        if (!plan_has_place(w)) continue;
        int written = w->kind == KIND_INPUT ? -g->n - 1 : plan_time(g, w);
        Bytes b = place(p, w);
        if (written > now || written < when || b.from >= want.end || want.from >= b.end) continue;
        if (written == when && last == t) return NULL; /* two at once */
        last = w;
        when = written;
    }
    return last;
}

static void expect_intact(const Plan *p, const Graph *g, Tensor *t, int now, uint32_t seed)
{
    t = tensor_root(t);
    if (!plan_has_place(t)) return; /* a parameter */
    const Tensor *h = holder(p, g, t, now);
    if (h != t)
        fail_msg("seed %u: node %d needs tensor %d, but its bytes hold tensor %d", seed, now, t->id,
                 h ? h->id : -1);
}

static void check_plan(const RandomGraph *r, uint32_t seed)
{
    const Graph *g = r->g;
    Plan p, again;
    plan_make(&p, g, r->keep, r->n_keep);
    plan_make(&again, g, r->keep, r->n_keep);
    assert_int_equal(p.planned, again.planned);
    assert_true(p.planned <= p.unplanned);
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        if (plan_has_place(t)) {
            assert_int_equal(p.offset[i], again.offset[i]);
            assert_int_equal(p.offset[i] % PLAN_ALIGN, 0);
            assert_true(place(&p, t).end <= p.planned);
        }
        if (!t->live || !t->op || t->view_of) continue;
        int now = plan_time(g, t);
        for (int k = 0; k < MAX_SRC; k++) { /* its own output does not overlap them either */
            if (!t->src[k]) continue;
            expect_intact(&p, g, t->src[k], now, seed);
            if (t->src[k]->held && !t->held) /* the next run does not compute it again */
                expect_intact(&p, g, t->src[k], g->n, seed);
        }
        expect_intact(&p, g, t, now, seed);
        for (int k = 0; k < MAX_SIDE; k++)
            if (t->side[k]) expect_intact(&p, g, t->side[k], now, seed);
    }
    for (int i = 0; i < g->n; i++) /* the next run finds its inputs */
        if (g->node[i]->live && g->node[i]->kind == KIND_INPUT)
            expect_intact(&p, g, g->node[i], g->n, seed);
    for (int i = 0; i < r->n_keep; i++) expect_intact(&p, g, r->keep[i], g->n, seed);
    plan_free(&p);
    plan_free(&again);
}

static void nothing_needed_is_overwritten(void **state)
{
    uint32_t first = *(uint32_t *)*state;
    for (uint32_t seed = first; seed < first + PLANNED_GRAPHS; seed++) {
        RandomGraph r;
        random_graph_make(&r, seed, seed % 2);
        check_plan(&r, seed);
        random_graph_hold(&r, seed);
        check_plan(&r, seed);
        random_graph_free(&r);
    }
}

typedef void (*Runner)(RandomGraph *, Device *, uint32_t, void **);

/* Runs the graph of `seed` both ways; what is kept must agree in every bit. n: how many of them. */
static void same_bits(Device *d, uint32_t seed, bool segments_a, Runner a, bool segments_b,
                      Runner b)
{
    RandomGraph ra, rb;
    void *va[64], *vb[64];
    random_graph_make(&ra, seed, segments_a);
    random_graph_make(&rb, seed, segments_b);
    assert_int_equal(ra.n_keep, rb.n_keep);
    a(&ra, d, seed, va);
    b(&rb, d, seed, vb);
    for (int i = 0; i < ra.n_keep; i++) {
        assert_true(tensor_same_shape(ra.keep[i], rb.keep[i]));
        if (memcmp(va[i], vb[i], tensor_bytes(ra.keep[i])))
            fail_msg("seed %u: kept tensor %d (%s) differs", seed, i, ra.keep[i]->name);
        free(va[i]);
        free(vb[i]);
    }
    random_graph_free(&ra);
    random_graph_free(&rb);
}

static void shared_memory_changes_no_bit(void **state)
{
    uint32_t first = *(uint32_t *)*state;
    Device *d;
    assert_int_equal(device_open(&d, "cpu", "auto", 2, NULL), OK);
    for (uint32_t seed = first; seed < first + RUN_GRAPHS; seed++) {
        same_bits(d, seed, false, random_graph_run_apart, false, random_graph_run_planned);
        same_bits(d, seed, true, random_graph_run_apart, true, random_graph_run_planned);
    }
    device_close(d);
}

static void run_own_memory(RandomGraph *r, Device *d, uint32_t seed, void **values)
{
    setenv("EQ_APART", "1", 1);
    random_graph_run_planned(r, d, seed, values);
    unsetenv("EQ_APART");
}

/* EQ_APART gives each tensor its own memory, of its own size, and the same bits. */
static void apart_as_planned(void **state)
{
    uint32_t first = *(uint32_t *)*state;
    enum { LINKS = 5, LENGTH = 7 };
    Graph *g = graph_new();
    Tensor *y = graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 1, (int[]){LENGTH});
    for (int i = 0; i < LINKS; i++) y = silu(g, y);
    graph_finish(g, &y, 1);
    Device *d;
    Exec *e;
    assert_int_equal(device_open(&d, "cpu", "auto", 2, NULL), OK);
    setenv("EQ_APART", "1", 1);
    assert_int_equal(exec_new(&e, d, g, &y, 1), OK);
    unsetenv("EQ_APART");
    assert_int_equal(exec_bytes(e), (LINKS + 1) * LENGTH * sizeof(float));
    exec_free(e);
    graph_free(g);
    for (uint32_t seed = first; seed < first + RUN_GRAPHS; seed++)
        same_bits(d, seed, seed % 2, run_own_memory, seed % 2, random_graph_run_planned);
    device_close(d);
}

static void recomputing_changes_no_bit(void **state)
{
    uint32_t first = *(uint32_t *)*state;
    Device *d;
    assert_int_equal(device_open(&d, "cpu", "auto", 2, NULL), OK);
    for (uint32_t seed = first; seed < first + RUN_GRAPHS; seed++)
        same_bits(d, seed, false, random_graph_run_planned, true, random_graph_run_planned);
    device_close(d);
}

/* A chain whose backward pass needs each link's side (where the maxima were): recomputing in
 * segments of eight must save memory, and keep one segment's sides at a time. */
static size_t chain_bytes(bool segments)
{
    enum { LINKS = 64 };
    Plan p;
    Graph *g = graph_new();
    Tensor *x = graph_leaf(g, KIND_PARAM, DTYPE_F32, "x", 4, (int[]){1, 8, 8, 16}), *y = x;
    for (int i = 0; i < LINKS; i++) {
        if (segments && i % 8 == 0) graph_recompute_begin(g);
        /* views keep nothing alive either */
        y = reshape(g, maxpool(g, y, 3, 1, 1), 2, (int[]){16, 64});
        y = reshape(g, y, 4, x->dim);
        if (segments && i % 8 == 7) graph_recompute_end(g);
    }
    graph_backward(g, 1, &y, NULL);
    assert_int_equal(graph_status(g), OK);
    graph_finish(g, &x->grad, 1);
    plan_make(&p, g, &x->grad, 1);
    size_t planned = p.planned;
    plan_free(&p);
    graph_free(g);
    return planned;
}

static void recomputing_saves_memory(void **state)
{
    (void)state;
    size_t one = 8 * 8 * 16 * sizeof(float), plain = chain_bytes(false), less = chain_bytes(true);
    assert_true(plain >= 64 * one);          /* 64 sides are alive when the backward pass starts */
    assert_true(less <= (7 + 8 + 4) * one);  /* 7 borders, 8 sides, the moving tensors          */
}

int main(int argc, char **argv)
{
    uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("seed %u (give it as an argument to repeat)\n", seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(nothing_needed_is_overwritten, &seed),
        cmocka_unit_test_prestate(shared_memory_changes_no_bit, &seed),
        cmocka_unit_test_prestate(apart_as_planned, &seed),
        cmocka_unit_test_prestate(recomputing_changes_no_bit, &seed),
        cmocka_unit_test(recomputing_saves_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
