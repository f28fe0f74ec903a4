/* cmd_bench.c - equipoise bench: times whole training steps, as the trainers run them, calls of the
 * UNet, and batches of films, on random data and random weights; and single ops (bench_kernels.c).
 *
 * stdout gets a line of JSON when it has warmed up, one a round, and one at the end with the
 * process's peak memory, so that a driver (bench/compare.py) can interleave it with a peer. */
#include "app/bench.h"
#include "app/commands.h"
#include "app/options.h"
#include "base/random.h"
#include "base/signal.h"
#include "models/unet.h"
#include "ops/ops.h"
#include "sample/sampler.h"
#include "train/classifier_net.h"
#include "train/optimizer.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCHES = 4, WARM_UP = 3, TOKENS = 77, TIMESTEPS = 1000, CLASSES = 2 };

/* One tensor that a step reads and the values it takes in turn. */
typedef struct {
    Tensor *t;
    void *value; /* owned: BATCHES times the tensor's bytes */
} Supply;
enum { MAX_FEED = 8 };

typedef struct {
    int size, batch, rounds, steps;
    double width;
    const char *folder;
    bool piped, recompute, forward;
    double aux_weight;

    Device *device;
    Config config;
    Graph *graph;          /* of the UNet */
    Exec *exec;            /* of the UNet */
    ParamStore unet_store; /* of the UNet */
    Tensor *loss;          /* of a training step; else the UNet's output */
    Supply feed[MAX_FEED];
    int n_feed;
    ClassifierNet net;   /* of Inception-V3 */
    ClassifierPass pass; /* of Inception-V3 */
    Ldm ldm;             /* of the sampler */
    Sampler *sampler;
    int sampling_steps;
    float *pixel;        /* owned: BATCHES batches of films in [0, 1]; the sampler's films */
    int *label;          /* owned: as many labels */
    Optimizer optimizer;
    TrainStep train;
    long step;
} Bench;

static const ReduceSettings ALONE = {.n_micro = 1};

static RandomKey key_of(int batch, int what)
{
    return (RandomKey){.stream = STREAM_TEST, .step = (uint32_t)batch, .sample = (uint64_t)what};
}

/* ---- UNet ------------------------------------------------------------------------------- */

static Tensor *feed_input(Bench *b, const char *name, int ndim, const int *dim)
{
    CHECK(b->n_feed < MAX_FEED);
    Supply *f = &b->feed[b->n_feed];
    f->t = graph_leaf(b->graph, KIND_INPUT, DTYPE_F32, name, ndim, dim);
    size_t count = tensor_count(f->t);
    float *value = malloc(BATCHES * count * sizeof *value);
    CHECK(value);
    for (int i = 0; i < BATCHES; i++)
        random_normals(value + (size_t)i * count, count, key_of(i, b->n_feed));
    f->value = value;
    b->n_feed++;
    return f->t;
}

/* Times, and the coefficients of q(x_t | x_0) and of the v-prediction at them. */
static void fill_times(Supply *time, Supply *mix, Supply *target, Supply *weight)
{
    size_t n = BATCHES * tensor_count(time->t);
    float *t = time->value, *q = mix->value, *v = target->value, *w = weight->value;
    for (size_t i = 0; i < n; i++) {
        t[i] = (float)random_below(key_of(0, MAX_FEED), (uint32_t)i, TIMESTEPS);
        float angle = .5f * (float)M_PI * (t[i] + .5f) / TIMESTEPS;
        q[2 * i] = v[2 * i + 1] = cosf(angle);
        q[2 * i + 1] = sinf(angle);
        v[2 * i] = -sinf(angle);
        w[i] = 1;
    }
}

