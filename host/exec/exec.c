/* exec.c - the executor: the list in order, each node where the plan put it. */
#include "exec/exec.h"
#include "graph/plan.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct Exec {
    Device *device;      /* borrowed */
    Graph *graph;        /* borrowed */
    Tensor **run;        /* owned: the nodes that compute, in order */
    int n_run;
    char *block;         /* owned: device memory */
    size_t bytes;
    double *spent_s;     /* owned: [n_run] or NULL without profiling */
};

static Status bind(Exec *e, Tensor *const *keep, int n_keep)
{
    Graph *g = e->graph;
    Plan plan;
    plan_make(&plan, g, keep, n_keep);
    e->bytes = plan.planned;
    Status s = device_alloc(e->device, (void **)&e->block, plan.planned, "activations");
    for (int i = 0; !s && i < g->n; i++)
        if (plan_has_place(g->node[i])) g->node[i]->data = e->block + plan.offset[i];
    plan_free(&plan);
    for (int i = 0; !s && i < g->n; i++) {
        Tensor *t = g->node[i];
        if (!t->live) continue;
        if (t->view_of) t->data = t->view_of->data;
        if (!t->data) s = FAIL(ERR_BUG, "%s: has no memory", t->name);
    }
    return s;
}

Status exec_new(Exec **out, Device *d, Graph *g, Tensor *const *keep, int n_keep)
{
    *out = NULL;
    TRY(graph_status(g));
    Exec *e = calloc(1, sizeof *e);
    CHECK(e);
    *e = (Exec){.device = d, .graph = g, .run = calloc((size_t)g->n + 1, sizeof *e->run)};
    CHECK(e->run);
    for (int i = 0; i < g->n; i++)
        if (g->node[i]->live && g->node[i]->op && !g->node[i]->view_of)
            e->run[e->n_run++] = g->node[i];
    const char *profile = getenv("EQ_PROFILE");
    if (profile && *profile == '1') {
        e->spent_s = calloc((size_t)e->n_run + 1, sizeof *e->spent_s);
        CHECK(e->spent_s);
    }
    Status s = bind(e, keep, n_keep);
    if (s) exec_free(e);
    else *out = e;
    return s;
}

void exec_free(Exec *e)
{
    if (!e) return;
    device_release(e->device, e->block);
    free(e->spent_s);
    free(e->run);
    free(e);
}

Status exec_write(Exec *e, Tensor *t, const void *host)
{
    CHECK(t->kind != KIND_ACT);
    if (!t->live) return OK; /* nothing reads it */
    return device_write(e->device, t->data, host, tensor_bytes(t));
}

Status exec_read(Exec *e, const Tensor *t, void *host)
{
    TRY(device_sync(e->device));
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

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

Status exec_run(Exec *e)
{
    for (int i = 0; i < e->n_run; i++) {
        double began = e->spent_s ? now_s() : 0;
        Status s = device_run(e->device, e->run[i]);
        if (s) return name_failure(s, e->run[i]);
        if (e->spent_s) e->spent_s[i] += now_s() - began;
    }
    return OK;
}

size_t exec_bytes(const Exec *e) { return e->bytes; }

double exec_flops(const Exec *e)
{
    double sum = 0;
    for (int i = 0; i < e->n_run; i++)
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
    free(done);
}
