/* random_graph.h - graphs drawn at random: images through adds, joins, pools, views and mixes, some
 * of it in recompute segments, down to a scalar loss with its reverse pass. For tests of recording,
 * planning and execution. */
#ifndef RANDOM_GRAPH_H
#define RANDOM_GRAPH_H
#include "exec/device.h"

typedef struct {
    Graph  *g;                      /* finished */
    Tensor *loss;
    Tensor *leaf[32];  int n_leaf;
    Tensor *param[8];  int n_param; /* of the leaves */
    Tensor *keep[64];  int n_keep;  /* loss, gradients of parameters, some activations */
} RandomGraph;

/* The same seed draws the same forward graph; segments: put parts of it into recompute segments. */
void random_graph_make(RandomGraph *r, uint32_t seed, bool segments);

/* Holds about half of the leaves (graph_hold), and finishes the graph again. */
void random_graph_hold(RandomGraph *r, uint32_t seed);

/* Values of a leaf, heap. */
float *random_graph_values(const Tensor *leaf, uint32_t seed);

/* Runs every node by itself, each tensor in memory of its own: the executor that cannot go wrong.
 * values[i]: what keep[i] holds afterwards, heap. */
void random_graph_run_apart(RandomGraph *r, Device *d, uint32_t seed, void **values);

/* The same through exec.h, activations poisoned with NaN first, run twice. */
void random_graph_run_planned(RandomGraph *r, Device *d, uint32_t seed, void **values);

void random_graph_free(RandomGraph *r);
#endif
