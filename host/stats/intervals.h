/* intervals.h - 95 % intervals that need no resampling, and the end of those that do.
 *
 * All are two-sided; an undefined interval is {NaN, NaN}.
 */
#ifndef INTERVALS_H
#define INTERVALS_H
#include "stats/ranking.h"

typedef struct {
    double lo, hi;
} Interval;

extern const Interval interval_undefined;

/* Regularised: I_x(a, b) for a, b > 0 and x in [0, 1]. */
double incomplete_beta(double x, double a, double b);

/* Clopper-Pearson: never covers less than 95 %. Undefined for n = 0. */
Interval clopper_pearson(int64_t successes, int64_t n);

/* From the 2.5th to the 97.5th percentile, linear between neighbours (numpy's default). Sorts
 * value; NaNs (replicates where it is undefined) are left out; undefined if nothing is left. */
Interval percentile_interval(double *value, int n);

/* DeLong et al. 1988, by ranks. Films count as independent. */
typedef struct {
    double value, variance; /* variance is NaN with fewer than two films of a class */
    Interval ci;            /* value -+ 1.96 deviations, cut to the possible range  */
} DeLong;

DeLong delong(const Ranking *r); /* of AUROC */
DeLong delong_difference(const Ranking *a,
                         const Ranking *b); /* AUROC of a minus that of b, same films */
#endif
