/* evaluate.h - the last measurements of a study: RUN/metrics.json.
 *
 * Everything in it is a function of the stages' outputs and the settings: no time, no path, keys
 * sorted, so equal runs give equal bytes. Undefined numbers are null. Per task ("a", "b"):
 *
 *   baseline, augmented  evaluation (evaluation.h) on the real test films, at the threshold that is
 * best on the arm's own validation films (those it was trained with, synthetic ones too where
 * classifier.synthetic_in = train+val), or 0.5; films, threshold, and with study.repeats > 1 the
 * metrics of each seed with mean and deviation comparison           augmented minus baseline
 *   synthetic            kid, called_diseased, nearest: see quality.h
 */
#ifndef EVALUATE_H
#define EVALUATE_H
#include "study/task.h"

/* The stage s->evaluate, by the ranks of s->comm; also makes RUN/synthetic/manifest.csv. */
Status evaluate_stage(Study *s);

/* The table of RUN/metrics.json for people, on stdout. */
Status table_print(const char *run);
#endif
