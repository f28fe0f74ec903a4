/* quality_page.c - what the synthetic films are like, as numbers. */
#include "report/html.h"
#include "report/sections.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- distance ------------------------------------------------------------------------- */

static void add_kid_row(Text *t, const json_t *kid, const char *key, const char *what)
{
    const json_t *one = json_at(kid, key), *n = json_at(one, "n");
    text_add(t, "<tr>");
    html_head(t, "%s", what);
    if (json_is_number(json_at(one, "value")))
        html_cell(t, "%s \xc2\xb1 %s", figure_digits(number_at(one, "value"), 3).s,
                  figure_digits(number_at(one, "std_error"), 2).s);
    else html_cell(t, "not measured");
    html_cell(t, "%s and %s", figure_count(number_at(json_array_get(n, 0), "")).s,
              figure_count(number_at(json_array_get(n, 1), "")).s);
    text_add(t, "</tr>\n");
}

static void add_kid(Text *t, const RunTask *task)
{
    const json_t *kid = json_at(task->json, "synthetic.kid");
    const char *features = text_at(kid, "features");
    double made = number_at(kid, "synthetic.value"), start = number_at(kid, "normal.value"),
           error =
               2 * hypot(number_at(kid, "synthetic.std_error"), number_at(kid, "normal.std_error"));
    if (!kid) {
        html_missing(t, "%s: the distance between synthetic and real films (KID) was not measured.",
                     task->disease);
        return;
    }
    html_table(t, NULL,
               "Kernel Inception distance (KID) to the real test films of the disease, \xc2\xb1 "
               "standard error. Nearer is smaller; two sets of one kind give about 0.",
               "films|KID|number of films");
    add_kid_row(t, kid, "synthetic", "synthetic");
    add_kid_row(t, kid, "real", "reference: real training films of the disease");
    add_kid_row(t, kid, "normal", "reference: normal training films");
    html_table_end(t);
    if (isfinite(made) && isfinite(start))
        html_para(
            t, NULL, "%s",
            made < start - error
                ? "By this measure the synthetic films are nearer to the disease than normal "
                  "films are."
            : made > start + error
                ? "By this measure the synthetic films are further from the real films of the "
                  "disease than normal films are."
                : "By this measure the synthetic films are about as far from the real films of "
                  "the disease as normal films are.");
    html_para(
        t, "note", "Features: %s.",
        !strcmp(features, "classifier.weights")
            ? "the pooled layer of the trunk that the classifiers start from"
        : !strcmp(features, "baseline")
            ? "the pooled layer of the classifier trained on real films only, which has learnt "
              "this very task"
        : *features ? features
                    : "not recorded");
}

/* ---- the baseline's opinion ----------------------------------------------------------- */

static void add_called(Text *t, const RunTask *task)
{
    const json_t *called = json_at(task->json, "synthetic.called_diseased");
    double share = number_at(called, "value");
    const json_t *ci = json_at(called, "ci_clopper_pearson");
    if (!isfinite(share)) {
        html_missing(t,
                     "%s: how many synthetic films the real-only classifier calls diseased was not "
                     "measured.",
                     task->disease);
        return;
    }
    double real = number_at(task->json, "baseline.evaluation.metrics.sensitivity.value"),
           normal = 1 - number_at(task->json, "baseline.evaluation.metrics.specificity.value");
    html_para(
        t, NULL,
        "The classifier that has seen real films only calls %s %% of the %s synthetic films "
        "diseased (95 %% interval %s to %s %%, Clopper-Pearson; threshold %s). Of the real test "
        "films it calls %s %% of those with %s diseased and %s %% of the normal ones.",
        figure(100 * share, 1).s, figure_count(number_at(called, "n")).s,
        figure(100 * number_at(json_array_get(ci, 0), ""), 1).s,
        figure(100 * number_at(json_array_get(ci, 1), ""), 1).s,
        figure(number_at(called, "threshold"), 4).s, figure(100 * real, 1).s, task->disease,
        figure(100 * normal, 1).s);
}

/* ---- nearest films -------------------------------------------------------------------- */

static void add_nearest_row(Text *t, const json_t *one, const char *what)
{
    text_add(t, "<tr>");
    html_head(t, "%s", what);
    html_cell(t, "%s", figure(number_at(one, "median"), 3).s);
    html_cell(t, "%s", figure(number_at(one, "max"), 3).s);
    text_add(t, "</tr>\n");
}

static void add_nearest(Text *t, const RunTask *task)
{
    const json_t *near = json_at(task->json, "synthetic.nearest");
    if (!near) {
        html_missing(t, "%s: likeness to the training films was not measured.", task->disease);
        return;
    }
    html_table(
        t, NULL,
        "Likeness: Pearson correlation at 64 x 64 pixels. Is a synthetic film a copy? The last "
        "row says how alike films of different patients are.",
        "pairs|median|highest");
    add_nearest_row(t, json_at(near, "with_source"), "synthetic film and its source");
    add_nearest_row(t, json_at(near, "with_training"),
                    "synthetic film and the training film most like it");
    add_nearest_row(t, json_at(near, "real_test_with_training"),
                    "real test film of the disease and the training film most like it");
    html_table_end(t);
}

Status section_quality(Text *t, const Run *r)
{
    for (int i = 0; i < r->n_task; i++) {
        const json_t *synthetic = json_at(r->task[i].json, "synthetic");
        html_h3(t, "%s", r->task[i].disease);
        if (!synthetic) {
            html_missing(t, "The synthetic films of %s were not measured.", r->task[i].disease);
            continue;
        }
        html_para(t, NULL, "%s synthetic films, %s for training and %s for validation.",
                  figure_count(number_at(synthetic, "count")).s,
                  figure_count(number_at(synthetic, "train")).s,
                  figure_count(number_at(synthetic, "val")).s);
        add_kid(t, &r->task[i]);
        add_called(t, &r->task[i]);
        add_nearest(t, &r->task[i]);
    }
    return OK;
}
