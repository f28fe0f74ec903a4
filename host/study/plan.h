/* plan.h - a study before it runs: which ranks do what, when, with how much memory; estimated.
 *
 * Ranks and order follow from settings and numbers of films alone, so a plan is the same wherever it is
 * made. Its times are the counted FLOPs over the speed of a rank, as if all ops ran at that speed and
 * everything else took nothing: a lower bound rather than a promise.
 */
#ifndef STUDY_PLAN_H
#define STUDY_PLAN_H
#include "study/estimate.h"
#include <stdio.h>

typedef struct {
    int ranks;
    Estimate estimate[N_STEP];
    Slot slot[N_STEP];
    bool done[N_STEP];  /* complete already */
    double end;         /* of the last stage, in FLOPs of a rank */
    double flops_per_s; /* of a rank */
    bool measured;      /* that speed, on this machine; else it was given */
    double link;        /* bytes a second that a rank sends to others; 0: not given */
    bool sharded;       /* parallel.zero */
} StudyPlan;

/* All but the speed. done: [N_STEP] complete steps, which cost nothing; NULL: none. */
Status study_plan_make(StudyPlan *p, const Config *c, const FilmCounts *n, Dtype act, int ranks,
                 const bool *done);
/* A table for people, with what does not fit a line of a log. */
void study_plan_print(FILE *to, const StudyPlan *p, const Config *c);
void study_plan_log(const StudyPlan *p, const Config *c, Log *log);
#endif
