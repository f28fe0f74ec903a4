/* metrics.c - formulas over the confusion matrix, and the table of metrics. */
#include "stats/metrics.h"
#include <math.h>

static const MetricInfo table[METRIC_COUNT] = {
    /* in the order of Metric */
    {"balanced_accuracy", "balanced accuracy", INTERVAL_NONE, TEST_PERMUTATION, TEST_PERMUTATION,
     false},
    {"sensitivity", "sensitivity", INTERVAL_CLOPPER_PEARSON, TEST_MCNEMAR, TEST_PERMUTATION, false},
    {"specificity", "specificity", INTERVAL_CLOPPER_PEARSON, TEST_MCNEMAR, TEST_PERMUTATION, false},
    {"precision", "precision", INTERVAL_NONE, TEST_PERMUTATION, TEST_PERMUTATION, false},
    {"f1", "F1", INTERVAL_NONE, TEST_PERMUTATION, TEST_PERMUTATION, true},
    {"mcc", "MCC", INTERVAL_NONE, TEST_PERMUTATION, TEST_PERMUTATION, true},
    {"kappa", "Cohen's kappa", INTERVAL_NONE, TEST_PERMUTATION, TEST_PERMUTATION, true},
    {"youden", "Youden's index", INTERVAL_NONE, TEST_PERMUTATION, TEST_PERMUTATION, true},
    {"auroc", "AUROC", INTERVAL_DELONG, TEST_DELONG, TEST_BOOTSTRAP, true},
    {"auprc", "AUPRC", INTERVAL_NONE, TEST_BOOTSTRAP, TEST_BOOTSTRAP, true},
    {"brier", "Brier score", INTERVAL_NONE, TEST_PERMUTATION, TEST_PERMUTATION, false},
};

const MetricInfo *metric_info(Metric m)
{
    CHECK(m < METRIC_COUNT);
    return &table[m];
}

const char *test_name(TestKind t)
{
    static const char *const name[] = {"none", "mcnemar_exact", "delong", "permutation",
                                       "bootstrap"};
    return name[t];
}

void tally_film(Tally *t, int label, double score, double threshold)
{
    bool called = score >= threshold;
    t->tp += label && called;
    t->fn += label && !called;
    t->fp += !label && called;
    t->tn += !label && !called;
    t->squared += (score - label) * (score - label);
}

void tally_add(Tally *t, const Tally *more, int times)
{
    t->tp += times * more->tp;
    t->fp += times * more->fp;
    t->tn += times * more->tn;
    t->fn += times * more->fn;
    t->squared += times * more->squared;
}

static double ratio_or(double numerator, double denominator, double otherwise)
{
    return denominator > 0 ? numerator / denominator : otherwise;
}

void metrics_from_tally(double value[METRIC_COUNT], const Tally *t)
{
    double tp = (double)t->tp, fp = (double)t->fp, tn = (double)t->tn, fn = (double)t->fn;
    double called = tp + fp, cleared = tn + fn, diseased = tp + fn, normal = tn + fp;
    double sensitivity = ratio_or(tp, diseased, NAN), specificity = ratio_or(tn, normal, NAN);
    double agreement = tp * tn - fp * fn;
    value[METRIC_SENSITIVITY] = sensitivity;
    value[METRIC_SPECIFICITY] = specificity;
    value[METRIC_BALANCED_ACCURACY] = (sensitivity + specificity) / 2;
    value[METRIC_YOUDEN] = sensitivity + specificity - 1;
    value[METRIC_PRECISION] = ratio_or(tp, called, 0);
    value[METRIC_F1] = ratio_or(2 * tp, 2 * tp + fp + fn, 0);
    value[METRIC_MCC] = ratio_or(agreement, sqrt(called * diseased * cleared * normal), 0);
    value[METRIC_KAPPA] = ratio_or(2 * agreement, called * normal + diseased * cleared, NAN);
    value[METRIC_BRIER] = ratio_or(t->squared, diseased + normal, NAN);
    value[METRIC_AUROC] = value[METRIC_AUPRC] = NAN;
}
