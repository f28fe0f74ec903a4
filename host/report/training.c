/* training.c - training curves from history.json: {"columns": [...], "rows": [[...], ...]}.
 *
 * Long histories are drawn as means of as many equal pieces as fit a plot. A missing column or a
 * null is a value that was not measured.
 */
#include "report/html.h"
#include "report/plot.h"
#include "report/sections.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_POINTS = 200, FEW_POINTS = 30 };

typedef struct {
    double *x, *y; /* owned: [n] */
    int n;
} Track; /* starts as {0} */

static void track_free(Track *t)
{
    free(t->x);
    free(t->y);
    *t = (Track){0};
}

static int column_of(const json_t *history, const char *name)
{
    const json_t *columns = json_at(history, "columns");
    for (size_t i = 0; i < json_array_size(columns); i++) {
        const char *one = json_string_value(json_array_get(columns, i));
        if (one && !strcmp(one, name)) return (int)i;
    }
    return -1;
}

static double cell(const json_t *row, int column)
{
    const json_t *v = column < 0 ? NULL : json_array_get(row, (size_t)column);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

/* Of the measured values only. */
static Track track_new(const json_t *history, const char *x_name, const char *y_name)
{
    const json_t *rows = json_at(history, "rows");
    size_t most = json_array_size(rows);
    int cx = column_of(history, x_name), cy = column_of(history, y_name);
    Track t = {calloc(most + 1, sizeof(double)), calloc(most + 1, sizeof(double)), 0};
    CHECK(t.x && t.y);
    for (size_t i = 0; i < most; i++) {
        double x = cell(json_array_get(rows, i), cx), y = cell(json_array_get(rows, i), cy);
        if (!isfinite(x) || !isfinite(y)) continue;
        t.x[t.n] = x;
        t.y[t.n++] = y;
    }
    int n = t.n;
    if (n <= MOST_POINTS) return t;
    t.n = MOST_POINTS;
    for (int k = 0; k < t.n; k++) { /* piece k is at or behind place k: in place */
        int from = (int)((int64_t)k * n / t.n), to = (int)((int64_t)(k + 1) * n / t.n);
        double x = 0, y = 0;
        for (int i = from; i < to; i++) {
            x += t.x[i] / (to - from);
            y += t.y[i] / (to - from);
        }
        t.x[k] = x;
        t.y[k] = y;
    }
    return t;
}

/* ---- plots ---------------------------------------------------------------------------- */

typedef struct {
    const char *column, *name;
    PlotColor color;
    int history; /* which of the plot's */
    bool dashed;
} Line;

static void add_plot(Text *t, const char *kind, const RunTask *task, const char *what,
                     const char *x_name, const char *y_label, json_t *const *history,
                     const Line *line, int n)
{
    Track track[4] = {{0}};
    Series series[4];
    Text id = {0}, title = {0}, told = {0};
    int n_series = 0;
    CHECK(n <= 4);
    for (int i = 0; i < n; i++) {
        track[i] = track_new(history[line[i].history], x_name, line[i].column);
        if (!track[i].n) continue;
        series[n_series++] = (Series){line[i].name,
                                      track[i].x,
                                      track[i].y,
                                      track[i].n,
                                      line[i].color,
                                      line[i].dashed,
                                      track[i].n <= FEW_POINTS};
        text_add(&told, "%s: from %s to %s. ", line[i].name, figure(track[i].y[0], 4).s,
                 figure(track[i].y[track[i].n - 1], 4).s);
    }
    text_add(&id, "%s-%s", kind, task->letter);
    text_add(&title, "%s: %s", task->disease, what);
    Plot plot = {id.s, title.s, told.s ? told.s : "", x_name, y_label, false, series, n_series};
    if (n_series) plot_lines(t, &plot);
    else html_missing(t, "%s: nothing was recorded.", title.s);
    for (int i = 0; i < n; i++) track_free(&track[i]);
    free(id.s);
    free(title.s);
    free(told.s);
}

static Status read_history(json_t **j, Text *t, const Run *r, const char *stage,
                           const RunTask *task)
{
    Text name = {0};
    text_add(&name, "stages/%s-%s/history.json", stage, task->letter);
    Status s = run_json(j, r, name.s);
    if (!s && !*j)
        html_missing(t, "%s: the training history of the stage %s-%s is not in the run.",
                     task->disease, stage, task->letter);
    free(name.s);
    return s;
}

static Status add_task(Text *t, const Run *r, const RunTask *task)
{
    static const Line loss[] = {
        {"loss", "real films only, training", COLOR_BASELINE, 0, false},
        {"val_loss", "real films only, validation", COLOR_BASELINE, 0, true},
        {"loss", "with synthetic films, training", COLOR_AUGMENTED, 1, false},
        {"val_loss", "with synthetic films, validation", COLOR_AUGMENTED, 1, true}};
    static const Line accuracy[] = {
        {"val_balanced_accuracy", "real films only", COLOR_BASELINE, 0, false},
        {"val_balanced_accuracy", "with synthetic films", COLOR_AUGMENTED, 1, true}};
    static const Line ldm[] = {{"loss", "training", COLOR_BASELINE, 0, false},
                               {"val_loss", "validation", COLOR_BASELINE, 0, true}};
    json_t *arm[ARM_COUNT] = {NULL}, *diffusion = NULL;
    Status s = OK;
    for (int k = 0; k < ARM_COUNT; k++)
        TRY_OR(done, s, read_history(&arm[k], t, r, arm_name[k], task));
    TRY_OR(done, s, read_history(&diffusion, t, r, "ldm", task));
    if (arm[0] || arm[1]) {
        add_plot(t, "loss", task, "classifier loss", "epoch", "loss", arm, loss, 4);
        add_plot(t, "accuracy", task, "classifier on validation films", "epoch",
                 "balanced accuracy", arm, accuracy, 2);
    }
    if (diffusion)
        add_plot(t, "ldm", task, "diffusion model loss", "step", "loss", &diffusion, ldm, 2);
done:
    for (int k = 0; k < ARM_COUNT; k++) json_decref(arm[k]);
    json_decref(diffusion);
    return s;
}

Status section_training(Text *t, const Run *r)
{
    double repeats = number_at(r->metrics, "study.repeats");
    html_para(
        t, NULL, "%s%s",
        validates_on_synthetic(r)
            ? "The two arms validate on different films (the augmented arm's include synthetic "
              "ones), so their validation curves are not comparable in height."
            : "Both arms validate on the same real films.",
        repeats > 1 ? " Curves are of the first training seed." : "");
    for (int i = 0; i < r->n_task; i++) {
        html_h3(t, "%s", r->task[i].disease);
        text_add(t, "<div class=\"flow\">\n");
        TRY(add_task(t, r, &r->task[i]));
        text_add(t, "</div>\n");
    }
    return OK;
}
