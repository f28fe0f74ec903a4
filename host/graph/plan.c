/* plan.c - greedy by size: the largest tensor first, each at the lowest offset that is free
 * during its life. n tensors cost n^2 comparisons: milliseconds for 4,000. */
#include "graph/plan.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const Tensor *t;
    size_t size, offset;
    int born, dies;
} Life;

static int larger_first(const void *a, const void *b)
{
    const Life *x = a, *y = b;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    return x->t->id - y->t->id; /* a total order: the same plan every time */
}

bool plan_has_place(const Tensor *t)
{
    return t->live && !t->view_of && !t->pinned && (t->kind == KIND_ACT || t->kind == KIND_INPUT);
}

int plan_time(const Graph *g, const Tensor *t)
{
    return (t->owner ? t->owner->id : t->id) - (t->held ? g->n : 0);
}

/* Tensor `of` is read by `by`. */
static void read_at(int *last, const Graph *g, const Tensor *of, const Tensor *by)
{
    int at = of->held && !by->held ? g->n : plan_time(g, by);
    if (last[of->id] < at) last[of->id] = at;
}

/* When the last node runs that reads t or a view of it; g->n when kept, or held and read by one that
 * is not. [g->n], heap. */
static int *last_use(const Graph *g, Tensor *const *keep, int n_keep)
{
    int *last = calloc((size_t)g->n + 1, sizeof *last);
    CHECK(last);
    for (int i = 0; i < g->n; i++) last[i] = plan_time(g, g->node[i]);
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        if (!t->live) continue;
        for (int k = 0; k < MAX_SRC; k++) {
            if (!t->src[k]) continue;
            read_at(last, g, t->src[k], t);
            read_at(last, g, tensor_root(t->src[k]), t);
        }
    }
    for (int i = 0; i < n_keep; i++) last[tensor_root(keep[i])->id] = last[keep[i]->id] = g->n;
    return last;
}

/* Lowest offset at which l collides with none of the n placed lives (sorted by offset) that
 * overlap it in time. */
static size_t lowest_gap(const Life *l, Life *const *placed, int n)
{
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        const Life *p = placed[i];
        if (p->dies < l->born || l->dies < p->born) continue;
        if (at + l->size <= p->offset) break;
        if (at < p->offset + p->size) at = p->offset + p->size;
    }
    return at;
}

void plan_make(Plan *p, const Graph *g, Tensor *const *keep, int n_keep)
{
    int *last = last_use(g, keep, n_keep);
    Life *life = calloc((size_t)g->n + 1, sizeof *life);
    Life **placed = calloc((size_t)g->n + 1, sizeof *placed);
    *p = (Plan){.offset = calloc((size_t)g->n + 1, sizeof *p->offset)};
    CHECK(life && placed && p->offset);

    int n = 0;
    for (int i = 0; i < g->n; i++) {
        const Tensor *t = g->node[i];
        if (!plan_has_place(t)) continue;
        bool input = t->kind == KIND_INPUT;
        size_t size = (tensor_bytes(t) + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
        life[n++] = (Life){.t = t,
                           .size = size,
                           .born = input ? -g->n : plan_time(g, t),
                           .dies = input ? g->n : last[i]};
        p->unplanned += size;
    }
    qsort(life, (size_t)n, sizeof *life, larger_first);

    for (int i = 0; i < n; i++) {
        Life *l = &life[i];
        l->offset = lowest_gap(l, placed, i);
        int at = i;
        while (at > 0 && placed[at - 1]->offset > l->offset) {
            placed[at] = placed[at - 1];
            at--;
        }
        placed[at] = l;
        p->offset[l->t->id] = l->offset;
        if (l->offset + l->size > p->planned) p->planned = l->offset + l->size;
    }
    free(placed);
    free(life);
    free(last);
}

void plan_free(Plan *p)
{
    free(p->offset);
    *p = (Plan){0};
}
