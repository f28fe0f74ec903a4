/* plan.c - makes plans of studies and shows them; see plan.h. */
#include "study/plan.h"
#include "comm/exchange.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

Status study_plan_make(StudyPlan *p, const Config *c, const FilmCounts *n, Dtype act, int ranks,
                       const bool *done)
{
    Job job[N_STEP];
    int size[N_STEP];
    *p = (StudyPlan){.ranks = ranks};
    if (done) memcpy(p->done, done, sizeof p->done);
    TRY(estimate_steps(p->estimate, c, n, act, NULL));
    estimate_jobs(job, p->estimate, c, p->done);
    p->end = schedule_make(p->slot, job, N_STEP, ranks);
    for (int i = 0; i < N_STEP; i++) size[i] = p->slot[i].n;
    return ranks > 1 ? estimate_steps(p->estimate, c, n, act, size) : OK;
}

/* ---- words ------------------------------------------------------------------------------ */

typedef struct {
    char s[32];
} Word;

static Word scaled(double v, double base, const char *const *unit, int n)
{
    Word w;
    int i = 0;
    for (; i < n - 1 && v >= base; i++) v /= base;
    snprintf(w.s, sizeof w.s, v < 10 ? "%.2f %s" : v < 100 ? "%.1f %s" : "%.0f %s", v, unit[i]);
    return w;
}

static Word bytes_word(double v)
{
    static const char *const unit[] = {"KiB", "MiB", "GiB", "TiB"};
    if (v <= 0) return (Word){"-"};
    return scaled(v / 1024, 1024, unit, 4);
}

static Word flops_word(double v)
{
    static const char *const unit[] = {"M", "G", "T", "P", "E"};
    return scaled(v * 1e-6, 1000, unit, 5);
}

static Word time_word(double s)
{
    Word w;
    if (s > 0 && s < .1) snprintf(w.s, sizeof w.s, "%.2f ms", 1e3 * s);
    else if (s < 100) snprintf(w.s, sizeof w.s, "%.1f s", s);
    else if (s < 6000) snprintf(w.s, sizeof w.s, "%.1f min", s / 60);
    else if (s < 360000) snprintf(w.s, sizeof w.s, "%.1f h", s / 3600);
    else snprintf(w.s, sizeof w.s, "%.1f d", s / 86400);
    return w;
}

static Word ranks_word(const Slot *s)
{
    Word w;
    if (s->n == 1) snprintf(w.s, sizeof w.s, "%d", s->first);
    else snprintf(w.s, sizeof w.s, "%d-%d", s->first, s->first + s->n - 1);
    return w;
}

/* ---- the exchange ------------------------------------------------------------------------ */

/* Of a step: the backward pass is two thirds of a micro-batch's arithmetic. */
static Exchange exchange_of(const StudyPlan *p, int i)
{
    const Cost *m = &p->estimate[i].cost;
    return (Exchange){.ranks = p->slot[i].n,
                      .buckets = m->buckets,
                      .parts = m->parts,
                      .bytes = (double)m->gradients,
                      .link = p->link,
                      .hide_s = 2. / 3 * m->unit / p->flops_per_s,
                      .sharded = p->sharded};
}

static void print_exchange(FILE *to, const StudyPlan *p, int i)
{
    Exchange e = exchange_of(p, i);
    fprintf(to, "  %9s", bytes_word(e.bytes).s);
    if (e.ranks > 1) fprintf(to, " %7d", e.buckets);
    if (p->link <= 0 || e.ranks == 1) return;
    double exposed = exchange_exposed_s(&e), pass = p->estimate[i].cost.unit / p->flops_per_s,
           passes = (double)p->estimate[i].passes / e.ranks;
    fprintf(to, " %9s %9s %5.1f %%", time_word(exchange_s(&e)).s, time_word(exposed).s,
            100 * exposed / (exposed + passes * pass));
}

/* ---- lines ------------------------------------------------------------------------------ */

/* The steps by their place in the plan. */
static void by_place(int *order, const StudyPlan *p)
{
    for (int i = 0; i < N_STEP; i++) order[p->slot[i].place] = i;
}

