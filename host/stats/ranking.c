/* ranking.c - one sort, then single passes over groups of equal score. */
#include "stats/ranking.h"
#include <math.h>
#include <stdlib.h>

static int compare_scores(const void *a, const void *b, void *score)
{
    int i = ((const RankedFilm *)a)->film, j = ((const RankedFilm *)b)->film;
    double x = ((const double *)score)[i], y = ((const double *)score)[j];
    return x != y ? (x < y) - (x > y) : (i > j) - (i < j);
}

void ranking_new(Ranking *r, const Predictions *p)
{
    *r = (Ranking){.n = p->n, .score = p->score};
    r->film = malloc((size_t)p->n * sizeof *r->film);
    CHECK(r->film);
    for (int i = 0; i < p->n; i++)
        r->film[i] = (RankedFilm){.film = i, .patient = p->patient[i], .label = p->label[i]};
    qsort_r(r->film, (size_t)p->n, sizeof *r->film, compare_scores, p->score);
    for (int i = 0; i < p->n; i++)
        r->film[i].last =
            i + 1 == p->n || p->score[r->film[i].film] != p->score[r->film[i + 1].film];
}

void ranking_free(Ranking *r)
{
    free(r->film);
    *r = (Ranking){0};
}

void ranking_areas(double *auroc, double *auprc, const Ranking *r, const int *times)
{
    int64_t count[2] = {0}, before = 0, normals_before = 0; /* count: [label], so far */
    int64_t twice_pairs = 0;
    double precision_sum = 0;
    for (int i = 0; i < r->n; i++) {
        const RankedFilm *f = &r->film[i];
        count[f->label] += times ? times[f->patient] : 1;
        if (!f->last) continue;
        int64_t gain = count[1] - before;
        twice_pairs += (count[0] - normals_before) * (2 * before + gain);
        if (gain) precision_sum += (double)gain * (double)count[1] / (double)(count[0] + count[1]);
        before = count[1];
        normals_before = count[0];
    }
    bool both = count[0] && count[1];
    *auroc = both ? (double)twice_pairs / (2.0 * (double)count[0] * (double)count[1]) : NAN;
    *auprc = both ? precision_sum / (double)count[1] : NAN;
}

void ranking_placements(double *twice, const Ranking *r)
{
    int64_t normals = 0, above[2] = {0}; /* films of each label with a higher score */
    for (int i = 0; i < r->n; i++) normals += !r->film[i].label;
    for (int begin = 0, end; begin < r->n; begin = end) {
        int64_t here[2] = {0};
        for (end = begin; end == begin || !r->film[end - 1].last; end++) here[r->film[end].label]++;
        int64_t normals_below = normals - above[0] - here[0];
        for (int i = begin; i < end; i++)
            twice[r->film[i].film] =
                (double)(r->film[i].label ? 2 * normals_below + here[0] : 2 * above[1] + here[1]);
        above[0] += here[0];
        above[1] += here[1];
    }
}

static void count_labels(int64_t total[2], const Ranking *r)
{
    total[0] = total[1] = 0;
    for (int i = 0; i < r->n; i++) total[r->film[i].label]++;
}

RocPoint *roc_points(int *n, const Ranking *r)
{
    int64_t total[2], count[2] = {0};
    count_labels(total, r);
    *n = 0;
    if (!total[0] || !total[1]) return NULL;
    RocPoint *point = malloc((size_t)(r->n + 1) * sizeof *point);
    CHECK(point);
    point[(*n)++] = (RocPoint){.threshold = INFINITY};
    for (int i = 0; i < r->n; i++) {
        count[r->film[i].label]++;
        if (!r->film[i].last) continue;
        point[(*n)++] = (RocPoint){.threshold = r->score[r->film[i].film],
                                   .fpr = (double)count[0] / (double)total[0],
                                   .tpr = (double)count[1] / (double)total[1]};
    }
    return point;
}

/* Between the score of rank i, which is to stay above, and the next lower one. */
static double between(const Ranking *r, int i)
{
    if (i + 1 == r->n) return 0;
    double high = r->score[r->film[i].film], low = r->score[r->film[i + 1].film];
    double middle = low + (high - low) / 2;
    return middle > low ? middle : high;
}

double threshold_of_youden(const Ranking *r)
{
    int64_t total[2], count[2] = {0}, best = 0;
    double threshold = 0;
    count_labels(total, r);
    if (!total[0] || !total[1]) return NAN;
    for (int i = 0; i < r->n; i++) {
        count[r->film[i].label]++;
        if (!r->film[i].last) continue;
        int64_t youden = count[1] * total[0] - count[0] * total[1]; /* times both totals: exact */
        if (youden >= best) {
            best = youden;
            threshold = between(r, i);
        }
    }
    return threshold;
}
