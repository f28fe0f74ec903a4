/* exec.c - the executor: the list in order, each node where the plan put it. */
#include "exec/exec.h"
#include "exec/choices.h"
#include "exec/exec_compare.h"
#include "graph/plan.h"
#include "ops/fusions.h"
#include <stdio.h>
#include <stdlib.h>

/* A kind of run: alone, or with more work behind it. */
typedef struct {
    Status (*then)(void *arg);
    void *arg;
    bool ran; /* once, node by node: scratch memory has its size */
    Recording *recording; /* owned */
} Run;

struct Exec {
    Device *device;      /* borrowed */
    Graph *graph;        /* borrowed */
    Tensor **run;        /* owned: the nodes that compute, in order, held ones first */
    int n_run, n_held;
    bool stale;          /* a held leaf was written: the held nodes run before the others */
    char *block;         /* owned: device memory */
    void **apart;        /* owned: [graph->n], EQ_APART: each tensor's own memory, else NULL */
    size_t bytes;
    Feed **feed;         /* owned: [graph->n], made at an input's first value */
    Run alone, followed;
    bool records, waits; /* replays recordings; EQ_SYNC */
    bool gradients;      /* the graph takes some */
    Compare *compare;    /* owned: EQ_COMPARE, else NULL */
    double *spent_s;     /* owned: [n_run + 1], the last is the work behind; NULL: no EQ_PROFILE */
};

static bool wanted(const char *variable)
{
    const char *v = getenv(variable);
    return v && *v == '1';
}

/* All in one block. */
static Status bind_planned(Exec *e, Tensor *const *keep, int n_keep)
{
    Graph *g = e->graph;
    Plan plan;
    plan_make(&plan, g, keep, n_keep);
    e->bytes = plan.planned;
    Status s = device_alloc(e->device, (void **)&e->block, plan.planned, "activations");
    for (int i = 0; !s && i < g->n; i++)
        if (plan_has_place(g->node[i])) g->node[i]->data = e->block + plan.offset[i];
    plan_free(&plan);
    return s;
}

/* Each by itself: checkers of memory see where it ends. */
static Status bind_apart(Exec *e)
{
    Graph *g = e->graph;
    e->apart = calloc((size_t)g->n + 1, sizeof *e->apart);
    CHECK(e->apart);
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        if (!plan_has_place(t)) continue;
        TRY(device_alloc(e->device, &e->apart[i], tensor_bytes(t), t->name));
        t->data = e->apart[i];
        e->bytes += tensor_bytes(t);
    }
    return OK;
}

static Status bind(Exec *e, Tensor *const *keep, int n_keep)
{
    Graph *g = e->graph;
    Status s = wanted("EQ_APART") ? bind_apart(e) : bind_planned(e, keep, n_keep);
    for (int i = 0; !s && i < g->n; i++) {
        Tensor *t = g->node[i];
        if (!t->live) continue;
        if (t->view_of) t->data = t->view_of->data;
        if (!t->data) s = FAIL(ERR_BUG, "%s: has no memory", t->name);
    }
    return s;
}

static Status set_modes(Exec *e)
{
    bool profiled = wanted("EQ_PROFILE");
    if (profiled) {
        e->spent_s = calloc((size_t)e->n_run + 1, sizeof *e->spent_s);
        CHECK(e->spent_s);
    }
    if (!device_is_gpu(e->device)) return OK;
    e->waits = wanted("EQ_SYNC");
    if (wanted("EQ_COMPARE")) TRY(compare_new(&e->compare, e->device));
    e->records = device_can_record(e->device) && !wanted("EQ_NO_GRAPH") && !e->waits &&
                 !e->compare && !profiled;
    return OK;
}

static void list_nodes(Exec *e, bool held)
{
    for (int i = 0; i < e->graph->n; i++) {
        Tensor *t = e->graph->node[i];
        if (t->live && t->op && !t->view_of && t->held == held) e->run[e->n_run++] = t;
    }
}

Status exec_new(Exec **out, Device *d, Graph *g, Tensor *const *keep, int n_keep)
{
    *out = NULL;
    TRY(graph_status(g));
    Exec *e = calloc(1, sizeof *e);
    CHECK(e);
    *e = (Exec){.device = d,
                .graph = g,
                .run = calloc((size_t)g->n + 1, sizeof *e->run),
                .feed = calloc((size_t)g->n + 1, sizeof(Feed *))};
    CHECK(e->run && e->feed);
    if (device_fuses(d) && !wanted("EQ_NO_FUSE"))
        graph_fuse(g, fusion_table, fusion_count, keep, n_keep);
    list_nodes(e, true);
    e->n_held = e->n_run;
    e->stale = e->n_held > 0;
    list_nodes(e, false);
    for (int i = 0; i < g->n; i++) e->gradients |= g->node[i]->grad != NULL;
    Status s = set_modes(e);
    if (!s) s = bind(e, keep, n_keep);
    if (s) exec_free(e);
    else *out = e;
    return s;
}

void exec_free(Exec *e)
{
    if (!e) return;
    device_recording_free(e->device, e->alone.recording);
    device_recording_free(e->device, e->followed.recording);
    for (int i = 0; i < e->graph->n; i++) device_feed_free(e->feed[i]);
    device_release(e->device, e->block);
    for (int i = 0; e->apart && i < e->graph->n; i++) device_release(e->device, e->apart[i]);
    free(e->apart);
    compare_free(e->compare);
    free(e->feed);
    free(e->spent_s);
    free(e->run);
    free(e);
}

