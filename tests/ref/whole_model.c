/* whole_model.c - models with random weights, run and differentiated. */
#include "ref/whole_model.h"
#include "base/random.h"
#include "weights/half.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void require(Status s)
{
    if (!s) return;
    printf("FAILED: %s\n", status_message());
    exit(1);
}

/* ---- the graph -------------------------------------------------------------------------- */

typedef struct {
    Graph *g;
    ParamStore store;
    Device *device;
    Tensor *keep[WHOLE_VALUES];
    int n_keep, n_out;
} Whole;

Tensor *whole_input(Graph *g, const char *name, int n, int h, int w, int c)
{
    Tensor *t = graph_leaf(g, KIND_INPUT, DTYPE_F32, name, 4, (int[]){n, h, w, c});
    t->trainable = true;
    return t;
}

static void open(Whole *w, const WholeDraw *d, const char *device, Dtype act)
{
    Tensor *out[WHOLE_OUT], *dy[WHOLE_OUT];
    *w = (Whole){.g = graph_new()};
    w->g->act = act;
    bool on_cpu = !strcmp(device, "cpu"); /* which has no bf16: twins may */
    require(device_open(&w->device, device, act == DTYPE_F32 || on_cpu ? "fp32" : "bf16", 2, NULL));
    w->n_out = d->build(w->g, &w->store, out);
    require(graph_status(w->g));
    for (int i = 0; i < w->n_out; i++) {
        CHECK(out[i]->dtype == DTYPE_F32);
        char name[4] = {'d', 'y', (char)('0' + i)};
        dy[i] = graph_leaf(w->g, KIND_INPUT, DTYPE_F32, name, out[i]->ndim, out[i]->dim);
        w->keep[w->n_keep++] = out[i];
    }
    if (d->sampling) params_hold(w->g);
    else graph_backward(w->g, w->n_out, out, dy);
    require(graph_status(w->g));
    for (int i = 0; i < w->g->n; i++) {
        Tensor *t = w->g->node[i];
        if (t->op || t->owner || !t->grad) continue;
        CHECK(w->n_keep < WHOLE_VALUES && t->grad->dtype == DTYPE_F32);
        w->keep[w->n_keep++] = t->grad;
    }
    graph_finish(w->g, w->keep, w->n_keep);
    require(params_alloc(&w->store, w->device, false));
}

static void close(Whole *w)
{
    graph_free(w->g);
    params_free(&w->store);
    device_close(w->device);
}

static void note(WholeValues *v, const Whole *w)
{
    *v = (WholeValues){.n = w->n_keep, .n_out = w->n_out};
    int k = 0;
    for (; k < w->n_out; k++) v->name[k] = strdup("output");
    for (int i = 0; i < w->g->n && k < v->n; i++) {
        const Tensor *t = w->g->node[i];
        if (!t->op && !t->owner && t->grad) v->name[k++] = strdup(t->name);
    }
    for (k = 0; k < v->n; k++) {
        v->count[k] = tensor_count(w->keep[k]);
        v->value[k] = calloc(v->count[k], sizeof(double));
        CHECK(v->name[k] && v->value[k]);
    }
}

void whole_values_free(WholeValues *v)
{
    for (int k = 0; k < v->n; k++) {
        free(v->name[k]);
        free(v->value[k]);
    }
}

/* ---- draws ------------------------------------------------------------------------------ */

static double normal(uint32_t seed, int what, int of, size_t element)
{
    RandomKey key = {seed, STREAM_TEST, (uint32_t)what, (uint64_t)of};
    return random_normal(key, (uint32_t)element);
}

/* N(0, 1 / fan in), less its mean over the c channels of each tap. */
static void draw_filter(float *w, const Param *p, uint32_t seed, int index)
{
    size_t c = (size_t)p->dim[p->ndim - 1], fan_in = p->count / (size_t)p->dim[0];
    for (size_t tap = 0; tap < p->count; tap += c) {
        double mean = 0;
        for (size_t k = 0; k < c; k++) mean += normal(seed, 1, index, tap + k) / (double)c;
        for (size_t k = 0; k < c; k++)
            w[tap + k] = (float)((normal(seed, 1, index, tap + k) - mean) / sqrt((double)fan_in));
    }
}

static bool ends(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && !strcmp(text + a - b, end);
}

static void draw_param(float *v, const Param *p, uint32_t seed, int index, double lift)
{
    double spread = lift > 0 ? .1 : .2;
    if (lift > 0 && p->layout == LAYOUT_OIHW) draw_filter(v, p, seed, index);
    if (p->init != INIT_ONE && p->init != INIT_ZERO) return;
    for (size_t k = 0; k < p->count; k++) {
        double z = spread * normal(seed, 1, index, k), start = p->init == INIT_ONE;
        if (ends(p->name, "running_var")) z = fmax(z, -.5);
        else if (!p->state && p->init == INIT_ZERO) start = lift;
        v[k] = (float)(start + z);
    }
}

