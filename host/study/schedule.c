/* schedule.c - list scheduling of a dozen stages under a search over the sizes of their groups. */
#include "study/schedule.h"
#include "base/status.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SIZES = 64 };
static const double NOTHING = 1e-9; /* gains below this share of a plan are rounding */

typedef struct {
    const Job *job;
    int n, ranks;
    int size[MOST_STAGES];               /* ranks of a kind */
    int choice[MOST_STAGES][MOST_SIZES]; /* sizes that a kind may have, ascending */
    int n_choice[MOST_STAGES];
    double rest[MOST_STAGES]; /* work from the stage's start to the end of all, on one rank each */
    bool by_rest;    /* of stages that could start at once the one with most rest goes first */
    double *free_at; /* owned: [ranks] */
} Search;

static double duration(const Search *s, int i)
{
    int n = s->size[s->job[i].kind];
    return s->job[i].work / n * (1 + log2(n) / 20);
}

/* The earliest start of stage i, and the first of the ranks that allow it. */
static double earliest(const Search *s, const Slot *slot, int i, int *first)
{
    int n = s->size[s->job[i].kind];
    double ready = 0, best = INFINITY;
    for (int k = 0; k < s->n; k++)
        if (s->job[i].needs >> k & 1 && slot[k].end > ready) ready = slot[k].end;
    for (int at = 0; at + n <= s->ranks; at += n) {
        double start = ready;
        for (int r = at; r < at + n; r++)
            if (s->free_at[r] > start) start = s->free_at[r];
        if (start < best) best = start, *first = at;
    }
    return best;
}

/* Places every stage; when the last one ends. */
static double list_stages(const Search *s, Slot *slot)
{
    unsigned placed = 0;
    double end = 0;
    memset(s->free_at, 0, (size_t)s->ranks * sizeof *s->free_at);
    for (int place = 0; place < s->n; place++) {
        Slot next = {.start = INFINITY};
        int chosen = -1;
        for (int i = 0; i < s->n; i++) {
            int first = 0;
            if (placed >> i & 1 || s->job[i].needs & ~placed) continue;
            double start = earliest(s, slot, i, &first);
            bool sooner = start < next.start,
                 matters = start == next.start && s->by_rest && s->rest[i] > s->rest[chosen];
            if (!sooner && !matters) continue;
            chosen = i;
            next = (Slot){first, s->size[s->job[i].kind], place, start, start + duration(s, i)};
        }
        CHECK(chosen >= 0);
        slot[chosen] = next;
        placed |= 1u << chosen;
        for (int r = next.first; r < next.first + next.n; r++) s->free_at[r] = next.end;
        if (next.end > end) end = next.end;
    }
    return end;
}

/* Any number: powers of two, their halves more, and all. */
static void list_choices(Search *s, const Job *j)
{
    int *n = &s->n_choice[j->kind];
    *n = 0;
    for (int k = 1; k <= s->ranks && *n < MOST_SIZES; k++) {
        bool fits = j->micro
                        ? j->micro % k == 0
                        : k == s->ranks || !(k & (k - 1)) || (k % 3 == 0 && !(k / 3 & (k / 3 - 1)));
        if (fits) s->choice[j->kind][(*n)++] = k;
    }
}

/* Changes the size of one kind at a time as long as that makes the plan shorter. */
static double improve(Search *s, Slot *slot)
{
    double best = list_stages(s, slot);
    for (bool better = true; better;) {
        int kind_of_best = -1, size_of_best = 0;
        double most = best * (1 - NOTHING);
        for (int kind = 0; kind < MOST_STAGES; kind++) {
            int was = s->size[kind];
            for (int c = 0; c < s->n_choice[kind]; c++) {
                s->size[kind] = s->choice[kind][c];
                double end = list_stages(s, slot);
                if (end < most) most = end, kind_of_best = kind, size_of_best = s->size[kind];
            }
            s->size[kind] = was;
        }
        better = kind_of_best >= 0;
        if (better) s->size[kind_of_best] = size_of_best;
        if (better) best = most;
    }
    return list_stages(s, slot);
}

/* Every kind as large as it may be within a share of the ranks. */
static void set_sizes(Search *s, int most)
{
    for (int kind = 0; kind < MOST_STAGES; kind++)
        for (int c = 0; c < s->n_choice[kind]; c++)
            if (c == 0 || s->choice[kind][c] <= most) s->size[kind] = s->choice[kind][c];
}

double schedule_make(Slot *slot, const Job *job, int n, int ranks)
{
    Search s = {.job = job, .n = n, .ranks = ranks};
    double best = INFINITY;
    CHECK(n <= MOST_STAGES && ranks >= 1);
    s.free_at = calloc((size_t)ranks, sizeof *s.free_at);
    CHECK(s.free_at);
    for (int i = n - 1; i >= 0; i--) {
        CHECK(job[i].kind >= 0 && job[i].kind < MOST_STAGES && !(job[i].needs >> i));
        list_choices(&s, &job[i]);
        for (int k = i + 1; k < n; k++)
            if (job[k].needs >> i & 1 && s.rest[k] > s.rest[i]) s.rest[i] = s.rest[k];
        s.rest[i] += job[i].work;
    }
    for (int most = 1; most <= 2 * ranks; most *= 2)
        for (int by_rest = 0; by_rest < 2; by_rest++) {
            Slot found[MOST_STAGES];
            s.by_rest = by_rest;
            set_sizes(&s, most < ranks ? most : ranks);
            double end = improve(&s, found);
            if (end >= best * (1 - NOTHING) && best < INFINITY) continue;
            best = end;
            memcpy(slot, found, (size_t)n * sizeof *slot);
        }
    free(s.free_at);
    return best;
}
