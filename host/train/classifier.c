/* classifier.c - the training loop of Inception-V3.
 *
 * Training uses full batches only (the films left over at an epoch's end differ from epoch to
 * epoch): a batch with fillers would bend the statistics of the batch normalisations.
 */
#include "train/classifier.h"
#include "base/random.h"
#include "train/classifier_net.h"
#include "train/run_state.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUM_LOSS,
    BAD_STEPS,
    RATE,
    BEST_SCORE,
    BEST_EPOCH,
    RATE_EPOCH
}; /* numbers kept in checkpoints */
static const char *const COLUMNS[] = {"epoch", "loss", "val_loss", "val_balanced_accuracy", "rate"};

typedef struct {
    const ClassifierJob *job;
    Device *device;
    Log *log;
    ClassifierNet net;
    ClassifierPass train, eval;
    float *class_weight; /* owned: [classes] or NULL */
    float *best;         /* owned: device block of the best epoch's values */
    Loader *loader;
    Optimizer optimizer;
    TrainStep step;
    History history;
    RunState run;
    long per_epoch; /* steps */
    char *checkpoints, *model;
} Trainer;

/* n / (classes * films of the class): sums to n over the films. A class without films weighs
 * nothing. */
static float *balanced_weights(const ClassifierJob *job)
{
    float *w = calloc((size_t)job->classes, sizeof *w);
    CHECK(w);
    for (int i = 0; i < job->n_train; i++) w[job->train[i].label] += 1;
    for (int c = 0; c < job->classes; c++)
        if (w[c] > 0) w[c] = (float)job->n_train / ((float)job->classes * w[c]);
    return w;
}

/* Rate of update number `step`: the cosine's, or what the plateau rule left of it. */
static double rate_of(const Trainer *t, long step)
{
    const ClassifierSettings *set = &t->job->config->classifier;
    if (strcmp(set->schedule, "cosine")) return t->run.number[RATE];
    return lr_at(LR_COSINE, set->learning_rate, set->min_learning_rate, step,
                 t->per_epoch * set->epochs, 0);
}

static Status feed(void *trainer, long step, int micro)
{
    Trainer *t = trainer;
    const ClassifierSettings *set = &t->job->config->classifier;
    int32_t rng[3] = {(int32_t)t->job->seed, (int32_t)step, micro * set->batch};
    Batch b;
    do TRY(loader_next(t->loader, &b));
    while (b.index / set->accumulate >= t->per_epoch); /* the epoch's leftovers */
    CHECK(b.index == (step - 1) % t->per_epoch * set->accumulate + micro);
    return classifier_pass_write(&t->train, b.pixel, b.label, rng);
}

/* Weighted cross-entropy and mean recall over the validation films. */
static Status validate(Trainer *t, double *loss, double *balanced)
{
    const ClassifierJob *job = t->job;
    size_t k = (size_t)job->classes;
    float *p = calloc((size_t)job->n_val * k + 1, sizeof *p);
    double *hit = calloc(2 * k, sizeof *hit), sum = 0, weight = 0, recalls = 0;
    CHECK(p && hit);
    Status s = classifier_scan(&t->eval, job->config, job->comm, job->val, job->n_val, p, NULL,
                               NULL, "validation");
    for (int i = 0; !s && i < job->n_val; i++) {
        size_t label = (size_t)job->val[i].label, top = 0;
        const float *row = p + (size_t)i * k;
        for (size_t c = 1; c < k; c++)
            if (row[c] > row[top]) top = c;
        if (!isfinite(row[label]))
            s = FAIL(ERR_NUMERIC,
                     "%s: validation film %s has a probability that is no number; lower "
                     "classifier.learning_rate",
                     job->name, job->val[i].path);
        double w = t->class_weight ? t->class_weight[label] : 1;
        sum -= w * log(fmax(row[label], 1e-30));
        weight += w;
        hit[label] += top == label;
        hit[k + label] += 1;
    }
    int present = 0;
    for (size_t c = 0; c < k; c++)
        if (hit[k + c] > 0) recalls += hit[c] / hit[k + c], present++;
    *loss = weight > 0 ? sum / weight : NAN;
    *balanced = present ? recalls / present : NAN;
    free(hit);
    free(p);
    return s ? comm_agree(job->comm, "validation", s) : OK;
}

