/* resample.h - bootstrap over patients and permutation of two arms within patients.
 *
 * Replicate b draws from Philox (seed, STREAM_BOOTSTRAP or STREAM_PERMUTE, sample = b), so results
 * depend on neither threads nor order, and every arm of one study sees the same patients in
 * replicate b. Both give ERR_STOPPED, and values that mean nothing, once a signal asks to stop.
 */
#ifndef RESAMPLE_H
#define RESAMPLE_H
#include "stats/metrics.h"
#include "stats/ranking.h"

typedef struct {
    int replicates;   /* of the bootstrap       */
    int permutations; /* used by comparisons    */
    uint32_t seed;
} Resampling;

/* One classifier's calls on films, ready to be counted again and again. */
typedef struct {
    const Predictions *films; /* borrowed */
    double threshold;
    Ranking ranking; /* owned */
    Tally *patient;  /* owned: [n_patients] */
} Arm;               /* starts as {0} */

void arm_new(Arm *a, const Predictions *films, double threshold);
void arm_free(Arm *a);
void arm_metrics(double value[METRIC_COUNT], const Arm *a, const int *times); /* see ranking.h */

/* value [n_arms, METRIC_COUNT, replicates]: n_patients patients drawn with replacement, all their
 * films count. A replicate that lacks a class which the films have is drawn again (step = attempt),
 * so the distribution is conditional on both classes being there; all arms hold the same films. */
Status bootstrap(double *value, const Arm *arm, int n_arms, const Resampling *how);

/* Two-sided p of each metric's difference between two arms on the same films: (1 + permutations at
 * least as far from zero) / (1 + permutations), where each patient's films are exchanged between
 * the arms or not by a fair coin. Calls and squared errors are exchanged, so AUROC and AUPRC have
 * none (NaN: scores of two models need not be on one scale). */
Status permutation_test(double p[METRIC_COUNT], const Arm arm[2], const Resampling *how);

/* Differences this close to each other are the same number rounded differently. */
extern const double same_difference; /* 1e-12 */
#endif
