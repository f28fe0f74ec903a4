/* plan.h - where every activation lives.
 *
 * All activations share one block of memory. Two tensors may overlap in it if their lives do
 * not: a tensor lives from the node that writes it to the last node that reads it or a view
 * of it. Addresses are fixed before the first run, so that nothing is
 * allocated while steps run. Inputs get memory of their own for the whole run.
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

/* Last node that reads t or a view of it; g->n when kept. For tests and dumps; [g->n], heap. */
int *plan_last_use(const Graph *g, Tensor *const *keep, int n_keep);
#endif
