/* params.c - registry of one model's parameters, their block of memory, first values, binding. */
#include "models/params.h"
#include "base/random.h"
#include "exec/sweep.h"
#include "ops/ops.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PARAM_ALIGN = 16 }; /* floats: a cache line */

typedef struct {
    ParamStore *store;
    int index;
} ParamRef; /* a leaf's args */

void params_free(ParamStore *s)
{
    device_release(s->device, s->value);
    device_release(s->device, s->grad);
    device_release(s->device, s->half);
    free(s->param);
    arena_free(&s->arena);
    *s = (ParamStore){0};
}

static int find(ParamStore *s, const char *name)
{
    for (int i = 0; i < s->n; i++) {
        int at = (s->next + i) % s->n;
        if (strcmp(s->param[at].name, name)) continue;
        s->next = at + 1;
        return at;
    }
    return -1;
}

const Param *params_find(const ParamStore *s, const char *name)
{
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->param[i].name, name)) return &s->param[i];
    return NULL;
}

static int add_param(ParamStore *s, Param p)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->param = realloc(s->param, (size_t)s->cap * sizeof *s->param);
        CHECK(s->param);
    }
    p.name = arena_strdup(&s->arena, p.name);
    p.trainable = !p.state;
    p.count = 1;
    for (int i = 0; i < p.ndim; i++) p.count *= (size_t)p.dim[i];
    s->param[s->n] = p;
    return s->n++;
}

/* The reference of a leaf that param() made, or NULL. */
static const ParamRef *reference(const Tensor *t)
{
    bool ours = !t->op && !t->owner && (t->kind == KIND_PARAM || t->kind == KIND_STATE);
    return ours ? t->args : NULL;
}

/* The leaf that this graph already has for it, or NULL. */
static Tensor *leaf_of(const Graph *g, const ParamStore *s, int index)
{
    for (int i = 0; i < g->n; i++) {
        const ParamRef *ref = reference(g->node[i]);
        if (ref && ref->store == s && ref->index == index) return g->node[i];
    }
    return NULL;
}

static Tensor *leaf(Graph *g, ParamStore *s, const char *name, Param want)
{
    if (g->error[0]) return NULL;
    want.name = graph_path(g, name);
    int at = find(s, want.name);
    if (at < 0 && s->value)
        return graph_fail(g, "parameter %s: the model was made without it", want.name);
    if (at < 0) {
        at = add_param(s, want);
    } else {
        const Param *p = &s->param[at];
        if (p->ndim != want.ndim || memcmp(p->dim, want.dim, (size_t)p->ndim * sizeof *p->dim)) {
            Tensor a = {.ndim = want.ndim}, b = {.ndim = p->ndim};
            char found[64], expected[64];
            memcpy(a.dim, want.dim, sizeof a.dim);
            memcpy(b.dim, p->dim, sizeof b.dim);
            return graph_fail(g, "parameter %s: found shape %s, expected %s", want.name,
                              tensor_shape_text(&a, found), tensor_shape_text(&b, expected));
        }
        Tensor *known = leaf_of(g, s, at);
        if (known) return known;
    }
    Dtype dtype = want.ndim > 1 && !want.state ? g->act : DTYPE_F32;
    Tensor *t =
        graph_leaf(g, want.state ? KIND_STATE : KIND_PARAM, dtype, name, want.ndim, want.dim);
    if (!t) return NULL;
    ParamRef *ref = arena_alloc(&g->arena, sizeof *ref);
    *ref = (ParamRef){s, at};
    t->args = ref;
    t->trainable = s->param[at].trainable;
    return t;
}

Tensor *param(Graph *g, ParamStore *s, const char *name, ParamLayout layout, int ndim,
              const int *dim, ParamInit init, float scale)
{
    CHECK(ndim >= 1 && ndim <= MAX_DIM && (layout == LAYOUT_SAME || ndim == 4));
    Param p = {.ndim = ndim, .layout = layout, .init = init, .scale = scale};
    memcpy(p.dim, dim, (size_t)ndim * sizeof *dim);
    return leaf(g, s, name, p);
}

Tensor *param_state(Graph *g, ParamStore *s, const char *name, int ndim, const int *dim,
                    ParamInit init, bool integer)
{
    CHECK(ndim >= 1 && ndim <= MAX_DIM);
    Param p = {.ndim = ndim, .init = init, .state = true, .integer = integer};
    memcpy(p.dim, dim, (size_t)ndim * sizeof *dim);
    return leaf(g, s, name, p);
}

