/* ldm_trainer.c - the training loop of a latent diffusion model. */
#include "train/ldm_trainer.h"
#include "exec/exec.h"
#include "models/lora.h"
#include "ops/ops.h"
#include "train/loop.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    long ahead_step; /* what batch holds already, drawn while the device was busy; 0: nothing */
    int ahead_micro;
    Pass train, val;
    TrainLoop loop;
    char *model, *latents, *lora;
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
    int n = t->batch.n, side = t->data.train.size / ldm_scale(&t->m),
        c = t->m.unet_config.in_channels;
    int image[] = {n, side, side, c}, tokens[] = {n, t->data.tokens}, pair[] = {n, 2}, one[] = {n};
    int context[] = {n, t->data.tokens, t->data.width};
    Graph *g = p->g = device_graph(t->device);
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

/* update: the optimizer whose update belongs behind it, or NULL. Enqueued only. */
static Status run_pass(Pass *p, const LdmBatch *b, Optimizer *update)
{
    TRY(exec_write(p->e, p->latent, b->latent));
    TRY(exec_write(p->e, p->noise, b->noise));
    TRY(exec_write(p->e, p->time, b->time));
    TRY(exec_write(p->e, p->mix, b->mix));
    TRY(exec_write(p->e, p->target, b->target));
    TRY(exec_write(p->e, p->weight, b->weight));
    if (p->ids) TRY(exec_write(p->e, p->ids, b->ids));
    else TRY(exec_write(p->e, p->context, b->context));
    return update ? exec_run_then(p->e, optimizer_update, update) : exec_run(p->e);
}

/* Mean loss over the validation films, each with the same noise and time every time; NaN without
 * films. */
static Status validate(void *trainer, double *loss)
{
    Trainer *t = trainer;
    double sum = 0;
    float part;
    t->ahead_step = 0;
    for (int first = 0; first < t->data.val.n; first += t->batch.n) {
        ldm_batch_validation(&t->batch, &t->data, &t->m.schedule, &t->job->config->ldm,
                             (uint32_t)t->job->config->study.seed, first);
        TRY(run_pass(&t->val, &t->batch, NULL));
        TRY(exec_read(t->val.e, t->val.loss, &part));
        sum += (double)part * t->batch.n;
    }
    *loss = t->data.val.n ? sum / t->data.val.n : NAN;
    return OK;
}

static void draw_batch(Trainer *t, long step, int micro)
{
    if (t->ahead_step == step && t->ahead_micro == micro) return;
    ldm_batch_draw(&t->batch, &t->data, &t->m.schedule, &t->job->config->ldm,
                   (uint32_t)t->job->config->study.seed, step, micro);
    t->ahead_step = step;
    t->ahead_micro = micro;
}

static Status step_gradients(void *trainer, long step, double *loss)
{
    Trainer *t = trainer;
    const LdmSettings *set = &t->job->config->ldm;
    *loss = 0;
    for (int micro = 0; micro < set->accumulate; micro++) {
        float part;
        bool last = micro + 1 == set->accumulate;
        draw_batch(t, step, micro);
        TRY(run_pass(&t->train, &t->batch, last ? &t->loop.optimizer : NULL));
        if (device_is_gpu(t->device)) draw_batch(t, last ? step + 1 : step, last ? 0 : micro + 1);
        TRY(exec_read(t->train.e, t->train.loss, &part));
        *loss += part / (double)set->accumulate;
        if (!last) TRY(optimizer_accumulate(&t->loop.optimizer));
    }
    return OK;
}

static Status open_loop(Trainer *t)
{
    const LdmJob *job = t->job;
    const LdmSettings *set = &job->config->ldm;
    t->loop = (TrainLoop){LOOP_COMMON(job, set),
                          .section = "ldm",
                          .column = {"step", "loss", "val_loss", "rate", "grad_norm"},
                          .micro = set->accumulate,
                          .trainer = t,
                          .step = step_gradients,
                          .validate = validate};
    ParamStore *unet = set->lora_rank ? &t->m.lora : &t->m.unet;
    return train_loop_open(&t->loop, t->device, t->log, (ParamStore *[]){unet, &t->m.text},
                           set->train_text_encoder ? 2 : 1);
}