/* After an epoch: validation, best weights, learning rate, early stopping. */
static Status end_epoch(Trainer *t, long epoch, bool *stop)
{
    const ClassifierSettings *set = &t->job->config->classifier;
    double *number = t->run.number, loss, balanced;
    char note[128];
    TRY(validate(t, &loss, &balanced));
    double mean = number[SUM_LOSS] / (double)t->per_epoch;
    history_add(&t->history,
                (double[]){(double)epoch, mean, loss, balanced, rate_of(t, epoch * t->per_epoch)});
    log_record(t->log, "classifier",
               "\"name\":\"%s\",\"epoch\":%ld,\"loss\":%.6g,\"val_loss\":%.6g,\"val_balanced_"
               "accuracy\":%.6g",
               t->job->name, epoch, mean, isfinite(loss) ? loss : -1,
               isfinite(balanced) ? balanced : -1);
    number[SUM_LOSS] = 0;
    double score = strcmp(set->monitor, "loss") ? -balanced : loss;
    /* Also where there is nothing to validate on: the last is the best. */
    if (!(score >= number[BEST_SCORE])) {
        number[BEST_SCORE] = isfinite(score) ? score : INFINITY;
        number[BEST_EPOCH] = number[RATE_EPOCH] = (double)epoch;
        TRY(device_copy(t->device, t->best, t->net.store.value,
                        t->net.store.count * sizeof *t->best));
    }
    if (!strcmp(set->schedule, "plateau") &&
        (double)epoch - number[RATE_EPOCH] > set->plateau_patience) {
        number[RATE] = fmax(number[RATE] * set->plateau_factor, set->min_learning_rate);
        number[RATE_EPOCH] = (double)epoch;
    }
    *stop = epoch >= set->epochs ||
            (set->patience && (double)epoch - number[BEST_EPOCH] >= set->patience);
    snprintf(note, sizeof note, "loss %.4f, validation %.4f, balanced accuracy %.3f", mean, loss,
             balanced);
    log_progress(t->log, t->job->name, (double)epoch, set->epochs, note);
    return OK;
}

static Status take_step(Trainer *t, long step)
{
    const ClassifierJob *job = t->job;
    double loss, norm;
    bool wished = run_state_must_stop(&t->run, step - 1, job->stop_after, job->minutes);
    Status s = train_step(&t->step, step, rate_of(t, step), wished, &loss, &norm);
    if (s == ERR_STOPPED) return run_state_stop(&t->run, job->name, step - 1, t->log);
    TRY(s);
    if (isfinite(norm)) t->run.number[SUM_LOSS] += loss;
    s = run_state_gradient(&t->run, BAD_STEPS, step, norm, job->name, "classifier", t->log);
    return s ? comm_agree(job->comm, "the gradient", s) : OK;
}

static Status loop(Trainer *t)
{
    const ClassifierJob *job = t->job;
    long step, saved_epoch;
    bool stop = false;
    TRY(run_state_resume(&t->run, &step, t->log));
    saved_epoch = step / t->per_epoch;
    const double *number = t->run.number;
    const ClassifierSettings *set = &job->config->classifier;
    if (step && step % t->per_epoch == 0) /* an early stop may have been due when it was saved */
        stop = saved_epoch >= set->epochs ||
               (set->patience && (double)saved_epoch - number[BEST_EPOCH] >= set->patience);
    if (!stop)
        TRY(comm_agree(job->comm, "the films",
                       classifier_loader(&t->loader, job, &t->optimizer.sum, step, t->per_epoch)));
    while (!stop) {
        TRY(take_step(t, ++step));
        if (step % t->per_epoch) continue;
        TRY(train_step_table(&t->step, job->name, t->log));
        TRY(end_epoch(t, step / t->per_epoch, &stop));
        TRY(run_state_save(&t->run, step, t->log));
    }
    log_progress_end(t->log);
    return OK;
}

static Status open_passes(Trainer *t)
{
    const ClassifierJob *job = t->job;
    const Config *c = job->config;
    const ClassifierSettings *set = &c->classifier;
    TRY(device_memory_advice(classifier_pass_open(&t->train, &t->net, c, set->batch, &t->optimizer,
                                                  t->class_weight),
                             t->device, "classifier.batch", set->batch, NULL));
    TRY(device_memory_advice(classifier_pass_open(&t->eval, &t->net, c, set->batch, NULL, NULL),
                            t->device, "classifier.batch", set->batch, NULL));
    t->step = classifier_step(&t->train, &t->optimizer);
    t->step.trainer = t;
    t->step.feed = feed;
    return train_step_open(&t->step);
}

static Status open_optimizer(Trainer *t)
{
    const ClassifierSettings *set = &t->job->config->classifier;
    ReduceSettings shared = train_share(t->job->config, set->accumulate, t->job->comm);
    OptimizerSettings o = {.adamw = !strcmp(set->optimizer, "adamw"),
                           .beta1 = set->beta1,
                           .beta2 = set->beta2,
                           .epsilon = 1e-8,
                           .momentum = set->momentum,
                           .weight_decay = set->weight_decay,
                           .clip_norm = set->clip_norm};
    TRY(optimizer_new(&t->optimizer, o, (ParamStore *[]){&t->net.store}, 1, &shared));
    return device_alloc(t->device, (void **)&t->best, t->net.store.count * sizeof(float),
                        "best weights");
}

