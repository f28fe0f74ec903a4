/* autoencoder_trainer.c - the training loop of an autoencoder.
 *
 * Training uses full batches only, in epochs; the films left over at an epoch's end differ from
 * epoch to epoch. A sample's noise is keyed by (seed, step, place in the batch).
 */
#include "train/autoencoder_trainer.h"
#include "base/random.h"
#include "comm/share.h"
#include "data/loader.h"
#include "exec/exec.h"
#include "models/autoencoder.h"
#include "models/perceptual.h"
#include "train/loop.h"
#include "weights/model_folder.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_BYTES = 1 << 28 };

/* One recorded use of the network: training with gradients, or validation without. */
typedef struct {
    Graph *g;
    Exec *e;
    Tensor *film, *noise, *weight; /* noise: NULL for a tiny autoencoder */
    Tensor *loss, *l1;
} Pass;

typedef struct {
    const AutoencoderJob *job;
    const AutoencoderSettings *set;
    Device *device;
    Log *log;
    AutoencoderConfig config;
    ParamStore store;
    Perceptual perceptual; /* empty where its weight is 0 */
    Pass train, val;
    float *film, *noise, *weight; /* owned: a batch on the host */
    Loader *loader;
    TrainLoop loop;
    long per_epoch; /* steps */
    char *model;
} Trainer;

/* ---- passes ------------------------------------------------------------------------------- */

static void pass_free(Pass *p)
{
    exec_free(p->e);
    graph_free(p->g);
    *p = (Pass){0};
}

static Tensor *input(Graph *g, const char *name, int ndim, const int *dim)
{
    return graph_leaf(g, KIND_INPUT, DTYPE_F32, name, ndim, dim);
}

static Status record(Pass *p, Trainer *t, bool backward)
{
    const AutoencoderSettings *set = t->set;
    const AutoencoderConfig *c = &t->config;
    int n = set->batch, size = t->job->config->data.size, side = size / c->scale;
    Graph *g = p->g = device_graph(t->device);
    p->film = input(g, "film", 4, (int[]){n, size, size, 3});
    p->weight = input(g, "weight", 1, &n);
    KlMoments m = autoencoder_encode(g, &t->store, c, p->film, set->recompute);
    Tensor *latent = m.mean;
    if (c->is_kl) {
        p->noise = input(g, "noise", 4, (int[]){n, side, side, c->latent_channels});
        latent = sample_gaussian(g, m.mean, m.logvar, p->noise);
    }
    Tensor *back = autoencoder_decode(g, &t->store, c, latent, set->recompute);
    p->l1 = weighted_l1(g, back, p->film, p->weight);
    p->loss = add_scaled(g, p->l1, (float)set->l1_weight,
                         weighted_mse(g, back, p->film, p->weight), (float)set->mse_weight);
    if (c->is_kl)
        p->loss = add_scaled(g, p->loss, 1, gaussian_kl(g, m.mean, m.logvar, p->weight),
                             (float)set->kl_weight);
    if (set->perceptual_weight > 0)
        p->loss = add_scaled(g, p->loss, 1,
                             perceptual_loss(g, &t->perceptual, back, p->film, p->weight),
                             (float)set->perceptual_weight);
    TRY(graph_status(g));
    if (backward) {
        graph_backward(g, 1, &p->loss, NULL);
        params_pin_grads(g);
        reduction_place(&t->loop.optimizer.sum, g);
    }
    params_bind(g);
    Tensor *keep[] = {p->loss, p->l1};
    graph_finish(g, keep, 2);
    return exec_new(&p->e, t->device, g, keep, 2);
}

/* The first n films of the batch count. */
static Status write_batch(Pass *p, Trainer *t, const float *pixel, int n)
{
    size_t values = tensor_count(p->film);
    for (size_t i = 0; i < values; i++) t->film[i] = pixel[i / 3];
    for (int i = 0; i < t->set->batch; i++) t->weight[i] = i < n;
    TRY(exec_write(p->e, p->film, t->film));
    TRY(exec_write(p->e, p->weight, t->weight));
    return p->noise ? exec_write(p->e, p->noise, t->noise) : OK;
}

static void draw_noise(Trainer *t, long step, int micro)
{
    if (!t->noise) return;
    size_t per = tensor_count(t->train.noise) / (size_t)t->set->batch;
    for (int i = 0; i < t->set->batch; i++)
        random_normals(t->noise + (size_t)i * per, per,
                       (RandomKey){(uint32_t)t->job->config->study.seed, STREAM_LATENT,
                                   (uint32_t)step, (uint64_t)(micro * t->set->batch + i)});
}

/* ---- films -------------------------------------------------------------------------------- */

/* This rank's batches: of the training films from step on, or of the validation films once, in
 * order. */
