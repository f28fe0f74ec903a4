/* graph.c - recording, reverse mode, recompute segments. */
#include "graph/graph.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Graph *graph_new(void)
{
    Graph *g = calloc(1, sizeof *g);
    CHECK(g);
    return g;
}

void graph_free(Graph *g)
{
    if (!g) return;
    arena_free(&g->arena);
    free(g->node);
    free(g);
}

Status graph_status(const Graph *g) { return g->error[0] ? FAIL(ERR_USAGE, "%s", g->error) : OK; }

Tensor *graph_fail(Graph *g, const char *fmt, ...)
{
    if (g->error[0]) return NULL; /* the first error explains the rest */
    va_list ap;
    va_start(ap, fmt);
    int n = g->scope[0] ? snprintf(g->error, sizeof g->error, "%.120s: ", g->scope) : 0;
    vsnprintf(g->error + n, sizeof g->error - (size_t)n, fmt, ap);
    va_end(ap);
    return NULL;
}

void graph_scope_push(Graph *g, const char *fmt, ...)
{
    size_t at = strlen(g->scope);
    CHECK(g->n_scope < MAX_SCOPE && at + 2 < sizeof g->scope);
    g->scope_end[g->n_scope++] = at;
    if (at) g->scope[at++] = '.';
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(g->scope + at, sizeof g->scope - at, fmt, ap);
    va_end(ap);
    CHECK(n >= 0 && (size_t)n < sizeof g->scope - at);
}

void graph_scope_pop(Graph *g)
{
    CHECK(g->n_scope > 0);
    g->scope[g->scope_end[--g->n_scope]] = 0;
}

char *graph_path(Graph *g, const char *name)
{
    return arena_printf(&g->arena, "%s%s%s", g->scope, g->scope[0] ? "." : "", name);
}

static Tensor *append(Graph *g, int ndim, const int *dim)
{
    CHECK(ndim >= 1 && ndim <= MAX_DIM);
    if (g->n == g->cap) {
        g->cap = g->cap ? 2 * g->cap : 256;
        g->node = realloc(g->node, (size_t)g->cap * sizeof *g->node);
        CHECK(g->node);
    }
    Tensor *t = arena_alloc(&g->arena, sizeof *t);
    t->id = g->n;
    t->ndim = ndim;
    t->segment = g->segment;
    memcpy(t->dim, dim, (size_t)ndim * sizeof *dim);
    return g->node[g->n++] = t;
}

static bool dims_fit(Graph *g, const char *what, int ndim, const int *dim)
{
    size_t count = 1, most = (size_t)1 << 40;
    for (int i = 0; i < ndim; i++) {
        if (dim[i] < 1) {
            graph_fail(g, "%s: dimension %d is %d, expected 1 or more", what, i, dim[i]);
            return false;
        }
        if ((size_t)dim[i] > most / count) {
            graph_fail(g, "%s: too large", what);
            return false;
        }
        count *= (size_t)dim[i];
    }
    return true;
}

Tensor *graph_leaf(Graph *g, Kind kind, Dtype dtype, const char *name, int ndim, const int *dim)
{
    if (g->error[0] || !dims_fit(g, name, ndim, dim)) return NULL;
    Tensor *t = append(g, ndim, dim);
    t->kind = kind;
    t->dtype = dtype;
    t->name = graph_path(g, name);
    t->trainable = kind == KIND_PARAM;
    return t;
}

/* The rule of graph.h. */
static Dtype stored_as(const Graph *g, int ndim, int n_src, Tensor *const *src)
{
    if (ndim < 2) return DTYPE_F32;
    for (int i = 0; i < n_src; i++)
        if (src[i] && src[i]->ndim > 1 && src[i]->dtype != DTYPE_I32) return src[i]->dtype;
    return g->act;
}

