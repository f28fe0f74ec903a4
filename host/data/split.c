/* split.c - patients to splits, and the imbalance of the study. */
#include "data/split.h"
#include "base/random.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_SHARES, STEP_IMBALANCE }; /* of STREAM_SPLIT */

typedef struct {
    const char *name;
    uint32_t classes; /* bit set of labels */
    uint32_t order;   /* keyed by seed and name */
    int first, n;     /* its films: by_patient[first .. first + n - 1] */
} Patient;

typedef struct {
    SplitFilm **film; /* owned: [n] sorted by patient */
    Patient *patient; /* owned: [n_patient] */
    int n_patient;
} Patients;

static int by_patient(const void *a, const void *b)
{
    const SplitFilm *x = *(SplitFilm *const *)a, *y = *(SplitFilm *const *)b;
    int order = strcmp(x->patient, y->patient);
    return order ? order : (x > y) - (x < y);
}

static int by_stratum(const void *a, const void *b)
{
    const Patient *x = a, *y = b;
    if (x->classes != y->classes) return x->classes < y->classes ? -1 : 1;
    if (x->order != y->order) return x->order < y->order ? -1 : 1;
    return strcmp(x->name, y->name);
}

static uint64_t name_hash(const char *s) /* FNV-1a */
{
    uint64_t h = 14695981039346656037u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

static Patients patients_of(SplitFilm *film, int n, uint32_t seed, uint32_t step)
{
    Patients p = {malloc((size_t)(n + 1) * sizeof *p.film),
                  malloc((size_t)(n + 1) * sizeof *p.patient), 0};
    CHECK(p.film && p.patient);
    for (int i = 0; i < n; i++) p.film[i] = &film[i];
    qsort(p.film, (size_t)n, sizeof *p.film, by_patient);
    for (int i = 0; i < n; i++) {
        SplitFilm *f = p.film[i];
        CHECK(f->label >= 0 && f->label < SPLIT_MAX_LABELS);
        if (!i || strcmp(f->patient, p.film[i - 1]->patient)) {
            RandomKey k = {seed, STREAM_SPLIT, step, name_hash(f->patient)};
            p.patient[p.n_patient++] = (Patient){f->patient, 0, random_bits(k, 0), i, 0};
        }
        Patient *last = &p.patient[p.n_patient - 1];
        last->classes |= 1u << f->label;
        last->n++;
    }
    qsort(p.patient, (size_t)p.n_patient, sizeof *p.patient, by_stratum);
    return p;
}

static void patients_free(Patients *p)
{
    free(p->film);
    free(p->patient);
}

void split_by_patient(SplitFilm *film, int n, SplitShares share, uint32_t seed)
{
    CHECK(share.train >= 0 && share.val >= 0 && share.pool >= 0);
    Patients p = patients_of(film, n, seed, STEP_SHARES);
    for (int from = 0, to; from < p.n_patient; from = to) {
        double total = 0, before = 0;
        for (to = from; to < p.n_patient && p.patient[to].classes == p.patient[from].classes; to++)
            total += p.patient[to].n;
        for (int i = from; i < to; i++) {
            const Patient *q = &p.patient[i];
            double at = (before + q->n / 2.0) / total; /* where the middle of its films lies */
            Split s = at < share.pool                             ? SPLIT_POOL
                      : at < share.pool + share.train             ? SPLIT_TRAIN
                      : at < share.pool + share.train + share.val ? SPLIT_VAL
                                                                  : SPLIT_TEST;
            for (int j = 0; j < q->n; j++) p.film[q->first + j]->split = s;
            before += q->n;
        }
    }
    patients_free(&p);
}

/* ---- imbalance ------------------------------------------------------------------------ */

static int by_order(const void *a, const void *b)
{
    const Patient *x = a, *y = b;
    if (x->order != y->order) return x->order < y->order ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void count_diseased(int count[SPLIT_MAX_LABELS], const Patients *p, const Patient *q,
                           int normal)
{
    memset(count, 0, SPLIT_MAX_LABELS * sizeof *count);
    for (int i = q->first; i < q->first + q->n; i++)
        if (p->film[i]->label != normal) count[p->film[i]->label]++;
}

/* Keeps patients in order as long as no disease gets more films than the limit. The first pass
 * passes over patients with more than a tenth of that, lest two patients fill a small split. */
static void thin_out(Patients *p, Split split, int normal, int limit, int kept[SPLIT_MAX_LABELS])
{
    int tenth = limit / 10 > 1 ? limit / 10 : 1;
    bool *in = calloc((size_t)p->n_patient + 1, 1);
    CHECK(in);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < p->n_patient; i++) {
            const Patient *q = &p->patient[i];
            int count[SPLIT_MAX_LABELS];
            bool fits = p->film[q->first]->split == split && !in[i];
            count_diseased(count, p, q, normal);
            for (int c = 0; c < SPLIT_MAX_LABELS; c++)
                fits &= !count[c] || (kept[c] + count[c] <= limit && (pass || count[c] <= tenth));
            for (int c = 0; fits && c < SPLIT_MAX_LABELS; c++) kept[c] += count[c];
            in[i] |= fits;
        }
    for (int i = 0; i < p->n_patient; i++)
        for (int j = p->patient[i].first; j < p->patient[i].first + p->patient[i].n; j++)
            if (p->film[j]->split == split && p->film[j]->label != normal)
                p->film[j]->left_out = !in[i];
    free(in);
}

Status split_imbalance(SplitFilm *film, int n, int normal, double ratio, uint32_t seed,
                       const char *const *names, int n_label)
{
    Status s = OK;
    CHECK(ratio > 0);
    Patients p = patients_of(film, n, seed, STEP_IMBALANCE);
    qsort(p.patient, (size_t)p.n_patient, sizeof *p.patient, by_order);
    for (int i = 0; i < n; i++) film[i].left_out = false;
    for (Split split = SPLIT_TRAIN; split <= SPLIT_VAL && !s; split++) {
        int kept[SPLIT_MAX_LABELS] = {0}, there[SPLIT_MAX_LABELS] = {0};
        for (int i = 0; i < n; i++)
            if (film[i].split == split) there[film[i].label]++;
        int normals = there[normal];
        thin_out(&p, split, normal, (int)lrint(normals / ratio), kept);
        for (int c = 0; c < n_label && !s; c++)
            if (c != normal && there[c] && !kept[c])
                s = FAIL(ERR_USAGE,
                         "train ratio %g: leaves no film of class \"%s\" beside %d normal films "
                         "in %s, expected a lower ratio",
                         ratio, names[c], normals, split_name(split));
    }
    patients_free(&p);
    return s;
}
