/* quality.c - distances, calls and nearest neighbours of synthetic films; see quality.h. */
#include "study/quality.h"
#include "comm/share.h"
#include "data/duplicates.h"
#include "stats/distance.h"
#include "stats/intervals.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char **path;
    int n;
} Paths; /* in an arena */

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static Paths real_paths(Arena *a, const Manifest *m, Split split, const char *label)
{
    Paths p = {arena_alloc(a, (size_t)(m->n + 1) * sizeof *p.path), 0};
    for (int i = 0; i < m->n; i++) {
        const ManifestRow *r = &m->row[i];
        if (r->split != split || (label && strcmp(r->label_name, label))) continue;
        char *path = manifest_path(m, r);
        p.path[p.n++] = arena_strdup(a, path);
        free(path);
    }
    return p;
}

static Paths synthetic_paths(Arena *a, const SyntheticFilm *film, int n)
{
    Paths p = {arena_alloc(a, (size_t)(n + 1) * sizeof *p.path), n};
    for (int i = 0; i < n; i++) p.path[i] = film[i].path;
    return p;
}

/* ---- distances ------------------------------------------------------------------------ */

static Status distance(json_t **j, const float *x, int n_x, const float *y, int n_y, int d,
                       uint32_t seed)
{
    Kid k = {NAN, NAN, n_x, n_y};
    if (n_x > 1 && n_y > 1) TRY(kid(&k, x, n_x, y, n_y, d, seed));
    *j = json_pack("{s:o, s:o, s:[i, i]}", "value", number(k.value), "std_error",
                   number(k.std_error), "n", n_x, n_y);
    CHECK(*j);
    return OK;
}

static Status distances(json_t **j, const Study *s, const Task *t, Arena *a, Paths synthetic)
{
    const Config *c = s->config;
    Paths set[4] = {real_paths(a, &s->manifest, SPLIT_TEST, t->disease), synthetic,
                    real_paths(a, &s->manifest, SPLIT_TRAIN, t->disease),
                    real_paths(a, &s->manifest, SPLIT_TRAIN, c->data.normal)};
    static const char *const name[4] = {NULL, "synthetic", "real", "normal"};
    bool own = !*c->classifier.weights;
    char *weights =
        own ? stage_path(&t->baseline, "model.safetensors") : strdup(c->classifier.weights);
    float *feature[4] = {0};
    int width = 0;
    json_t *all = json_pack("{s:s}", "features", own ? "baseline" : "classifier.weights");
    Status status = OK;
    CHECK(weights && all);
    for (int i = 0; i < 4 && !status; i++)
        status = classifier_features(c, weights, set[i].path, set[i].n, s->comm, s->device, s->log,
                                     &feature[i], &width);
    for (int i = 1; i < 4 && !status; i++) {
        json_t *one = NULL;
        status = distance(&one, feature[i], set[i].n, feature[0], set[0].n, width,
                          (uint32_t)c->study.seed);
        if (!status) CHECK(!json_object_set_new(all, name[i], one));
    }
    for (int i = 0; i < 4; i++) free(feature[i]);
    free(weights);
    if (status) json_decref(all);
    else *j = all;
    return status;
}

/* ---- the baseline's opinion ----------------------------------------------------------- */

static Status called_diseased(json_t **j, const Study *s, const Task *t, const SyntheticFilm *film,
                              int n, double threshold)
{
    int repeats = s->config->study.repeats, called = 0;
    ClassifierFilm *list = calloc((size_t)n, sizeof *list);
    float *one = malloc((size_t)n * 2 * sizeof *one);
    double *score = calloc((size_t)n, sizeof *score);
    Status status = OK;
    CHECK(list && one && score);
    for (int i = 0; i < n; i++) list[i] = (ClassifierFilm){film[i].path, 1, film_key(film[i].id)};
    for (int r = 0; r < repeats && !status; r++) {
        Text file = {0};
        if (r) text_add(&file, "seed-%d/", r);
        text_add(&file, "model.safetensors");
        char *weights = stage_path(&t->baseline, file.s);
        PredictJob job = {s->config, weights, 2, list, n, s->comm};
        status = classifier_predict(&job, s->device, s->log, one, NULL, NULL);
        for (int i = 0; i < n && !status; i++) score[i] += (double)one[2 * i + 1];
        free(weights);
        free(file.s);
    }
    for (int i = 0; i < n; i++) called += score[i] / repeats >= threshold;
    free(list);
    free(one);
    free(score);
    TRY(status);
    Interval ci = clopper_pearson(called, n);
    *j = json_pack("{s:f, s:i, s:i, s:o, s:[f, f]}", "value", (double)called / n, "called", called,
                   "n", n, "threshold", number(threshold), "ci_clopper_pearson", ci.lo, ci.hi);
    CHECK(*j);
    return OK;
}

/* ---- nearest neighbours --------------------------------------------------------------- */

