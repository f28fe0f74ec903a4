/* ldm_trainer.c - the training loop of a latent diffusion model. */
#include "train/ldm_trainer.h"
#include "exec/exec.h"
#include "models/lora.h"
#include "ops/ops.h"
#include "train/run_state.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WINDOW = 10, MAX_BAD_STEPS = 3 };  /* steps behind one row of the history */
enum { SUM_LOSS, COUNT_LOSS, BAD_STEPS }; /* numbers kept in checkpoints */
static const char *const COLUMNS[] = {"step", "loss", "val_loss", "rate", "grad_norm"};

/* One recorded use of the network: training with gradients, or validation without. */
typedef struct {
    Graph *g;
    Exec *e;
    Tensor *latent, *noise, *time, *mix, *target, *weight, *ids, *context, *loss;
} Pass;

typedef struct {
    const LdmJob *job;
    Device *device;
    Log *log;
    Ldm m;
    LdmData data;
    LdmBatch batch;
    Pass train, val;
    Optimizer optimizer;
    History history;
    RunState run;
    char *checkpoints, *model, *latents, *lora;
} Trainer;

static void pass_free(Pass *p)
{
    exec_free(p->e);
    graph_free(p->g);
    *p = (Pass){0};
}

static Status record(Pass *p, Trainer *t, bool backward)
{
    const LdmSettings *set = &t->job->config->ldm;
    int n = t->batch.n, side = t->data.train.size / ldm_scale(&t->m), c = t->m.unet_config.in_channels;
    int image[] = {n, side, side, c}, tokens[] = {n, t->data.tokens}, pair[] = {n, 2}, one[] = {n};
    int context[] = {n, t->data.tokens, t->data.width};
    Graph *g = p->g = graph_new();
    p->latent = graph_leaf(g, KIND_INPUT, DTYPE_F32, "latent", 4, image);
    p->noise = graph_leaf(g, KIND_INPUT, DTYPE_F32, "noise", 4, image);
    p->time = graph_leaf(g, KIND_INPUT, DTYPE_F32, "time", 1, one);
    p->mix = graph_leaf(g, KIND_INPUT, DTYPE_F32, "mix", 2, pair);
    p->target = graph_leaf(g, KIND_INPUT, DTYPE_F32, "target", 2, pair);
    p->weight = graph_leaf(g, KIND_INPUT, DTYPE_F32, "weight", 1, one);
    if (set->train_text_encoder) {
        p->ids = graph_leaf(g, KIND_INPUT, DTYPE_I32, "ids", 2, tokens);
        p->context = clip_text(g, &t->m.text, &t->m.text_config, p->ids);
    } else {
        p->context = graph_leaf(g, KIND_INPUT, DTYPE_F32, "context", 3, context);
    }
    Tensor *noisy = mix_samples(g, p->latent, p->noise, p->mix);
    Tensor *wanted = mix_samples(g, p->latent, p->noise, p->target);
    Tensor *prediction =
        unet(g, &t->m.unet, &t->m.unet_config, noisy, p->time, p->context, set->recompute);
    p->loss = weighted_mse(g, prediction, wanted, p->weight);
    TRY(graph_status(g));
    if (backward) {
        graph_backward(g, 1, &p->loss, NULL);
        params_pin_grads(g);
    }
    params_bind(g);
    graph_finish(g, &p->loss, 1);
    return exec_new(&p->e, t->device, g, &p->loss, 1);
}

static Status run_pass(Pass *p, const LdmBatch *b, float *loss)
{
    TRY(exec_write(p->e, p->latent, b->latent));
    TRY(exec_write(p->e, p->noise, b->noise));
    TRY(exec_write(p->e, p->time, b->time));
    TRY(exec_write(p->e, p->mix, b->mix));
    TRY(exec_write(p->e, p->target, b->target));
    TRY(exec_write(p->e, p->weight, b->weight));
    if (p->ids) TRY(exec_write(p->e, p->ids, b->ids));
    else TRY(exec_write(p->e, p->context, b->context));
    TRY(exec_run(p->e));
    return exec_read(p->e, p->loss, loss);
}

/* Mean loss over the validation films, each with the same noise and time every time; NaN without
 * films. */
