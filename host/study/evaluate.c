/* evaluate.c - builds RUN/metrics.json; see evaluate.h. */
#include "study/evaluate.h"
#include "base/csv.h"
#include "stats/evaluation.h"
#include "study/quality.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What one arm said, ready to be compared. */
typedef struct {
    Predictions val, test;
    double threshold;
} Calls;

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static void put(json_t *object, const char *key, json_t *value)
{
    CHECK(!json_object_set_new(object, key, value));
}

static Status threshold_of(double *threshold, const Config *c, const Predictions *val)
{
    if (!strcmp(c->classifier.threshold, "fixed")) {
        *threshold = .5;
        return OK;
    }
    Ranking r = {0};
    ranking_new(&r, val);
    *threshold = threshold_of_youden(&r);
    ranking_free(&r);
    if (isnan(*threshold))
        return FAIL(ERR_INPUT, "%s: films of one class only, expected both", val->path);
    return OK;
}

/* of: NULL for the arm's own files, "seed-0" for one seed's; file names must outlive *c. */
static Status calls_read(Calls *c, Arena *a, const Stage *stage, const char *of,
                         const Config *config)
{
    Text val = {0}, test = {0};
    text_add(&val, "%s/%s%spredictions_val.csv", stage->folder, of ? of : "", of ? "/" : "");
    text_add(&test, "%s/%s%spredictions_test.csv", stage->folder, of ? of : "", of ? "/" : "");
    Status s = predictions_read(&c->val, arena_strdup(a, val.s));
    if (!s) s = predictions_read(&c->test, arena_strdup(a, test.s));
    if (!s) s = threshold_of(&c->threshold, config, &c->val);
    free(val.s);
    free(test.s);
    return s;
}

static void calls_free(Calls *c)
{
    predictions_free(&c->val);
    predictions_free(&c->test);
}

/* ---- one arm -------------------------------------------------------------------------- */

static json_t *film_counts(const Task *t, const Study *s, bool augmented)
{
    json_t *j = json_object();
    int normal = manifest_label(&s->manifest, s->config->data.normal),
        disease = manifest_label(&s->manifest, t->disease);
    CHECK(j);
    for (Split split = SPLIT_TRAIN; split <= SPLIT_TEST; split++) {
        int synthetic = !augmented || split == SPLIT_TEST ? 0
                        : split == SPLIT_TRAIN            ? t->n_train
                                                          : t->n_val;
        put(j, split_name(split),
            json_pack("{s:i, s:i, s:i}", "normal",
                      manifest_count(&s->manifest, normal, split).films, "diseased",
                      manifest_count(&s->manifest, disease, split).films, "synthetic", synthetic));
    }
    return j;
}

static json_t *seed_summary(double (*value)[METRIC_COUNT], int n)
{
    json_t *metrics = json_object();
    CHECK(metrics);
    for (Metric m = 0; m < METRIC_COUNT; m++) {
        double mean = 0, squares = 0;
        json_t *all = json_array();
        CHECK(all);
        for (int r = 0; r < n; r++) {
            mean += value[r][m] / n;
            CHECK(!json_array_append_new(all, number(value[r][m])));
        }
        for (int r = 0; r < n; r++) squares += (value[r][m] - mean) * (value[r][m] - mean);
        put(metrics, metric_info(m)->name,
            json_pack("{s:o, s:o, s:o}", "mean", number(mean), "sd",
                      number(sqrt(squares / (n - 1))), "values", all));
    }
    json_t *j = json_pack("{s:i, s:o}", "n", n, "metrics", metrics);
    CHECK(j);
    return j;
}

