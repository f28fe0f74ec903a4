/* metrics.h - the figures of merit of a binary classifier, from counts.
 *
 * A film counts as called diseased where its score >= the threshold.
 *
 * Undefined values: sensitivity without diseased films, specificity without normal ones, and what
 * is built on them (balanced accuracy, Youden's index, AUROC, AUPRC), and kappa where chance
 * agreement is complete, are NaN here and null in JSON. Precision (nothing called diseased), F1 and
 * MCC with a zero denominator are 0, as scikit-learn's with zero_division = 0. scikit-learn itself
 * answers recall and AUPRC without diseased films with 0: a number that was not measured, so we do
 * not.
 */
#ifndef METRICS_H
#define METRICS_H
#include "stats/predictions.h"

typedef enum {
    METRIC_BALANCED_ACCURACY,
    METRIC_SENSITIVITY,
    METRIC_SPECIFICITY,
    METRIC_PRECISION,
    METRIC_F1,
    METRIC_MCC,
    METRIC_KAPPA,
    METRIC_YOUDEN,
    METRIC_AUROC,
    METRIC_AUPRC,
    METRIC_BRIER,
    METRIC_COUNT
} Metric;

typedef enum { INTERVAL_NONE, INTERVAL_CLOPPER_PEARSON, INTERVAL_DELONG } IntervalKind;
typedef enum { TEST_NONE, TEST_MCNEMAR, TEST_DELONG, TEST_PERMUTATION, TEST_BOOTSTRAP } TestKind;

/* A row of the table in metrics.c. */
typedef struct {
    const char *name;    /* in files     */
    const char *title;   /* for people   */
    IntervalKind beside; /* interval given beside the patient-cluster bootstrap              */
    TestKind single;     /* test of two arms where every patient has one film                */
    TestKind clustered;  /* where patients have several: the other one is then given beside  */
    bool family;         /* belongs to the Holm family                                       */
} MetricInfo;

const MetricInfo *metric_info(Metric m);
const char *test_name(TestKind t); /* "mcnemar_exact", "delong", "permutation", "bootstrap" */

typedef struct {
    int64_t tp, fp, tn, fn; /* films                                       */
    double squared;         /* sum of (score - label)^2, for Brier's score */
} Tally;                    /* starts as {0} */

void tally_film(Tally *t, int label, double score, double threshold); /* adds one film */
void tally_add(Tally *t, const Tally *more, int times);

/* Everything that follows from counts; AUROC and AUPRC become NaN (see ranking.h). */
void metrics_from_tally(double value[METRIC_COUNT], const Tally *t);
#endif