static Status open_loader(Loader **l, const Trainer *t, bool train, long step)
{
    const AutoencoderJob *job = t->job;
    const Reduction *sum = &t->loop.optimizer.sum;
    int n = train ? job->n_train : job->n_val;
    LoaderItem *item = calloc((size_t)n, sizeof *item);
    CHECK(item);
    for (int i = 0; i < n; i++)
        item[i] = (LoaderItem){.path = (train ? job->train : job->val)[i], .id = (uint64_t)i};
    LoaderSettings set = {.size = job->config->data.size,
                          .batch = t->set->batch,
                          .n_threads = job->config->data.loader_threads,
                          .shuffle = train,
                          .seed = (uint32_t)job->config->study.seed,
                          .cache_bytes = train ? CACHE_BYTES : 0,
                          .first_epoch = train ? (uint32_t)(step / t->per_epoch) : 0,
                          .first_batch = train ? (int)(step % t->per_epoch) * sum->n_local : 0,
                          .group = train ? sum->set.n_micro : sum->ranks,
                          .from = train ? sum->first : sum->rank,
                          .each = train ? sum->n_local : 1,
                          .n_epochs = train ? 0 : 1};
    Status s = loader_open(l, item, n, &set);
    free(item);
    return s;
}

/* part[batch]: loss and L1, of this rank's batches of validation films. */
static Status validate_batches(Trainer *t, float (*part)[2])
{
    Loader *l = NULL;
    Batch b;
    Status s;
    TRY(open_loader(&l, t, false, 0));
    for (;;) {
        TRY_OR(done, s, loader_next(l, &b));
        if (!b.n) break;
        TRY_OR(done, s, write_batch(&t->val, t, b.pixel, b.n));
        TRY_OR(done, s, exec_run(t->val.e));
        TRY_OR(done, s, exec_read(t->val.e, t->val.loss, &part[b.index][0]));
        TRY_OR(done, s, exec_read(t->val.e, t->val.l1, &part[b.index][1]));
    }
done:
    loader_close(l);
    return s;
}

/* mean[2]: loss and L1 over the validation films, decoded from the latents' means; NaN without
 * films. */
static Status validate(void *trainer, double *mean)
{
    Trainer *t = trainer;
    int n = t->job->n_val, each = t->set->batch, n_batch = (n + each - 1) / each;
    double sum[2] = {0};
    mean[0] = mean[1] = NAN;
    if (!n) return OK;
    float(*part)[2] = calloc((size_t)n_batch, sizeof *part);
    CHECK(part);
    if (t->noise) memset(t->noise, 0, tensor_bytes(t->val.noise));
    Status s = share_gather(t->job->comm, "validation", validate_batches(t, part), part,
                            sizeof *part, n_batch);
    for (int b = 0; b < n_batch; b++)
        for (int k = 0; k < 2; k++) sum[k] += (double)part[b][k] * each;
    for (int k = 0; k < 2; k++) mean[k] = sum[k] / n;
    free(part);
    return s;
}

/* ---- steps -------------------------------------------------------------------------------- */

static Status start(void *trainer, long step)
{
    Trainer *t = trainer;
    return open_loader(&t->loader, t, true, step);
}

static Status feed(void *trainer, long step, int micro)
{
    Trainer *t = trainer;
    Batch b;
    do TRY(loader_next(t->loader, &b));
    while (b.index / t->set->accumulate >= t->per_epoch); /* the epoch's leftovers */
    CHECK(b.index == (step - 1) % t->per_epoch * t->set->accumulate + micro);
    draw_noise(t, step, micro);
    return write_batch(&t->train, t, b.pixel, b.n);
}

static Status open_loop(Trainer *t)
{
    const AutoencoderJob *job = t->job;
    const AutoencoderSettings *set = t->set;
    t->loop = (TrainLoop){LOOP_COMMON(job, set),
                          .section = "autoencoder",
                          .column = {"step", "loss", "val_loss", "val_l1", "rate", "grad_norm"},
                          .trainer = t,
                          .start = start,
                          .validate = validate};
    return train_loop_open(&t->loop, t->device, t->log, (ParamStore *[]){&t->store}, 1);
}

/* ---- opening and closing -------------------------------------------------------------------- */

static Status check_perceptual(const Config *c)
{
    Perceptual p;
    if (c->autoencoder.perceptual_weight <= 0) return OK;
    if (c->data.size < INCEPTION_LEAST_PX)
        return FAIL(ERR_USAGE,
                    "data.size = %d, expected %d or more with autoencoder.perceptual_weight",
                    c->data.size, INCEPTION_LEAST_PX);
    Status s = perceptual_open(&p, NULL, c->autoencoder.perceptual_weights);
    perceptual_close(&p);
    return s;
}

/* Registers every parameter. */
static Status register_parameters(ParamStore *s, const AutoencoderConfig *c)
{
    Graph *g = graph_new();
    Tensor *film = input(g, "film", 4, (int[]){1, c->scale, c->scale, 3});
    autoencoder_decode(g, s, c, autoencoder_encode(g, s, c, film, false).mean, false);
    Status status = graph_status(g);
    graph_free(g);
    return status;
}

