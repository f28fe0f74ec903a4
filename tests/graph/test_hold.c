/* test_hold.c - held leaves: what depends on them alone runs when one of them was written and not
 * otherwise, and no bit of any run changes.
 *
 *   test_hold [SEED]
 */
#include "base/random.h"
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

enum { GRAPHS = 80, RUNS = 6 };

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

/* ---- random graphs ---------------------------------------------------------------------------- */

static Exec *open_random(RandomGraph *r, Device *d, uint32_t seed, bool hold)
{
    Exec *e;
    random_graph_make(r, seed, seed % 2);
    if (hold) random_graph_hold(r, seed);
    for (int i = 0; i < r->n_param; i++)
        require(device_alloc(d, &r->param[i]->data, tensor_bytes(r->param[i]), "parameter"));
    require(exec_new(&e, d, r->g, r->keep, r->n_keep));
    return e;
}

static void close_random(RandomGraph *r, Device *d, Exec *e)
{
    exec_free(e);
    for (int i = 0; i < r->n_param; i++) device_release(d, r->param[i]->data);
    random_graph_free(r);
}

/* What a run does not compute again must not lie in what it writes. */
static void poison(const Graph *g)
{
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        if (plan_has_place(t) && t->kind == KIND_ACT && !t->held)
            memset(t->data, 0xff, tensor_bytes(t));
    }
}

static int held_nodes(const Graph *g)
{
    int n = 0;
    for (int i = 0; i < g->n; i++)
        n += g->node[i]->live && g->node[i]->op && !g->node[i]->view_of && g->node[i]->held;
    return n;
}

/* New values to both: all leaves, then a few now and then. */
static void write_leaves(Exec *const e[2], const RandomGraph r[2], uint32_t seed, uint32_t run)
{
    RandomKey key = {seed, STREAM_TEST, run, 7};
    for (int i = 0; i < r[0].n_leaf; i++) {
        if (run && random_below(key, (uint32_t)i, 8) != run) continue;
        float *v = random_graph_values(r[0].leaf[i], seed + 1000 * run);
        for (int k = 0; k < 2; k++) require(exec_write(e[k], r[k].leaf[i], v));
        free(v);
    }
}

static void holding_changes_no_bit(void **state)
{
    uint32_t first = *(uint32_t *)*state;
    int held = 0;
    Device *d;
    require(device_open(&d, "cpu", "auto", 2, NULL));
    for (uint32_t seed = first; seed < first + GRAPHS; seed++) {
        RandomGraph r[2]; /* plain, held */
        Exec *e[] = {open_random(&r[0], d, seed, false), open_random(&r[1], d, seed, true)};
        held += held_nodes(r[1].g);
        for (uint32_t run = 0; run < RUNS; run++) {
            write_leaves(e, r, seed, run);
            poison(r[1].g);
            require(exec_run(e[0]));
            require(exec_run(e[1]));
            for (int i = 0; i < r[0].n_keep; i++) {
                const Tensor *a = r[0].keep[i], *b = r[1].keep[i];
                if (memcmp(a->data, b->data, tensor_bytes(a)))
                    fail_msg("seed %u, run %u: kept tensor %d (%s) differs", seed, run, i, a->name);
            }
        }
        for (int k = 0; k < 2; k++) close_random(&r[k], d, e[k]);
    }
    assert_true(held > GRAPHS); /* there was something to hold */
    device_close(d);
}

/* ---- which nodes run -------------------------------------------------------------------------- */

static int ran[2]; /* of the held node, of the other */

static Status counted(const Tensor *y, Stream *s)
{
    (void)s;
    int which = *(const int *)y->args;
    ran[which]++;
    memcpy(y->data, y->src[0]->data, tensor_bytes(y));
    return ran[which] == 100 ? FAIL(ERR_DEVICE, "enough") : OK;
}
static const OpDef op_counted = {.name = "counted", .cpu = counted};
static Tensor *count_runs(Graph *g, Tensor *x, int which)
{
    return graph_node(g, &op_counted, x->ndim, x->dim, 1, &x, &which, sizeof which);
}

