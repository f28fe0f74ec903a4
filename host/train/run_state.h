/* run_state.h - what every trainer does around its steps: resume, checkpoint, stop.
 *
 * A run is identified by a hash over all that its result depends on, and by the device that each rank
 * runs on (thread count and instruction set decide the last bits), not by the number of ranks. A
 * checkpoint of another is refused. All ranks of the optimizer's Comm call these together.
 */
#ifndef RUN_STATE_H
#define RUN_STATE_H
#include "train/checkpoint.h"
#include "train/history.h"
#include "train/optimizer.h"

enum { MAX_BLOCKS = 4 * MAX_STORES + 2, MAX_NUMBERS = 8 };
typedef struct {
    const char *dir; /* of the checkpoints */
    const char *identity;
    Device *device;
    Comm *comm; /* borrowed; NULL: alone */
    Optimizer *optimizer;
    History *history;
    CheckpointBlock block[MAX_BLOCKS];
    int n_block;
    double number[MAX_NUMBERS]; /* the trainer's own: running sums, best loss, ... kept in
                                   checkpoints; what is not finite comes back as infinity */
    long saved_step;            /* last one on disk; -1: none */
    double began_s;             /* of this process's run, monotonic clock */
} RunState;

void run_state_init(RunState *r, const char *dir, const char *identity, Device *d, Optimizer *o,
                    History *h);
/* One more block to keep; NULL data is passed over. */
void run_state_block(RunState *r, const char *name, float *data, size_t count);

/* *step is 0 if there is nothing to resume; takes over optimizer->step, history, number. */
Status run_state_resume(RunState *r, long *step, Log *log);
/* A full disk is only warned about: training goes on. */
Status run_state_save(RunState *r, long step, Log *log);
/* Saves for the end of the process, and is never OK: ERR_STOPPED where the state of `step` is kept, ERR_SPACE,
 * naming the last step that is, where the disk is full. name: of the run, in messages. */
Status run_state_stop(RunState *r, const char *name, long step, Log *log);

/* After an update with the gradient's norm: one that is not finite has changed nothing and is warned
 * about; three in a row, counted in number[counter], end the run. The optimizer's step is `step`.
 */
Status run_state_gradient(RunState *r, int counter, long step, double norm, const char *name,
                          const char *section, Log *log);

/* True if the run must stop after `step`: a signal, the time limit, or stop_after (0 = never). */
bool run_state_must_stop(const RunState *r, long step, long stop_after, int minutes);

double run_now_s(void); /* of the monotonic clock */

/* For trainers of full batches only: there are films for a step. section: "classifier". */
Status train_need_batch(const char *name, int n_train, const char *section, int batch,
                        int accumulate);
#endif