static Status record_unet(Bench *b, const UnetConfig *c)
{
    int n = b->batch, side = b->size / 8;
    int image[] = {n, side, side, c->in_channels}, pair[] = {n, 2};
    int context[] = {n, TOKENS, c->cross_attention_dim};
    Graph *g = b->graph = device_graph(b->device);
    Tensor *latent = feed_input(b, "latent", 4, image);
    Tensor *noise = feed_input(b, "noise", 4, image);
    Tensor *text = feed_input(b, "context", 3, context);
    Supply *time = b->feed + b->n_feed;
    feed_input(b, "time", 1, &n);
    feed_input(b, "mix", 2, pair);
    feed_input(b, "target", 2, pair);
    feed_input(b, "weight", 1, &n);
    fill_times(time, time + 1, time + 2, time + 3);
    Tensor *noisy = mix_samples(g, latent, noise, time[1].t);
    Tensor *wanted = mix_samples(g, latent, noise, time[2].t);
    Tensor *prediction = unet(g, &b->unet_store, c, noisy, time[0].t, text, b->recompute);
    b->loss = weighted_mse(g, prediction, wanted, time[3].t);
    if (b->forward) b->loss = prediction;
    TRY(graph_status(g));
    TRY(params_alloc(&b->unet_store, b->device, !b->forward));
    TRY(params_init(&b->unet_store, 1));
    if (b->forward) {
        params_hold(g);
    } else {
        graph_backward(g, 1, &b->loss, NULL);
        params_pin_grads(g);
    }
    params_bind(g);
    graph_finish(g, &b->loss, 1);
    return exec_new(&b->exec, b->device, g, &b->loss, 1);
}

static Status feed_unet(void *bench, long step, int micro)
{
    Bench *b = bench;
    size_t turn = (size_t)(step % BATCHES);
    (void)micro;
    for (int i = 0; i < b->n_feed; i++) {
        const Supply *f = &b->feed[i];
        TRY(exec_write(b->exec, f->t, (const char *)f->value + turn * tensor_bytes(f->t)));
    }
    return OK;
}

static Status open_unet(Bench *b)
{
    UnetConfig c;
    char *path = path_join(b->folder, "unet/config.json");
    Status s = unet_config_read(&c, path);
    free(path);
    if (!s) s = record_unet(b, &c);
    if (s || b->forward) return s;
    const LdmSettings *l = &b->config.ldm;
    TRY(optimizer_new(&b->optimizer,
                      (OptimizerSettings){.adamw = true,
                                          .beta1 = l->beta1,
                                          .beta2 = l->beta2,
                                          .epsilon = l->epsilon,
                                          .weight_decay = l->weight_decay,
                                          .clip_norm = l->clip_norm,
                                          .ema_decay = l->ema_decay},
                      (ParamStore *[]){&b->unet_store}, 1, &ALONE));
    b->train = (TrainStep){.optimizer = &b->optimizer,
                           .exec = b->exec,
                           .loss = b->loss,
                           .trainer = b,
                           .feed = feed_unet};
    return train_step_open(&b->train);
}

static Status step_unet(Bench *b, float *loss)
{
    double mean, norm;
    if (b->forward) {
        TRY(feed_unet(b, b->step, 0));
        TRY(exec_run(b->exec));
        return device_sync(b->device);
    }
    TRY(train_step(&b->train, b->step, b->config.ldm.learning_rate, false, &mean, &norm));
    *loss = (float)mean;
    return OK;
}

/* ---- Inception-V3 ----------------------------------------------------------------------- */

static Status feed_inception(void *bench, long step, int micro)
{
    Bench *b = bench;
    size_t turn = (size_t)(step % BATCHES), n = (size_t)b->batch;
    (void)micro;
    return classifier_pass_write(
        &b->pass, b->pixel + turn * n * (size_t)b->size * (size_t)b->size, b->label + turn * n,
        (int32_t[]){1, (int32_t)step, 0});
}

