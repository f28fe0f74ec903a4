/* classifier_net.c - recording, running and loading Inception-V3. */
#include "train/classifier_net.h"
#include "comm/share.h"
#include "ops/ops.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SCAN_BATCH = 32 };
static const size_t CACHE_BYTES = (size_t)2 << 30;

/* Registers the parameters. */
static Status record(ClassifierNet *n, Device *d, const Config *c, int classes)
{
    *n = (ClassifierNet){.device = d,
                         .config = {.num_classes = classes,
                                    .width = c->classifier.width,
                                    .aux = c->classifier.aux_weight > 0,
                                    .dropout = (float)c->classifier.dropout},
                         .aux_weight = (float)c->classifier.aux_weight};
    Graph *g = graph_new();
    int size = c->data.size;
    inception_v3(g, &n->store, &n->config,
                 graph_leaf(g, KIND_INPUT, DTYPE_F32, "image", 4, (int[]){2, size, size, 3}), NULL,
                 true);
    Status s = graph_status(g);
    graph_free(g);
    return s;
}

Status classifier_net_open(ClassifierNet *n, Device *d, const Config *c, int classes,
                           bool with_grad)
{
    TRY(record(n, d, c, classes));
    return params_alloc(&n->store, d, with_grad);
}

Status classifier_net_freeze(ClassifierNet *n, const Config *c)
{
    char list[CONFIG_TEXT], *rest = list;
    strcpy(list, c->classifier.frozen);
    for (char *name; (name = strtok_r(rest, ", ", &rest));) {
        int found = 0;
        for (int i = 0; i < n->store.n; i++)
            found += !strncmp(n->store.param[i].name, name, strlen(name));
        if (!found)
            return FAIL(ERR_USAGE,
                        "classifier.frozen: found %s, expected the start of a parameter's name, "
                        "as %s",
                        name, n->store.param[0].name);
        params_freeze(&n->store, name);
    }
    return OK;
}

Status classifier_net_start(ClassifierNet *n, const Config *c)
{
    const ParamFile but_heads = {.skip = "fc.,AuxLogits."};
    if (c->classifier.weights[0]) {
        TRY(inception_check_head(c->classifier.weights));
        TRY(params_load(&n->store, c->classifier.weights, &but_heads));
    }
    return classifier_net_freeze(n, c);
}

/* Whether batches of one film have values enough to train on; recorded again for it, as they are
 * rare. With statistics over ranks their number decides, which is not known yet. */
static Status check_batch(const Config *c)
{
    InceptionConfig config = {
        .num_classes = 2, .width = c->classifier.width, .aux = c->classifier.aux_weight > 0};
    ParamStore store = {0};
    if (c->classifier.batch > 1 || c->parallel.sync_batchnorm) return OK;
    Graph *g = graph_new();
    int size = c->data.size;
    inception_v3(g, &store, &config,
                 graph_leaf(g, KIND_INPUT, DTYPE_F32, "image", 4, (int[]){1, size, size, 3}), NULL,
                 true);
    Status s = graph_status(g);
    graph_free(g);
    params_free(&store);
    return s ? FAIL(ERR_USAGE,
                    "classifier.batch = 1: batch normalisation has one value a channel at "
                    "data.size = %d, expected a batch of 2 or more, or %s",
                    size, config.aux ? "classifier.aux_weight = 0" : "larger films")
             : OK;
}

Status classifier_check(const Config *c)
{
    ClassifierNet n;
    Status s = record(&n, NULL, c, 2);
    if (!s) s = check_batch(c);
    if (!s) s = classifier_net_start(&n, c);
    params_free(&n.store);
    return s;
}

Status classifier_size(size_t *floats, const Config *c)
{
    ClassifierNet n;
    Status s = record(&n, NULL, c, 2);
    *floats = params_registered(&n.store);
    params_free(&n.store);
    return s;
}

