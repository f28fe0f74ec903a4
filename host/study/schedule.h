/* schedule.h - which ranks run which stage, and in what order: planned before the start, the same on
 * every rank.
 *
 * A stage gets ranks next to each other, the first of them a multiple of their number, so that a group
 * stays within one machine where it can. Stages of one kind get equally many. A rank runs its stages in
 * the order of their places, each once those that it needs are complete; as a stage's place lies behind
 * the places of what it needs, nobody waits for ever.
 *
 * The plan is the shortest that a search finds, of plans that start every stage as early as its ranks
 * and what it needs are free; a stage on n ranks takes work / n * (1 + log2(n) / 20). On one rank the
 * stages run in the order that they are given in.
 */
#ifndef SCHEDULE_H
#define SCHEDULE_H
#include <stdbool.h>

enum { MOST_STAGES = 16 };

typedef struct {
    double work;    /* on one rank, in any unit; 0: nothing to speak of */
    unsigned needs; /* bit i: stage i, which must be given before this one */
    int kind;       /* 0 .. MOST_STAGES - 1 */
    int micro;      /* the number of its ranks must divide this; 0: any number is fine */
} Job;

typedef struct {
    int first, n;      /* ranks first .. first + n - 1 */
    int place;         /* of n stages: 0 .. n - 1, by start */
    double start, end; /* in the unit of work */
} Slot;

/* Returns when the last stage ends. */
double schedule_make(Slot *slot, const Job *job, int n, int ranks);

static inline bool slot_has(const Slot *s, int rank)
{
    return rank >= s->first && rank < s->first + s->n;
}
#endif
