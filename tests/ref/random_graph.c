/* random_graph.c - see random_graph.h. */
#include "ref/random_graph.h"
#include "base/random.h"
#include "exec/exec.h"
#include "ops/ops.h"
#include "ref/ref.h"
#include <stdlib.h>
#include <string.h>

enum { IMAGES = 2, POOL = 48 };

typedef struct {
    RandomGraph *r;
    uint32_t seed, drawn;
    Tensor *pool[POOL];     /* [IMAGES,h,w,c], any of which the next op may read */
    int n_pool;
    bool segments, open;
} Maker;

static int below(Maker *m, int n)
{
    return (int)random_below((RandomKey){m->seed, STREAM_TEST, 9, 0}, m->drawn++, (uint32_t)n);
}

static Tensor *leaf(Maker *m, bool param, int ndim, const int *dim)
{
    RandomGraph *r = m->r;
    CHECK(r->n_leaf < 32);
    Kind kind = param ? KIND_PARAM : KIND_INPUT;
    Tensor *t = graph_leaf(r->g, kind, DTYPE_F32, param ? "weight" : "input", ndim, dim);
    if (param) r->param[r->n_param++] = t;
    return r->leaf[r->n_leaf++] = t;
}

static Tensor *pick(Maker *m) { return m->pool[below(m, m->n_pool)]; }

/* Another tensor of the pool that agrees with a in its first `dims` dimensions; a itself always
 * does. */
static Tensor *partner(Maker *m, Tensor *a, int dims)
{
    for (int from = below(m, m->n_pool), i = 0; i < m->n_pool; i++) {
        Tensor *b = m->pool[(from + i) % m->n_pool];
        if (!memcmp(a->dim, b->dim, (size_t)dims * sizeof *a->dim) &&
            (b != a || i == m->n_pool - 1))
            return b;
    }
    return a;
}

/* A view of a view, read by an op of its own shape. */
static Tensor *through_views(Maker *m, Tensor *x)
{
    Graph *g = m->r->g;
    Tensor *flat = reshape(g, x, 2, (int[]){IMAGES, (int)(tensor_count(x) / IMAGES)});
    Tensor *again = reshape(g, flat, 4, x->dim);
    return below(m, 2) ? again : reshape(g, add(g, flat, flat), 4, x->dim);
}

static Tensor *grow(Maker *m)
{
    Graph *g = m->r->g;
    Tensor *a = pick(m), *b;
    int c = a->dim[3], side = a->dim[1], from;
    switch (below(m, 8)) {
    case 0: return add(g, a, partner(m, a, 4));
    case 1:
        b = partner(m, a, 3);
        return c + b->dim[3] > 40 ? add(g, a, a) : concat(g, 2, (Tensor *[]){a, b});
    case 2:
        from = below(m, c);
        return slice(g, a, from, 1 + below(m, c - from));
    case 3:
        if (side > 4) return maxpool(g, a, 2, 2, 0);
        side = 2 * side - below(m, 2);
        return upsample(g, a, side, side);
    case 4: return maxpool(g, a, 3, 1, 1);
    case 5: return avgpool(g, a, 3, 1, 1);
    case 6:
        b = partner(m, a, 4);
        return mix_samples(g, a, b, leaf(m, false, 2, (int[]){IMAGES, 2}));
    default: return through_views(m, a);
    }
}

static void maybe_segment(Maker *m)
{
    int draw = below(m, 4);
    if (draw) return;
    if (m->segments && m->open) graph_recompute_end(m->r->g);
    if (m->segments && !m->open) graph_recompute_begin(m->r->g);
    m->open = !m->open;
}

/* A scalar of every tensor drawn, so that most of the graph is live. */
static Tensor *loss_of(Maker *m)
{
    Graph *g = m->r->g;
    Tensor *all[MAX_SRC], *sum = NULL;
    for (int from = 0; from < m->n_pool; from += MAX_SRC) {
        int n = m->n_pool - from < MAX_SRC ? m->n_pool - from : MAX_SRC;
        for (int i = 0; i < n; i++) all[i] = slice(g, global_avgpool(g, m->pool[from + i]), 0, 1);
        Tensor *x = concat(g, n, all);
        Tensor *target = leaf(m, false, 2, x->dim), *weight = leaf(m, false, 1, x->dim);
        Tensor *part = weighted_mse(g, x, target, weight);
        sum = sum ? add(g, sum, part) : part;
    }
    return sum;
}