Status classifier_pass_open(ClassifierPass *p, ClassifierNet *n, const Config *c, int batch,
                            Optimizer *train, const float *class_weight)
{
    int size = c->data.size, classes = n->config.num_classes;
    *p = (ClassifierPass){
        .g = device_graph(n->device),
        .net = n,
        .batch = batch,
        .size = size,
        .three = malloc(3 * (size_t)batch * (size_t)size * (size_t)size * sizeof(float))};
    CHECK(p->three);
    Graph *g = p->g;
    p->image = graph_leaf(g, KIND_INPUT, DTYPE_F32, "image", 4, (int[]){batch, size, size, 3});
    p->label = graph_leaf(g, KIND_INPUT, DTYPE_I32, "label", 1, &batch);
    if (train) p->rng = graph_leaf(g, KIND_INPUT, DTYPE_I32, "rng", 1, (int[]){3});
    if (class_weight)
        p->class_weight = graph_leaf(g, KIND_INPUT, DTYPE_F32, "class_weight", 1, &classes);
    InceptionConfig config = n->config;
    p->joint = train && train->sum.ranks > 1 && c->parallel.sync_batchnorm;
    config.sync = p->joint ? train->sum.set.comm : NULL;
    InceptionOut out = inception_v3(g, &n->store, &config, p->image, p->rng, train != NULL);
    float smoothing = train ? (float)c->classifier.label_smoothing : 0;
    p->loss = cross_entropy(g, out.logits, p->label, p->class_weight, smoothing);
    p->probability = p->loss ? p->loss->side[0] : NULL;
    p->features = out.features;
    if (train && out.aux_logits)
        p->loss = add_scaled(g, p->loss, 1,
                             cross_entropy(g, out.aux_logits, p->label, p->class_weight, smoothing),
                             n->aux_weight);
    TRY(graph_status(g));
    if (train) {
        graph_backward(g, 1, &p->loss, NULL);
        params_pin_grads(g);
        reduction_place(&train->sum, g);
    }
    params_bind(g);
    Tensor *keep[] = {p->loss, p->probability, p->features};
    int n_keep = train ? 1 : 3;
    graph_finish(g, keep, n_keep);
    TRY(exec_new(&p->e, n->device, g, keep, n_keep));
    return class_weight ? exec_write(p->e, p->class_weight, class_weight) : OK;
}

void classifier_pass_close(ClassifierPass *p)
{
    exec_free(p->e);
    graph_free(p->g);
    free(p->three);
    *p = (ClassifierPass){0};
}

Status classifier_pass_write(ClassifierPass *p, const float *pixel, const int *label,
                             const int32_t *rng)
{
    size_t pixels = (size_t)p->batch * (size_t)p->size * (size_t)p->size;
#pragma omp parallel for
    for (size_t i = 0; i < pixels; i++) {
        float v = 2 * pixel[i] - 1;
        p->three[3 * i] = p->three[3 * i + 1] = p->three[3 * i + 2] = v;
    }
    TRY(exec_write(p->e, p->image, p->three));
    TRY(exec_write(p->e, p->label, label));
    return p->rng ? exec_write(p->e, p->rng, rng) : OK;
}

TrainStep classifier_step(ClassifierPass *p, Optimizer *o)
{
    return (TrainStep){.comm = o->sum.set.comm,
                       .optimizer = o,
                       .exec = p->e,
                       .loss = p->loss,
                       .joint = p->joint,
                       .averages = &p->net->store};
}

static LoaderItem *items_of(const ClassifierFilm *film, int n)
{
    LoaderItem *item = calloc((size_t)n + 1, sizeof *item);
    CHECK(item);
    for (int i = 0; i < n; i++)
        item[i] = (LoaderItem){.path = film[i].path, .label = film[i].label, .id = film[i].id};
    return item;
}

Status classifier_loader(Loader **l, const ClassifierJob *job, const Reduction *sum, long step,
                         long per_epoch)
{
    const Config *c = job->config;
    const AugmentSettings *a = &c->augment;
    LoaderItem *item = items_of(job->train, job->n_train);
    LoaderSettings set = {.size = c->data.size,
                          .batch = c->classifier.batch,
                          .n_threads = c->data.loader_threads,
                          .shuffle = true,
                          .augment = {.rotate_degrees = a->rotate_degrees,
                                      .shift = a->shift,
                                      .scale = a->scale,
                                      .brightness = a->brightness,
                                      .contrast = a->contrast,
                                      .flip = a->flip},
                          .seed = job->seed,
                          .cache_bytes = CACHE_BYTES,
                          .first_epoch = (uint32_t)(step / per_epoch),
                          .first_batch = (int)(step % per_epoch) * sum->n_local,
                          .group = sum->set.n_micro,
                          .from = sum->first,
                          .each = sum->n_local};
    Status s = loader_open(l, item, job->n_train, &set);
    free(item);
    return s;
}

/* What a scan reads: [batches][batch][k] and, or NULL, [batches][batch][width]. */
typedef struct {
    float *probability, *features;
    size_t n_probability, n_features; /* floats of a batch */
} Scan;

static Status scan_batch(ClassifierPass *p, const Batch *b, const Scan *to)
{
    size_t at = (size_t)b->index;
    TRY(classifier_pass_write(p, b->pixel, b->label, NULL));
    TRY(exec_run(p->e));
    TRY(exec_read(p->e, p->probability, to->probability + at * to->n_probability));
    if (!to->features) return OK;
    return exec_read(p->e, p->features, to->features + at * to->n_features);
}

