/* prepare.h - from a source of films to a data set that a study can trust.
 *
 * Lists and checks every file, drops exact duplicates (patients who share a film count as one),
 * drops identical films with contradicting classes, splits by patient, drops near duplicates
 * that would stand in two splits (the one in pool, train, val goes, in this order), makes the
 * imbalance asked for, and writes
 *
 *   OUT/images/<id>.png       size x size, 8-bit grey, the whole film, no metadata
 *   OUT/manifest.csv          see manifest.h
 *   OUT/left_out.csv          path, label, patient, reason
 *   OUT/near_duplicates.csv   path_a, path_b, bits, correlation (also where both are kept)
 *
 * OUT appears only when it is complete: it is made as OUT.partial (one left by a killed run is
 * removed) and renamed. The result depends on the films, the options and the seed only.
 */
#ifndef PREPARE_H
#define PREPARE_H
#include "data/films.h"

typedef struct {
    FilmsSource source;
    const char *out;    /* a new or empty folder                                       */
    const char *normal; /* the class without disease; used with train_ratio            */
    int size;           /* pixels                                                      */
    SplitShares share;  /* unused where the source's splits are kept                   */
    bool shares_given;  /* by the user: refused where they are                         */
    double train_ratio; /* normal films per diseased one in train and val; 0: all kept */
    uint32_t seed;
} PrepareOptions;

Status prepare_run(const PrepareOptions *o, Log *log);

/* Its middle step, for checked films: gives each film a split or a reason to be left out, and
 * those that stay an id. *pair: heap, all near duplicates. */
Status prepare_choose(Films *f, NearPair **pair, int *n_pair, const PrepareOptions *o, Log *log);
#endif
