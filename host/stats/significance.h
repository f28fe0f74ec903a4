/* significance.h - p-values, all two-sided. NaN where there is nothing to test. */
#ifndef SIGNIFICANCE_H
#define SIGNIFICANCE_H
#include "stats/intervals.h"
#include "stats/resample.h"

/* Exact McNemar: only_first films were right in the first arm alone, only_second in the second
 * alone. 1 where both are 0. Films count as independent. */
double mcnemar_exact(int64_t only_first, int64_t only_second);

/* The same on two arms' films with this label. */
double mcnemar_on(int label, const Arm arm[2]);

/* DeLong's test from delong_difference(): 1 for equal areas, NaN for unequal ones of zero
 * variance. */
double delong_p(const DeLong *difference);

/* From the bootstrap distribution of a difference: twice the smaller share of replicates on either
 * side of zero, each side counted from one, (1 + count) / (1 + replicates). NaNs are left out. */
double bootstrap_p(const double *difference, int n);

/* Holm's step-down adjustment. NaNs stay NaN and do not count as tests. */
void holm(double *adjusted, const double *p, int n);
#endif