/* This rank's batches. */
static Status scan_own(ClassifierPass *p, const Config *c, Comm *comm, const ClassifierFilm *film,
                       int n, const Scan *to, Log *log, const char *what)
{
    Loader *l = NULL;
    LoaderItem *item = items_of(film, n);
    LoaderSettings set = {.size = c->data.size,
                          .batch = p->batch,
                          .n_threads = c->data.loader_threads,
                          .n_epochs = 1,
                          .group = comm_size(comm),
                          .from = comm_rank(comm),
                          .each = 1};
    Status s = loader_open(&l, item, n, &set);
    while (!s) {
        Batch b;
        TRY_OR(done, s, loader_next(l, &b));
        if (!b.n) break;
        TRY_OR(done, s, scan_batch(p, &b, to));
        if (log) log_progress(log, what, b.index * p->batch + b.n, n, NULL);
    }
    if (log) log_progress_end(log);
done:
    loader_close(l);
    free(item);
    return s;
}

Status classifier_scan(ClassifierPass *p, const Config *c, Comm *comm, const ClassifierFilm *film,
                       int n, float *probability, float *features, Log *log, const char *what)
{
    if (!n) return OK;
    size_t batch = (size_t)p->batch, n_batch = ((size_t)n + batch - 1) / batch;
    Scan to = {.n_probability = tensor_count(p->probability),
               .n_features = tensor_count(p->features)};
    to.probability = malloc(n_batch * to.n_probability * sizeof *to.probability);
    if (features) to.features = malloc(n_batch * to.n_features * sizeof *to.features);
    CHECK(to.probability && (to.features || !features));
    Status s =
        share_gather(comm, what, scan_own(p, c, comm, film, n, &to, log, what), to.probability,
                     to.n_probability * sizeof *to.probability, (int)n_batch);
    if (!s && features)
        s = share_gather(comm, what, OK, to.features, to.n_features * sizeof *to.features,
                         (int)n_batch);
    if (!s && probability)
        memcpy(probability, to.probability,
               (size_t)n * (to.n_probability / batch) * sizeof *probability);
    if (!s && features)
        memcpy(features, to.features, (size_t)n * (to.n_features / batch) * sizeof *features);
    free(to.probability);
    free(to.features);
    return s;
}

/* ---- prediction with finished weights -------------------------------------------------------- */

typedef struct {
    ClassifierNet net;
    ClassifierPass pass;
} Predictor; /* starts as {0} */

static Status open_predictor(Predictor *p, const PredictJob *job, const char *skip, Device *d)
{
    Config plain = *job->config;
    plain.classifier.aux_weight = 0;
    TRY(classifier_net_open(&p->net, d, &plain, job->classes, false));
    TRY(inception_check_head(job->weights));
    TRY(params_load(&p->net.store, job->weights, &(ParamFile){.skip = skip}));
    return classifier_pass_open(&p->pass, &p->net, &plain, SCAN_BATCH, NULL, NULL);
}

static Status predict(const PredictJob *job, Device *d, Log *log, float *probability,
                      float **features, int *width)
{
    Predictor p = {0};
    float *found = NULL;
    const char *skip = probability ? "AuxLogits." : "fc.,AuxLogits.";
    Status s = comm_agree(job->comm, "the classifier", open_predictor(&p, job, skip, d));
    if (!s && features) {
        *width = (int)(tensor_count(p.pass.features) / SCAN_BATCH);
        found = malloc((size_t)job->n * (size_t)*width * sizeof *found + 1);
        CHECK(found);
    }
    if (!s)
        s = classifier_scan(&p.pass, job->config, job->comm, job->film, job->n, probability, found,
                            log, "predicting");
    if (!s && features) *features = found;
    else free(found);
    classifier_pass_close(&p.pass);
    params_free(&p.net.store);
    return s;
}

Status classifier_predict(const PredictJob *job, Device *d, Log *log, float *probability,
                          float **features, int *width)
{
    CHECK(probability);
    return predict(job, d, log, probability, features, width);
}

Status classifier_measure_predict(Cost *cost, const Config *c, Device *d)
{
    ClassifierNet net = {0};
    ClassifierPass pass = {0};
    Config plain = *c;
    Status s;
    plain.classifier.aux_weight = 0;
    *cost = (Cost){0};
    device_peak_restart(d);
    TRY_OR(done, s, classifier_net_open(&net, d, &plain, 2, false));
    cost->parameters = device_bytes(d);
    TRY_OR(done, s, classifier_pass_open(&pass, &net, &plain, SCAN_BATCH, NULL, NULL));
    cost->activations = device_bytes(d) - cost->parameters;
    cost->unit = exec_flops(pass.e) / SCAN_BATCH;
    cost->peak = device_peak(d);
done:
    classifier_pass_close(&pass);
    params_free(&net.store);
    return s;
}

Status classifier_features(const Config *c, const char *weights, const char *const *path, int n,
                           Comm *comm, Device *d, Log *log, float **features, int *width)
{
    ClassifierFilm *film = calloc((size_t)n + 1, sizeof *film);
    CHECK(film);
    for (int i = 0; i < n; i++) film[i].path = path[i];
    PredictJob job = {
        .config = c, .weights = weights, .classes = 2, .film = film, .n = n, .comm = comm};
    Status s = predict(&job, d, log, NULL, features, width);
    free(film);
    return s;
}
