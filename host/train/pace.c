/* pace.c - which rank is slow: the ranks' own work on a step, side by side; see step.h. */
#include "base/text.h"
#include "train/step.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A warning from this on: times the median, and seconds more than it. */
static const double slow_times = 2, slow_s = .005;

typedef struct {
    double s; /* own work on a step */
    char name[COMM_NAME];
} Pace;

static int by_time(const void *a, const void *b)
{
    double x = ((const Pace *)a)->s, y = ((const Pace *)b)->s;
    return (x > y) - (x < y);
}

static void tell(const Pace *all, int n, const char *name, Log *log)
{
    Text t = {0};
    Pace *sorted = malloc((size_t)n * sizeof *sorted);
    CHECK(sorted);
    memcpy(sorted, all, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_time);
    double median = sorted[(n - 1) / 2].s;
    const Pace *last = &sorted[n - 1];
    for (int r = 0; r < n; r++) text_add(&t, "%s%.4g", r ? ", " : "", all[r].s);
    log_record(log, "pace", "\"name\":\"%s\",\"seconds\":[%s]", name, t.s);
    if (last->s > slow_times * median && last->s > median + slow_s)
        log_warn(log,
                 "%s: %s is slow: it works %.3g s on a step, of %d ranks the middle one %.3g s; by "
                 "rank: %s",
                 name, last->name, last->s, n, median, t.s);
    free(sorted);
    free(t.s);
}

Status train_step_table(TrainStep *t, const char *name, Log *log)
{
    int n = comm_size(t->comm);
    Pace mine = {.s = t->work_s / fmax(1, (double)t->worked)}, *all;
    t->work_s = 0;
    t->worked = 0;
    if (n == 1) return OK;
    comm_name(t->comm, mine.name);
    all = calloc((size_t)n, sizeof *all);
    CHECK(all);
    Status s = comm_host_gather(t->comm, "times of the ranks", all, &mine, sizeof mine);
    if (!s && comm_rank(t->comm) == 0) tell(all, n, name, log);
    free(all);
    return s;
}
