/* ldm_trainer.c - the training loop of a latent diffusion model. */
#include "train/ldm_trainer.h"
#include "comm/share.h"
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
        reduction_place(&t->loop.optimizer.sum, g);
    }
    params_bind(g);
    graph_finish(g, &p->loss, 1);
    return exec_new(&p->e, t->device, g, &p->loss, 1);
}

static Status write_batch(Pass *p, const LdmBatch *b)
{
    TRY(exec_write(p->e, p->latent, b->latent));
    TRY(exec_write(p->e, p->noise, b->noise));
    TRY(exec_write(p->e, p->time, b->time));
    TRY(exec_write(p->e, p->mix, b->mix));
    TRY(exec_write(p->e, p->target, b->target));
    TRY(exec_write(p->e, p->weight, b->weight));
    return p->ids ? exec_write(p->e, p->ids, b->ids) : exec_write(p->e, p->context, b->context);
}

static Status validate_batch(Trainer *t, int first, float *loss)
{
    ldm_batch_validation(&t->batch, &t->data, &t->m.schedule, &t->job->config->ldm,
                         (uint32_t)t->job->config->study.seed, first);
    TRY(write_batch(&t->val, &t->batch));
    TRY(exec_run(t->val.e));
    return exec_read(t->val.e, t->val.loss, loss);
}

/* Mean loss over the validation films, each with the same noise and time every time; NaN without
 * films. */
static Status validate(void *trainer, double *loss)
{
    Trainer *t = trainer;
    int n = t->data.val.n, each = t->batch.n, n_batch = (n + each - 1) / each;
    double sum = 0;
    float *part = calloc((size_t)n_batch + 1, sizeof *part);
    CHECK(part);
    Status s = OK;
    for (int b = 0; b < n_batch && !s; b++)
        if (share_mine(t->job->comm, b)) s = validate_batch(t, b * each, &part[b]);
    s = share_gather(t->job->comm, "validation", s, part, sizeof *part, n_batch);
    for (int b = 0; b < n_batch; b++) sum += (double)part[b] * each;
    *loss = n ? sum / n : NAN;
    free(part);
    return s;
}

static Status feed(void *trainer, long step, int micro)
{
    Trainer *t = trainer;
    ldm_batch_draw(&t->batch, &t->data, &t->m.schedule, &t->job->config->ldm,
                   (uint32_t)t->job->config->study.seed, step, micro);
    return write_batch(&t->train, &t->batch);
}

static Status open_loop(Trainer *t)
{
    const LdmJob *job = t->job;
    const LdmSettings *set = &job->config->ldm;
    t->loop = (TrainLoop){LOOP_COMMON(job, set), .section = "ldm",
                          .column = {"step", "loss", "val_loss", "rate", "grad_norm"}, .trainer = t,
                          .validate = validate};
    ParamStore *unet = set->lora_rank ? &t->m.lora : &t->m.unet;
    return train_loop_open(&t->loop, t->device, t->log, (ParamStore *[]){unet, &t->m.text},
                           set->train_text_encoder ? 2 : 1);
}

static Status write_model(Trainer *t, float *const average[2])
{
    if (!t->m.unet.adapter) return ldm_save(&t->m, t->model, average[0], average[1]);
    TRY(lora_save(&t->m.lora, average[0], t->lora));
    TRY(lora_merge_adapter(&t->m.unet, average[0]));
    return ldm_save(&t->m, t->model, NULL, NULL);
}

/* Ranks give rank 0 their parts of the averages, which writes. */
static Status save_model(Trainer *t)
{
    Optimizer *o = &t->loop.optimizer;
    bool average = !strcmp(t->job->config->synthesis.weights, "ema") && o->ema[0];
    bool writes = !comm_rank(t->job->comm);
    float *block[2] = {NULL, NULL};
    Status s = OK;
    for (int k = 0; k < o->n_store && average && writes && !s; k++) {
        block[k] = malloc(o->store[k]->count * sizeof(float));
        if (!block[k]) s = FAIL(ERR_SPACE, "no memory for the averaged weights");
    }
    s = comm_agree(t->job->comm, "the model", s);
    for (int k = 0; k < o->n_store && average && !s; k++) s = optimizer_averages(o, k, block[k]);
    if (writes && !s) s = write_model(t, block);
    free(block[0]);
    free(block[1]);
    return comm_agree(t->job->comm, "the model", s);
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

static Status open_model(Trainer *t)
{
    const Config *c = t->job->config;
    if (!t->job->n_train) return FAIL(ERR_INPUT, "%s: no training films", t->job->name);
    TRY(reduction_check(c->ldm.accumulate, comm_size(t->job->comm), "ldm"));
    LdmUse use = use_of(c);
    use.log = t->log;
    TRY(ldm_open(&t->m, t->device, t->job->base, use));
    if (strcmp(c->ldm.prediction, "auto"))
        t->m.schedule.prediction =
            !strcmp(c->ldm.prediction, "epsilon") ? PREDICT_NOISE : PREDICT_VELOCITY;
    return OK;
}

static Status open_step(Trainer *t)
{
    return train_loop_step(
        &t->loop,
        (TrainStep){.exec = t->train.e, .loss = t->train.loss, .trainer = t, .feed = feed});
}

static Status open_passes(Trainer *t)
{
    ldm_batch_new(&t->batch, &t->data, t->job->config->ldm.batch);
    TRY(open_loop(t));
    TRY(record_both(t));
    return open_step(t);
}

static Status prepare(Trainer *t)
{
    const LdmJob *job = t->job;
    const Config *c = job->config;
    TRY(comm_agree(job->comm, "the base model", open_model(t)));
    TRY(ldm_data_open(&t->data, &t->m, job->train, job->n_train, job->prior,
                      c->ldm.prior_share > 0 ? job->n_prior : 0, job->val, job->n_val, c->data.size,
                      !strcmp(c->ldm.init, "random"), !c->ldm.train_text_encoder, t->latents,
                      job->identity, job->comm, t->log));
    return comm_agree(job->comm, "the passes", open_passes(t));
}

static void trainer_close(Trainer *t)
{
    pass_free(&t->train); /* recorded graphs before the memory that they use */
    pass_free(&t->val);
    train_loop_close(&t->loop);
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
    Status s;
    bool there = !comm_rank(job->comm) && dir_exists(t.model);
    TRY_OR(done, s, comm_host_broadcast(job->comm, "the model", &there, sizeof there, 0));
    if (there) goto done;
    TRY_OR(done, s, prepare(&t));
    TRY_OR(done, s, train_loop(&t.loop));
    TRY_OR(done, s, save_model(&t));
    train_loop_done(&t.loop);
    if (!comm_rank(job->comm)) unlink(t.latents);
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
    TRY_OR(done, s, open_loop(&t));
    cost->optimizer = device_bytes(d) - cost->parameters;
    TRY_OR(done, s, record_both(&t));
    TRY_OR(done, s, open_step(&t));
    cost->activations = device_bytes(d) - cost->parameters - cost->optimizer;
    cost->unit = exec_flops(t.train.e);
    cost->validation = exec_flops(t.val.e) * ceil((double)job->n_val / set->batch);
    cost_of_sum(cost, &t.loop.optimizer.sum);
    cost->peak = device_peak(d);
done:
    trainer_close(&t);
    return s;
}
