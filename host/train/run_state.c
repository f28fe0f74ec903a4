/* run_state.c - checkpoints with identity, history and numbers. */
#include "train/run_state.h"
#include "base/signal.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_BAD_STEPS = 3 };
static const char *const BLOCK_NAMES[MAX_STORES][4] = {{"value", "m", "v", "ema"},
                                                       {"value.1", "m.1", "v.1", "ema.1"}};

double run_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void run_state_block(RunState *r, const char *name, float *data, size_t count)
{
    CHECK(r->n_block < MAX_BLOCKS);
    if (!data) return;
    r->block[r->n_block++] = (CheckpointBlock){.name = name, .data = data, .count = count};
}

void run_state_init(RunState *r, const char *dir, const char *identity, Device *d, Optimizer *o,
                    History *h)
{
    *r = (RunState){.dir = dir,
                    .identity = identity,
                    .device = d,
                    .comm = o->sum.set.comm,
                    .optimizer = o,
                    .history = h,
                    .saved_step = -1,
                    .began_s = run_now_s()};
    for (int k = 0; k < o->n_store; k++) {
        const ParamStore *s = o->store[k];
        float *data[4] = {s->value, o->m[k], o->v[k], o->ema[k]};
        for (int i = 0; i < 4; i++) {
            run_state_block(r, BLOCK_NAMES[k][i], data[i], s->count);
            if (!data[i] || !i || !o->sum.set.sharded) continue;
            CheckpointBlock *b = &r->block[r->n_block - 1];
            b->keeper = o;
            b->store = k;
            b->rest = data[i] == o->ema[k] ? s->value : NULL;
        }
    }
}

static Status check_same(RunState *r, const char *info)
{
    json_t *root = json_loads(info, 0, NULL);
    const char *identity = json_string_value(json_object_get(root, "identity"));
    const char *device = json_string_value(json_object_get(root, "device"));
    Status s = OK;
    if (!identity || strcmp(identity, r->identity))
        s = FAIL(ERR_USAGE,
                 "%s: checkpoint of a run with other settings or films (%.12s, this is %.12s); "
                 "start it in another folder",
                 r->dir, identity ? identity : "none", r->identity);
    else if (!device || strcmp(device, device_bits(r->device)))
        s = FAIL(ERR_USAGE,
                 "%s: checkpoint was made on %s, this is %s: the last bits would differ; continue "
                 "there, or start in another folder",
                 r->dir, device ? device : "unknown", device_bits(r->device));
    json_t *numbers = json_object_get(root, "numbers");
    for (size_t i = 0; !s && i < MAX_NUMBERS; i++) {
        json_t *v = json_array_get(numbers, i);
        r->number[i] = json_is_number(v) ? json_number_value(v) : INFINITY;
    }
    json_decref(root);
    return s;
}

Status run_state_resume(RunState *r, long *step, Log *log)
{
    Checkpoint c;
    Status s;
    *step = 0;
    TRY(checkpoint_find(&c, r->dir, r->comm, log));
    if (c.step < 0) return OK;
    TRY_OR(done, s, comm_agree(r->comm, "the checkpoint's run", check_same(r, c.info)));
    TRY_OR(done, s, checkpoint_load(&c, r->device, r->comm, r->block, r->n_block));
    for (int k = 0; k < r->optimizer->n_store; k++)
        TRY_OR(done, s, params_refresh(r->optimizer->store[k]));
    TRY_OR(done, s, history_parse(r->history, c.info));
    r->optimizer->step = r->saved_step = *step = c.step;
    log_info(log, "continuing at step %ld", c.step);
done:
    checkpoint_free(&c);
    return s;
}

/* ERR_SPACE leaves what was saved before. */
static Status save(RunState *r, long step, Log *log)
{
    if (step == r->saved_step) return OK;
    Text info = {0};
    char *history = history_text(r->history);
    text_add(&info, "{\"identity\": \"%s\", \"device\": \"%s\", \"numbers\": [", r->identity,
             device_bits(r->device));
    for (int i = 0; i < MAX_NUMBERS; i++) {
        if (isfinite(r->number[i])) text_add(&info, "%s%.17g", i ? ", " : "", r->number[i]);
        else text_add(&info, "%snull", i ? ", " : "");
    }
    text_add(&info, "],\n\"history\": %s}", history);
    Status s = checkpoint_save(r->dir, step, r->device, r->comm, r->block, r->n_block, info.s, log);
    free(history);
    free(info.s);
    if (!s) r->saved_step = step;
    return s;
}

Status run_state_save(RunState *r, long step, Log *log)
{
    Status s = save(r, step, log);
    if (s != ERR_SPACE) return s;
    log_warn(log, "no checkpoint at step %ld, going on without it: %s", step, status_message());
    return OK;
}

Status run_state_stop(RunState *r, const char *name, long step, Log *log)
{
    Text last = {0};
    Status s = save(r, step, log);
    if (!s) s = FAIL(ERR_STOPPED, "%s: stopped at step %ld, its state is kept", name, step);
    if (s == ERR_SPACE) {
        if (r->saved_step < 0) text_add(&last, "nothing is kept");
        else text_add(&last, "the last that is kept is of step %ld", r->saved_step);
        text_add(&last, ": %s", status_message());
        s = FAIL(s, "%s: stopped at step %ld, whose state cannot be saved; %s", name, step, last.s);
        free(last.s);
    }
    return comm_agree(r->comm, "the end", s);
}

Status run_state_gradient(RunState *r, int counter, long step, double norm, const char *name,
                          const char *section, Log *log)
{
    r->optimizer->step = step;
    if (isfinite(norm)) {
        r->number[counter] = 0;
        return OK;
    }
    log_warn(log, "%s: step %ld has a gradient that is no number: left out", name, step);
    if (++r->number[counter] >= MAX_BAD_STEPS)
        return FAIL(ERR_NUMERIC,
                    "%s: %d steps in a row up to %ld have no finite gradient; lower "
                    "%s.learning_rate",
                    name, MAX_BAD_STEPS, step, section);
    return OK;
}

bool run_state_must_stop(const RunState *r, long step, long stop_after, int minutes)
{
    return signal_stop_requested() || (stop_after && step >= stop_after) ||
           (minutes && run_now_s() - r->began_s > 60.0 * minutes);
}

Status train_need_batch(const char *name, int n_train, const char *section, int batch,
                        int accumulate)
{
    if (n_train / batch >= accumulate) return OK;
    if (accumulate == 1)
        return FAIL(ERR_USAGE, "%s: found %d training films, expected at least %s.batch = %d", name,
                    n_train, section, batch);
    return FAIL(ERR_USAGE,
                "%s: found %d training films, expected at least %s.batch = %d times "
                "%s.accumulate = %d",
                name, n_train, section, batch, section, accumulate);
}