static Status add_seeds(json_t *arm, const Stage *stage, const Config *config)
{
    int n = config->study.repeats;
    double(*value)[METRIC_COUNT] = calloc((size_t)n, sizeof *value);
    Status s = OK;
    CHECK(value);
    for (int r = 0; r < n && !s; r++) {
        Arena a = {0};
        Calls c = {0};
        Arm one = {0};
        s = calls_read(&c, &a, stage, arena_printf(&a, "seed-%d", r), config);
        if (!s) {
            arm_new(&one, &c.test, c.threshold);
            arm_metrics(value[r], &one, NULL);
        }
        arm_free(&one);
        calls_free(&c);
        arena_free(&a);
    }
    if (!s) put(arm, "seeds", seed_summary(value, n));
    free(value);
    return s;
}

static Status arm_json(json_t **j, const Calls *c, const Task *t, const Study *s, bool augmented,
                       const Resampling *how)
{
    Evaluation e;
    const Stage *stage = augmented ? &t->augmented : &t->baseline;
    TRY(evaluation_run(&e, &c->test, c->threshold, how));
    json_t *arm = json_pack("{s:o, s:o, s:{s:s, s:o, s:i}}", "evaluation", evaluation_json(&e),
                            "films", film_counts(t, s, augmented), "threshold", "rule",
                            s->config->classifier.threshold, "value", number(c->threshold),
                            "validation_films", c->val.n);
    CHECK(arm);
    Status status = s->config->study.repeats > 1 ? add_seeds(arm, stage, s->config) : OK;
    if (status) json_decref(arm);
    else *j = arm;
    return status;
}

/* ---- one task ------------------------------------------------------------------------- */

static Status task_json(json_t **j, const Study *s, const Task *t, json_t *quality)
{
    const EvaluateSettings *e = &s->config->evaluate;
    Resampling how = {e->replicates, e->permutations, (uint32_t)s->config->study.seed};
    Arena a = {0};
    Calls baseline = {0}, augmented = {0};
    json_t *first = NULL, *second = NULL;
    Comparison compared;
    Status status;
    log_info(s->log, "evaluating %s against %s", s->config->data.normal, t->disease);
    TRY_OR(done, status, calls_read(&baseline, &a, &t->baseline, NULL, s->config));
    TRY_OR(done, status, calls_read(&augmented, &a, &t->augmented, NULL, s->config));
    TRY_OR(done, status, predictions_match(&augmented.test, &baseline.test));
    TRY_OR(done, status, arm_json(&first, &baseline, t, s, false, &how));
    TRY_OR(done, status, arm_json(&second, &augmented, t, s, true, &how));
    TRY_OR(done, status,
           comparison_run(&compared, &augmented.test, augmented.threshold, &baseline.test,
                          baseline.threshold, &how));
    *j = json_pack("{s:s, s:s, s:O, s:O, s:o, s:O}", "normal", s->config->data.normal, "disease",
                   t->disease, "baseline", first, "augmented", second, "comparison",
                   comparison_json(&compared), "synthetic", quality);
    CHECK(*j);
done:
    json_decref(first);
    json_decref(second);
    calls_free(&baseline);
    calls_free(&augmented);
    arena_free(&a);
    return status;
}

/* What the ranks measure together. */
static Status measure(json_t **quality, const Study *s, const Task *t)
{
    Arena a = {0};
    Calls baseline = {0};
    Status status = calls_read(&baseline, &a, &t->baseline, NULL, s->config);
    if (!status) status = quality_json(quality, s, t, baseline.threshold);
    calls_free(&baseline);
    arena_free(&a);
    return status;
}

/* ---- synthetic/manifest.csv ------------------------------------------------------------ */

