/* exchange.h - how long the ranks' exchange of gradients takes, by a formula, for plans (reduce.h does
 * it). Of a rank that sends and receives `link` bytes a second at once; what a message costs beside
 * its bytes is left out.
 */
#ifndef EXCHANGE_H
#define EXCHANGE_H
#include <stdbool.h>

typedef struct {
    int ranks, buckets;
    int parts;     /* partial sums that a rank sends of its micro-batches; 1 where they are a node */
    double bytes;  /* of the gradients */
    double link;   /* bytes a second */
    double hide_s; /* the backward pass of the last micro-batch, in which buckets come up evenly */
    bool sharded;  /* ranks update their shards and only then have all parameters */
} Exchange;

/* Each rank sends all but its own shard of its `parts` partial sums, then its shard of the result to
 * the others: bytes (ranks - 1) / ranks (parts + 1). 0 on one rank. */
double exchange_s(const Exchange *e);

/* What of it the backward pass does not hide. Buckets go one after the other, each once it is there; the
 * last is there when the pass ends: max(T / buckets, T - hide_s (1 - 1 / buckets)) for T seconds.
 * Sharded, the second half comes behind the update, and is not hidden. */
double exchange_exposed_s(const Exchange *e);
#endif
