/* rank.h - what ranks of test_parallel* do besides training models; see rank.c. Failures are
 * ERR_NUMERIC. */
#ifndef RANK_H
#define RANK_H
#include "app/ranks.h"

/* y, gradients and running averages of batchnorm_sync() over the ranks against batchnorm() of all their
 * rows; and that the ranks' own statistics would be another result. */
Status rank_statistics(Ranks *r);

/* Some steps of a small network with buckets and running averages; its parameters go to the file
 * out/steps, by rank 0. [ldm] accumulate and [parallel] are looked at.
 * slow: a rank whose batches come slowly; -1: none. */
Status rank_steps(Ranks *r, const Config *c, const char *out, int slow);
#endif
