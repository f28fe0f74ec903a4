/* split.h - which patient goes where.
 *
 * Patients, never films, are assigned, over all classes at once. Patients with the same set of
 * classes form a stratum; its patients, in an order keyed by (seed, patient), fill pool, train,
 * val and test in proportion to their numbers of films. So a patient's place depends on the
 * seed and on who else is there, not on the order of files.
 */
#ifndef SPLIT_H
#define SPLIT_H
#include "data/manifest.h"

enum { SPLIT_MAX_LABELS = 32 };

typedef struct {
    const char *patient;
    int label; /* 0 .. SPLIT_MAX_LABELS - 1 */
    Split split;
    bool left_out; /* of its split, for the sake of the ratio */
} SplitFilm;

typedef struct {
    double train, val, pool;
} SplitShares; /* of the films; the rest is test */

void split_by_patient(SplitFilm *film, int n, SplitShares share, uint32_t seed);

/* Makes the imbalance that is to be studied: in train and in val, leaves out patients until each
 * disease (every label but `normal`) has at most, and where it can, one film per `ratio` normal
 * films; patients with more than a tenth of a disease's films are taken last. Of a patient
 * with normal films too, only the diseased ones are left out. Fails with ERR_USAGE where a
 * disease would be left without any film; names: the class table, for the message. */
Status split_imbalance(SplitFilm *film, int n, int normal, double ratio, uint32_t seed,
                       const char *const *names, int n_label);
#endif