void whole_draw(WholeDraw *d, WholeBuild build, bool sampling, uint32_t seed, double lift)
{
    Whole w;
    *d = (WholeDraw){build, sampling, seed, NULL};
    open(&w, d, "cpu", DTYPE_F32);
    d->block = malloc(w.store.count * sizeof *d->block);
    CHECK(d->block);
    require(params_init(&w.store, seed));
    require(params_read(&w.store, d->block));
    for (int i = 0; i < w.store.n; i++)
        draw_param(d->block + w.store.param[i].offset, &w.store.param[i], seed, i, lift);
    close(&w);
}

void whole_draw_free(WholeDraw *d) { free(d->block); }

/* The values of an input, by its name: numbers of nodes differ between precisions. */
static void draw_input(double *v, const Tensor *t, uint32_t seed)
{
    uint64_t id = 0;
    for (const char *c = t->name; *c; c++) id = id * 31 + (unsigned char)*c;
    RandomKey key = {seed, STREAM_TEST, 0, id};
    for (size_t i = 0; i < tensor_count(t); i++) {
        if (t->dtype == DTYPE_I32) v[i] = random_below(key, (uint32_t)i, WHOLE_VOCAB);
        else if (!strcmp(t->name, "time")) v[i] = random_below(key, (uint32_t)i, 1000);
        else v[i] = (float)random_normal(key, (uint32_t)i);
    }
}

/* ---- on a device ------------------------------------------------------------------------ */

static void write_input(Exec *e, Tensor *t, uint32_t seed)
{
    size_t n = tensor_count(t);
    double *v = malloc(n * sizeof *v);
    int32_t *whole = malloc(n * sizeof *whole);
    float *real = malloc(n * sizeof *real);
    CHECK(v && whole && real);
    draw_input(v, t, seed);
    for (size_t k = 0; k < n; k++) whole[k] = (int32_t)v[k], real[k] = (float)v[k];
    require(exec_write(e, t, t->dtype == DTYPE_I32 ? (void *)whole : real));
    free(v);
    free(whole);
    free(real);
}

void whole_on_device(WholeValues *v, const WholeDraw *d, const char *device, Dtype act)
{
    Whole w;
    Exec *e;
    open(&w, d, device, act);
    require(params_write(&w.store, d->block));
    params_bind(w.g);
    require(exec_new(&e, w.device, w.g, w.keep, w.n_keep));
    for (int i = 0; i < w.g->n; i++)
        if (w.g->node[i]->kind == KIND_INPUT) write_input(e, w.g->node[i], d->seed);
    require(exec_run(e));
    note(v, &w);
    for (int k = 0; k < v->n; k++) {
        float *read = malloc(v->count[k] * sizeof *read);
        CHECK(read);
        require(exec_read(e, w.keep[k], read));
        for (size_t i = 0; i < v->count[k]; i++) v->value[k][i] = (double)read[i];
        free(read);
    }
    exec_free(e);
    close(&w);
}

/* ---- by twins --------------------------------------------------------------------------- */

static void fill_leaf(const Whole *w, const Tensor *t, const WholeDraw *d, double rounding)
{
    size_t n = tensor_count(t);
    const Param *p = t->kind == KIND_INPUT ? NULL : params_find(&w->store, t->name);
    double *v = calloc(n, sizeof *v);
    CHECK(v && (p || t->kind == KIND_INPUT));
    if (!p) draw_input(v, t, d->seed);
    for (size_t k = 0; k < n; k++) {
        if (p) v[k] = (double)d->block[p->offset + k];
        if (t->dtype == DTYPE_I32) ((int32_t *)t->data)[k] = (int32_t)v[k];
        else ref_data(t)[k] = v[k];
    }
    if (rounding) ref_round(t, rounding);
    free(v);
}

void whole_by_twins(WholeValues *v, const WholeDraw *d, Dtype act, double rounding, double *margin)
{
    Whole w;
    open(&w, d, "cpu", act);
    ref_alloc(w.g);
    for (int i = 0; i < w.g->n; i++) {
        Tensor *t = w.g->node[i];
        if (!t->op && !t->owner && t->live) fill_leaf(&w, t, d, rounding);
    }
    if (rounding) ref_run_rounded(w.g, rounding);
    else ref_run(w.g);
    if (margin) *margin = ref_margin(w.g);
    note(v, &w);
    for (int k = 0; k < v->n; k++)
        memcpy(v->value[k], w.keep[k]->data, v->count[k] * sizeof(double));
    ref_release(w.g);
    close(&w);
}
