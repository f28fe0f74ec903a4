/* optimizer.h - updates the trainable parameters of one or two stores from their gradients.
 *
 * AdamW: Loshchilov & Hutter 2019, as torch.optim.AdamW. SGD: Nesterov momentum, weight decay added
 * to the gradient, as torch.optim.SGD. The gradient's norm is taken over all trainable parameters
 * of all stores and clipped as torch's clip_grad_norm_ does. EMA: as diffusers' EMAModel.
 */
#ifndef OPTIMIZER_H
#define OPTIMIZER_H
#include "exec/sweep.h"
#include "models/params.h"

typedef struct {
    bool adamw; /* else SGD with Nesterov momentum */
    double beta1, beta2, epsilon, momentum, weight_decay;
    double clip_norm; /* 0 = off */
    double ema_decay; /* 0 = off */
} OptimizerSettings;

enum { MAX_STORES = 2 };
typedef struct {
    OptimizerSettings settings;
    ParamStore *store[MAX_STORES]; /* borrowed */
    int n_store;
    float *m[MAX_STORES], *v[MAX_STORES],
        *ema[MAX_STORES];   /* owned: device blocks like the stores'; NULL if unused */
    float *sum[MAX_STORES]; /* owned: gradients summed over micro-batches; NULL until used */
    Update update;
    int n_micro;
    long step; /* updates begun */
} Optimizer;                /* starts as {0} */

Status optimizer_new(Optimizer *o, OptimizerSettings s, ParamStore *const *store, int n_store);
void optimizer_free(Optimizer *o);

/* Adds the stores' gradients to the running sum; for all but the last micro-batch of a step. */
Status optimizer_accumulate(Optimizer *o);

/* One update with the mean gradient of n_micro micro-batches: the accumulated ones and the one that
 * is in the stores when optimizer_update() runs. begin says how, and comes first, so that the update
 * (arg: the Optimizer) can be handed to exec_run_then() behind the last gradients. *norm is the
 * gradient's norm before clipping; if it is not finite nothing has changed. optimizer_norm() waits
 * for the device. */
Status optimizer_begin(Optimizer *o, double learning_rate, int n_micro);
Status optimizer_update(void *arg);
Status optimizer_norm(const Optimizer *o, double *norm);

double ema_decay_at(double decay, long step); /* of update number `step`, from 1 */

typedef enum { LR_CONSTANT, LR_COSINE, LR_LINEAR } LrShape;
/* Rate of update number `step` (from 1) of `steps`, after `warmup` linear steps; floor is its end.
 */
double lr_at(LrShape shape, double rate, double floor, long step, long steps, long warmup);
#endif