static Status validate(Trainer *t, double *loss)
{
    double sum = 0;
    float part;
    for (int first = 0; first < t->data.val.n; first += t->batch.n) {
        ldm_batch_validation(&t->batch, &t->data, &t->m.schedule, &t->job->config->ldm,
                             (uint32_t)t->job->config->study.seed, first);
        TRY(run_pass(&t->val, &t->batch, &part));
        sum += (double)part * t->batch.n;
    }
    *loss = t->data.val.n ? sum / t->data.val.n : NAN;
    return OK;
}

static double rate_at(const LdmSettings *set, long step)
{
    LrShape shape = !strcmp(set->schedule, "cosine")   ? LR_COSINE
                    : !strcmp(set->schedule, "linear") ? LR_LINEAR
                                                       : LR_CONSTANT;
    return lr_at(shape, set->learning_rate, 0, step, set->steps, set->warmup);
}

/* One update. A step whose gradient is not finite changes nothing; three in a row end the run. */
static Status train_step(Trainer *t, long step, double *loss, double *norm)
{
    const LdmSettings *set = &t->job->config->ldm;
    *loss = 0;
    for (int micro = 0; micro < set->accumulate; micro++) {
        float part;
        ldm_batch_draw(&t->batch, &t->data, &t->m.schedule, set,
                       (uint32_t)t->job->config->study.seed, step, micro);
        TRY(run_pass(&t->train, &t->batch, &part));
        *loss += part / (double)set->accumulate;
        if (micro + 1 < set->accumulate) TRY(optimizer_accumulate(&t->optimizer));
    }
    TRY(optimizer_step(&t->optimizer, rate_at(set, step), set->accumulate, norm));
    if (isfinite(*norm)) {
        t->run.number[BAD_STEPS] = 0;
        return OK;
    }
    log_warn(t->log, "%s: step %ld has a gradient that is no number: left out", t->job->name, step);
    t->optimizer.step = step;
    if (++t->run.number[BAD_STEPS] >= MAX_BAD_STEPS)
        return FAIL(
            ERR_NUMERIC,
            "%s: %d steps in a row up to %ld have no finite gradient; lower ldm.learning_rate",
            t->job->name, MAX_BAD_STEPS, step);
    return OK;
}

/* The history's row at `step`: the mean loss since the last row, and the validation loss where it
 * is due. */
static Status note(Trainer *t, long step, double loss, double norm)
{
    const LdmSettings *set = &t->job->config->ldm;
    bool due = step % set->validate_every == 0 || step == set->steps;
    double val = NAN;
    char text[96];
    if (isfinite(loss)) t->run.number[SUM_LOSS] += loss, t->run.number[COUNT_LOSS]++;
    double mean = t->run.number[SUM_LOSS] / fmax(1, t->run.number[COUNT_LOSS]);
    snprintf(text, sizeof text, "loss %.4f", mean);
    log_progress(t->log, t->job->name, (double)step, set->steps, text);
    if (due) TRY(validate(t, &val));
    if (!due && step % WINDOW) return OK;
    history_add(&t->history, (double[]){(double)step, mean, val, rate_at(set, step), norm});
    log_record(t->log, "ldm", "\"name\":\"%s\",\"step\":%ld,\"loss\":%.6g,\"grad_norm\":%.6g%s%.6g",
               t->job->name, step, mean, isfinite(norm) ? norm : -1,
               ",\"val_loss\":", isfinite(val) ? val : -1);
    t->run.number[SUM_LOSS] = t->run.number[COUNT_LOSS] = 0;
    return OK;
}

static Status loop(Trainer *t)
{
    const LdmSettings *set = &t->job->config->ldm;
    long step;
    TRY(run_state_resume(&t->run, &step, t->log));
    while (step < set->steps) {
        double loss, norm;
        if (run_state_must_stop(&t->run, step, t->job->stop_after, t->job->minutes)) {
            TRY(run_state_save(&t->run, step, t->log));
            return FAIL(ERR_STOPPED, "%s: stopped at step %ld of %d, its state is kept",
                        t->job->name, step, set->steps);
        }
        step++;
        TRY(train_step(t, step, &loss, &norm));
        TRY(note(t, step, loss, norm));
        if (step % set->checkpoint_every == 0 && step < set->steps && !t->run.number[BAD_STEPS])
            TRY(run_state_save(&t->run, step, t->log));
    }
    log_progress_end(t->log);
    return OK;
}

