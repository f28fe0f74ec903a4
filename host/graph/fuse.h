/* fuse.h - two nodes that one kernel computes together.
 *
 * A rule says: where a node `into` reads what a node `from` computes, one node `as` does both. The
 * pass goes once through a finished graph, in order; where a rule fits, the reader becomes `as` at
 * its place in the list and the value between is gone: it has no memory and is never written. Rules
 * may take up what earlier ones left: (a, b) to ab, then (ab, c) to abc.
 *
 * Only where nothing else needs the value between: one live node reads it (itself or through
 * views), gradients included, it is not kept, not pinned, has no sides, updates no state, and is
 * stored as the reader's result is. Nor is a held node moved out of what runs once (graph_hold).
 */
#ifndef FUSE_H
#define FUSE_H
#include "graph/graph.h"

typedef struct {
    const OpDef *from, *into, *as;
    /* Whether shapes and settings allow it. into->src[k] is `from` or a view of it. */
    bool (*fits)(const Tensor *from, const Tensor *into, int k);
    /* Gives `into` the sources and args of `as`; its op and name follow. `from` is not live any more; its
     * place in the list may be used for another node, which is then marked live. */
    void (*fuse)(Graph *g, Tensor *from, Tensor *into, int k);
} FusionRule;

/* Returns how many nodes it made. keep: tensors whose values are read after a run. */
int graph_fuse(Graph *g, const FusionRule *rule, int n_rule, Tensor *const *keep, int n_keep);
#endif
