/* arm.c - the classifier stages of a task: films, training per seed, predictions. */
#include "stats/predictions.h"
#include "study/task.h"
#include <stdlib.h>
#include <string.h>

/* A set of films with what predictions name them by. */
typedef struct {
    ClassifierFilm *film;
    const char **id, **patient;
    int n;
} FilmSet;

typedef struct {
    FilmSet train, val, test;
} ArmFilms;

static Status real_films(FilmSet *set, Arena *a, const Task *t, const Study *s, Split split,
                         int room)
{
    ClassifierFilm *film;
    const ManifestRow **row;
    int n;
    TRY(fold_task(&film, &row, &n, a, &s->manifest, split, s->config->data.normal, t->disease));
    set->film = arena_alloc(a, (size_t)(n + room) * sizeof *set->film);
    set->id = arena_alloc(a, (size_t)(n + room) * sizeof *set->id);
    set->patient = arena_alloc(a, (size_t)(n + room) * sizeof *set->patient);
    set->n = n;
    memcpy(set->film, film, (size_t)n * sizeof *film);
    for (int i = 0; i < n; i++) {
        set->id[i] = row[i]->id;
        set->patient[i] = row[i]->patient;
    }
    return OK;
}

/* A synthetic film shows no patient; each stands for itself. */
static void add_synthetic(FilmSet *set, const SyntheticFilm *f)
{
    set->film[set->n] = (ClassifierFilm){f->path, 1, film_key(f->id)};
    set->id[set->n] = set->patient[set->n] = f->id;
    set->n++;
}

static Status arm_films(ArmFilms *f, Arena *a, const Task *t, const Study *s, bool augmented)
{
    int room = augmented ? t->n_train + t->n_val : 0, n = 0;
    SyntheticFilm *synthetic = NULL;
    TRY(real_films(&f->train, a, t, s, SPLIT_TRAIN, room));
    TRY(real_films(&f->val, a, t, s, SPLIT_VAL, room));
    TRY(real_films(&f->test, a, t, s, SPLIT_TEST, 0));
    if (augmented) TRY(task_synthetic(&synthetic, &n, a, t));
    for (int i = 0; i < n; i++)
        add_synthetic(synthetic[i].sample < (uint64_t)t->n_train ? &f->train : &f->val,
                      &synthetic[i]);
    return OK;
}

/* ---- predictions ---------------------------------------------------------------------- */

static Status predict(Predictions *p, const FilmSet *set, const char *weights, const char *file,
                      const Study *s)
{
    float *probability = malloc((size_t)set->n * 2 * sizeof *probability);
    uint8_t *label = malloc((size_t)set->n);
    double *score = malloc((size_t)set->n * sizeof *score);
    PredictJob job = {s->config, weights, 2, set->film, set->n, s->comm};
    Status status;
    CHECK(probability && label && score);
    TRY_OR(done, status, classifier_predict(&job, s->device, s->log, probability, NULL, NULL));
    for (int i = 0; i < set->n; i++) {
        label[i] = (uint8_t)set->film[i].label;
        score[i] = probability[2 * i + 1];
    }
    TRY_OR(done, status, predictions_new(p, file, set->n, set->id, set->patient, label, score));
done:
    free(probability);
    free(label);
    free(score);
    return status;
}

/* folder/predictions_val.csv; folder "" is the stage's own */
static char *prediction_file(const Stage *stage, int seed, const char *which)
{
    Text t = {0};
    if (seed >= 0) text_add(&t, "%s/seed-%d/predictions_%s.csv", stage->folder, seed, which);
    else text_add(&t, "%s/predictions_%s.csv", stage->folder, which);
    return t.s;
}

/* All ranks have the scores; the first writes them. */
static Status write_first(const Predictions *p, const char *file, const Study *s)
{
    Status status = comm_rank(s->comm) ? OK : predictions_write(p, file);
    return comm_agree(s->comm, "predictions", status);
}

static Status predict_set(const Stage *stage, const FilmSet *set, const char *which,
                          char *const *weights, int repeats, const Study *s)
{
    Predictions *one = calloc((size_t)repeats, sizeof *one), mean = {0};
    char *file = prediction_file(stage, -1, which);
    Status status = OK;
    CHECK(one);
    for (int r = 0; r < repeats && !status; r++) {
        char *own = prediction_file(stage, r, which);
        status = predict(&one[r], set, weights[r], own, s);
        if (!status && repeats > 1) status = write_first(&one[r], own, s);
        free(own);
    }
    TRY_OR(done, status, status);
    if (repeats > 1) TRY_OR(done, status, predictions_average(&mean, one, repeats));
    TRY_OR(done, status, write_first(repeats > 1 ? &mean : one, file, s));
done:
    for (int r = 0; r < repeats; r++) predictions_free(&one[r]);
    predictions_free(&mean);
    free(one);
    free(file);
    return status;
}

