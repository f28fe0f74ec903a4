/* optimizer.h - updates the trainable parameters of one or two stores from their gradients, which
 * several micro-batches and ranks give (comm/reduce.h).
 *
 * AdamW: Loshchilov & Hutter 2019, as torch.optim.AdamW. SGD: Nesterov momentum, weight decay added
 * to the gradient, as torch.optim.SGD. The gradient's norm is taken over all trainable parameters
 * of all stores and clipped as torch's clip_grad_norm_ does. EMA: as diffusers' EMAModel.
 *
 * Sharded (ZeRO-1), a rank keeps the state, updates the parameters and moves the averages of its
 * shards of the buckets only, and then all get all parameters. Bits are the same.
 */
#ifndef OPTIMIZER_H
#define OPTIMIZER_H
#include "comm/reduce.h"
#include "exec/sweep.h"
#include "models/params.h"

typedef struct {
    bool adamw; /* else SGD with Nesterov momentum */
    double beta1, beta2, epsilon, momentum, weight_decay;
    double clip_norm; /* 0 = off */
    double ema_decay; /* 0 = off */
} OptimizerSettings;

typedef struct {
    int store;
    size_t at, count; /* floats of the store */
    size_t state;     /* where their state begins in the blocks below */
} Piece;

enum { MAX_STORES = 2 };
typedef struct {
    OptimizerSettings settings;
    ParamStore *store[MAX_STORES]; /* borrowed */
    int n_store;
    Reduction sum; /* of the gradients; a span for each run of trainable parameters */
    Piece *span;   /* owned: [sum.n_span] where the spans lie */
    Piece *piece;  /* owned: [n_piece] what this rank updates: the spans, or its shards of the buckets */
    int n_piece;
    /* owned: device blocks like the stores', or, sharded, of the shards' floats back to back; NULL if
     * unused */
    float *m[MAX_STORES], *v[MAX_STORES], *ema[MAX_STORES];
    size_t n_state[MAX_STORES]; /* floats of each of these */
    double *square;             /* owned, sharded: device block [ranks, n_square], sums of squares */
    size_t n_square;
    Update update;
    long step; /* updates begun */
} Optimizer;   /* starts as {0} */

/* Before the graph is recorded whose gradients these are. */
Status optimizer_new(Optimizer *o, OptimizerSettings s, ParamStore *const *store, int n_store,
                     const ReduceSettings *shared);
void optimizer_free(Optimizer *o);

/* One update with the mean gradient of the micro-batches, which stand summed in the stores when
 * optimizer_update() runs. begin says how, and comes first, so that the update can be handed to
 * exec_run_then() behind the last gradients. *norm is the gradient's norm before clipping; if it is
 * not finite nothing has changed. optimizer_norm() waits for the device. */
Status optimizer_begin(Optimizer *o, double learning_rate);
Status optimizer_update(Optimizer *o);
Status optimizer_norm(const Optimizer *o, double *norm);

/* Of a block of state that this rank has its pieces of: visits the whole block of store k in order,
 * by parts in device memory, on all ranks together. rest: a whole block for what no rank keeps state
 * of, NULL: zeros; part(to, NULL, n) is then n of them. */
typedef Status StatePart(void *to, const float *part, size_t count);
Status optimizer_visit(Optimizer *o, int k, const float *state, const float *rest, StatePart *part,
                       void *to);
/* The averaged weights of store k, with the running averages as they are, whole, on every rank; host:
 * [store->count], NULL: this rank only helps the others. */
Status optimizer_averages(Optimizer *o, int k, float *host);

double ema_decay_at(double decay, long step); /* of update number `step`, from 1 */

typedef enum { LR_CONSTANT, LR_COSINE, LR_LINEAR } LrShape;
/* Rate of update number `step` (from 1) of `steps`, after `warmup` linear steps; floor is its end.
 */
double lr_at(LrShape shape, double rate, double floor, long step, long steps, long warmup);
#endif
