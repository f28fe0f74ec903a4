/* plan.h - where every activation lives.
 *
 * All activations share one block of memory. Two tensors may overlap in it if their lives do
 * not: a tensor lives from the node that writes it to the last node that reads it or a view
 * of it. Addresses are fixed before the first run, so that nothing is
 * allocated while steps run. Inputs get memory of their own for the whole run.
 *
 * Held nodes (graph_hold) run before all others, and not in every run: what they leave for others
 * has memory of its own, what only they read shares it with everything.
 */
#ifndef PLAN_H
#define PLAN_H
#include "graph/graph.h"

typedef struct {
    size_t *offset;      /* [g->n] owned: bytes from the block's start, where plan_has_place() */
    size_t  planned;     /* bytes of the block                                                   */
    size_t  unplanned;   /* bytes if nothing were shared, for the record                         */
} Plan;

enum { PLAN_ALIGN = 256 };

bool plan_has_place(const Tensor *t); /* live, computed, no view, not pinned; or a live input */
/* keep: read after the run */
void plan_make(Plan *p, const Graph *g, Tensor *const *keep, int n_keep);
void plan_free(Plan *p);

/* When a node runs: its id, less g->n if it is held. Of a side: its owner. */
int plan_time(const Graph *g, const Tensor *t);
#endif
