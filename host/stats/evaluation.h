/* evaluation.h - one classifier's results on a test set, and two classifiers' compared.
 *
 * Which interval and which test a metric gets is the table in metrics.c. The main interval is always
 * the patient-cluster bootstrap (percentile). Where some patient has several films (`clustered`),
 * Clopper-Pearson, DeLong and McNemar, which take films as independent, are too sure; the main p is
 * then the permutation's or the bootstrap's, and the other one stands beside it.
 *
 * Holm's family is {F1, MCC, kappa, Youden, AUROC, AUPRC}. Balanced accuracy is the same test as
 * Youden's index and shares its adjusted p; the others have none (NaN, null).
 */
#ifndef EVALUATION_H
#define EVALUATION_H
#include "stats/intervals.h"
#include "stats/resample.h"
#include <jansson.h>

typedef struct {
    double value;
    Interval ci;     /* patient-cluster bootstrap        */
    Interval beside; /* metric_info(m)->beside says what */
} Estimate;

typedef struct {
    int n, n_positives, n_patients;
    bool clustered; /* some patient has several films */
    double threshold;
    Tally tally; /* the confusion matrix */
    Resampling how;
    Estimate metric[METRIC_COUNT];
} Evaluation;

typedef struct {
    double difference; /* first minus second */
    Interval ci;       /* patient-cluster paired bootstrap            */
    Interval beside;   /* DeLong's for AUROC, else undefined          */
    double p, p_holm, p_beside;
    TestKind test, test_beside; /* TEST_NONE where there is only one    */
} Contrast;

typedef struct {
    bool clustered;
    Resampling how;
    Contrast metric[METRIC_COUNT];
} Comparison;

/* ERR_STOPPED once a signal asks to stop; *e then means nothing. */
Status evaluation_run(Evaluation *e, const Predictions *films, double threshold,
                      const Resampling *how);

/* Two classifiers on the same films, as predictions_match() has found; else the same. */
Status comparison_run(Comparison *c, const Predictions *first, double first_threshold,
                      const Predictions *second, double second_threshold, const Resampling *how);

/* What `equipoise evaluate --out` writes; undefined values are null. The caller owns the result. */
json_t *evaluation_json(const Evaluation *e);
json_t *comparison_json(const Comparison *c);

/* Whole or absent; keys sorted, numbers with 17 digits: equal results are equal bytes. */
Status json_write(const json_t *j, const char *path);
#endif
