/* loop.h - the loop of a trainer that counts in steps: resume, step, validate, checkpoint, stop.
 *
 * The trainer fills a TrainLoop; train_loop_open() makes the optimizer, history and run state; the
 * trainer records its pass, with reduction_place() of optimizer.sum, and tells train_loop_step() how
 * it is fed; train_loop() runs what is left of the steps and writes history.json. The history has the
 * columns step, loss (mean since the last row), the validation losses, rate, grad_norm: a row every
 * ten steps and wherever validation is due, that is every validate_every steps and at the end.
 *
 * All ranks of shared.comm make the same calls and get the same Status, but where one of them fails
 * on its own; rank 0 writes.
 */
#ifndef LOOP_H
#define LOOP_H
#include "train/run_state.h"
#include "train/step.h"

enum { LOOP_COLUMNS = 6 };
typedef struct {
    /* Filled by the trainer: */
    const char *name;           /* for progress lines */
    const char *out, *identity; /* folder; hash over everything the result depends on */
    long stop_after;            /* as if a stop was requested after this step; 0 = never */
    int minutes;                /* stop cleanly after so many minutes; 0 = no limit */
    int steps, warmup, validate_every, checkpoint_every;
    double learning_rate;
    const char *schedule; /* "constant", "cosine" or "linear" */
    OptimizerSettings adamw;
    ReduceSettings shared;
    const char *section;              /* of the settings: "ldm" */
    const char *column[LOOP_COLUMNS]; /* of the history, static; NULL behind the last */
    void *trainer;                    /* what the functions get */
    Status (*start)(void *trainer, long step); /* before the first step of this run; or NULL */
    /* Losses, NaN without films; the same on all ranks. */
    Status (*validate)(void *trainer, double *loss);
    /* The loop's own: */
    Log *log;
    Optimizer optimizer;
    TrainStep step;
    History history;
    RunState run;
    char *checkpoints; /* owned: OUT/checkpoints */
} TrainLoop;           /* starts as {0} */

/* The fields that a trainer's job and its section of the settings have under the same names. */
#define LOOP_COMMON(job, set)                                                                      \
    .name = (job)->name, .out = (job)->out, .identity = (job)->identity,                           \
    .stop_after = (job)->stop_after, .minutes = (job)->minutes, .steps = (set)->steps,             \
    .warmup = (set)->warmup, .validate_every = (set)->validate_every,                              \
    .checkpoint_every = (set)->checkpoint_every, .learning_rate = (set)->learning_rate,            \
    .schedule = (set)->schedule,                                                                   \
    .shared = train_share((job)->config, (set)->accumulate, (job)->comm),                          \
    .adamw = {.adamw = true,                                                                       \
              .beta1 = (set)->beta1,                                                               \
              .beta2 = (set)->beta2,                                                               \
              .epsilon = (set)->epsilon,                                                           \
              .weight_decay = (set)->weight_decay,                                                 \
              .clip_norm = (set)->clip_norm,                                                       \
              .ema_decay = (set)->ema_decay}

Status train_loop_open(TrainLoop *l, Device *d, Log *log, ParamStore *const *store, int n_store);
/* step: exec, loss, trainer and feed. */
Status train_loop_step(TrainLoop *l, TrainStep step);
/* Where it stops before the end: what run_state_stop() says. */
Status train_loop(TrainLoop *l);
/* When the result is whole: the checkpoints are not needed any more. */
void train_loop_done(const TrainLoop *l);
void train_loop_close(TrainLoop *l);
#endif