void random_graph_make(RandomGraph *r, uint32_t seed, bool segments)
{
    *r = (RandomGraph){.g = graph_new()};
    Maker m = {.r = r, .seed = seed, .segments = segments};
    for (int i = 0; i < 3; i++)
        m.pool[m.n_pool++] = leaf(&m, i != 1, 4, (int[]){IMAGES, 4, 4, 1 + below(&m, 9)});
    for (int i = 0, n = 5 + below(&m, 12); i < n; i++) {
        maybe_segment(&m);
        Tensor *y = grow(&m);
        if (y && y->ndim == 4) m.pool[m.n_pool++] = y;
    }
    if (m.open && segments) graph_recompute_end(r->g);
    r->keep[r->n_keep++] = r->loss = loss_of(&m);
    CHECK(!graph_status(r->g));
    graph_backward(r->g, 1, &r->loss, NULL);
    CHECK(!graph_status(r->g));
    for (int i = 0; i < r->n_param; i++)
        if (r->param[i]->grad) r->keep[r->n_keep++] = r->param[i]->grad;
    for (int i = 0; i < 3; i++) r->keep[r->n_keep++] = pick(&m);
    graph_finish(r->g, r->keep, r->n_keep);
}

void random_graph_hold(RandomGraph *r, uint32_t seed)
{
    for (int i = 0; i < r->n_leaf; i++)
        if (random_below((RandomKey){seed, STREAM_TEST, 8, 0}, (uint32_t)i, 2))
            graph_hold(r->leaf[i]);
    graph_finish(r->g, r->keep, r->n_keep);
}

void random_graph_free(RandomGraph *r)
{
    graph_free(r->g);
    *r = (RandomGraph){0};
}

/* ---- running ------------------------------------------------------------------------------ */

float *random_graph_values(const Tensor *t, uint32_t seed)
{
    float *v = malloc(tensor_bytes(t));
    CHECK(v);
    for (size_t i = 0; i < tensor_count(t); i++) v[i] = (float)case_normal(seed, t, i);
    return v;
}

static void *copy_out(const Tensor *t)
{
    void *v = malloc(tensor_bytes(t));
    CHECK(v);
    return memcpy(v, t->data, tensor_bytes(t));
}

void random_graph_run_apart(RandomGraph *r, Device *d, uint32_t seed, void **values)
{
    Graph *g = r->g;
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        if (t->view_of) t->data = t->view_of->data;
        else CHECK(!device_alloc(d, &t->data, tensor_bytes(t), "tensor"));
        if (t->kind == KIND_ACT) continue;
        float *v = random_graph_values(t, seed);
        memcpy(t->data, v, tensor_bytes(t));
        free(v);
    }
    for (int i = 0; i < g->n; i++)
        if (g->node[i]->live && g->node[i]->op && !g->node[i]->view_of)
            CHECK(!device_run(d, g->node[i]));
    for (int i = 0; i < r->n_keep; i++) values[i] = copy_out(r->keep[i]);
    for (int i = 0; i < g->n; i++)
        if (!g->node[i]->view_of) device_release(d, g->node[i]->data);
}

void random_graph_run_planned(RandomGraph *r, Device *d, uint32_t seed, void **values)
{
    Exec *e;
    for (int i = 0; i < r->n_param; i++)
        CHECK(!device_alloc(d, &r->param[i]->data, tensor_bytes(r->param[i]), "parameter"));
    CHECK(!exec_new(&e, d, r->g, r->keep, r->n_keep));
    for (int i = 0; i < r->g->n; i++)
        if (r->g->node[i]->live && r->g->node[i]->kind == KIND_ACT)
            memset(r->g->node[i]->data, 0xff, tensor_bytes(r->g->node[i]));
    for (int i = 0; i < r->n_leaf; i++) {
        float *v = random_graph_values(r->leaf[i], seed);
        CHECK(!exec_write(e, r->leaf[i], v));
        free(v);
    }
    CHECK(!exec_run(e));
    CHECK(!exec_run(e)); /* inputs and parameters are as they were */
    for (int i = 0; i < r->n_keep; i++) {
        values[i] = malloc(tensor_bytes(r->keep[i]));
        CHECK(values[i] && !exec_read(e, r->keep[i], values[i]));
    }
    exec_free(e);
    for (int i = 0; i < r->n_param; i++) device_release(d, r->param[i]->data);
}