/* What `frozen` names rests; every name must be one, and something must be left. */
static Status freeze(ParamStore *s, const char *frozen)
{
    char list[CONFIG_TEXT], *rest = list;
    int left = 0;
    strcpy(list, frozen);
    for (char *name; (name = strtok_r(rest, ", ", &rest));) {
        int n = 0;
        for (int i = 0; i < s->n; i++) n += !strncmp(s->param[i].name, name, strlen(name));
        if (!n)
            return FAIL(ERR_USAGE,
                        "autoencoder.frozen: found %s, expected the start of a parameter's name, "
                        "as %s",
                        name, s->param[0].name);
        params_freeze(s, name);
    }
    for (int i = 0; i < s->n; i++) left += s->param[i].trainable;
    return left ? OK : FAIL(ERR_USAGE, "autoencoder.frozen = %s leaves nothing to train", frozen);
}

Status autoencoder_train_check(const Config *c, const char *base)
{
    AutoencoderConfig a;
    ParamStore store = {0}; /* without memory: loading reads headers only */
    TRY(autoencoder_config_read(&a, base));
    if (c->data.size % a.scale)
        return FAIL(ERR_USAGE,
                    "data.size = %d, expected a multiple of %d for the autoencoder in %s",
                    c->data.size, a.scale, base);
    TRY(check_perceptual(c));
    Status s = register_parameters(&store, &a);
    if (!s) s = freeze(&store, c->autoencoder.frozen);
    if (!s && strcmp(c->autoencoder.init, "random")) s = autoencoder_load(&store, &a, base);
    params_free(&store);
    return s;
}

/* Allocates and fills the parameters; those that autoencoder.frozen names rest. */
static Status open_store(Trainer *t)
{
    TRY(register_parameters(&t->store, &t->config));
    TRY(params_alloc(&t->store, t->device, true));
    if (!strcmp(t->set->init, "random"))
        TRY(params_init(&t->store, (uint32_t)t->job->config->study.seed));
    else TRY(autoencoder_load(&t->store, &t->config, t->job->base));
    return freeze(&t->store, t->set->frozen);
}

static Status prepare(Trainer *t)
{
    const AutoencoderSettings *set = t->set;
    TRY(reduction_check(set->accumulate, comm_size(t->job->comm), "autoencoder"));
    TRY(train_need_batch(t->job->name, t->job->n_train, "autoencoder", set->batch,
                         set->accumulate));
    t->per_epoch = t->job->n_train / (set->batch * set->accumulate);
    TRY(autoencoder_config_read(&t->config, t->job->base));
    TRY(open_store(t));
    if (set->perceptual_weight > 0)
        TRY(perceptual_open(&t->perceptual, t->device, set->perceptual_weights));
    TRY(open_loop(t));
    TRY(device_memory_advice(record(&t->train, t, true), t->device, "autoencoder.batch", set->batch,
                            set->recompute || !t->config.is_kl ? NULL : "autoencoder.recompute"));
    TRY(device_memory_advice(record(&t->val, t, false), t->device, "autoencoder.batch", set->batch,
                            NULL));
    t->film = malloc(tensor_bytes(t->train.film));
    t->weight = malloc(tensor_bytes(t->train.weight));
    if (t->train.noise) t->noise = malloc(tensor_bytes(t->train.noise));
    CHECK(t->film && t->weight && (t->noise || !t->train.noise));
    return train_loop_step(
        &t->loop,
        (TrainStep){.exec = t->train.e, .loss = t->train.loss, .trainer = t, .feed = feed});
}

/* Ranks give rank 0 their parts of the averages, which writes. */
static Status save_model(Trainer *t)
{
    bool average = t->loop.optimizer.ema[0], writes = !comm_rank(t->job->comm);
    float *host = writes ? malloc(t->store.count * sizeof *host) : NULL;
    Status s = writes && !host ? FAIL(ERR_SPACE, "no memory for the weights") : OK;
    s = comm_agree(t->job->comm, "the model", s);
    if (!s && average) s = optimizer_averages(&t->loop.optimizer, 0, host);
    else if (!s && writes) s = params_read(&t->store, host);
    if (!s && writes) s = autoencoder_save(t->model, t->job->base, &t->store, host);
    free(host);
    return comm_agree(t->job->comm, "the model", s);
}

static void trainer_close(Trainer *t)
{
    loader_close(t->loader);
    pass_free(&t->train); /* recorded graphs before the memory that they use */
    pass_free(&t->val);
    train_loop_close(&t->loop);
    params_free(&t->store);
    perceptual_close(&t->perceptual);
    free(t->film);
    free(t->noise);
    free(t->weight);
    free(t->model);
}

Status autoencoder_train(const AutoencoderJob *job, Device *d, Log *log)
{
    Trainer t = {.job = job,
                 .set = &job->config->autoencoder,
                 .device = d,
                 .log = log,
                 .model = path_join(job->out, "model")};
    Status s;
    bool there = !comm_rank(job->comm) && dir_exists(t.model);
    TRY_OR(done, s, comm_host_broadcast(job->comm, "the model", &there, sizeof there, 0));
    if (there) goto done;
    TRY_OR(done, s, comm_agree(job->comm, "the autoencoder", prepare(&t)));
    TRY_OR(done, s, train_loop(&t.loop));
    TRY_OR(done, s, save_model(&t));
    train_loop_done(&t.loop);
done:
    trainer_close(&t);
    return s;
}
