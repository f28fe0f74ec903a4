/* exec.h - runs a recorded graph: plans its memory, binds addresses, replays the list.
 *
 * The graph must be finished (graph_finish) and must outlive the Exec. Parameters and state must
 * have their data bound before (ParamStore does). A failing node is named with its op, shapes and
 * path.
 *
 * exec_new() rewrites the graph where the device has kernels that do the work of two nodes
 * (ops/fusions.h); afterwards it is not changed any more. Of a tensor that is neither kept nor pinned
 * nothing may be read: it may be gone.
 *
 * Held nodes (graph_hold) run before the others in the first run, and in each behind an
 * exec_write() to a held leaf.
 *
 * On a GPU a run is only enqueued; exec_read() waits. The first run launches node by node, the second
 * records a CUDA graph, which later ones replay. The environment at exec_new():
 *   EQ_NO_FUSE=1   the graph as it was recorded
 *   EQ_NO_GRAPH=1  node by node always
 *   EQ_SYNC=1      waits after each node, so that the one that fails is named
 *   EQ_COMPARE=1   computes each node on the CPU in fp32 too, from the same inputs, and stops at the
 *                  first that differs by more than its storage explains
 *   EQ_PROFILE=1   times each node
 *   EQ_APART=1     (any device) each tensor in memory of its own: compute-sanitizer then sees an op that leaves
 *                  its tensors, AddressSanitizer one that leaves them by 512 bytes (device_cpu.c rounds up)
 */
#ifndef EXEC_H
#define EXEC_H
#include "exec/device.h"

typedef struct Exec Exec;

/* keep: tensors whose values are read after a run. */
Status exec_new(Exec **e, Device *d, Graph *g, Tensor *const *keep, int n_keep);
void   exec_free(Exec *e);                                          /* accepts NULL */
/* The whole tensor, as it is stored: fp32 for an fp32 tensor, int32 for ids. */
Status exec_write(Exec *e, Tensor *input, const void *host);
Status exec_run(Exec *e);
/* A run with more work behind it, which belongs to it: recorded and replayed with it. It must
 * enqueue the same on every call, and be the same in all calls of one Exec. */
Status exec_run_then(Exec *e, Status (*then)(void *arg), void *arg);
Status exec_read(Exec *e, const Tensor *t, void *host);             /* kept, or a parameter */
size_t exec_bytes(const Exec *e);                                   /* of the planned block, or all of EQ_APART's */
double exec_flops(const Exec *e); /* of one run without the held nodes, counted ops */

/* Seconds per op name over all runs as a table; empty unless EQ_PROFILE=1. */
void   exec_profile(const Exec *e, Text *out);
#endif
