/* ranking.h - films in the order of their scores, and what depends on that order alone.
 *
 * Films may count several times or not at all (bootstrap): `times` holds how often each patient
 * counts, NULL means once. Everything is exact for counts below 2^31 films: areas are summed in
 * integers.
 */
#ifndef RANKING_H
#define RANKING_H
#include "stats/predictions.h"

typedef struct {
    int film, patient;
    uint8_t label;
    bool last; /* of the films with this score */
} RankedFilm;

typedef struct {
    int n;
    RankedFilm *film;    /* owned: [n], highest score first */
    const double *score; /* [n] by film, not by rank */
} Ranking;               /* starts as {0} */

void ranking_new(Ranking *r, const Predictions *p); /* borrows p's scores */
void ranking_free(Ranking *r);

/* AUROC: share of (diseased, normal) pairs in the right order, ties count half. AUPRC: average
 * precision, the sum over distinct scores of (gain in recall) x precision, no interpolation
 * (scikit-learn's). Both NaN where a class is missing. */
void ranking_areas(double *auroc, double *auprc, const Ranking *r, const int *times);

/* Placement of every film (DeLong): for a diseased film the share of normal films that score lower,
 * for a normal film the share of diseased films that score higher, ties half; by film. Given as
 * twice the count, exact; divide by 2 n_normal, or 2 n_diseased. */
void ranking_placements(double *twice, const Ranking *r);

typedef struct {
    double threshold, fpr, tpr;
} RocPoint;

/* One point per distinct score, from (0, 0), whose threshold is infinite, to (1, 1). Heap, for the
 * caller to free; NULL with *n = 0 where a class is missing. */
RocPoint *roc_points(int *n, const Ranking *r);

/* The threshold of the largest Youden index, halfway between neighbouring scores so that new films
 * near it fall on their nearer side. Of equal maxima the lowest threshold, which misses fewest
 * diseased films. 0 (all films called diseased) where no threshold is better than chance; NaN where
 * a class is missing. */
double threshold_of_youden(const Ranking *r);
#endif
