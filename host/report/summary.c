/* summary.c - the result in plain words, from the numbers, whichever way they point.
 *
 * The verdict on a task rests on Youden's index: augmented minus baseline, the patient-cluster
 * interval and Holm's p. Only where both agree is a difference called shown.
 */
#include "report/html.h"
#include "report/sections.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double LEVEL = .05;

const char *const arm_title[ARM_COUNT] = {"real films only", "with synthetic films"};

bool test_patients_repeat(const Run *r)
{
    for (int i = 0; i < r->n_task; i++)
        if (number_at(r->task[i].json, "baseline.evaluation.n") >
            number_at(r->task[i].json, "baseline.evaluation.patients"))
            return true;
    return false;
}

bool starts_from_weights(const Run *r)
{
    bool tuned = *r->config.ldm.base && strcmp(r->config.ldm.init, "random");
    return tuned || *r->config.classifier.weights;
}

bool validates_on_synthetic(const Run *r)
{
    for (int i = 0; i < r->n_task; i++)
        if (number_at(r->task[i].json, "augmented.films.val.synthetic") > 0) return true;
    return false;
}

void words_join(Text *t, const char *word, int i, int n)
{
    text_add(t, "%s%s", i == 0 ? "" : i == n - 1 ? " and " : ", ", word);
}

/* ---- verdicts ------------------------------------------------------------------------- */

typedef enum { UNKNOWN, BETTER, WORSE, UNDECIDED, NOT_SHOWN } Verdict;

static Verdict verdict(const json_t *youden)
{
    const json_t *ci = json_at(youden, "ci");
    double lo = json_number_value(json_array_get(ci, 0)),
           hi = json_number_value(json_array_get(ci, 1)), p = number_at(youden, "p"),
           holm = number_at(youden, "p_holm");
    if (!json_is_number(json_array_get(ci, 0)) || !json_is_number(json_array_get(ci, 1)) ||
        !isfinite(number_at(youden, "difference")))
        return UNKNOWN;
    if (lo > 0 && holm < LEVEL) return BETTER;
    if (hi < 0 && holm < LEVEL) return WORSE;
    return lo > 0 || hi < 0 || p < LEVEL ? UNDECIDED : NOT_SHOWN;
}

static void add_verdict(Text *t, Verdict v, const json_t *youden)
{
    const json_t *ci = json_at(youden, "ci");
    Figure low = figure_signed(json_number_value(json_array_get(ci, 0)), 3),
           high = figure_signed(json_number_value(json_array_get(ci, 1)), 3);
    switch (v) {
    case UNKNOWN:
        text_add(t, "The two arms could not be compared.");
        break;
    case BETTER:
        text_add(t, "The augmented classifier is better on these films.");
        break;
    case WORSE:
        text_add(t, "The augmented classifier is worse on these films.");
        break;
    case UNDECIDED:
        text_add(t, "Undecided: the interval, the p-value and its correction for several metrics "
                    "do not agree that there is a difference.");
        break;
    case NOT_SHOWN:
        text_add(t,
                 "No difference is shown; true differences from %s to %s remain compatible with "
                 "these films.",
                 low.s, high.s);
        break;
    }
}

static const char *test_words(const char *name)
{
    return !strcmp(name, "permutation")     ? "permutation of the arms within patients"
           : !strcmp(name, "bootstrap")     ? "paired bootstrap over patients"
           : !strcmp(name, "delong")        ? "DeLong's test"
           : !strcmp(name, "mcnemar_exact") ? "exact McNemar test"
           : *name                          ? name
                                            : "no test";
}

/* ---- the section ---------------------------------------------------------------------- */

static void add_lead(Text *t, const Run *r)
{
    int count[NOT_SHOWN + 1] = {0};
    Text diseases = {0}, line = {0};
    double made = 0;
    for (int i = 0; i < r->n_task; i++) {
        const RunTask *task = &r->task[i];
        double n = number_at(task->json, "synthetic.count");
        if (isfinite(n)) made += n;
        words_join(&diseases, task->disease, i, r->n_task);
        count[verdict(json_at(task->json, "comparison.youden"))]++;
    }
    text_add(
        &line,
        "Does a classifier of chest X-rays get better when a rare disease's training films are "
        "joined by synthetic ones? %s synthetic films (%s) were made by latent diffusion models "
        "fine-tuned on the training films of each disease. For each disease one Inception-V3 was "
        "trained on real films only and one with the synthetic films, and both were measured on "
        "the same real test films of other patients. ",
        figure_count(made).s, diseases.s);
    if (number_at(r->metrics, "study.repeats") > 1)
        text_add(&line, "Each classifier was trained from %s seeds and its scores averaged. ",
                 figure(number_at(r->metrics, "study.repeats"), 0).s);
    if (count[BETTER] == r->n_task)
        text_add(&line, "Result: Youden's index rose in %s.",
                 r->n_task == 1   ? "the one task"
                 : r->n_task == 2 ? "both tasks"
                                  : "every task");
    else if (count[UNKNOWN] == r->n_task)
        text_add(&line, "Result: none, the two arms could not be compared.");
    else if (count[BETTER] + count[WORSE] == 0)
        text_add(
            &line,
            "Result: augmentation with synthetic films is not shown to help in %s: no "
            "difference of Youden's index stands up to both its interval and the corrected test.",
            r->n_task == 1   ? "the one task"
            : r->n_task == 2 ? "either task"
                             : "any task");
    else
        text_add(
            &line,
            "Result: of %d tasks, Youden's index rose in %d and fell in %d; in the other %d no "
            "difference is shown.",
            r->n_task, count[BETTER], count[WORSE], r->n_task - count[BETTER] - count[WORSE]);
    html_para(t, "lead", "%s", line.s);
    free(diseases.s);
    free(line.s);
}

static void add_task(Text *t, const RunTask *task)
{
    const json_t *youden = json_at(task->json, "comparison.youden");
    Text line = {0};
    text_add(
        &line,
        "Youden's index %s with real films only, %s with synthetic films: difference %s, 95 %% "
        "interval %s, p %s, Holm's p %s (%s). ",
        figure(number_at(task->json, "baseline.evaluation.metrics.youden.value"), 3).s,
        figure(number_at(task->json, "augmented.evaluation.metrics.youden.value"), 3).s,
        figure_signed(number_at(youden, "difference"), 3).s, span(json_at(youden, "ci"), 3, true).s,
        figure_p(number_at(youden, "p")).s, figure_p(number_at(youden, "p_holm")).s,
        test_words(text_at(youden, "test")));
    add_verdict(&line, verdict(youden), youden);
    text_add(t, "<li><b>");
    text_add_html(t, task->normal);
    text_add(t, " against ");
    text_add_html(t, task->disease);
    text_add(t, ".</b> ");
    text_add_html(t, line.s);
    text_add(t, "</li>\n");
    free(line.s);
}

Status section_summary(Text *t, const Run *r)
{
    add_lead(t, r);
    text_add(t, "<ul>\n");
    for (int i = 0; i < r->n_task; i++) add_task(t, &r->task[i]);
    text_add(t, "</ul>\n");
    html_para(t, "warning",
              "For research, not for diagnosis. Films called synthetic show no patient; each is "
              "marked as synthetic here and in its own file.");
    return OK;
}