static Status open_trainer(Trainer *t)
{
    const ClassifierJob *job = t->job;
    const Config *c = job->config;
    const ClassifierSettings *set = &c->classifier;
    TRY(reduction_check(set->accumulate, comm_size(job->comm), "classifier"));
    TRY(train_need_batch(job->name, job->n_train, "classifier", set->batch, set->accumulate));
    t->per_epoch = job->n_train / (set->batch * set->accumulate);
    if (set->class_weights) t->class_weight = balanced_weights(job);
    TRY(classifier_net_open(&t->net, t->device, c, job->classes, true));
    TRY(params_init(&t->net.store, job->seed));
    TRY(classifier_net_start(&t->net, c));
    TRY(open_optimizer(t));
    TRY(open_passes(t));
    history_init(&t->history, sizeof COLUMNS / sizeof *COLUMNS, COLUMNS);
    run_state_init(&t->run, t->checkpoints, job->identity, t->device, &t->optimizer, &t->history);
    run_state_block(&t->run, "best", t->best, t->net.store.count);
    t->run.number[RATE] = set->learning_rate;
    t->run.number[BEST_SCORE] = INFINITY;
    return OK;
}

static Status save_model(Trainer *t)
{
    size_t count = t->net.store.count;
    float *host = malloc(count * sizeof *host);
    if (!host) return FAIL(ERR_SPACE, "no memory for the best weights");
    Status s = device_read(t->device, host, t->best, count * sizeof *host);
    char width[32], epoch[32];
    snprintf(width, sizeof width, "%.17g", t->job->config->classifier.width);
    snprintf(epoch, sizeof epoch, "%.0f", t->run.number[BEST_EPOCH]);
    const SafeMeta meta[] = {{"epoch", epoch}, {"width", width}};
    if (!s) s = params_save(&t->net.store, host, t->model, SAVE_F32, 2, meta);
    free(host);
    return s;
}

static void trainer_close(Trainer *t)
{
    loader_close(t->loader);
    history_free(&t->history);
    classifier_pass_close(&t->train); /* recorded graphs before the memory that they use */
    classifier_pass_close(&t->eval);
    train_step_close(&t->step);
    optimizer_free(&t->optimizer);
    device_release(t->device, t->best);
    params_free(&t->net.store);
    free(t->class_weight);
    free(t->checkpoints);
    free(t->model);
}

/* Rank 0 writes what all have. */
static Status save_result(Trainer *t)
{
    if (comm_rank(t->job->comm)) return OK;
    char *history = path_join(t->job->out, "history.json");
    Status s = history_write(&t->history, history);
    free(history);
    TRY(s);
    TRY(save_model(t));
    checkpoint_remove_all(t->checkpoints);
    return OK;
}

Status classifier_train(const ClassifierJob *job, Device *d, Log *log)
{
    Trainer t = {.job = job,
                 .device = d,
                 .log = log,
                 .checkpoints = path_join(job->out, "checkpoints"),
                 .model = path_join(job->out, "model.safetensors")};
    Status s;
    bool there = !comm_rank(job->comm) && file_exists(t.model);
    TRY_OR(done, s, comm_host_broadcast(job->comm, "the model", &there, sizeof there, 0));
    if (there) goto done;
    TRY_OR(done, s, comm_agree(job->comm, "the classifier", open_trainer(&t)));
    TRY_OR(done, s, loop(&t));
    s = comm_agree(job->comm, "the model", save_result(&t));
done:
    trainer_close(&t);
    return s;
}

Status classifier_measure(Cost *cost, const ClassifierJob *job, Device *d)
{
    const Config *c = job->config;
    Trainer t = {.job = job, .device = d};
    Status s;
    *cost = (Cost){0};
    device_peak_restart(d);
    if (c->classifier.class_weights) t.class_weight = calloc((size_t)job->classes, sizeof(float));
    TRY_OR(done, s, classifier_net_open(&t.net, d, c, job->classes, true));
    TRY_OR(done, s, classifier_net_freeze(&t.net, c));
    cost->parameters = device_bytes(d);
    TRY_OR(done, s, open_optimizer(&t));
    cost->optimizer = device_bytes(d) - cost->parameters;
    TRY_OR(done, s, open_passes(&t));
    cost->activations = device_bytes(d) - cost->parameters - cost->optimizer;
    cost->unit = exec_flops(t.train.e);
    cost->validation = exec_flops(t.eval.e) * ceil((double)job->n_val / c->classifier.batch);
    cost_of_sum(cost, &t.optimizer.sum);
    cost->peak = device_peak(d);
done:
    trainer_close(&t);
    return s;
}
