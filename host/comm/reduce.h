/* reduce.h - the sum of gradients over the micro-batches of a step: this rank's and the others'.
 *
 * A step has n_micro micro-batches; each rank has n_micro / ranks of them, one after the other by
 * their global index. What is summed are spans: runs of floats in device memory that every pass
 * overwrites. Each rank sums its own as they come, by the tree (tree.h); over ranks a span is summed
 * by buckets of which each rank has a shard to sum:
 *
 *   fixed   every rank gets the partial sums of its shard, from all ranks, and adds them by the tree:
 *           the bits are those of one rank with all micro-batches;
 *   fast    the library adds, in its order.
 *
 * Afterwards each rank has the whole sum, or, sharded, its shards of it.
 *
 * reduction_place() makes each bucket a node of the backward graph, right behind the last node that
 * writes or reads one of its gradients. So a bucket is on its way while the backward pass goes on,
 * on a GPU beside it, and belongs to the recording of the step.
 *
 *   reduction_start(r);
 *   for each of the rank's micro-batches but the last:
 *       reduction_more(r); run the pass; TRY(reduction_hold(r));
 *   reduction_last(r); run the pass; TRY(reduction_finish(r));
 *
 * All ranks make the same calls. A step may be left before its last pass. NOTE: the last pass and
 * reduction_finish() may be recorded and replayed: they keep nothing on the host.
 */
#ifndef REDUCE_H
#define REDUCE_H
#include "comm/comm.h"
#include "comm/tree.h"

typedef struct {
    float *data; /* device memory, borrowed; 16-byte aligned */
    size_t count;
} Span;

typedef struct {
    Comm *comm;          /* borrowed; NULL: alone */
    int n_micro;         /* of a step, over all ranks: a multiple of their number */
    bool fast, sharded;
    size_t bucket_bytes; /* about; 0: a span is one */
} ReduceSettings;

typedef struct {
    int span;
    size_t first, count; /* floats of the span */
    size_t shard;        /* floats of a rank: rank r has those from first + r * shard on, in count */
    bool placed;         /* is a node */
} Bucket;

typedef struct {
    const char *what; /* "gradients": for errors */
    ReduceSettings set;
    Device *device; /* borrowed */
    int ranks, rank, n_local, first; /* the rank's micro-batches are first .. first + n_local - 1 */
    Span *span;                      /* owned: [n_span] */
    int n_span;
    Bucket *bucket; /* owned: [n_bucket], by span and place */
    int n_bucket;
    TreeStack stack;    /* of this rank's sums, in this step */
    float **kept;       /* owned: [n_kept] device blocks, one float for each of all spans' */
    int n_kept, n_part; /* most partial sums that wait; that a rank sends */
    float *out, *in;    /* owned: [ranks, n_part, shard] of the largest bucket; NULL where not needed */
    bool last;          /* the pass that runs is of the rank's last micro-batch */
} Reduction; /* starts as {0} */

/* Shards are whole multiples of SQUARES floats (kernels_train.h). */
Status reduction_new(Reduction *r, Device *d, const ReduceSettings *s, const char *what,
                     const Span *span, int n_span);
void reduction_free(Reduction *r); /* accepts {0} */

/* After params_pin_grads(), before graph_finish(). No nodes where there is one rank. */
void reduction_place(Reduction *r, Graph *g);

void reduction_start(Reduction *r); /* a step */
void reduction_more(Reduction *r);
Status reduction_hold(Reduction *r); /* takes the spans' values; they may be overwritten then */
void reduction_last(Reduction *r);
Status reduction_finish(Reduction *r);

/* How many floats this rank's shard of a bucket holds: b->shard, or less at the end. */
size_t reduction_own(const Reduction *r, const Bucket *b);
/* All ranks' shards to everyone, in device memory. part: this rank's. to: where the b->count floats of
 * the bucket go; part may lie there, in its own place. */
Status reduction_gather(Reduction *r, const Bucket *b, float *to, const float *part);
/* The same to memory of the Reduction's, valid until its next use. */
Status reduction_gathered(Reduction *r, const Bucket *b, const float **whole, const float *part);

/* Whether `ranks` can share n_micro micro-batches equally: ERR_USAGE with the nearest numbers that can,
 * naming the setting section.accumulate. */
Status reduction_check(int n_micro, int ranks, const char *section);
#endif
