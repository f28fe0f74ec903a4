/* cost.h - what a stage would cost, found in a moment by opening it on a counting device
 * (device_open_counting): the graphs are the ones that would run, their memory plans too. FLOPs are
 * those of the ops that count them: convolutions, matrix products, attention.
 */
#ifndef COST_H
#define COST_H
#include "comm/reduce.h"

typedef struct {
    double once;       /* FLOPs before the first step: films encoded */
    double unit;       /* FLOPs of a unit of work: a micro-batch of training, a film made or classified */
    double validation; /* FLOPs of one validation */
    size_t parameters, activations, optimizer; /* bytes of device memory on every rank: values with their
                                                  gradients; planned blocks; what belongs to the rest */
    size_t peak;       /* bytes at most, also before the first step */
    size_t gradients;   /* bytes that ranks sum each step, */
    int buckets, parts; /* in so many pieces, each rank sending so many partial sums (comm/exchange.h) */
} Cost;

/* Fills in what ranks exchange. */
void cost_of_sum(Cost *c, const Reduction *gradients);
#endif
