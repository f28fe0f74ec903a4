/* test_exec_cuda.c - the executor on a GPU: recorded runs take new inputs and give the CPU's
 * results, work behind a run belongs to it, a failing node leaves no recording, EQ_COMPARE names
 * the node whose kernel is wrong, EQ_PROFILE counts, feeds keep their order; nodes are fused, held
 * ones run apart. */
#include "base/random.h"
#include "exec/exec.h"
#include "kernels.h"
#include "ops/ops.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { ROWS = 3, IN = 40, OUT = 24, RUNS = 5 };

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

typedef struct {
    Device *d;
    Graph *g;
    Tensor *x, *w, *y;
    Exec *e;
} Net;

/* y = end(x w'), with w an input too. */
static void net_open(Net *n, const char *which, Tensor *(*end)(Graph *g, Tensor *x))
{
    *n = (Net){.g = NULL};
    require(device_open(&n->d, which, "fp32", 1, NULL));
    n->g = device_graph(n->d);
    n->x = graph_leaf(n->g, KIND_INPUT, DTYPE_F32, "x", 2, (int[]){ROWS, IN});
    n->w = graph_leaf(n->g, KIND_INPUT, DTYPE_F32, "w", 2, (int[]){OUT, IN});
    graph_scope_push(n->g, "net.last");
    n->y = end(n->g, linear(n->g, n->x, n->w, NULL));
    graph_scope_pop(n->g);
    require(graph_status(n->g));
    graph_finish(n->g, &n->y, 1);
    require(exec_new(&n->e, n->d, n->g, &n->y, 1));
}

static void net_close(Net *n)
{
    exec_free(n->e);
    graph_free(n->g);
    device_close(n->d);
}

static void net_write(Net *n, uint32_t run)
{
    float x[ROWS * IN], w[OUT * IN];
    random_normals(x, ROWS * IN, (RandomKey){1, STREAM_TEST, run, 0});
    random_normals(w, OUT * IN, (RandomKey){1, STREAM_TEST, run, 1});
    require(exec_write(n->e, n->x, x));
    require(exec_write(n->e, n->w, w));
    memset(x, 0xff, sizeof x); /* the bytes were taken */
}

static void near(const float *a, const float *b)
{
    for (int i = 0; i < ROWS * OUT; i++) assert_true(fabsf(a[i] - b[i]) <= 1e-5f);
}

/* ---- runs ------------------------------------------------------------------------------------ */

typedef struct {
    Net *net;
    float *kept; /* device memory: the results of the run before, and of this one */
    int calls;
} Behind;

static Status keep(void *arg)
{
    Behind *b = arg;
    size_t bytes = ROWS * OUT * sizeof(float);
    b->calls++;
    TRY(device_copy(b->net->d, b->kept, b->kept + ROWS * OUT, bytes));
    return device_copy(b->net->d, b->kept + ROWS * OUT, b->net->y->data, bytes);
}

static void recorded_runs_give_the_cpus_results(void **state)
{
    (void)state;
    Net cpu, gpu;
    float want[2][ROWS * OUT], got[2][ROWS * OUT], alone[ROWS * OUT];
    net_open(&cpu, "cpu", silu);
    net_open(&gpu, "cuda", silu);
    Behind behind = {.net = &gpu};
    require(device_alloc(gpu.d, (void **)&behind.kept, sizeof got, "results"));
    for (uint32_t run = 0; run < RUNS; run++) {
        memcpy(want[0], want[1], sizeof want[0]);
        net_write(&cpu, run);
        require(exec_run(cpu.e));
        require(exec_read(cpu.e, cpu.y, want[1]));
        net_write(&gpu, run);
        require(exec_run_then(gpu.e, keep, &behind));
        require(device_read(gpu.d, got, behind.kept, sizeof got));
        near(got[1], want[1]);
        if (run) near(got[0], want[0]);
        require(exec_run(gpu.e)); /* a run alone has a recording of its own */
        require(exec_read(gpu.e, gpu.y, alone));
        assert_memory_equal(alone, got[1], sizeof alone);
    }
    assert_int_equal(behind.calls, 2); /* run by itself once, recorded once */
    device_release(gpu.d, behind.kept);
    net_close(&cpu);
    net_close(&gpu);
}