Tensor *graph_node(Graph *g, const OpDef *op, int ndim, const int *dim, int n_src,
                   Tensor *const *src, const void *args, size_t args_size)
{
    if (g->error[0] || !dims_fit(g, op->name, ndim, dim)) return NULL;
    CHECK(n_src <= MAX_SRC);
    Tensor *t = append(g, ndim, dim);
    t->op = op;
    t->kind = KIND_ACT;
    t->dtype = stored_as(g, ndim, n_src, src);
    t->name = graph_path(g, op->name);
    for (int i = 0; i < n_src; i++) {
        t->src[i] = src[i];
        if (src[i]) t->trainable |= src[i]->trainable;
    }
    if (args_size) t->args = memcpy(arena_alloc(&g->arena, args_size), args, args_size);
    return t;
}

Tensor *graph_side(Graph *g, Tensor *owner, int ndim, const int *dim)
{
    if (g->error[0] || !owner || !dims_fit(g, owner->name, ndim, dim)) return NULL;
    int k = 0;
    while (k < MAX_SIDE && owner->side[k]) k++;
    CHECK(k < MAX_SIDE && owner->id + k + 1 == g->n);
    Tensor *t = append(g, ndim, dim);
    t->kind = KIND_ACT;
    t->owner = owner;
    t->name = owner->name;
    return owner->side[k] = t;
}

Tensor *graph_typed(Tensor *t, Dtype dtype)
{
    if (t) t->dtype = dtype;
    return t;
}

Tensor *graph_view(Graph *g, const OpDef *op, Tensor *of, int ndim, const int *dim)
{
    Tensor *t = graph_node(g, op, ndim, dim, 1, &of, NULL, 0);
    if (!t) return NULL;
    CHECK(tensor_count(t) == tensor_count(of));
    t->view_of = tensor_root(of);
    t->dtype = of->dtype;
    return t;
}

void graph_recompute_begin(Graph *g)
{
    CHECK(!g->segment);
    g->segment = ++g->n_segment;
}
void graph_recompute_end(Graph *g) { g->segment = 0; }

void graph_pin(Tensor *t, void *data)
{
    CHECK(t->kind == KIND_ACT && !t->view_of && !t->pinned);
    t->data = data;
    t->pinned = true;
}

void graph_move_behind(Graph *g, const Tensor *after)
{
    if (g->error[0]) return;
    Tensor *t = g->node[g->n - 1];
    int at = (after->owner ? after->owner->id : after->id) + 1;
    while (at < g->n && g->node[at]->owner) at++;
    CHECK(t->op && !t->owner && at < g->n);
    memmove(g->node + at + 1, g->node + at, (size_t)(g->n - 1 - at) * sizeof *g->node);
    g->node[at] = t;
    for (; at < g->n; at++) g->node[at]->id = at;
}

void grad_add(Graph *g, Tensor *t, Tensor *contribution)
{
    if (!t || !t->trainable || !contribution) return;
    Tensor *both[] = {t->grad, contribution};
    if (!t->grad) {
        t->grad = contribution;
        return;
    }
    if (t->grad->dtype != contribution->dtype) {
        graph_fail(g, "%s: gradients of two storage types, from %s and %s", t->name,
                   t->grad->name, contribution->name);
        return;
    }
    t->grad = graph_typed(graph_node(g, &op_add, t->ndim, t->dim, 2, both, NULL, 0),
                          contribution->dtype);
}

/* A tensor of a segment, as the copy that was recorded again; anything else as it is. */
static Tensor *copy_of(Tensor *t, int first, int last, Tensor **copy)
{
    return t && t->id >= first && t->id <= last ? copy[t->id] : t;
}

/* Re-record nodes first..last, reading from one another instead of from the originals.
 * Gradients already collected move to the copies. copy[] maps id -> tensor to differentiate. */
