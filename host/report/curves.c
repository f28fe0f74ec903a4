/* curves.c - ROC and precision-recall curves of both arms, from their test predictions. */
#include "report/html.h"
#include "report/plot.h"
#include "report/sections.h"
#include "stats/ranking.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A curve and the point where the arm's threshold puts it. */
typedef struct {
    double *x, *y; /* owned: [n] */
    int n;
    double x_at, y_at;
} Curve; /* starts as {0} */

static Curve curve_new(int most)
{
    Curve c = {calloc((size_t)most + 1, sizeof(double)), calloc((size_t)most + 1, sizeof(double)),
               0, NAN, NAN};
    CHECK(c.x && c.y);
    return c;
}

static void curve_free(Curve *c)
{
    free(c->x);
    free(c->y);
    *c = (Curve){0};
}

/* A point between two others on one line with them goes. */
static void curve_add(Curve *c, double x, double y)
{
    int n = c->n;
    if (n > 1) {
        double ax = c->x[n - 1] - c->x[n - 2], ay = c->y[n - 1] - c->y[n - 2];
        double bx = x - c->x[n - 1], by = y - c->y[n - 1];
        if (fabs(ax * by - ay * bx) < 1e-12 && ax * bx + ay * by >= 0) n--;
    }
    c->x[n] = x;
    c->y[n] = y;
    c->n = n + 1;
}

static Curve roc_curve(const Predictions *p, const Ranking *rank, double threshold)
{
    int n;
    RocPoint *point = roc_points(&n, rank);
    Curve c = curve_new(n);
    int hit = 0, false_alarm = 0;
    for (int i = 0; i < n; i++) curve_add(&c, point[i].fpr, point[i].tpr);
    for (int i = 0; i < p->n; i++) {
        hit += p->label[i] && p->score[i] >= threshold;
        false_alarm += !p->label[i] && p->score[i] >= threshold;
    }
    if (n && isfinite(threshold)) {
        c.x_at = (double)false_alarm / (p->n - p->n_positives);
        c.y_at = (double)hit / p->n_positives;
    }
    free(point);
    return c;
}

/* Steps, as average precision sums them: from each recall to the next at the next precision. At one
 * recall false alarms lead down; a threshold may lie there. */
static Curve precision_curve(const Predictions *p, const Ranking *rank, double threshold)
{
    Curve c = curve_new(2 * rank->n);
    int hit = 0;
    double before = 0;
    if (!p->n_positives) return c;
    for (int i = 0; i < rank->n; i++) {
        hit += rank->film[i].label;
        if (!rank->film[i].last) continue;
        double recall = (double)hit / p->n_positives, precision = (double)hit / (i + 1);
        if (recall > before) curve_add(&c, before, precision);
        curve_add(&c, recall, precision);
        before = recall;
        if (rank->score[rank->film[i].film] >= threshold) {
            c.x_at = recall;
            c.y_at = precision;
        }
    }
    return c;
}

/* ---- one task ------------------------------------------------------------------------- */

typedef Curve CurveOf(const Predictions *, const Ranking *, double threshold);

typedef struct {
    const char *kind, *title, *metric, *metric_title, *x, *y;
    CurveOf *of;
} CurveKind;

static const CurveKind kinds[] = {
    {"roc", "ROC", "auroc", "AUROC", "1 \xe2\x88\x92 specificity", "sensitivity", roc_curve},
    {"pr", "precision and recall", "auprc", "AUPRC", "recall (sensitivity)", "precision",
     precision_curve},
};

static void legend(Text *t, const RunTask *task, int k, const CurveKind *kind)
{
    const json_t *m =
        json_at(json_at(json_at(task->json, arm_name[k]), "evaluation.metrics"), kind->metric);
    text_add(t, "%s: %s %s %s", arm_title[k], kind->metric_title,
             figure(number_at(m, "value"), 3).s, span(json_at(m, "ci"), 3, false).s);
}

/* The line that a coin would give. */
static Series chance(const CurveKind *kind, const Predictions *p, double y[2])
{
    static const double x[2] = {0, 1};
    bool roc = kind->of == roc_curve;
    y[0] = roc ? 0 : (double)p->n_positives / p->n;
    y[1] = roc ? 1 : y[0];
    return (Series){
        roc ? "chance" : "chance: share of diseased films", x, y, 2, COLOR_MUTED, true, false};
}

static void add_curves(Text *t, const RunTask *task, const Predictions film[ARM_COUNT],
                       const CurveKind *kind)
{
    Curve curve[ARM_COUNT] = {{0}};
    Text name[ARM_COUNT] = {{0}}, id = {0}, title = {0}, told = {0};
    Series series[2 * ARM_COUNT + 1];
    double y[2];
    int n = 0;
    series[n++] = chance(kind, &film[0], y);
    for (int k = 0; k < ARM_COUNT; k++) {
        Ranking rank = {0};
        ranking_new(&rank, &film[k]);
        curve[k] = kind->of(&film[k], &rank,
                            number_at(json_at(task->json, arm_name[k]), "evaluation.threshold"));
        ranking_free(&rank);
        legend(&name[k], task, k, kind);
        text_add(&told, "%s. ", name[k].s);
        series[n++] =
            (Series){name[k].s, curve[k].x, curve[k].y, curve[k].n, (PlotColor)k, k == 1, false};
    }
    for (int k = 0; k < ARM_COUNT; k++)
        series[n++] = (Series){NULL, &curve[k].x_at, &curve[k].y_at, 1, (PlotColor)k, false, true};
    text_add(&told, "The discs are the arms' thresholds.");
    text_add(&id, "%s-%s", kind->kind, task->letter);
    text_add(&title, "%s: %s", task->disease, kind->title);
    Plot plot = {id.s, title.s, told.s, kind->x, kind->y, true, series, n};
    plot_lines(t, &plot);
    for (int k = 0; k < ARM_COUNT; k++) {
        curve_free(&curve[k]);
        free(name[k].s);
    }
    free(id.s);
    free(title.s);
    free(told.s);
}

static Status add_task(Text *t, const Run *r, const RunTask *task)
{
    Predictions film[ARM_COUNT] = {{0}};
    char *path[ARM_COUNT];
    Status s = OK;
    for (int k = 0; k < ARM_COUNT; k++)
        path[k] = run_path(r, "stages/%s-%s/predictions_test.csv", arm_name[k], task->letter);
    for (int k = 0; k < ARM_COUNT; k++)
        if (!file_exists(path[k])) {
            html_missing(t, "%s: the test predictions of the arm \"%s\" are not in the run.",
                         task->disease, arm_title[k]);
            goto done;
        }
    for (int k = 0; k < ARM_COUNT; k++) TRY_OR(done, s, predictions_read(&film[k], path[k]));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) add_curves(t, task, film, &kinds[i]);
done:
    for (int k = 0; k < ARM_COUNT; k++) {
        predictions_free(&film[k]);
        free(path[k]);
    }
    return s;
}

Status section_curves(Text *t, const Run *r)
{
    html_para(t, NULL, "Both arms on the same real test films. Discs mark the arms' thresholds.");
    for (int i = 0; i < r->n_task; i++) {
        html_h3(t, "%s", r->task[i].disease);
        text_add(t, "<div class=\"flow\">\n");
        TRY(add_task(t, r, &r->task[i]));
        text_add(t, "</div>\n");
    }
    return OK;
}
