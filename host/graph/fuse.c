/* fuse.c - the pass of fuse.h: counts readers, then asks the table at each node. */
#include "graph/fuse.h"
#include <stdlib.h>

/* How many live nodes read each tensor, itself or through views; a kept one has one more. */
static int *count_readers(const Graph *g, Tensor *const *keep, int n_keep)
{
    int *n = calloc((size_t)g->n + 1, sizeof *n);
    CHECK(n);
    for (int i = 0; i < g->n; i++) {
        const Tensor *t = g->node[i];
        if (!t->live || t->view_of) continue;
        for (int k = 0; k < MAX_SRC; k++)
            if (t->src[k]) n[tensor_root(t->src[k])->id]++;
    }
    for (int i = 0; i < n_keep; i++) n[tensor_root(keep[i])->id]++;
    return n;
}

static bool may_go(const Tensor *from, const Tensor *into, const int *readers)
{
    return from->op && !from->op->effect && !from->pinned && !from->side[0] &&
           readers[from->id] == 1 && from->dtype == into->dtype && from->held == into->held;
}

static double cost(const Tensor *t) { return t->op->flops ? t->op->flops(t) : 0; }

typedef struct {
    const FusionRule *rule; /* NULL: none fits */
    Tensor *from;
    int k;
} Match;

/* Of two that fit, that with more arithmetic: it hides the traffic of what it takes up. */
static Match find(const Tensor *into, const FusionRule *rule, int n_rule, const int *readers)
{
    Match best = {NULL, NULL, 0};
    for (int k = 0; k < MAX_SRC; k++) {
        Tensor *from = into->src[k] ? tensor_root(into->src[k]) : NULL;
        if (!from || !may_go(from, into, readers)) continue;
        for (int r = 0; r < n_rule; r++)
            if (rule[r].from == from->op && rule[r].into == into->op &&
                (!best.rule || cost(from) > cost(best.from)) && rule[r].fits(from, into, k))
                best = (Match){&rule[r], from, k};
    }
    return best;
}

static void apply(Graph *g, const Match *m, Tensor *into)
{
    bool first = cost(m->from) >= cost(into); /* named after the one that counts */
    char *name = arena_printf(&g->arena, "%s+%s", first ? m->from->name : into->name,
                              first ? into->op->name : m->from->op->name);
    for (int i = m->from->id; i < into->id; i++)
        if (tensor_root(g->node[i]) == m->from) g->node[i]->live = false;
    m->rule->fuse(g, m->from, into, m->k);
    into->op = m->rule->as;
    into->name = name;
}

int graph_fuse(Graph *g, const FusionRule *rule, int n_rule, Tensor *const *keep, int n_keep)
{
    int *readers = count_readers(g, keep, n_keep), n = 0;
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        if (!t->live || !t->op || t->view_of) continue;
        Match m = find(t, rule, n_rule, readers);
        if (!m.rule) continue;
        apply(g, &m, t);
        n++;
    }
    free(readers);
    return n;
}
