/* cmd_evaluate.c - equipoise evaluate: results of one classifier, or of two compared, from their
 * predictions.
 */
#include "app/commands.h"
#include "app/options.h"
#include "stats/evaluation.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>

static const Option option[] = {
    {"predictions", "P.csv", "columns id, patient, label (0 or 1), score (0 to 1)", NULL},
    {"threshold", "T", "a film is called diseased where score >= T", "0.5"},
    {"versus", "Q.csv", "predictions of another classifier for the same films, to compare with",
     NULL},
    {"versus-threshold", "T2", "its threshold, if another than T", NULL},
    {"replicates", "N", "bootstrap replicates", "10000"},
    {"permutations", "N", "permutations of a paired test", "10000"},
    {"seed", "S", "of the resampling", "0"},
    {"out", "FILE", "write the results here as JSON", NULL},
    {"force", NULL, "let --out replace a file", NULL},
};

static const Usage usage = {
    .command = "evaluate",
    .help =
        "Metrics with 95 % intervals; with --versus, both classifiers and the difference, first "
        "minus second, with p-values. Intervals come from a bootstrap over patients.",
    .option = option,
    .n_option = sizeof option / sizeof *option,
};

typedef struct {
    const char *path[2], *out; /* path[1] NULL: nothing to compare with; out NULL: no file */
    double threshold[2];
    Resampling how;
} Job;

static Status read_options(Job *j, const Options *o)
{
    enum { LEAST = 100, MOST = 1000000 };
    int seed;
    TRY(options_need(&j->path[0], o, "predictions"));
    j->path[1] = options_text(o, "versus");
    TRY(options_real(&j->threshold[0], o, "threshold", 0, 1));
    j->threshold[1] = j->threshold[0];
    if (options_has(o, "versus-threshold")) {
        if (!j->path[1])
            return FAIL(ERR_USAGE, "evaluate: --versus-threshold without --versus, expected both");
        TRY(options_real(&j->threshold[1], o, "versus-threshold", 0, 1));
    }
    TRY(options_int(&j->how.replicates, o, "replicates", LEAST, MOST));
    TRY(options_int(&j->how.permutations, o, "permutations", LEAST, MOST));
    TRY(options_int(&seed, o, "seed", 0, INT_MAX));
    j->how.seed = (uint32_t)seed;
    return options_out(&j->out, o, "out", "", 2, j->path);
}

static void print_real(double v, int width)
{
    if (isnan(v)) printf(" %*s", width, "-");
    else printf(" %*.4f", width, v);
}

static void print_interval(Interval i)
{
    if (isnan(i.lo)) printf("  %18s", "-");
    else printf("  %7.4f .. %7.4f", i.lo, i.hi);
}

static void print_p(double p)
{
    if (isnan(p)) printf("  %8s", "-");
    else if (p < 0.0001) printf("  %8s", "<0.0001");
    else printf("  %8.4f", p);
}

static void print_evaluation(const Evaluation *e, const char *path)
{
    static const char *const beside[] = {"", "  Clopper-Pearson", "  DeLong"};
    printf("%s: %d films of %d patients, %d diseased; threshold %g\n", path, e->n, e->n_patients,
           e->n_positives, e->threshold);
    printf("called diseased: %lld of the diseased, %lld of the normal; called normal: %lld, %lld\n",
           (long long)e->tally.tp, (long long)e->tally.fp, (long long)e->tally.fn,
           (long long)e->tally.tn);
    printf("%-18s %8s  %-18s\n", "metric", "value", "95 % bootstrap");
    for (Metric m = 0; m < METRIC_COUNT; m++) {
        const MetricInfo *info = metric_info(m);
        printf("%-18s", info->title);
        print_real(e->metric[m].value, 8);
        print_interval(e->metric[m].ci);
        if (info->beside != INTERVAL_NONE) {
            print_interval(e->metric[m].beside);
            printf("%s", beside[info->beside]);
        }
        printf("\n");
    }
    printf("\n");
}

static void print_comparison(const Comparison *c)
{
    printf("difference, first minus second\n%-18s %8s  %-18s  %8s  %8s  %s\n", "metric", "value",
           "95 % bootstrap", "p", "p (Holm)", "test");
    for (Metric m = 0; m < METRIC_COUNT; m++) {
        const Contrast *d = &c->metric[m];
        printf("%-18s", metric_info(m)->title);
        print_real(d->difference, 8);
        print_interval(d->ci);
        print_p(d->p);
        print_p(d->p_holm);
        printf("  %s\n", test_name(d->test));
    }
    printf("\n");
}

/* Evaluates, prints; with two classifiers *result gets both and the comparison. */
static Status evaluate(json_t **result, const Job *j, const Predictions p[2])
{
    Evaluation e;
    TRY(evaluation_run(&e, &p[0], j->threshold[0], &j->how));
    print_evaluation(&e, j->path[0]);
    *result = evaluation_json(&e);
    if (!j->path[1]) return OK;

    Comparison c;
    TRY(evaluation_run(&e, &p[1], j->threshold[1], &j->how));
    print_evaluation(&e, j->path[1]);
    TRY(comparison_run(&c, &p[0], j->threshold[0], &p[1], j->threshold[1], &j->how));
    print_comparison(&c);
    CHECK(!json_object_set_new(*result, "versus", evaluation_json(&e)));
    CHECK(!json_object_set_new(*result, "comparison", comparison_json(&c)));
    return OK;
}

Status cmd_evaluate(App *app, int argc, char **argv)
{
    Options o;
    Job j = {0};
    Predictions p[2] = {0};
    json_t *result = NULL;
    Status s = OK;
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(read_options(&j, &o));
    for (int k = 0; k < 2 && j.path[k]; k++) TRY_OR(done, s, predictions_read(&p[k], j.path[k]));
    if (j.path[1]) TRY_OR(done, s, predictions_match(&p[1], &p[0]));
    if (p[0].n_patients < p[0].n)
        log_info(app->log, "patients have several films: the bootstrap and the tests over patients "
                           "count; Clopper-Pearson, DeLong and McNemar take films as independent");
    TRY_OR(done, s, evaluate(&result, &j, p));
    if (j.out) TRY_OR(done, s, json_write(result, j.out));
done:
    json_decref(result);
    for (int k = 0; k < 2; k++) predictions_free(&p[k]);
    return s;
}