static Status prints(Fingerprint **print, Paths p, Comm *comm)
{
    Fingerprint *list = malloc((size_t)(p.n + 1) * sizeof *list);
    Status status = OK;
    CHECK(list);
    for (int i = comm_rank(comm); i < p.n && !status; i += comm_size(comm)) {
        Image im = {0};
        status = image_read(&im, p.path[i]);
        if (!status) status = fingerprint_make(&list[i], &im);
        image_free(&im);
    }
    status = share_gather(comm, "prints of films", status, list, sizeof *list, p.n);
    if (status) free(list);
    else *print = list;
    return status;
}

static double highest(const Fingerprint *f, const Fingerprint *among, int n)
{
    double best = -1;
    for (int i = 0; i < n; i++) {
        double r = fingerprint_correlation(f, &among[i]);
        if (r > best) best = r;
    }
    return best;
}

/* value[n]: the highest correlation of each of the n films with any of those. */
static Status highest_of_all(double *value, const Fingerprint *film, int n,
                             const Fingerprint *among, int n_among, Comm *comm)
{
    for (int i = comm_rank(comm); i < n; i += comm_size(comm))
        value[i] = highest(&film[i], among, n_among);
    return share_gather(comm, "nearest films", OK, value, sizeof *value, n);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts value. */
static json_t *summary(double *value, int n)
{
    qsort(value, (size_t)n, sizeof *value, by_value);
    double median = n ? (value[(n - 1) / 2] + value[n / 2]) / 2 : NAN;
    json_t *j = json_pack("{s:i, s:o, s:o}", "n", n, "median", number(median), "max",
                          number(n ? value[n - 1] : NAN));
    CHECK(j);
    return j;
}

static Status nearest(json_t **j, const Study *s, const Task *t, Arena *a,
                      const SyntheticFilm *film, Paths made)
{
    const Manifest *m = &s->manifest;
    Paths train = real_paths(a, m, SPLIT_TRAIN, NULL),
          test = real_paths(a, m, SPLIT_TEST, t->disease);
    Fingerprint *of_made = NULL, *of_train = NULL, *of_test = NULL;
    double *to_source = malloc((size_t)(made.n + 1) * sizeof *to_source);
    double *to_any = malloc((size_t)(made.n + 1) * sizeof *to_any);
    double *usual = malloc((size_t)(test.n + 1) * sizeof *usual);
    int n_source = 0;
    Status status;
    CHECK(to_source && to_any && usual);
    TRY_OR(done, status, prints(&of_made, made, s->comm));
    TRY_OR(done, status, prints(&of_train, train, s->comm));
    TRY_OR(done, status, prints(&of_test, test, s->comm));
    for (int i = 0; i < made.n; i++)
        for (int k = 0, row = 0; row < m->n; row++) { /* row k of the training films */
            if (m->row[row].split != SPLIT_TRAIN) continue;
            if (!strcmp(m->row[row].id, film[i].source_id))
                to_source[n_source++] = fingerprint_correlation(&of_made[i], &of_train[k]);
            k++;
        }
    TRY_OR(done, status, highest_of_all(to_any, of_made, made.n, of_train, train.n, s->comm));
    TRY_OR(done, status, highest_of_all(usual, of_test, test.n, of_train, train.n, s->comm));
    *j = json_pack("{s:o, s:o, s:o}", "with_source", summary(to_source, n_source), "with_training",
                   summary(to_any, made.n), "real_test_with_training", summary(usual, test.n));
    CHECK(*j);
done:
    free(of_made);
    free(of_train);
    free(of_test);
    free(to_source);
    free(to_any);
    free(usual);
    return status;
}

/* ---- all ------------------------------------------------------------------------------ */

Status quality_json(json_t **j, const Study *s, const Task *t, double threshold)
{
    Arena a = {0};
    SyntheticFilm *film = NULL;
    json_t *kid_part = NULL, *called = NULL, *near = NULL;
    int n = 0;
    Status status;
    log_info(s->log, "measuring the synthetic films of %s", t->disease);
    TRY_OR(done, status, task_synthetic(&film, &n, &a, t));
    Paths made = synthetic_paths(&a, film, n);
    TRY_OR(done, status, distances(&kid_part, s, t, &a, made));
    TRY_OR(done, status, called_diseased(&called, s, t, film, n, threshold));
    TRY_OR(done, status, nearest(&near, s, t, &a, film, made));
    const char *folder = arena_printf(&a, "synthetic%s", strrchr(t->synthetic, '/'));
    *j = json_pack("{s:s, s:i, s:i, s:i, s:O, s:O, s:O}", "folder", folder, "count", n, "train",
                   t->n_train, "val", t->n_val, "kid", kid_part, "called_diseased", called,
                   "nearest", near);
    CHECK(*j);
done:
    json_decref(kid_part);
    json_decref(called);
    json_decref(near);
    arena_free(&a);
    return status;
}