static void held_nodes_run_behind_a_write(void **state)
{
    (void)state;
    static const float value[6] = {1, 2, 3, 4, 5, 6};
    Device *d;
    Exec *e;
    Graph *g = graph_new();
    Tensor *seldom = graph_leaf(g, KIND_INPUT, DTYPE_F32, "seldom", 2, (int[]){2, 3});
    Tensor *often = graph_leaf(g, KIND_INPUT, DTYPE_F32, "often", 2, (int[]){2, 3});
    Tensor *idle = graph_leaf(g, KIND_INPUT, DTYPE_F32, "idle", 2, (int[]){2, 3});
    graph_hold(seldom);
    graph_hold(idle);
    graph_hold(NULL);
    Tensor *a = count_runs(g, seldom, 0), *b = count_runs(g, often, 1), *y = add(g, a, b);
    graph_finish(g, &y, 1);
    assert_true(a->held && !b->held && !y->held);
    require(device_open(&d, "cpu", "auto", 1, NULL));
    require(exec_new(&e, d, g, &y, 1));
    for (int i = 0; i < 3; i++) {
        require(exec_write(e, often, value));
        require(exec_write(e, idle, value)); /* nothing reads it */
        require(exec_run(e));
        assert_int_equal(ran[0], 1);
        assert_int_equal(ran[1], i + 1);
    }
    require(exec_write(e, seldom, value));
    require(exec_run(e));
    require(exec_run(e));
    assert_int_equal(ran[0], 2);
    assert_int_equal(ran[1], 5);
    float out[6];
    require(exec_read(e, y, out));
    for (int i = 0; i < 6; i++) assert_true(out[i] == 2 * value[i]);

    ran[0] = 99; /* what failed is not taken for done */
    require(exec_write(e, seldom, value));
    assert_int_equal(exec_run(e), ERR_DEVICE);
    require(exec_run(e));
    assert_int_equal(ran[0], 101);
    exec_free(e);
    graph_free(g);
    device_close(d);
}

static Status updates(const Tensor *y, Stream *s)
{
    (void)y, (void)s;
    return OK;
}
static const OpDef op_updates = {.name = "updates", .cpu = updates, .effect = true};

static void what_is_not_constant_is_not_held(void **state)
{
    (void)state;
    static float place[6];
    Graph *g = graph_new();
    int dim[] = {2, 3};
    Tensor *x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 2, dim);
    Tensor *w = graph_leaf(g, KIND_PARAM, DTYPE_F32, "w", 2, dim);
    Tensor *running = graph_leaf(g, KIND_STATE, DTYPE_F32, "running", 2, dim);
    graph_hold(x);
    Tensor *all = add(g, x, x), *mixed = add(g, all, w), *stateful = add(g, x, running);
    Tensor *effect = graph_node(g, &op_updates, 2, dim, 1, &x, NULL, 0);
    Tensor *pinned = add(g, all, x);
    Tensor *ones = graph_node(g, &op_fill, 2, dim, 0, NULL, &(float){1}, sizeof(float));
    Tensor *image = reshape(g, all, 4, (int[]){1, 2, 3, 1}), *pooled = maxpool(g, image, 2, 1, 0);
    graph_pin(pinned, place);
    Tensor *keep[] = {mixed, stateful, effect, ones, pooled};
    graph_finish(g, keep, 5);
    assert_true(all->held && image->held && pooled->held && pooled->side[0]->held);
    assert_false(mixed->held || stateful->held || effect->held || pinned->held || ones->held);
    graph_free(g);
}

int main(int argc, char **argv)
{
    uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("seed %u (give it as an argument to repeat)\n", seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(holding_changes_no_bit, &seed),
        cmocka_unit_test(held_nodes_run_behind_a_write),
        cmocka_unit_test(what_is_not_constant_is_not_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
