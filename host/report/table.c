/* table.c - metrics with intervals and tests, confusion matrices. */
#include "report/html.h"
#include "report/plot.h"
#include "report/sections.h"
#include "stats/metrics.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- metrics -------------------------------------------------------------------------- */

/* Where the metric has an interval that takes films as independent, it stands below. */
static void add_beside(Text *t, const json_t *one, bool sign)
{
    const json_t *cp = json_at(one, "ci_clopper_pearson"), *dl = json_at(one, "ci_delong");
    if (!json_is_array(cp) && !json_is_array(dl)) return;
    text_add(t, "<small>%s %s</small>", json_is_array(cp) ? "CP" : "DeLong",
             span(json_is_array(cp) ? cp : dl, 3, sign).s);
}

static void add_value(Text *t, const json_t *one)
{
    text_add(t, "<td>%s <span>%s</span>", figure(number_at(one, "value"), 3).s,
             span(json_at(one, "ci"), 3, false).s);
    add_beside(t, one, false);
    text_add(t, "</td>");
}

static const char *test_short(const char *name)
{
    return !strcmp(name, "mcnemar_exact") ? "McNemar"
           : !strcmp(name, "delong")      ? "DeLong"
           : *name                        ? name
                                          : "none";
}

/* With the name of its test; below, where there is one, the other test of metrics.h. */
static void add_p(Text *t, const json_t *d)
{
    static const char *const other[][2] = {{"p_mcnemar_exact", "McNemar"},
                                           {"p_delong", "DeLong"},
                                           {"p_permutation", "permutation"},
                                           {"p_bootstrap", "bootstrap"}};
    text_add(t, "<td>");
    text_add_html(t, figure_p(number_at(d, "p")).s);
    text_add(t, "<small>");
    text_add_html(t, test_short(text_at(d, "test")));
    text_add(t, "</small>");
    for (int i = 0; i < 4; i++) {
        if (!json_at(d, other[i][0])) continue;
        text_add(t, "<small>%s ", other[i][1]);
        text_add_html(t, figure_p(number_at(d, other[i][0])).s);
        text_add(t, "</small>");
    }
    text_add(t, "</td>");
}

static void add_metric(Text *t, const json_t *task, Metric m)
{
    const char *name = metric_info(m)->name;
    const json_t *d = json_at(json_at(task, "comparison"), name);
    bool adjusted = json_is_number(json_at(d, "p_holm"));
    text_add(t, "<tr%s>", number_at(d, "p_holm") < .05 ? " class=\"strong\"" : "");
    html_head(t, "%s%s", metric_info(m)->title, m == METRIC_BRIER ? " (lower is better)" : "");
    for (int k = 0; k < ARM_COUNT; k++)
        add_value(t, json_at(json_at(json_at(task, arm_name[k]), "evaluation.metrics"), name));
    text_add(t, "<td>%s <span>%s</span>", figure_signed(number_at(d, "difference"), 3).s,
             span(json_at(d, "ci"), 3, true).s);
    add_beside(t, d, true);
    text_add(t, "</td>");
    add_p(t, d);
    html_cell(t, "%s", adjusted ? figure_p(number_at(d, "p_holm")).s : figure(NAN, 0).s);
    text_add(t, "</tr>\n");
}

static void add_forest(Text *t, const RunTask *task)
{
    ForestRow row[METRIC_COUNT];
    Text id = {0}, title = {0};
    for (Metric m = 0; m < METRIC_COUNT; m++) {
        const json_t *d = json_at(json_at(task->json, "comparison"), metric_info(m)->name);
        const json_t *lo = json_array_get(json_at(d, "ci"), 0),
                     *hi = json_array_get(json_at(d, "ci"), 1);
        row[m] = (ForestRow){
            m == METRIC_BRIER ? "Brier (lower is better)" : metric_info(m)->title,
            number_at(d, "difference"), json_is_number(lo) ? json_number_value(lo) : (double)NAN,
            json_is_number(hi) ? json_number_value(hi) : (double)NAN, number_at(d, "p_holm") < .05};
    }
    text_add(&id, "forest-%s", task->letter);
    text_add(&title, "%s: differences", task->disease);
    plot_forest(
        t, id.s, title.s,
        "Augmented minus baseline with 95 % patient-bootstrap intervals, one row per metric; "
        "filled where Holm's p is below 0.05. The numbers are in the table.",
        "with synthetic films minus real films only", row, METRIC_COUNT);
    free(id.s);
    free(title.s);
}

/* ---- several seeds -------------------------------------------------------------------- */

