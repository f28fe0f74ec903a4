/* exec.h - runs a recorded graph: plans its memory, binds addresses, replays the list.
 *
 * The graph must be finished (graph_finish) and must outlive the Exec; it is not changed any
 * more. Parameters and state must have their data bound before (ParamStore does). A failing
 * node is named with its op, shapes and path.
 */
#ifndef EXEC_H
#define EXEC_H
#include "exec/device.h"

typedef struct Exec Exec;

/* keep: tensors whose values are read after a run. */
Status exec_new(Exec **e, Device *d, Graph *g, Tensor *const *keep, int n_keep);
void   exec_free(Exec *e);                                          /* accepts NULL */
Status exec_write(Exec *e, Tensor *input, const void *host);        /* the whole tensor */
Status exec_run(Exec *e);
Status exec_read(Exec *e, const Tensor *t, void *host);             /* kept, or a parameter */
size_t exec_bytes(const Exec *e);                                   /* of the planned block */
double exec_flops(const Exec *e);                                   /* of one run, counted ops */

/* Seconds per op name over all runs as a table; empty unless EQ_PROFILE=1 was set at
 * exec_new(). */
void   exec_profile(const Exec *e, Text *out);
#endif