size_t params_registered(const ParamStore *s)
{
    size_t n = 0;
    for (int i = 0; i < s->n; i++) n += s->param[i].count;
    return n;
}

Status params_alloc(ParamStore *s, Device *d, bool with_grad)
{
    CHECK(!s->value);
    size_t at = 0;
    for (int state = 0; state < 2; state++) {
        for (int i = 0; i < s->n; i++) {
            Param *p = &s->param[i];
            if (p->state != (state == 1)) continue;
            p->offset = at;
            at += (p->count + PARAM_ALIGN - 1) / PARAM_ALIGN * PARAM_ALIGN;
        }
        if (!state) s->count_param = at;
    }
    s->count = at;
    s->device = d;
    TRY(device_alloc(d, (void **)&s->value, at * sizeof(float), "parameters"));
    if (with_grad) TRY(device_alloc(d, (void **)&s->grad, at * sizeof(float), "gradients"));
    if (device_act(d) == DTYPE_BF16)
        TRY(device_alloc(d, &s->half, at * dtype_bytes(DTYPE_BF16), "parameters in bf16"));
    return OK;
}

static uint64_t name_hash(const char *name) /* FNV-1a */
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h;
}

static float first_value(const Param *p, RandomKey key, uint32_t element)
{
    double v = 0;
    switch (p->init) {
    case INIT_ZERO:
        return 0;
    case INIT_ONE:
        return 1;
    case INIT_UNIFORM:
        return (float)(p->scale * (2 * random_uniform(key, element) - 1));
    case INIT_NORMAL:
        return (float)(p->scale * random_normal(key, element));
    case INIT_TRUNCATED:
        do v = p->scale * random_normal(key, element);
        while (key.step++, fabs(v) > 2);
    }
    return (float)v;
}

Status params_init(ParamStore *s, uint32_t seed)
{
    float *host = calloc(s->count + 1, sizeof *host);
    CHECK(host);
    for (int i = 0; i < s->n; i++) {
        const Param *p = &s->param[i];
        RandomKey key = {.seed = seed, .stream = STREAM_INIT, .sample = name_hash(p->name)};
#pragma omp parallel for
        for (size_t k = 0; k < p->count; k++)
            host[p->offset + k] = first_value(p, key, (uint32_t)k);
    }
    Status code = params_write(s, host);
    free(host);
    return code;
}

void params_freeze(ParamStore *s, const char *prefix)
{
    for (int i = 0; i < s->n; i++)
        if (!strncmp(s->param[i].name, prefix, strlen(prefix))) s->param[i].trainable = false;
}

void params_bind(Graph *g)
{
    for (int i = 0; i < g->n; i++) {
        const ParamRef *ref = reference(g->node[i]);
        if (!ref) continue;
        ParamStore *s = ref->store;
        size_t at = s->param[ref->index].offset;
        bool half = g->node[i]->dtype == DTYPE_BF16;
        CHECK(s->value && (s->half || !half));
        g->node[i]->data = half ? (char *)s->half + at * dtype_bytes(DTYPE_BF16)
                                : (void *)(s->value + at);
    }
}

void params_hold(Graph *g)
{
    for (int i = 0; i < g->n; i++)
        if (g->node[i]->kind == KIND_PARAM) graph_hold(g->node[i]);
}

void params_pin_grads(Graph *g)
{
    int n = g->n;
    for (int i = 0; i < n && !g->error[0]; i++) {
        Tensor *t = g->node[i];
        const ParamRef *ref = reference(t);
        if (!ref || !t->grad) continue;
        CHECK(ref->store->grad);
        if (t->grad->dtype != DTYPE_F32) {
            graph_fail(g, "%s: gradient of %s is not fp32", t->grad->name, t->name);
            return;
        }
        /* A gradient that is another tensor's bytes, or another parameter's too, needs a copy. */
        if (t->grad->kind != KIND_ACT || t->grad->view_of || t->grad->pinned)
            t->grad = scale_shift(g, t->grad, 1, 0);
        if (t->grad) graph_pin(t->grad, ref->store->grad + ref->store->param[ref->index].offset);
    }
}

Status params_read(const ParamStore *s, float *host)
{
    TRY(device_sync(s->device));
    return device_read(s->device, host, s->value, s->count * sizeof *host);
}

Status params_write(ParamStore *s, const float *host)
{
    TRY(device_write(s->device, s->value, host, s->count * sizeof *host));
    return params_refresh(s);
}

Status params_refresh(ParamStore *s)
{
    return s->half ? sweep_halve(s->device, s->half, s->value, s->count_param) : OK;
}