static Status open_inception(Bench *b)
{
    const ClassifierSettings *c = &b->config.classifier;
    size_t films = BATCHES * (size_t)b->batch, pixels = films * (size_t)b->size * (size_t)b->size;
    b->pixel = malloc(pixels * sizeof *b->pixel);
    b->label = malloc(films * sizeof *b->label);
    CHECK(b->pixel && b->label);
    for (size_t i = 0; i < pixels; i++)
        b->pixel[i] = (float)random_uniform(key_of(0, 0), (uint32_t)i);
    for (size_t i = 0; i < films; i++)
        b->label[i] = (int)random_below(key_of(0, 1), (uint32_t)i, CLASSES);
    TRY(classifier_net_open(&b->net, b->device, &b->config, CLASSES, true));
    TRY(params_init(&b->net.store, 1));
    TRY(optimizer_new(
        &b->optimizer,
        (OptimizerSettings){.momentum = c->momentum, .weight_decay = c->weight_decay},
        (ParamStore *[]){&b->net.store}, 1, &ALONE));
    TRY(classifier_pass_open(&b->pass, &b->net, &b->config, b->batch, &b->optimizer,
                             (const float[CLASSES]){.5f, 7}));
    b->train = classifier_step(&b->pass, &b->optimizer);
    b->train.trainer = b;
    b->train.feed = feed_inception;
    return train_step_open(&b->train);
}

static Status step_inception(Bench *b, float *loss)
{
    double mean, norm;
    TRY(train_step(&b->train, b->step, b->config.classifier.learning_rate, false, &mean, &norm));
    *loss = (float)mean;
    return OK;
}

/* ---- films ------------------------------------------------------------------------------ */

static Status open_sampler(Bench *b)
{
    SamplerSettings set = {.guidance = 4, .steps = b->sampling_steps, .spacing = SPACING_LEADING};
    TRY(ldm_open(&b->ldm, b->device, b->folder, (LdmUse){.random = true, .seed = 1}));
    b->pixel = malloc((size_t)b->batch * (size_t)b->size * (size_t)b->size * sizeof *b->pixel);
    CHECK(b->pixel);
    return sampler_open(&b->sampler, &b->ldm, film_square(b->size), b->batch, set, 1);
}

/* A batch of films of one prompt, as in a synthesis stage. */
static Status step_sampler(Bench *b, float *loss)
{
    SampleRequest *r = calloc((size_t)b->batch, sizeof *r);
    CHECK(r);
    for (int i = 0; i < b->batch; i++)
        r[i] = (SampleRequest){.id = (uint64_t)(b->step * b->batch + i), .prompt = "chest x-ray"};
    Status s = sampler_run(b->sampler, r, b->batch, b->pixel);
    *loss = b->pixel[0];
    free(r);
    return s;
}

/* ---- rounds ----------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    Status (*open)(Bench *b);
    Status (*step)(Bench *b, float *loss);
} Case;
static const Case cases[] = {{"unet", open_unet, step_unet},
                             {"inception", open_inception, step_inception},
                             {"sampler", open_sampler, step_sampler}};
enum { N_CASE = sizeof cases / sizeof *cases };

static double now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* Of the whole process since its start. */
static double peak_mib(void)
{
    char line[128];
    double kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmHWM:", 6)) kib = strtod(line + 6, NULL);
    if (f) fclose(f);
    return kib / 1024;
}

/* Milliseconds a step: on the clock, and of all threads together. */
typedef struct {
    double wall, cpu;
} Took;

static Status run_steps(Took *took, Bench *b, const Case *c, int n, float *loss)
{
    double wall = now_ms(CLOCK_MONOTONIC), cpu = now_ms(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < n; i++, b->step++) TRY(c->step(b, loss));
    took->wall = (now_ms(CLOCK_MONOTONIC) - wall) / n;
    took->cpu = (now_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu) / n;
    return OK;
}

static size_t count_parameters(const ParamStore *s)
{
    size_t n = 0;
    for (int i = 0; i < s->n; i++)
        if (!s->param[i].state) n += s->param[i].count;
    return n;
}