static Status save_model(Trainer *t)
{
    bool average = !strcmp(t->job->config->synthesis.weights, "ema") && t->optimizer.ema[0];
    float *block[2] = {NULL, NULL};
    Status s = OK;
    for (int k = 0; k < t->optimizer.n_store && average; k++) {
        block[k] = malloc(t->optimizer.store[k]->count * sizeof(float));
        if (!block[k]) s = FAIL(ERR_SPACE, "no memory for the averaged weights");
        if (!s)
            s = device_read(t->device, block[k], t->optimizer.ema[k],
                            t->optimizer.store[k]->count * sizeof(float));
    }
    if (!s && t->m.unet.adapter) s = lora_save(&t->m.lora, block[0], t->lora);
    if (!s && t->m.unet.adapter) s = lora_merge_adapter(&t->m.unet, block[0]);
    if (!s && t->m.unet.adapter) s = ldm_save(&t->m, t->model, NULL, NULL);
    else if (!s) s = ldm_save(&t->m, t->model, block[0], block[1]);
    free(block[0]);
    free(block[1]);
    return s;
}

static Status prepare(Trainer *t)
{
    const Config *c = t->job->config;
    bool random = !strcmp(c->ldm.init, "random"), text = c->ldm.train_text_encoder;
    TRY(ldm_open(&t->m, t->device, t->job->base,
                 (LdmUse){.train_unet = !c->ldm.lora_rank,
                          .lora_rank = c->ldm.lora_rank,
                          .train_text = text,
                          .random = random,
                          .seed = (uint32_t)c->study.seed}));
    if (strcmp(c->ldm.prediction, "auto"))
        t->m.schedule.prediction =
            !strcmp(c->ldm.prediction, "epsilon") ? PREDICT_NOISE : PREDICT_VELOCITY;
    TRY(ldm_data_open(&t->data, &t->m, t->job->train, t->job->n_train, t->job->prior,
                      c->ldm.prior_share > 0 ? t->job->n_prior : 0, t->job->val, t->job->n_val,
                      c->data.size, random, !text, t->latents, t->job->identity, t->log));
    ldm_batch_new(&t->batch, &t->data, c->ldm.batch);
    TRY(record(&t->train, t, true));
    TRY(record(&t->val, t, false));
    OptimizerSettings o = {.adamw = true,
                           .beta1 = c->ldm.beta1,
                           .beta2 = c->ldm.beta2,
                           .epsilon = c->ldm.epsilon,
                           .weight_decay = c->ldm.weight_decay,
                           .clip_norm = c->ldm.clip_norm,
                           .ema_decay = c->ldm.ema_decay};
    ParamStore *unet = c->ldm.lora_rank ? &t->m.lora : &t->m.unet;
    TRY(optimizer_new(&t->optimizer, o, (ParamStore *[]){unet, &t->m.text}, text ? 2 : 1));
    history_init(&t->history, sizeof COLUMNS / sizeof *COLUMNS, COLUMNS);
    run_state_init(&t->run, t->checkpoints, t->job->identity, t->device, &t->optimizer,
                   &t->history);
    return OK;
}

static void trainer_close(Trainer *t)
{
    history_free(&t->history);
    optimizer_free(&t->optimizer);
    pass_free(&t->train);
    pass_free(&t->val);
    ldm_batch_free(&t->batch);
    ldm_data_close(&t->data);
    ldm_close(&t->m);
    free(t->checkpoints);
    free(t->model);
    free(t->latents);
    free(t->lora);
}

Status ldm_train(const LdmJob *job, Device *d, Log *log)
{
    Trainer t = {.job = job,
                 .device = d,
                 .log = log,
                 .checkpoints = path_join(job->out, "checkpoints"),
                 .model = path_join(job->out, "model"),
                 .latents = path_join(job->out, "latents.safetensors"),
                 .lora = path_join(job->out, "pytorch_lora_weights.safetensors")};
    Status s = OK;
    if (dir_exists(t.model)) goto done;
    if (!job->n_train) {
        s = FAIL(ERR_INPUT, "%s: no training films", job->name);
        goto done;
    }
    TRY_OR(done, s, prepare(&t));
    TRY_OR(done, s, loop(&t));
    char *history = path_join(job->out, "history.json");
    s = history_write(&t.history, history);
    free(history);
    if (!s) s = save_model(&t);
    if (!s) {
        checkpoint_remove_all(t.checkpoints);
        unlink(t.latents);
    }
done:
    trainer_close(&t);
    return s;
}