/* ---- the stage ------------------------------------------------------------------------ */

static char *seed_folder(const Stage *stage, int r)
{
    Text t = {0};
    if (r) text_add(&t, "%s/seed-%d", stage->folder, r);
    else text_add(&t, "%s", stage->folder);
    return t.s;
}

static Status train_seed(const Stage *stage, const ArmFilms *f, const char *name, int r,
                         const Study *s)
{
    char identity[HASH_TEXT], *out = seed_folder(stage, r);
    Text title = {0};
    text_add(&title, "%s", name);
    if (s->config->study.repeats > 1) text_add(&title, ", seed %d", r);
    stage_identity(stage, identity);
    ClassifierJob job = {
        .config = s->config,
        .seed = (uint32_t)s->config->study.seed + (uint32_t)r,
        .out = out,
        .name = title.s,
        .train = f->train.film,
        .val = f->val.film,
        .n_train = f->train.n,
        .n_val = f->val.n,
        .classes = 2,
        .identity = identity,
        .comm = s->comm,
    };
    Status status = classifier_train(&job, s->device, s->log);
    free(out);
    free(title.s);
    return status;
}

static Status finish(Stage *stage, int repeats)
{
    enum { PER_SEED = 4, MOST = 100 };
    char *name[PER_SEED * MOST + PER_SEED] = {0};
    static const char *const trained[] = {"model.safetensors", "history.json"};
    static const char *const predicted[] = {"predictions_val.csv", "predictions_test.csv"};
    int n = 0;
    CHECK(repeats <= MOST);
    for (int r = 0; r < repeats; r++)
        for (int i = 0; i < 2; i++) {
            Text a = {0}, b = {0};
            if (r) text_add(&a, "seed-%d/", r);
            text_add(&a, "%s", trained[i]);
            name[n++] = a.s;
            if (repeats == 1) continue;
            text_add(&b, "seed-%d/%s", r, predicted[i]);
            name[n++] = b.s;
        }
    for (int i = 0; i < 2; i++) {
        name[n] = strdup(predicted[i]);
        CHECK(name[n++]);
    }
    Status status = stage_end(stage, (const char *const *)name, n);
    for (int i = 0; i < n; i++) free(name[i]);
    return status;
}

static Status run_arm(Stage *stage, const ArmFilms *f, const char *name, const Study *s)
{
    int repeats = s->config->study.repeats;
    char **weights = calloc((size_t)repeats, sizeof *weights);
    Status status = OK;
    CHECK(weights);
    log_info(s->log, "%s: %d films to train on, %d to validate", name, f->train.n, f->val.n);
    for (int r = 0; r < repeats && !status; r++) {
        char *folder = seed_folder(stage, r);
        weights[r] = path_join(folder, "model.safetensors");
        free(folder);
        status = train_seed(stage, f, name, r, s);
    }
    if (!status) status = predict_set(stage, &f->val, "val", weights, repeats, s);
    if (!status) status = predict_set(stage, &f->test, "test", weights, repeats, s);
    if (!status) status = finish(stage, repeats);
    for (int r = 0; r < repeats; r++) free(weights[r]);
    free(weights);
    return status;
}

static Status arm(Stage *stage, const Task *t, const Study *s, bool augmented)
{
    const Config *c = s->config;
    Arena a = {0};
    ArmFilms films = {0};
    stage_upstream(stage, &s->prepare, NULL);
    if (augmented) stage_upstream(stage, &t->synth, NULL);
    stage_setting(stage, c,
                  "study.seed study.repeats data.size data.normal classifier augment "
                  "parallel.reduction parallel.sync_batchnorm");
    stage_text(stage, "class", t->disease);
    if (augmented)
        stage_text(stage, "synthetic films", arena_printf(&a, "%d + %d", t->n_train, t->n_val));
    Status status = stage_input(stage, "first weights", c->classifier.weights);
    if (!status) status = stage_begin(stage);
    if (!status && !stage->done) {
        const char *name =
            arena_printf(&a, "%s %s", augmented ? "augmented" : "baseline", t->disease);
        status = arm_films(&films, &a, t, s, augmented);
        if (!status) status = run_arm(stage, &films, name, s);
    }
    arena_free(&a);
    return status;
}

Status task_baseline(Task *t, const Study *s) { return arm(&t->baseline, t, s, false); }
Status task_augmented(Task *t, const Study *s) { return arm(&t->augmented, t, s, true); }
