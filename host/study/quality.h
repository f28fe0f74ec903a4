/* quality.h - what the synthetic films of a task are like, as numbers.
 *
 * kid             distance of the synthetic films, of the real training films of the disease and of
 * the normal training films (where translation starts) to the real test films of the disease, in
 * the pooled features of classifier.weights, or of the baseline where there are none
 * called_diseased share of the synthetic films that the baseline calls diseased at its threshold
 * nearest         Pearson correlation at 64 x 64 pixels of each synthetic film with its source and,
 * the highest, with any training film; and the highest of each real diseased test film with any
 * training film, which says what is usual between different patients
 */
#ifndef QUALITY_H
#define QUALITY_H
#include "study/task.h"

/* *j is the caller's. threshold: the baseline's. By the ranks of s->comm, which share the films. */
Status quality_json(json_t **j, const Study *s, const Task *t, double threshold);
#endif
