/* step.h - one step of training: this rank's micro-batches, the sum over all, the update.
 *
 * A step's micro-batches are numbered over all ranks; what is drawn for one depends on its number
 * only. With parallel.reduction = fixed a step therefore comes to the same bits whether one rank has
 * all of them or several share them.
 *
 * Running averages (state): each micro-batch starts from those at the step's start, and the new ones
 * are the mean over the micro-batches of what each has made of them.
 *
 * Ranks agree before the pass in which they first need one another, so that they leave together
 * where one has no batch, or is asked to stop: the step then has not been.
 */
#ifndef STEP_H
#define STEP_H
#include "config/config.h"
#include "exec/exec.h"
#include "train/optimizer.h"

typedef struct {
    /* Filled by the trainer: */
    Comm *comm;       /* NULL: alone */
    Optimizer *optimizer;
    Exec *exec;       /* of the pass with its gradients */
    const Tensor *loss; /* of a micro-batch */
    bool joint;       /* ranks need one another in every pass */
    ParamStore *averages; /* whose state the pass moves; NULL: none */
    void *trainer;    /* what the functions get */
    /* Writes a micro-batch into the pass's inputs. Called for one after the other; on a GPU as soon as
     * the pass before is enqueued, so that the host prepares and sends the next while it runs. The
     * one behind the last step is fed in vain. */
    Status (*feed)(void *trainer, long step, int micro);
    /* The step's own: */
    Reduction state; /* of the averages */
    float *start;    /* owned: device copy of the averages at the step's start */
    float *losses;   /* owned: device block [micro-batches of all ranks] */
    long ahead_step; /* what was fed early, 0: nothing, and what came of it */
    int ahead_micro;
    Failure ahead;
    double work_s;   /* of this rank since the last table, without what it spent in calls of comm */
    long worked;     /* steps of it */
} TrainStep;         /* starts as {0} */

Status train_step_open(TrainStep *t);
void train_step_close(TrainStep *t);

/* Number `step`, from 1. stop: this rank is asked to stop. ERR_STOPPED: one was; nothing has changed.
 * *loss: mean over the micro-batches; *norm as of optimizer_norm(). */
Status train_step(TrainStep *t, long step, double rate, bool stop, double *loss, double *norm);

/* All ranks' own work on a step, in the log; a warning where one has twice that of most. On a GPU it is the
 * host's: films that come slowly are seen, a slow GPU is waited for by all and is not. */
Status train_step_table(TrainStep *t, const char *name, Log *log);

/* From a trainer's `accumulate` and [parallel]. */
ReduceSettings train_share(const Config *c, int accumulate, Comm *comm);
#endif