static Status run_rounds(Bench *b, const Case *c)
{
    char go[16];
    float loss = 0;
    Took took = {0};
    TRY(run_steps(&took, b, c, WARM_UP, &loss));
    const Exec *e = b->sampler ? sampler_exec(b->sampler) : b->exec ? b->exec : b->pass.e;
    const ParamStore *store =
        b->sampler ? &b->ldm.unet : b->exec ? &b->unet_store : &b->net.store;
    printf("{\"model\":\"%s\",\"device\":\"%s\",\"batch\":%d,\"size\":%d,\"parameters\":%zu,"
           "\"gflop\":%.3f,\"activations_mib\":%.1f}\n",
           c->name, device_text(b->device), b->batch, b->size,
           count_parameters(store), exec_flops(e) * 1e-9, (double)exec_bytes(e) / 1048576);
    for (int round = 1; b->piped || round <= b->rounds; round++) {
        fflush(stdout);
        if (b->piped && !fgets(go, sizeof go, stdin)) break;
        TRY(signal_check());
        TRY(run_steps(&took, b, c, b->steps, &loss));
        printf("{\"round\":%d,\"ms\":%.3f,\"cpu_ms\":%.3f,\"loss\":%.5g}\n", round, took.wall,
               took.cpu, (double)loss);
    }
    printf("{\"peak_mib\":%.1f}\n", peak_mib());
    Text profile = {0};
    exec_profile(e, &profile);
    if (profile.s) fputs(profile.s, stderr);
    free(profile.s);
    return OK;
}

static void bench_close(Bench *b)
{
    train_step_close(&b->train);
    optimizer_free(&b->optimizer);
    exec_free(b->exec);
    graph_free(b->graph);
    params_free(&b->unet_store);
    classifier_pass_close(&b->pass);
    params_free(&b->net.store);
    sampler_close(b->sampler);
    ldm_close(&b->ldm);
    for (int i = 0; i < b->n_feed; i++) free(b->feed[i].value);
    free(b->pixel);
    free(b->label);
    device_close(b->device);
}

static const Option option[] = {
    {"forward", NULL, "unet: only the call, without gradients", NULL},
    {"aux-weight", "A", "inception: of the auxiliary head's loss; 0: no such head", "0"},
    {"only", "NAME", "kernels: rows whose op and part begin so, as \"conv2d dx\"", NULL},
    {"list", NULL, "kernels: print the rows without running them", NULL},
    {"libraries", NULL, "kernels: convolutions and linear layers by cuBLASLt and cuDNN too", NULL},
    {"samples", "N", "kernels: measurements of each row", "51"},
    {"warm-ms", "MS", "kernels: repeated for so long before it is measured", "200"},
    {"rotate-mib", "MIB",
     "kernels: buffers take turns until so much was used; three times the cache", "192"},
    {"shrink", "N", "kernels: divides images, channels and tokens, to try it out", "1"},
    {"tflops", "T", "kernels: what the device can do, for the bound; 0: unknown", "0"},
    {"tbs", "T", "kernels: terabytes a second, of its memory; 0: unknown", "0"},
    {"model", "DIR",
     "unet, sampler: model folder in diffusers' layout; of the UNet only its config is read",
     "samples/base"},
    {"sampling-steps", "N", "sampler: of a film, guided", "25"},
    {"recompute", NULL, "unet: keep few activations, compute the others again", NULL},
    {"width", "W", "inception: times the channels of the published network", "0.25"},
    {"size", "PX", "side of the films; the UNet's latents have an eighth", "128"},
    {"batch", "N", "films a step", "32"},
    {"device", "D", "auto, cpu, cuda or cuda:N", "cpu"},
    {"precision", "P", "auto, fp32 or bf16; auto: bf16 on a GPU", "auto"},
    {"threads", "N", "processor threads; 0: one per core", "0"},
    {"rounds", "N", "measurements", "9"},
    {"steps-per-round", "N", "training steps in one measurement", "3"},
    {"pipe", NULL, "wait for a line on stdin before each round, until there is none", NULL},
};
/* What not all of them take, and who does. */
static const struct {
    const char *option, *takers;
} own[] = {{"forward", "unet"},
           {"recompute", "unet"},
           {"model", "unet, sampler"},
           {"sampling-steps", "sampler"},
           {"aux-weight", "inception"},
           {"width", "inception"},
           {"size", "unet, inception, sampler"},
           {"rounds", "unet, inception, sampler"},
           {"steps-per-round", "unet, inception, sampler"},
           {"only", "kernels"},
           {"list", "kernels"},
           {"libraries", "kernels"},
           {"samples", "kernels"},
           {"warm-ms", "kernels"},
           {"rotate-mib", "kernels"},
           {"shrink", "kernels"},
           {"tflops", "kernels"},
           {"tbs", "kernels"}};

