/* cost.c - see cost.h. */
#include "train/cost.h"

void cost_of_sum(Cost *c, const Reduction *r)
{
    c->gradients = 0;
    for (int i = 0; i < r->n_span; i++) c->gradients += r->span[i].count * sizeof(float);
    c->buckets = r->n_bucket;
    c->parts = r->n_part;
}