static Status append_manifest(OutFile *o, const Task *t, bool header)
{
    Csv c = {0};
    char *table = path_join(t->synthetic, "manifest.csv");
    const char *folder = strrchr(t->synthetic, '/') + 1;
    int path;
    Status s;
    TRY_OR(done, s, csv_read(&c, table));
    TRY_OR(done, s, csv_need(&path, &c, "path"));
    for (int col = 0; col < c.n_col && header; col++)
        TRY_OR(done, s, csv_write_field(o, c.name[col], col == c.n_col - 1));
    for (int row = 0; row < c.n_row; row++)
        for (int col = 0; col < c.n_col; col++) {
            char *below = path_join(folder, csv_at(&c, row, col));
            s = csv_write_field(o, col == path ? below : csv_at(&c, row, col), col == c.n_col - 1);
            free(below);
            TRY_OR(done, s, s);
        }
done:
    csv_free(&c);
    free(table);
    return s;
}

/* The films of both tasks in one table, with paths from its folder. */
static Status merge_manifests(const Study *s)
{
    OutFile o = {0};
    char *path = path_join(s->run, "synthetic/manifest.csv");
    Status status;
    TRY_OR(done, status, out_open(&o, path));
    for (int i = 0; i < 2; i++) TRY_OR(done, status, append_manifest(&o, &s->task[i], i == 0));
    TRY_OR(done, status, out_commit(&o));
done:
    out_abandon(&o);
    free(path);
    return status;
}

/* ---- the study ------------------------------------------------------------------------ */

static json_t *class_counts(const Manifest *m)
{
    json_t *j = json_object();
    CHECK(j);
    for (int label = 0; label < m->n_label; label++) {
        json_t *one = json_object();
        CHECK(one);
        for (Split split = 0; split < SPLIT_COUNT; split++) {
            Count n = manifest_count(m, label, split);
            put(one, split_name(split),
                json_pack("{s:i, s:i}", "films", n.films, "patients", n.patients));
        }
        put(j, m->label[label], one);
    }
    return j;
}

static Status write_metrics(const Study *s, json_t *const quality[2])
{
    const Config *c = s->config;
    json_t *tasks = json_object(), *all = NULL;
    char *path = stage_path(&s->evaluate, "../../metrics.json");
    Status status = OK;
    CHECK(tasks);
    for (int i = 0; i < 2 && !status; i++) {
        json_t *one = NULL;
        char letter[2] = {s->task[i].letter, 0};
        status = task_json(&one, s, &s->task[i], quality[i]);
        if (!status) put(tasks, letter, one);
    }
    TRY_OR(done, status, status);
    all = json_pack("{s:{s:s, s:i, s:i, s:i}, s:{s:o}, s:O}", "study", "name", c->study.name,
                    "seed", c->study.seed, "repeats", c->study.repeats, "size", c->data.size,
                    "data", "classes", class_counts(&s->manifest), "tasks", tasks);
    CHECK(all);
    TRY_OR(done, status, json_write(all, path));
done:
    json_decref(all);
    json_decref(tasks);
    free(path);
    return status;
}

static Status evaluate(Study *s)
{
    json_t *quality[2] = {NULL, NULL};
    Status status;
    for (int i = 0; i < 2; i++) TRY_OR(done, status, measure(&quality[i], s, &s->task[i]));
    status = comm_rank(s->comm) ? OK : merge_manifests(s);
    if (!status && !comm_rank(s->comm)) status = write_metrics(s, quality);
    TRY_OR(done, status, comm_agree(s->comm, "evaluation", status));
    status = stage_end(&s->evaluate, (const char *[]){"../../metrics.json"}, 1);
done:
    for (int i = 0; i < 2; i++) json_decref(quality[i]);
    return status;
}

Status evaluate_stage(Study *s)
{
    Stage *stage = &s->evaluate;
    stage_upstream(stage, &s->prepare, NULL);
    for (int i = 0; i < 2; i++) {
        const Task *t = &s->task[i];
        stage_upstream(stage, &t->baseline, NULL);
        stage_upstream(stage, &t->augmented, NULL);
        stage_upstream(stage, &t->synth, NULL);
    }
    stage_setting(stage, s->config, "study.name study.seed evaluate classifier.threshold");
    TRY(stage_begin(stage));
    return stage->done ? OK : evaluate(s);
}