static Status save_model(Trainer *t)
{
    bool average = !strcmp(t->job->config->synthesis.weights, "ema") && t->loop.optimizer.ema[0];
    float *block[2] = {NULL, NULL};
    Status s = OK;
    for (int k = 0; k < t->loop.optimizer.n_store && average; k++) {
        block[k] = malloc(t->loop.optimizer.store[k]->count * sizeof(float));
        if (!block[k]) s = FAIL(ERR_SPACE, "no memory for the averaged weights");
        if (!s)
            s = device_read(t->device, block[k], t->loop.optimizer.ema[k],
                            t->loop.optimizer.store[k]->count * sizeof(float));
    }
    if (!s && t->m.unet.adapter) s = lora_save(&t->m.lora, block[0], t->lora);
    if (!s && t->m.unet.adapter) s = lora_merge_adapter(&t->m.unet, block[0]);
    if (!s && t->m.unet.adapter) s = ldm_save(&t->m, t->model, NULL, NULL);
    else if (!s) s = ldm_save(&t->m, t->model, block[0], block[1]);
    free(block[0]);
    free(block[1]);
    return s;
}

static LdmUse use_of(const Config *c)
{
    return (LdmUse){.train_unet = !c->ldm.lora_rank,
                    .lora_rank = c->ldm.lora_rank,
                    .train_text = c->ldm.train_text_encoder,
                    .random = !strcmp(c->ldm.init, "random"),
                    .seed = (uint32_t)c->study.seed};
}

static Status record_both(Trainer *t)
{
    const LdmSettings *set = &t->job->config->ldm;
    const char *recompute = set->recompute ? NULL : "ldm.recompute";
    TRY(device_memory_advice(record(&t->train, t, true), t->device, "ldm.batch", set->batch,
                            recompute));
    return device_memory_advice(record(&t->val, t, false), t->device, "ldm.batch", set->batch,
                                NULL);
}

static Status prepare(Trainer *t)
{
    const Config *c = t->job->config;
    bool random = !strcmp(c->ldm.init, "random"), text = c->ldm.train_text_encoder;
    LdmUse use = use_of(c);
    use.log = t->log;
    TRY(ldm_open(&t->m, t->device, t->job->base, use));
    if (strcmp(c->ldm.prediction, "auto"))
        t->m.schedule.prediction =
            !strcmp(c->ldm.prediction, "epsilon") ? PREDICT_NOISE : PREDICT_VELOCITY;
    TRY(ldm_data_open(&t->data, &t->m, t->job->train, t->job->n_train, t->job->prior,
                      c->ldm.prior_share > 0 ? t->job->n_prior : 0, t->job->val, t->job->n_val,
                      c->data.size, random, !text, t->latents, t->job->identity, t->log));
    ldm_batch_new(&t->batch, &t->data, c->ldm.batch);
    TRY(record_both(t));
    return open_loop(t);
}

static void trainer_close(Trainer *t)
{
    train_loop_close(&t->loop);
    pass_free(&t->train);
    pass_free(&t->val);
    ldm_batch_free(&t->batch);
    ldm_data_close(&t->data);
    ldm_close(&t->m);
    free(t->model);
    free(t->latents);
    free(t->lora);
}

Status ldm_train(const LdmJob *job, Device *d, Log *log)
{
    Trainer t = {.job = job,
                 .device = d,
                 .log = log,
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
    TRY_OR(done, s, train_loop(&t.loop));
    TRY_OR(done, s, save_model(&t));
    train_loop_done(&t.loop);
    unlink(t.latents);
done:
    trainer_close(&t);
    return s;
}

Status ldm_measure(Cost *cost, const LdmJob *job, Device *d)
{
    const LdmSettings *set = &job->config->ldm;
    Trainer t = {.job = job, .device = d, .batch = {.n = set->batch}};
    LdmUse use = use_of(job->config);
    int n[] = {job->n_train, set->prior_share > 0 ? job->n_prior : 0, job->n_val};
    Status s;
    use.bare = true;
    *cost = (Cost){0};
    device_peak_restart(d);
    TRY_OR(done, s, ldm_open(&t.m, d, job->base, use));
    cost->parameters = device_bytes(d);
    TRY_OR(done, s,
           ldm_data_measure(&t.data, &t.m, n, job->config->data.size, !set->train_text_encoder,
                            &cost->once));
    TRY_OR(done, s, record_both(&t));
    cost->activations = device_bytes(d) - cost->parameters;
    TRY_OR(done, s, open_loop(&t));
    cost->unit = exec_flops(t.train.e);
    cost->validation = exec_flops(t.val.e) * ceil((double)job->n_val / set->batch);
    for (int k = 0; k < t.loop.optimizer.n_store; k++)
        cost->gradients += t.loop.optimizer.store[k]->count_param * sizeof(float);
    cost->optimizer = device_bytes(d) - cost->parameters - cost->activations;
    cost->peak = device_peak(d);
done:
    trainer_close(&t);
    return s;
}
