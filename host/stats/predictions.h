/* predictions.h - what a classifier said about films: the table that every statistic starts from.
 *
 * File: CSV with the columns id, patient, label, score (others are ignored); id names a film and
 * stands once; label is 1 for diseased, 0 for normal; score is in [0, 1]. Errors name file and
 * line. Films are held in the order of their ids whatever the order of the rows, so two files on
 * the same films line up and no result depends on the order of a file, not even in its last bit.
 * Patients are the clusters of all resampling, numbered in the order of their names.
 */
#ifndef PREDICTIONS_H
#define PREDICTIONS_H
#include "base/arena.h"
#include "base/status.h"
#include <stdint.h>

typedef struct {
    int n, n_positives, n_patients;
    const char **id;           /* [n] */
    const char **patient_name; /* [n] of the film's patient */
    int *patient;              /* [n] 0 .. n_patients - 1 */
    uint8_t *label;            /* [n] 0 or 1 */
    double *score;             /* [n] in [0, 1] */
    int *line;                 /* [n] in the file */
    const char *path;          /* for messages */
    Arena arena;               /* owns all of the above */
} Predictions;                 /* starts as {0} */

/* From arrays of n films, copied. path names the source in messages; film i is on line i + 2. */
Status predictions_new(Predictions *p, const char *path, int n, const char *const *id,
                       const char *const *patient, const uint8_t *label, const double *score);
void predictions_free(Predictions *p);

Status predictions_read(Predictions *p, const char *path);
Status predictions_write(const Predictions *p, const char *path); /* scores keep every bit */

/* Fails, naming the id, unless q holds the films of p with the same patients and labels. */
Status predictions_match(const Predictions *q, const Predictions *p);

/* Each film with the mean of its n scores, one file per training seed; the files must match. */
Status predictions_average(Predictions *mean, const Predictions *in, int n);
#endif