static Status refuse_others(const Options *o)
{
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (options_has(o, own[i].option) && !strstr(own[i].takers, o->argument[0]))
            return FAIL(ERR_USAGE, "bench %s: found --%s, expected it with %s only",
                        o->argument[0], own[i].option, own[i].takers);
    return OK;
}

static const Usage usage = {
    .command = "bench",
    .arguments = "unet|inception|sampler|kernels",
    .help =
        "Times training steps (forward, backward, optimizer) on random films and weights: the "
        "UNet with AdamW, clipping and averaged weights, or Inception-V3 with SGD. Prints "
        "JSON lines: what runs, milliseconds a step of each round, peak memory. EQ_PROFILE=1 "
        "adds the time of each op.\n"
        "sampler: a step is a batch of films from a prompt, decoded.\n"
        "kernels: CSV, a row for each op and shape of the published models. With --pipe a row for "
        "each line on stdin, which is its number.",
    .least = 1,
    .most = 1,
    .option = option,
    .n_option = sizeof option / sizeof *option,
};

static Status read_options(Bench *b, int *threads, const Options *o)
{
    TRY(options_int(&b->size, o, "size", 75, 2048));
    TRY(options_int(&b->batch, o, "batch", 1, 4096));
    TRY(options_int(&b->rounds, o, "rounds", 1, 1000000));
    TRY(options_int(&b->steps, o, "steps-per-round", 1, 1000000));
    TRY(options_int(&b->sampling_steps, o, "sampling-steps", 1, MAX_TIMESTEPS));
    TRY(options_int(threads, o, "threads", 0, 4096));
    TRY(options_real(&b->width, o, "width", .05, 4));
    TRY(options_real(&b->aux_weight, o, "aux-weight", 0, 1));
    b->folder = options_text(o, "model");
    b->piped = options_has(o, "pipe");
    b->recompute = options_has(o, "recompute");
    b->forward = options_has(o, "forward");
    config_default(&b->config);
    b->config.data.size = b->size;
    b->config.classifier.batch = b->batch;
    b->config.classifier.width = b->width;
    b->config.classifier.aux_weight = b->aux_weight;
    return OK;
}

static Status run_kernels(Bench *b, const Options *o)
{
    KernelBench k = {.device = b->device,
                     .only = options_text(o, "only"),
                     .batch = b->batch,
                     .piped = b->piped,
                     .list = options_has(o, "list"),
                     .libraries = options_has(o, "libraries")};
    TRY(options_int(&k.samples, o, "samples", 1, 100000));
    TRY(options_int(&k.warm_ms, o, "warm-ms", 0, 60000));
    TRY(options_int(&k.rotate_mib, o, "rotate-mib", 0, 1 << 20));
    TRY(options_int(&k.shrink, o, "shrink", 1, 1024));
    TRY(options_real(&k.tflops, o, "tflops", 0, 1e6));
    TRY(options_real(&k.tbs, o, "tbs", 0, 1e6));
    return bench_kernels(&k);
}

Status cmd_bench(App *app, int argc, char **argv)
{
    Options o;
    int threads = 0;
    Bench b = {.step = 0};
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(read_options(&b, &threads, &o));
    bool kernels = !strcmp(o.argument[0], "kernels");
    const Case *c = cases;
    while (c < cases + N_CASE && strcmp(c->name, o.argument[0])) c++;
    if (c == cases + N_CASE && !kernels)
        return FAIL(ERR_USAGE, "bench: found %s, expected unet, inception, sampler or kernels",
                    o.argument[0]);
    TRY(refuse_others(&o));
    TRY(device_open(&b.device, options_text(&o, "device"), options_text(&o, "precision"), threads,
                    app->log));
    Status s = kernels ? run_kernels(&b, &o) : c->open(&b);
    if (!s && !kernels) s = run_rounds(&b, c);
    bench_close(&b);
    return s;
}
