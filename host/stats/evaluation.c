/* evaluation.c - walks the table of metrics and asks each for its interval and its test. */
#include "stats/evaluation.h"
#include "stats/significance.h"
#include <math.h>
#include <stdlib.h>

static double *replicates_new(int n_arms, const Resampling *how)
{
    double *value = malloc((size_t)n_arms * METRIC_COUNT * (size_t)how->replicates * sizeof *value);
    CHECK(value);
    return value;
}

static Interval interval_beside(Metric m, const Evaluation *e, const Arm *a)
{
    const Tally *t = &e->tally;
    switch (metric_info(m)->beside) {
    case INTERVAL_CLOPPER_PEARSON:
        return m == METRIC_SENSITIVITY ? clopper_pearson(t->tp, t->tp + t->fn)
                                       : clopper_pearson(t->tn, t->tn + t->fp);
    case INTERVAL_DELONG:
        return delong(&a->ranking).ci;
    default:
        return interval_undefined;
    }
}

Status evaluation_run(Evaluation *e, const Predictions *films, double threshold,
                      const Resampling *how)
{
    Arm arm;
    double value[METRIC_COUNT], *replicate = replicates_new(1, how);
    arm_new(&arm, films, threshold);
    *e = (Evaluation){.n = films->n,
                      .n_positives = films->n_positives,
                      .n_patients = films->n_patients,
                      .clustered = films->n_patients < films->n,
                      .threshold = threshold,
                      .how = *how};
    for (int k = 0; k < films->n_patients; k++) tally_add(&e->tally, &arm.patient[k], 1);
    arm_metrics(value, &arm, NULL);
    Status s = bootstrap(replicate, &arm, 1, how);
    for (Metric m = 0; m < METRIC_COUNT && !s; m++)
        e->metric[m] =
            (Estimate){.value = value[m],
                       .ci = percentile_interval(replicate + (size_t)m * (size_t)how->replicates,
                                                 how->replicates),
                       .beside = interval_beside(m, e, &arm)};
    arm_free(&arm);
    free(replicate);
    return s;
}

/* Fills p[test] for the tests that metric m has; NaN for the others. */
static void run_tests(double p[TEST_BOOTSTRAP + 1], Metric m, const Arm arm[2],
                      const DeLong *delong_auroc, double permuted, const double *difference, int n)
{
    const MetricInfo *info = metric_info(m);
    for (TestKind t = TEST_NONE; t <= TEST_BOOTSTRAP; t++) {
        p[t] = NAN;
        if (t != info->single && t != info->clustered) continue;
        if (t == TEST_MCNEMAR) p[t] = mcnemar_on(m == METRIC_SENSITIVITY, arm);
        if (t == TEST_DELONG) p[t] = delong_p(delong_auroc);
        if (t == TEST_PERMUTATION) p[t] = permuted;
        if (t == TEST_BOOTSTRAP) p[t] = bootstrap_p(difference, n);
    }
}

static void adjust(Comparison *c)
{
    double p[METRIC_COUNT], adjusted[METRIC_COUNT];
    for (Metric m = 0; m < METRIC_COUNT; m++) p[m] = metric_info(m)->family ? c->metric[m].p : NAN;
    holm(adjusted, p, METRIC_COUNT);
    for (Metric m = 0; m < METRIC_COUNT; m++) c->metric[m].p_holm = adjusted[m];
    c->metric[METRIC_BALANCED_ACCURACY].p_holm = adjusted[METRIC_YOUDEN];
}

static void contrast(Contrast *c, Metric m, const Arm arm[2], bool clustered, double observed,
                     double permuted, double *replicate, int n)
{
    const MetricInfo *info = metric_info(m);
    double *second = replicate + (size_t)METRIC_COUNT * (size_t)n, p[TEST_BOOTSTRAP + 1];
    DeLong area = delong_difference(&arm[0].ranking, &arm[1].ranking);
    for (int b = 0; b < n; b++) replicate[b] -= second[b];
    run_tests(p, m, arm, &area, permuted, replicate, n);
    TestKind main = clustered ? info->clustered : info->single;
    TestKind other = clustered ? info->single : info->clustered;
    if (other == main) other = TEST_NONE;
    *c = (Contrast){.difference = observed,
                    .ci = percentile_interval(replicate, n),
                    .beside = info->beside == INTERVAL_DELONG ? area.ci : interval_undefined,
                    .p = p[main],
                    .p_beside = p[other],
                    .test = main,
                    .test_beside = other};
}

Status comparison_run(Comparison *c, const Predictions *first, double first_threshold,
                      const Predictions *second, double second_threshold, const Resampling *how)
{
    CHECK(first->n == second->n && first->n_patients == second->n_patients);
    Arm arm[2];
    double value[2][METRIC_COUNT], permuted[METRIC_COUNT], *replicate = replicates_new(2, how);
    arm_new(&arm[0], first, first_threshold);
    arm_new(&arm[1], second, second_threshold);
    for (int k = 0; k < 2; k++) arm_metrics(value[k], &arm[k], NULL);
    Status s = bootstrap(replicate, arm, 2, how);
    if (!s) s = permutation_test(permuted, arm, how);
    *c = (Comparison){.clustered = first->n_patients < first->n, .how = *how};
    for (Metric m = 0; m < METRIC_COUNT && !s; m++)
        contrast(&c->metric[m], m, arm, c->clustered, value[0][m] - value[1][m], permuted[m],
                 replicate + (size_t)m * (size_t)how->replicates, how->replicates);
    if (!s) adjust(c);
    for (int k = 0; k < 2; k++) arm_free(&arm[k]);
    free(replicate);
    return s;
}