static void recompute_segment(Graph *g, int first, int last, Tensor **copy)
{
    for (int i = first; i <= last; i++) {
        Tensor *old = g->node[i];
        if (old->kind != KIND_ACT) continue;
        if (old->op && old->op->effect) {
            graph_fail(g, "%s: updates state, cannot be computed twice", old->name);
            return;
        }
        Tensor *t = append(g, old->ndim, old->dim);
        int id = t->id;
        *t = *old;
        t->id = id;
        t->segment = 0;
        for (int k = 0; k < MAX_SRC; k++) t->src[k] = copy_of(old->src[k], first, last, copy);
        t->view_of = copy_of(old->view_of, first, last, copy);
        t->owner = copy_of(old->owner, first, last, copy);
        for (int k = 0; t->owner && k < MAX_SIDE; k++)
            if (t->owner->side[k] == old) t->owner->side[k] = t;
        copy[i] = t;
    }
}

/* Reverse mode: visit the forward nodes last to first and let each append the nodes that turn
 * its gradient into its sources' gradients. */
void graph_backward(Graph *g, int n, Tensor *const *y, Tensor *const *dy)
{
    if (g->error[0]) return;
    int n_forward = g->n;
    Tensor **node = calloc((size_t)n_forward, sizeof *node);
    CHECK(node);
    for (int i = 0; i < n_forward; i++) node[i] = g->node[i];
    for (int i = 0; i < n; i++) {
        float one = 1;
        Tensor *seed = dy ? dy[i] : NULL;
        if (!seed)
            seed = graph_typed(graph_node(g, &op_fill, y[i]->ndim, y[i]->dim, 0, NULL, &one,
                                          sizeof one), y[i]->dtype);
        grad_add(g, y[i], seed);
    }
    for (int i = n_forward - 1; i >= 0 && !g->error[0]; i--) {
        int seg = g->node[i]->segment;
        if (seg && node[i] == g->node[i] && g->node[i]->kind == KIND_ACT) { /* entering its end */
            int first = i;
            while (first > 0 && g->node[first - 1]->segment == seg) first--;
            recompute_segment(g, first, i, node);
            if (g->error[0]) break;
        }
        Tensor *t = node[i];
        if (!t->op || !t->trainable || !t->grad) continue;
        if (!t->op->vjp) graph_fail(g, "%s: has no gradient", t->name);
        else t->op->vjp(g, t, t->grad);
    }
    free(node);
}

void graph_hold(Tensor *t)
{
    CHECK(!t || t->kind == KIND_INPUT || t->kind == KIND_PARAM);
    if (t) t->held = true;
}

/* Of a node, and so of its sides: all it reads is held, and it reads something. */
static bool reads_held(const Tensor *t)
{
    if (t->op->effect || t->pinned || !t->src[0]) return false;
    for (int k = 0; k < MAX_SRC; k++)
        if (t->src[k] && !t->src[k]->held) return false;
    return true;
}

static void mark_live(Tensor *t)
{
    if (!t || t->live) return;
    t->live = true;
    mark_live(t->owner);
    mark_live(t->view_of);
}

void graph_finish(Graph *g, Tensor *const *output, int n_output)
{
    if (g->error[0]) return;
    for (int i = 0; i < n_output; i++) mark_live(output[i]);
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        if (t->op) t->held = reads_held(t);
        if (t->owner) t->held = t->owner->held;
    }
    for (int i = g->n - 1; i >= 0; i--) {
        Tensor *t = g->node[i];
        if ((t->op && t->op->effect) || t->pinned) mark_live(t); /* both are read after the run */
        if (!t->live) continue;
        for (int k = 0; k < MAX_SRC; k++) mark_live(t->src[k]);
        for (int k = 0; k < MAX_SIDE; k++) mark_live(t->side[k]); /* written too: needs room */
    }
}

bool tensor_same_shape(const Tensor *a, const Tensor *b)
{
    return a->ndim == b->ndim && !memcmp(a->dim, b->dim, (size_t)a->ndim * sizeof *a->dim);
}

const char *tensor_shape_text(const Tensor *t, char text[64])
{
    int at = snprintf(text, 64, "[");
    for (int i = 0; i < t->ndim; i++)
        at += snprintf(text + at, 64 - (size_t)at, "%s%d", i ? "," : "", t->dim[i]);
    snprintf(text + at, 64 - (size_t)at, "]");
    return text;
}
