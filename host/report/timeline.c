/* timeline.c - which ranks worked on which stage when, from stages/NAME/times.json.
 *
 * Time runs from the first start of any stage. Where no stage was at work for longer than a while,
 * as between a stop and the next start, that time is left out of the axis.
 */
#include "report/html.h"
#include "report/plot.h"
#include "report/sections.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double IDLE_S = 30; /* longer gaps are cut */

typedef struct {
    int stage;
    double began, ended; /* s */
    int rank, ranks;
    bool done;
} Entry;

typedef struct {
    DirList stages;
    Entry *entry; /* owned: [n], by start */
    int n;
    double *cut; /* owned: [n_cut] places on the axis */
    int n_cut;
    double end; /* of the axis */
    bool back;  /* entries that end before they begin are left out */
} Timeline;     /* starts as {0} */

static void timeline_free(Timeline *l)
{
    dir_list_free(&l->stages);
    free(l->entry);
    free(l->cut);
}

static int by_start(const void *a, const void *b)
{
    const Entry *x = a, *y = b;
    if (x->began != y->began) return x->began < y->began ? -1 : 1;
    return x->stage - y->stage;
}

static Status read_stage(Timeline *l, const Run *r, int stage)
{
    json_t *list, *one;
    size_t i;
    Text name = {0};
    text_add(&name, "stages/%s/times.json", l->stages.name[stage]);
    Status s = run_json(&list, r, name.s);
    if (s || !list) goto done;
    json_array_foreach(list, i, one)
    {
        Entry e = {stage,
                   number_at(one, "began"),
                   number_at(one, "ended"),
                   (int)number_at(one, "rank"),
                   (int)number_at(one, "ranks"),
                   !strcmp(text_at(one, "how"), "done")};
        if (!(e.began > 0 && e.ended > 0 && fmax(e.began, e.ended) < 1e11 && e.rank >= 0 &&
              e.ranks > 0)) {
            s = FAIL(ERR_INPUT, "%s/%s: entry %d, expected the times of a stage", r->folder, name.s,
                     (int)i + 1);
            break;
        }
        if (e.ended < e.began) {
            l->back = true;
            continue;
        }
        l->entry = realloc(l->entry, (size_t)(l->n + 1) * sizeof *l->entry);
        CHECK(l->entry);
        l->entry[l->n++] = e;
    }
done:
    json_decref(list);
    free(name.s);
    return s;
}

/* Times become places on the axis; gaps are cut. */
static void cut_gaps(Timeline *l)
{
    double latest = 0, left_out = 0;
    qsort(l->entry, (size_t)l->n, sizeof *l->entry, by_start);
    l->cut = calloc((size_t)l->n + 1, sizeof *l->cut);
    CHECK(l->cut);
    for (int i = 0; i < l->n; i++) {
        Entry *e = &l->entry[i];
        double gap = e->began - latest;
        if (i == 0 || gap > IDLE_S) left_out += gap;
        if (i && gap > IDLE_S) l->cut[l->n_cut++] = e->began - left_out;
        latest = fmax(latest, e->ended);
        e->began -= left_out;
        e->ended -= left_out;
        l->end = fmax(l->end, e->ended);
    }
}

/* The share of the ranks' time in which they worked on stages. */
static double busy_share(const Timeline *l, int *ranks)
{
    double sum = 0;
    *ranks = 0;
    for (int i = 0; i < l->n; i++) {
        const Entry *e = &l->entry[i];
        sum += (e->ended - e->began) * e->ranks;
        if (e->rank + e->ranks > *ranks) *ranks = e->rank + e->ranks;
    }
    return sum > 0 ? sum / (l->end * *ranks) : 0;
}

/* Rows in the order of their first bars. */
static void add_plot(Text *t, const Timeline *l)
{
    double unit = l->end < 300 ? 1 : l->end < 18000 ? 60 : 3600;
    const char *unit_name = unit == 1 ? "seconds" : unit == 60 ? "minutes" : "hours";
    int n_row = 0, *row = calloc((size_t)l->stages.n + 1, sizeof *row);
    const char **name = calloc((size_t)l->stages.n + 1, sizeof *name);
    char **label = calloc((size_t)l->stages.n + 1, sizeof *label);
    TimeSpan *span = calloc((size_t)l->n + 1, sizeof *span);
    Text told = {0};
    CHECK(row && name && label && span);
    for (int i = 0; i < l->stages.n; i++) row[i] = -1;
    for (int i = 0; i < l->n; i++) {
        const Entry *e = &l->entry[i];
        Text who = {0};
        if (row[e->stage] < 0) name[row[e->stage] = n_row++] = l->stages.name[e->stage];
        span[i] = (TimeSpan){row[e->stage], e->began / unit, e->ended / unit, e->done};
        if (e->ranks == 1) text_add(&who, "rank %d", e->rank);
        else text_add(&who, "ranks %d\u2013%d", e->rank, e->rank + e->ranks - 1);
        text_add(&told, "%s: %s to %s, %s. ", name[row[e->stage]], figure(e->began / unit, 1).s,
                 figure(e->ended / unit, 1).s, who.s);
        free(label[row[e->stage]]);
        label[row[e->stage]] = who.s;
    }
    for (int i = 0; i < l->n_cut; i++) l->cut[i] /= unit;
    plot_spans(t, "timeline-plot", "Stages by time", told.s, unit_name, name,
               (const char *const *)label, n_row, span, l->n, l->cut, l->n_cut);
    for (int i = 0; i < n_row; i++) free(label[i]);
    free(row);
    free(name);
    free(label);
    free(span);
    free(told.s);
}

Status section_timeline(Text *t, const Run *r)
{
    Timeline l = {0};
    char *stages = run_path(r, "stages");
    Status s = file_exists(stages) ? dir_list(&l.stages, stages) : OK;
    free(stages);
    for (int i = 0; i < l.stages.n && !s; i++) s = read_stage(&l, r, i);
    if (s) goto done;
    if (!l.n) {
        html_missing(t, "When the stages ran is not in the run.");
        goto done;
    }
    int ranks;
    cut_gaps(&l);
    double share = busy_share(&l, &ranks);
    html_para(t, NULL,
              "%d rank%s worked on stages %s %% of the time shown. Bars in the second colour "
              "ended before the stage was complete. Starts that were killed are not shown%s%s.",
              ranks, ranks == 1 ? "" : "s", figure(100 * share, 0).s,
              l.back ? ", nor those during which the clock was set back" : "",
              l.n_cut ? "; dashed lines are where idle time was left out" : "");
    add_plot(t, &l);
done:
    timeline_free(&l);
    return s;
}
