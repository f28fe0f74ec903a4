/* loop.c - steps with their learning rate, rows of the history, checkpoints and stops. */
#include "train/loop.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 10 };                     /* steps behind one row of the history */
enum { SUM_LOSS, COUNT_LOSS, BAD_STEPS }; /* numbers kept in checkpoints */
enum { BEFORE_VAL = 2, AFTER_VAL = 2 };   /* columns around the validation losses */

static double rate_at(const TrainLoop *l, long step)
{
    LrShape shape = !strcmp(l->schedule, "cosine")   ? LR_COSINE
                    : !strcmp(l->schedule, "linear") ? LR_LINEAR
                                                     : LR_CONSTANT;
    return lr_at(shape, l->learning_rate, 0, step, l->steps, l->warmup);
}

/* The history's row at `step`: the mean loss since the last row, and the validation losses where
 * they are due. */
static Status note(TrainLoop *l, long step, double loss, double norm)
{
    double *number = l->run.number, row[LOOP_COLUMNS];
    bool due = step % l->validate_every == 0 || step == l->steps;
    int n_val = l->history.n_column - BEFORE_VAL - AFTER_VAL;
    char text[64];
    if (isfinite(loss)) number[SUM_LOSS] += loss, number[COUNT_LOSS]++;
    double mean = number[SUM_LOSS] / fmax(1, number[COUNT_LOSS]);
    snprintf(text, sizeof text, "loss %.4f", mean);
    log_progress(l->log, l->name, (double)step, l->steps, text);
    for (int k = 0; k < LOOP_COLUMNS; k++) row[k] = NAN;
    double *val = row + BEFORE_VAL;
    if (due) TRY(l->validate(l->trainer, val));
    if (!due && step % WINDOW) return OK;
    row[0] = (double)step, row[1] = mean;
    val[n_val] = rate_at(l, step), val[n_val + 1] = norm;
    history_add(&l->history, row);
    log_record(l->log, l->section,
               "\"name\":\"%s\",\"step\":%ld,\"loss\":%.6g,\"grad_norm\":%.6g,\"val_loss\":%.6g",
               l->name, step, mean, isfinite(norm) ? norm : -1, isfinite(val[0]) ? val[0] : -1);
    number[SUM_LOSS] = number[COUNT_LOSS] = 0;
    return OK;
}

static Status take_step(TrainLoop *l, long step)
{
    double loss, norm;
    bool wished = run_state_must_stop(&l->run, step - 1, l->stop_after, l->minutes);
    Status s = train_step(&l->step, step, rate_at(l, step), wished, &loss, &norm);
    if (s == ERR_STOPPED) return run_state_stop(&l->run, l->name, step - 1, l->log);
    TRY(s);
    s = run_state_gradient(&l->run, BAD_STEPS, step, norm, l->name, l->section, l->log);
    if (s) return comm_agree(l->shared.comm, "the gradient", s);
    bool due = step % l->validate_every == 0 || (step >= 8 && (step & (step - 1)) == 0);
    if (due) TRY(train_step_table(&l->step, l->name, l->log));
    return note(l, step, loss, norm);
}

Status train_loop_step(TrainLoop *l, TrainStep step)
{
    l->step = step;
    l->step.comm = l->shared.comm;
    l->step.optimizer = &l->optimizer;
    return train_step_open(&l->step);
}

Status train_loop(TrainLoop *l)
{
    Comm *comm = l->shared.comm;
    long step;
    TRY(run_state_resume(&l->run, &step, l->log));
    if (l->start) TRY(comm_agree(comm, "training", l->start(l->trainer, step)));
    while (step < l->steps) {
        TRY(take_step(l, ++step));
        if (step % l->checkpoint_every == 0 && step < l->steps && !l->run.number[BAD_STEPS])
            TRY(run_state_save(&l->run, step, l->log));
    }
    log_progress_end(l->log);
    char *history = path_join(l->out, "history.json");
    Status s = comm_rank(comm) ? OK : history_write(&l->history, history);
    free(history);
    return comm_agree(comm, "the history", s);
}

Status train_loop_open(TrainLoop *l, Device *d, Log *log, ParamStore *const *store, int n_store)
{
    int n = 0;
    while (n < LOOP_COLUMNS && l->column[n]) n++;
    l->log = log;
    l->checkpoints = path_join(l->out, "checkpoints");
    TRY(reduction_check(l->shared.n_micro, comm_size(l->shared.comm), l->section));
    TRY(optimizer_new(&l->optimizer, l->adamw, store, n_store, &l->shared));
    history_init(&l->history, n, l->column);
    run_state_init(&l->run, l->checkpoints, l->identity, d, &l->optimizer, &l->history);
    return OK;
}

void train_loop_done(const TrainLoop *l)
{
    if (!comm_rank(l->shared.comm)) checkpoint_remove_all(l->checkpoints);
}

void train_loop_close(TrainLoop *l)
{
    history_free(&l->history);
    train_step_close(&l->step);
    optimizer_free(&l->optimizer);
    free(l->checkpoints);
}