static void add_seeds(Text *t, const RunTask *task)
{
    const json_t *seeds[ARM_COUNT];
    for (int k = 0; k < ARM_COUNT; k++)
        seeds[k] = json_at(json_at(task->json, arm_name[k]), "seeds");
    if (!seeds[0] && !seeds[1]) return;
    Text caption = {0};
    text_add(
        &caption,
        "%s: mean (standard deviation) over %s training seeds, each with a threshold of its own. "
        "The table above is of the mean scores.",
        task->disease, figure(number_at(seeds[0], "n"), 0).s);
    html_table(t, NULL, caption.s, "metric|real films only|with synthetic films");
    for (Metric m = 0; m < METRIC_COUNT; m++) {
        text_add(t, "<tr>");
        html_head(t, "%s", metric_info(m)->title);
        for (int k = 0; k < ARM_COUNT; k++) {
            const json_t *one = json_at(json_at(seeds[k], "metrics"), metric_info(m)->name);
            html_cell(t, "%s (%s)", figure(number_at(one, "mean"), 3).s,
                      figure(number_at(one, "sd"), 3).s);
        }
        text_add(t, "</tr>\n");
    }
    html_table_end(t);
    free(caption.s);
}

static void add_task(Text *t, const RunTask *task)
{
    const json_t *e = json_at(task->json, "baseline.evaluation");
    Text caption = {0};
    html_h3(t, "%s against %s", task->normal, task->disease);
    if (!e || !json_at(task->json, "augmented.evaluation")) {
        html_missing(t, "One of the two arms was not evaluated.");
        return;
    }
    text_add(&caption, "%s test films of %s patients, %s diseased. Values with 95 %% intervals.",
             figure_count(number_at(e, "n")).s, figure_count(number_at(e, "patients")).s,
             figure_count(number_at(e, "positives")).s);
    html_table(t, "metrics", caption.s,
               "metric|real films only|with synthetic films|difference|p and its test|Holm's p");
    for (Metric m = 0; m < METRIC_COUNT; m++) add_metric(t, task->json, m);
    html_table_end(t);
    if (json_at(task->json, "comparison")) add_forest(t, task);
    else html_missing(t, "The two arms were not compared.");
    add_seeds(t, task);
    free(caption.s);
}

Status section_metrics(Text *t, const Run *r)
{
    const json_t *how = json_at(r->task[0].json, "baseline.evaluation.resampling");
    for (int i = 0; i < r->n_task; i++) add_task(t, &r->task[i]);
    html_para(
        t, "note",
        "Intervals are percentiles of a bootstrap over patients (%s replicates); differences "
        "use the same patients in both arms. Small print: CP is the Clopper-Pearson interval; "
        "it, DeLong's interval and test and McNemar's test take films as independent. "
        "Permutation: the two arms' calls are exchanged within patients (%s times). Holm's "
        "correction runs over F1, MCC, Cohen's kappa, Youden's index, AUROC and AUPRC of one "
        "task; balanced accuracy is the same test as Youden's index. Bold: Holm's p below "
        "0.05. A dash: undefined, or outside the correction.",
        figure_count(number_at(how, "replicates")).s,
        figure_count(number_at(how, "permutations")).s);
    return OK;
}

/* ---- confusion matrices --------------------------------------------------------------- */

static void add_confusion_cell(Text *t, const json_t *c, const char *count, const char *other,
                               bool right)
{
    double n = number_at(c, count), all = n + number_at(c, other);
    text_add(t, "<td class=\"%s\"><b>%s</b><small>%s %%</small></td>", right ? "right" : "wrong",
             figure_count(n).s, figure(all > 0 ? 100 * n / all : (double)NAN, 1).s);
}

static void add_confusion(Text *t, const RunTask *task, int k)
{
    const json_t *c = json_at(json_at(task->json, arm_name[k]), "evaluation.confusion");
    if (!c) {
        html_missing(t, "%s, %s: no confusion matrix was recorded.", task->disease, arm_title[k]);
        return;
    }
    text_add(t, "<table class=\"confusion\"><caption>");
    text_add_html(t, task->disease);
    text_add(t,
             ": %s</caption>\n<thead><tr><td></td><th scope=\"col\">called normal</th>"
             "<th scope=\"col\">called diseased</th></tr></thead>\n<tbody><tr>",
             arm_title[k]);
    html_head(t, "%s", task->normal);
    add_confusion_cell(t, c, "tn", "fp", true);
    add_confusion_cell(t, c, "fp", "tn", false);
    text_add(t, "</tr>\n<tr>");
    html_head(t, "%s", task->disease);
    add_confusion_cell(t, c, "fn", "tp", false);
    add_confusion_cell(t, c, "tp", "fn", true);
    text_add(t, "</tr></tbody></table>\n");
}

Status section_confusion(Text *t, const Run *r)
{
    html_para(t, NULL,
              "Test films at each arm's threshold; shares are of the row. Shaded cells are "
              "right calls.");
    text_add(t, "<div class=\"flow\">\n");
    for (int i = 0; i < r->n_task; i++)
        for (int k = 0; k < ARM_COUNT; k++) add_confusion(t, &r->task[i], k);
    text_add(t, "</div>\n");
    return OK;
}