Status exec_write(Exec *e, Tensor *t, const void *host)
{
    CHECK(t->kind != KIND_ACT);
    if (!t->live) return OK; /* nothing reads it */
    if (t->held) e->stale = e->n_held > 0;
    if (t->kind != KIND_INPUT) return device_write(e->device, t->data, host, tensor_bytes(t));
    Feed **f = &e->feed[t->id];
    if (!*f) TRY(device_feed_new(f, e->device, tensor_bytes(t)));
    return device_feed(*f, t->data, host, tensor_bytes(t));
}

Status exec_read(Exec *e, const Tensor *t, void *host)
{
    return device_read(e->device, host, t->data, tensor_bytes(t));
}

/* Adds the op, its path and its shapes to what the kernel said. */
static Status name_failure(Status code, const Tensor *t)
{
    char message[512], shape[64];
    Text shapes = {0};
    snprintf(message, sizeof message, "%s", status_message());
    for (int k = 0; k < MAX_SRC; k++)
        if (t->src[k]) text_add(&shapes, " %s", tensor_shape_text(t->src[k], shape));
    FAIL(code, "%s: %s%s -> %s: %s", t->name, t->op->name, shapes.s ? shapes.s : "",
         tensor_shape_text(t, shape), message);
    free(shapes.s);
    return code;
}

static Status run_node(Exec *e, int i)
{
    Status s = e->compare ? compare_run(e->compare, e->run[i]) : device_run(e->device, e->run[i]);
    if (!s && e->waits) s = device_sync(e->device);
    if (!s && e->spent_s) s = device_mark(e->device, i + 1);
    return s ? name_failure(s, e->run[i]) : OK;
}

/* Of marks `first` to n_run + 1. */
static Status add_times(Exec *e, int first)
{
    float *ms = calloc((size_t)e->n_run + 1, sizeof *ms);
    CHECK(ms);
    Status s = device_sync(e->device);
    if (!s) s = device_marks_ms(e->device, ms, e->n_run + 1);
    for (int i = first; i <= e->n_run && !s; i++) e->spent_s[i] += 1e-3 * (double)ms[i];
    free(ms);
    return s;
}

static Status run_nodes(Exec *e, const Run *r, int first)
{
    if (e->spent_s) TRY(device_mark(e->device, first));
    for (int i = first; i < e->n_run; i++) TRY(run_node(e, i));
    if (r->then) TRY(r->then(r->arg));
    if (!e->spent_s) return OK;
    TRY(device_mark(e->device, e->n_run + 1));
    return add_times(e, first);
}

static Status record(Exec *e, Run *r)
{
    TRY(device_record_begin(e->device));
    Status s = run_nodes(e, r, e->n_held);
    if (!s) return device_record_end(e->device, &r->recording);
    Failure failure;
    status_keep(&failure, s);
    device_record_end(e->device, &r->recording);
    device_recording_free(e->device, r->recording);
    r->recording = NULL;
    return status_restore(&failure);
}

static Status run_kind(Exec *e, Run *r)
{
    device_gradients(e->device, e->gradients);
    if (!e->records || !r->ran) {
        bool first = !r->ran;
        r->ran = true;
        TRY(run_nodes(e, r, e->stale ? 0 : e->n_held));
        e->stale = false;
        return first ? device_keep_choices(e->device) : OK;
    }
    for (int i = 0; e->stale && i < e->n_held; i++) TRY(run_node(e, i));
    e->stale = false;
    if (!r->recording) TRY(record(e, r));
    return device_replay(e->device, r->recording);
}

Status exec_run(Exec *e) { return run_kind(e, &e->alone); }

Status exec_run_then(Exec *e, Status (*then)(void *arg), void *arg)
{
    CHECK(!e->followed.then || (e->followed.then == then && e->followed.arg == arg));
    e->followed.then = then;
    e->followed.arg = arg;
    return run_kind(e, &e->followed);
}

size_t exec_bytes(const Exec *e) { return e->bytes; }

double exec_flops(const Exec *e)
{
    double sum = 0;
    for (int i = e->n_held; i < e->n_run; i++)
        if (e->run[i]->op->flops) sum += e->run[i]->op->flops(e->run[i]);
    return sum;
}

void exec_profile(const Exec *e, Text *out)
{
    if (!e->spent_s) return;
    bool *done = calloc((size_t)e->n_run + 1, sizeof *done);
    CHECK(done);
    for (int i = 0; i < e->n_run; i++) {
        double spent = 0, flops = 0;
        int count = 0;
        for (int j = i; j < e->n_run && !done[i]; j++) {
            const OpDef *op = e->run[j]->op;
            if (op != e->run[i]->op) continue;
            spent += e->spent_s[j];
            if (op->flops) flops += op->flops(e->run[j]);
            count++;
            done[j] = j > i;
        }
        if (count)
            text_add(out, "%-22s %5d nodes %10.3f s  %8.2f GFLOP a run\n", e->run[i]->op->name,
                     count, spent, flops * 1e-9);
        done[i] = true;
    }
    if (e->followed.then)
        text_add(out, "%-22s             %10.3f s\n", "work behind", e->spent_s[e->n_run]);
    free(done);
}
