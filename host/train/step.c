/* step.c - micro-batches, their sum, the update; see step.h. */
#include "train/step.h"
#include "train/run_state.h"
#include <stdlib.h>
#include <string.h>

ReduceSettings train_share(const Config *c, int accumulate, Comm *comm)
{
    return (ReduceSettings){.comm = comm,
                            .n_micro = accumulate,
                            .fast = !strcmp(c->parallel.reduction, "fast"),
                            .sharded = c->parallel.zero,
                            .bucket_bytes = (size_t)c->parallel.bucket_mb << 20};
}

static size_t n_state(const TrainStep *t)
{
    return t->averages ? t->averages->count - t->averages->count_param : 0;
}

static float *state_of(const TrainStep *t) { return t->averages->value + t->averages->count_param; }

Status train_step_open(TrainStep *t)
{
    const Reduction *sum = &t->optimizer->sum;
    ReduceSettings whole = sum->set;
    TRY(device_alloc(sum->device, (void **)&t->losses, (size_t)whole.n_micro * sizeof *t->losses,
                     "losses"));
    if (!n_state(t)) return OK;
    whole.sharded = false;
    whole.bucket_bytes = 0;
    TRY(device_alloc(sum->device, (void **)&t->start, n_state(t) * sizeof *t->start,
                     "running averages"));
    return reduction_new(&t->state, sum->device, &whole, "running averages",
                         &(Span){state_of(t), n_state(t)}, 1);
}

void train_step_close(TrainStep *t)
{
    reduction_free(&t->state);
    if (t->optimizer && t->optimizer->sum.device) {
        device_release(t->optimizer->sum.device, t->start);
        device_release(t->optimizer->sum.device, t->losses);
    }
    *t = (TrainStep){0};
}

/* The averages: from the step's start for the next micro-batch. */
static Status start_again(const TrainStep *t, bool back)
{
    size_t bytes = n_state(t) * sizeof *t->start;
    Device *d = t->optimizer->sum.device;
    if (!bytes) return OK;
    return back ? device_copy(d, state_of(t), t->start, bytes)
                : device_copy(d, t->start, state_of(t), bytes);
}

static Status finish_state(TrainStep *t)
{
    const Reduction *sum = &t->optimizer->sum;
    if (!n_state(t)) return OK;
    TRY(reduction_finish(&t->state));
    if (sum->set.n_micro > 1)
        TRY(sweep_scale(sum->device, state_of(t), 1.0 / sum->set.n_micro, n_state(t)));
    return sweep_restore(sum->device, &t->optimizer->update, state_of(t), t->start, n_state(t));
}

static Status keep_loss(const TrainStep *t, int local)
{
    const Reduction *sum = &t->optimizer->sum;
    return device_copy(sum->device, t->losses + sum->first + local, t->loss->data,
                       sizeof *t->losses);
}

/* Behind the last pass, and recorded with it. */
static Status finish(void *arg)
{
    TrainStep *t = arg;
    Reduction *sum = &t->optimizer->sum;
    TRY(reduction_finish(sum));
    TRY(optimizer_update(t->optimizer));
    TRY(finish_state(t));
    TRY(keep_loss(t, sum->n_local - 1));
    if (sum->ranks == 1) return OK;
    return comm_all_gather(t->comm, "losses", t->losses, t->losses + sum->first,
                           (size_t)sum->n_local * sizeof *t->losses);
}

static Status last_pass(TrainStep *t, double rate)
{
    TRY(optimizer_begin(t->optimizer, rate));
    reduction_last(&t->optimizer->sum);
    reduction_last(&t->state);
    return exec_run_then(t->exec, finish, t);
}

static Status more_pass(TrainStep *t, int local)
{
    reduction_more(&t->optimizer->sum);
    reduction_more(&t->state);
    TRY(exec_run(t->exec));
    TRY(keep_loss(t, local));
    TRY(reduction_hold(&t->optimizer->sum));
    if (!n_state(t)) return OK;
    TRY(reduction_hold(&t->state));
    return start_again(t, true);
}

/* Mean of the losses, summed by the tree. */
static Status read_loss(const TrainStep *t, double *mean)
{
    const Reduction *sum = &t->optimizer->sum;
    int n = sum->set.n_micro;
    float *loss = malloc((size_t)n * sizeof *loss);
    CHECK(loss);
    Status s = device_read(sum->device, loss, t->losses, (size_t)n * sizeof *loss);
    double value[TREE_DEPTH];
    TreeStack stack;
    tree_start(&stack, n);
    for (int i = 0; i < n && !s; i++) {
        int top = stack.n, add = tree_push(&stack, (TreeNode){0, i});
        value[top] = loss[i];
        for (; add > 0; add--, top--) value[top - 1] += value[top];
    }
    *mean = value[0] / n;
    free(loss);
    return s;
}

/* A failure that the others do not know of: they wait for this rank. */
static Status leave(TrainStep *t, Status s)
{
    if (s && s != ERR_PEER) comm_abort(t->comm, s);
    return s;
}

static void feed_ahead(TrainStep *t, long step, int micro)
{
    t->ahead_step = step;
    t->ahead_micro = micro;
    status_keep(&t->ahead, t->feed(t->trainer, step, micro));
}

static Status feed(TrainStep *t, long step, int micro)
{
    if (!t->ahead_step) return t->feed(t->trainer, step, micro);
    CHECK(t->ahead_step == step && t->ahead_micro == micro);
    t->ahead_step = 0;
    return status_restore(&t->ahead);
}

static Status run_micro_batches(TrainStep *t, long step, double rate, bool stop)
{
    const Reduction *sum = &t->optimizer->sum;
    for (int i = 0; i < sum->n_local; i++) {
        bool last = i + 1 == sum->n_local;
        int micro = sum->first + i;
        Status s =
            stop ? FAIL(ERR_STOPPED, "asked to stop before step %ld", step) : feed(t, step, micro);
        if (s || last || t->joint) TRY(comm_agree(t->comm, "batches", s));
        TRY(leave(t, last ? last_pass(t, rate) : more_pass(t, i)));
        if (device_is_gpu(sum->device))
            feed_ahead(t, last ? step + 1 : step, last ? sum->first : micro + 1);
    }
    return OK;
}

Status train_step(TrainStep *t, long step, double rate, bool stop, double *loss, double *norm)
{
    double began = run_now_s(), spent = comm_spent(t->comm);
    reduction_start(&t->optimizer->sum);
    reduction_start(&t->state);
    TRY(leave(t, start_again(t, false)));
    TRY(run_micro_batches(t, step, rate, stop));
    /* A GPU may still wait for other ranks: that is no work. */
    t->work_s += run_now_s() - began - (comm_spent(t->comm) - spent);
    t->worked++;
    TRY(leave(t, read_loss(t, loss)));
    return leave(t, optimizer_norm(t->optimizer, norm));
}
