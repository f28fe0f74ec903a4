/* estimate.c - costs of stages, measured on a counting device; see estimate.h. */
#include "study/estimate.h"
#include <math.h>
#include <string.h>

/* Films of one task. */
typedef struct {
    int train[2], val[2], test[2]; /* normal, diseased */
    int made[2];                   /* synthetic, for training and validation */
} TaskFilms;

static TaskFilms films_of(const Config *c, const FilmCounts *n, int task)
{
    const DataSettings *d = &c->data;
    TaskFilms f = {0};
    int all[2] = {n->normal, n->disease[task]};
    for (int k = 0; k < 2; k++) {
        f.train[k] = (int)(d->train_share * all[k]);
        f.val[k] = (int)(d->val_share * all[k]);
        f.test[k] = all[k] - f.train[k] - f.val[k];
    }
    if (d->train_ratio > 0) {
        f.train[1] = (int)fmin(f.train[1], ceil(f.train[0] / d->train_ratio));
        f.val[1] = (int)fmin(f.val[1], ceil(f.val[0] / d->train_ratio));
    }
    int made = synthetic_expected(c, n->normal, n->disease[task]);
    bool both = !strcmp(c->classifier.synthetic_in, "train+val");
    double share = both ? d->val_share / (d->train_share + d->val_share) : 0;
    f.made[1] = (int)lround(made * share);
    f.made[0] = made - f.made[1];
    return f;
}

/* What the estimates share. */
typedef struct {
    const Config *c;
    Device *counting;
    TaskFilms films[2];
    Comm *group; /* imagined: of the stage at hand; NULL: one rank */
} Bench;

static Status measure_classifier(Estimate *e, const Bench *b, int task, bool augmented)
{
    const Config *c = b->c;
    const TaskFilms *f = &b->films[task];
    Cost predict;
    int train = f->train[0] + f->train[1] + (augmented ? f->made[0] : 0);
    int val = f->val[0] + f->val[1] + (augmented ? f->made[1] : 0);
    ClassifierJob job = {.config = c,
                         .name = "plan",
                         .out = "",
                         .n_train = train,
                         .n_val = val,
                         .classes = 2,
                         .comm = b->group};
    TRY(classifier_measure_predict(&predict, c, b->counting));
    TRY(classifier_measure(&e->cost, &job, b->counting));
    e->passes = c->classifier.accumulate;
    long per_epoch = train / (c->classifier.batch * e->passes), epochs = c->classifier.epochs;
    e->steps = per_epoch * epochs * c->study.repeats;
    e->flops = (double)e->steps * e->passes * e->cost.unit +
               (double)(epochs * c->study.repeats) * e->cost.validation +
               (double)c->study.repeats * (val + f->test[0] + f->test[1]) * predict.unit;
    if (predict.peak > e->cost.peak) e->cost.peak = predict.peak;
    return OK;
}

static Status measure_ldm(Estimate *e, const Bench *b, int task)
{
    const Config *c = b->c;
    const TaskFilms *f = &b->films[task];
    LdmJob job = {.config = c,
                  .base = c->ldm.base,
                  .name = "plan",
                  .out = "",
                  .n_train = f->train[1] > 0 ? f->train[1] : 1,
                  .n_prior = f->train[0],
                  .n_val = f->val[1],
                  .comm = b->group};
    TRY(ldm_measure(&e->cost, &job, b->counting));
    e->passes = c->ldm.accumulate;
    e->steps = c->ldm.steps;
    double validations = ceil((double)c->ldm.steps / c->ldm.validate_every);
    e->flops = e->cost.once + (double)e->steps * e->passes * e->cost.unit +
               validations * e->cost.validation;
    return OK;
}

static Status measure_synthesis(Estimate *e, const Bench *b, int task)
{
    int n = b->films[task].made[0] + b->films[task].made[1];
    SynthesisJob job = {
        .config = b->c, .model = b->c->ldm.base, .name = "plan", .count = n ? n : 1};
    TRY(synthesis_measure(&e->cost, &job, b->counting));
    e->steps = n;
    e->flops = n * e->cost.unit;
    return OK;
}

/* Features of four sets of films, and the baseline's opinion of the synthetic ones. */
static Status measure_evaluation(Estimate *e, const Bench *b)
{
    TRY(classifier_measure_predict(&e->cost, b->c, b->counting));
    for (int k = 0; k < 2; k++) {
        const TaskFilms *f = &b->films[k];
        int made = f->made[0] + f->made[1];
        e->steps += f->test[1] + f->train[0] + f->train[1] + made * (1 + b->c->study.repeats);
    }
    e->flops = (double)e->steps * e->cost.unit;
    return OK;
}

static Status measure(Estimate *e, const Bench *b, int i)
{
    int task = step[i].task;
    switch (step[i].kind) {
    case STEPS_CLASSIFIER:
    case STEPS_AUGMENTED:
        return measure_classifier(e, b, task, step[i].kind == STEPS_AUGMENTED);
    case STEPS_LDM:
        return measure_ldm(e, b, task);
    case STEPS_SYNTH:
        return measure_synthesis(e, b, task);
    case STEPS_EVALUATE:
        return measure_evaluation(e, b);
    default:
        return OK;
    }
}

Status estimate_steps(Estimate *e, const Config *c, const FilmCounts *n, Dtype act,
                      const int *ranks)
{
    Bench b = {.c = c, .films = {films_of(c, n, 0), films_of(c, n, 1)}};
    Status s;
    TRY(device_open_counting(&b.counting, act));
    for (int i = 0; i < N_STEP; i++) {
        e[i] = (Estimate){0};
        b.group = ranks && ranks[i] > 1 ? comm_imagined(ranks[i]) : NULL;
        s = measure(&e[i], &b, i);
        comm_close(b.group);
        TRY_OR(done, s, s);
    }
done:
    device_close(b.counting);
    return s;
}

void estimate_jobs(Job *job, const Estimate *e, const Config *c, const bool *done)
{
    for (int i = 0; i < N_STEP; i++)
        job[i] = (Job){.work = done[i] ? 0 : e[i].flops,
                       .needs = step[i].needs,
                       .kind = (int)step[i].kind,
                       .micro = step_micro(i, c)};
}
