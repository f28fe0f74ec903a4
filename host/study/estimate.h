/* estimate.h - what the stages of a study would cost, before it starts: from the settings, the numbers
 * of films by class and the recorded graphs of the models (cost.h). Weights need not be there.
 *
 * Splits are taken by their shares, as the films' patients are not known yet; FLOPs are of the ops that
 * count them. Films are read, written and compared for nothing.
 */
#ifndef ESTIMATE_H
#define ESTIMATE_H
#include "study/schedule.h"
#include "study/space.h"
#include "study/steps.h"
#include "train/cost.h"

typedef struct {
    Cost cost;    /* of a model; the costliest one where there are several */
    double flops; /* of all ranks together */
    long steps;   /* of training, or films that are made or classified */
    int passes;   /* micro-batches of a step, over all ranks; 0: no training */
} Estimate;

/* act: how activations would be stored. ranks [N_STEP], or NULL for one each: of each stage, for the
 * memory. */
Status estimate_steps(Estimate *e, const Config *c, const FilmCounts *n, Dtype act,
                      const int *ranks);

/* For schedule_make(): [N_STEP]. done[i]: step i is complete already. */
void estimate_jobs(Job *job, const Estimate *e, const Config *c, const bool *done);
#endif