static void add_head(Text *t, const StudyPlan *p)
{
    text_add(t, "plan for %d rank%s: about %s if all ran at %sFLOP/s a rank (%s)", p->ranks,
             p->ranks == 1 ? "" : "s", time_word(p->end / p->flops_per_s).s,
             flops_word(p->flops_per_s).s,
             p->measured ? "one convolution, measured here" : "given");
}

void study_plan_log(const StudyPlan *p, const Config *c, Log *log)
{
    int order[N_STEP];
    Text head = {0};
    by_place(order, p);
    add_head(&head, p);
    log_info(log, "%s", head.s);
    free(head.s);
    for (int k = 0; k < N_STEP; k++) {
        int i = order[k];
        const Estimate *e = &p->estimate[i];
        const Slot *s = &p->slot[i];
        Text title = {0};
        if (e->flops <= 0 || p->done[i]) continue;
        step_title(&title, i, c);
        log_info(log, "  %-12s rank%s %s, from %s for %s: %s, %sFLOP, %s a rank", step[i].name,
                 s->n == 1 ? "" : "s", ranks_word(s).s, time_word(s->start / p->flops_per_s).s,
                 time_word((s->end - s->start) / p->flops_per_s).s, title.s, flops_word(e->flops).s,
                 bytes_word((double)e->cost.peak).s);
        free(title.s);
    }
}

static void print_step(FILE *to, const StudyPlan *p, int i)
{
    const Estimate *e = &p->estimate[i];
    const Slot *s = &p->slot[i];
    const Cost *m = &e->cost;
    fprintf(to, "%-12s %7s %9s %9s", step[i].name, ranks_word(s).s,
            time_word(s->start / p->flops_per_s).s,
            time_word((s->end - s->start) / p->flops_per_s).s);
    if (e->flops <= 0) {
        fprintf(to, "\n");
        return;
    }
    fprintf(to, " %9ld %6d %9s  %9s %9s %9s %9s", e->steps, e->passes ? e->passes / s->n : 0,
            flops_word(e->flops).s, bytes_word((double)m->parameters).s,
            bytes_word((double)m->activations).s, bytes_word((double)m->optimizer).s,
            bytes_word((double)m->peak).s);
    if (e->passes) print_exchange(to, p, i);
    fprintf(to, "\n");
}

void study_plan_print(FILE *to, const StudyPlan *p, const Config *c)
{
    int order[N_STEP];
    Text head = {0};
    by_place(order, p);
    add_head(&head, p);
    fprintf(to, "%s\nnormal: %s; a: %s; b: %s\n\n", head.s, c->data.normal, c->data.disease_a,
            c->data.disease_b);
    free(head.s);
    fprintf(to, "%-12s %7s %9s %9s %9s %6s %9s  %-39s  %s\n", "", "", "", "", "steps or", "passes",
            "", "          memory of a rank", "gradients of a step");
    fprintf(to, "%-12s %7s %9s %9s %9s %6s %9s  %9s %9s %9s %9s  %9s %7s", "stage", "ranks", "from",
            "for", "films", "a rank", "FLOP", "weights", "planned", "optimizer", "at most", "all",
            "buckets");
    if (p->link > 0) fprintf(to, " %9s %9s %7s", "exchange", "exposed", "of step");
    fprintf(to, "\n");
    for (int k = 0; k < N_STEP; k++) print_step(to, p, order[k]);
    fprintf(
        to,
        "\nsteps of training, or films made or classified; passes: micro-batches of a step that "
        "a rank runs. FLOP: of\n"
        "convolutions, matrix products and attention, all ranks together. Memory: of tensors on "
        "the device: weights\n"
        "with their gradients, planned block of activations, optimizer state with what the "
        "exchange needs; without\n"
        "scratch memory of kernels and libraries. Estimates, not measured: times are FLOP / "
        "speed, and so lower\n"
        "bounds%s\n",
        p->link > 0 ? ", without the exchange: bytes / link; exposed: what of it the backward pass "
                      "does not hide."
                    : ".");
}