static void without_recordings_all_is_called(void **state)
{
    (void)state;
    static const char *const variable[] = {"EQ_NO_GRAPH", "EQ_SYNC", "EQ_COMPARE", "EQ_PROFILE"};
    for (int i = 0; i < 4; i++) {
        Net gpu;
        setenv(variable[i], "1", 1);
        net_open(&gpu, "cuda", silu);
        unsetenv(variable[i]);
        Behind behind = {.net = &gpu};
        require(
            device_alloc(gpu.d, (void **)&behind.kept, 2 * ROWS * OUT * sizeof(float), "results"));
        for (uint32_t run = 0; run < RUNS; run++) {
            net_write(&gpu, run);
            require(exec_run_then(gpu.e, keep, &behind));
        }
        require(device_sync(gpu.d));
        assert_int_equal(behind.calls, RUNS);
        Text profile = {0};
        exec_profile(gpu.e, &profile);
        assert_true((profile.n > 0) == !strcmp(variable[i], "EQ_PROFILE"));
        if (profile.n) assert_non_null(strstr(profile.s, "linear_after"));
        free(profile.s);
        device_release(gpu.d, behind.kept);
        net_close(&gpu);
    }
}

static Tensor *silu_and_sum(Graph *g, Tensor *x) { return add(g, silu(g, x), silu(g, x)); }

/* One node where it may be, as many as recorded where it may not; the same result. */
static void nodes_are_fused_unless_told(void **state)
{
    (void)state;
    float value[4][ROWS * OUT];
    for (int i = 0; i < 4; i++) {
        Net net;
        if (i == 1) setenv("EQ_NO_FUSE", "1", 1);
        net_open(&net, i == 3 ? "cpu" : "cuda", i == 2 ? silu_and_sum : silu);
        unsetenv("EQ_NO_FUSE");
        assert_int_equal(!strcmp(net.y->op->name, "linear_after"), i == 0);
        net_write(&net, 0);
        require(exec_run(net.e));
        require(exec_read(net.e, net.y, value[i]));
        net_close(&net);
    }
    near(value[0], value[3]);
    near(value[1], value[3]);
    for (int i = 0; i < ROWS * OUT; i++) value[2][i] /= 2;
    near(value[2], value[3]);
}

/* y = silu(x silu(w)') with silu(w) held: recorded runs take what the last write to w left. */
static void held_nodes_run_outside_recordings(void **state)
{
    (void)state;
    Net net[2] = {{.g = NULL}};
    for (int i = 0; i < 2; i++) {
        Net *n = &net[i];
        require(device_open(&n->d, i ? "cpu" : "cuda", "fp32", 1, NULL));
        n->g = device_graph(n->d);
        n->x = graph_leaf(n->g, KIND_INPUT, DTYPE_F32, "x", 2, (int[]){ROWS, IN});
        n->w = graph_leaf(n->g, KIND_INPUT, DTYPE_F32, "w", 2, (int[]){OUT, IN});
        graph_hold(n->w);
        n->y = silu(n->g, linear(n->g, n->x, silu(n->g, n->w), NULL));
        graph_finish(n->g, &n->y, 1);
        require(exec_new(&n->e, n->d, n->g, &n->y, 1));
    }
    for (uint32_t run = 0; run < 3 * RUNS; run++) {
        float x[ROWS * IN], w[OUT * IN], y[2][ROWS * OUT];
        random_normals(x, ROWS * IN, (RandomKey){1, STREAM_TEST, run, 0});
        random_normals(w, OUT * IN, (RandomKey){1, STREAM_TEST, run, 1});
        for (int i = 0; i < 2; i++) {
            require(exec_write(net[i].e, net[i].x, x));
            if (run % RUNS == 0) require(exec_write(net[i].e, net[i].w, w));
            require(exec_run(net[i].e));
            require(exec_read(net[i].e, net[i].y, y[i]));
        }
        near(y[0], y[1]);
    }
    net_close(&net[0]);
    net_close(&net[1]);
}

/* ---- nodes that go wrong --------------------------------------------------------------------- */

static Status liar_cpu(const Tensor *y, Stream *s)
{
    return cpu_silu_fwd(y->data, y->src[0]->data, tensor_count(y), s);
}
static Status liar_cuda(const Tensor *y, Stream *s)
{
    return cuda_gelu_fwd(y->data, y->src[0]->data, tensor_count(y), y->dtype, s);
}
static const OpDef op_liar = {.name = "liar", .cpu = liar_cpu, .cuda = liar_cuda};
static Tensor *liar(Graph *g, Tensor *x)
{
    return graph_node(g, &op_liar, x->ndim, x->dim, 1, &x, NULL, 0);
}

static void comparing_names_the_wrong_kernel(void **state)
{
    (void)state;
    Net gpu;
    setenv("EQ_COMPARE", "1", 1);
    net_open(&gpu, "cuda", liar);
    unsetenv("EQ_COMPARE");
    net_write(&gpu, 0);
    assert_int_equal(exec_run(gpu.e), ERR_NUMERIC);
    assert_non_null(strstr(status_message(), "net.last.liar: liar [3,24] -> [3,24]: differs"));
    net_close(&gpu);
}

static Status fails_cuda(const Tensor *y, Stream *s)
{
    bool *fails = *(bool *const *)y->args;
    if (*fails) return FAIL(ERR_DEVICE, "no more");
    return liar_cuda(y, s);
}
static const OpDef op_fails = {.name = "fails", .cpu = liar_cpu, .cuda = fails_cuda};
static bool failing;
static Tensor *fails(Graph *g, Tensor *x)
{
    bool *at = &failing;
    return graph_node(g, &op_fails, x->ndim, x->dim, 1, &x, &at, sizeof at);
}

static void a_failure_leaves_no_recording(void **state)
{
    (void)state;
    Net gpu;
    float first[ROWS * OUT], again[ROWS * OUT];
    failing = false;
    net_open(&gpu, "cuda", fails);
    net_write(&gpu, 0);
    require(exec_run(gpu.e));
    require(exec_read(gpu.e, gpu.y, first));
    failing = true; /* in the run that records */
    assert_int_equal(exec_run(gpu.e), ERR_DEVICE);
    assert_non_null(strstr(status_message(), "net.last.fails: fails [3,24] -> [3,24]: no more"));
    failing = false;
    for (int i = 0; i < 2; i++) {
        memset(again, 0xff, sizeof again);
        require(device_write(gpu.d, gpu.y->data, again, sizeof again));
        require(exec_run(gpu.e));
        require(exec_read(gpu.e, gpu.y, again));
        assert_memory_equal(first, again, sizeof again);
    }
    net_close(&gpu);
}

/* ---- feeds ----------------------------------------------------------------------------------- */

/* More feeds than there are turns, large ones too: each is seen by what is enqueued behind it. */
static void feeds_keep_their_order(void **state)
{
    (void)state;
    static const size_t sizes[] = {3, 40000};
    enum { FEEDS = 5 };
    Device *d;
    require(device_open(&d, "cuda", "fp32", 1, NULL));
    for (int k = 0; k < 2; k++) {
        size_t n = sizes[k], bytes = n * sizeof(float);
        float *host = malloc(bytes), *place, *seen;
        Feed *f;
        require(device_feed_new(&f, d, bytes));
        require(device_alloc(d, (void **)&place, bytes, "feed"));
        require(device_alloc(d, (void **)&seen, FEEDS * bytes, "seen"));
        for (int i = 0; i < FEEDS; i++) {
            for (size_t j = 0; j < n; j++) host[j] = (float)(i * 100) + (float)(j % 97);
            require(device_feed(f, place, host, bytes));
            require(device_copy(d, seen + (size_t)i * n, place, bytes));
        }
        for (int i = 0; i < FEEDS; i++) {
            require(device_read(d, host, seen + (size_t)i * n, bytes));
            for (size_t j = 0; j < n; j++)
                assert_true(host[j] == (float)(i * 100) + (float)(j % 97));
        }
        device_feed_free(f);
        device_release(d, place);
        device_release(d, seen);
        free(host);
    }
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(recorded_runs_give_the_cpus_results),
                                       cmocka_unit_test(without_recordings_all_is_called),
                                       cmocka_unit_test(nodes_are_fused_unless_told),
                                       cmocka_unit_test(held_nodes_run_outside_recordings),
                                       cmocka_unit_test(comparing_names_the_wrong_kernel),
                                       cmocka_unit_test(a_failure_leaves_no_recording),
                                       cmocka_unit_test(feeds_keep_their_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
