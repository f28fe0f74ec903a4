/* rank_steps.c - see rank.h. A network of a few layers, whose parameters fill several buckets, one of
 * them ragged, and whose batch normalisation has running averages: what a step has to do with, small
 * enough for a simulated GPU. */
#include "base/file.h"
#include "base/random.h"
#include "ops/ops.h"
#include "rank.h"
#include "train/step.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { D = 128, LAYERS = 4, BATCH = 2, STEPS = 4 };

typedef struct {
    ParamStore store;
    Graph *g;
    Exec *e;
    Tensor *x, *want, *weight, *loss;
    Optimizer optimizer;
    TrainStep step;
    int slow_ms; /* to feed one micro-batch */
} Net; /* starts as {0} */

static Tensor *layer(Graph *g, ParamStore *s, Tensor *x, int k)
{
    const int square[] = {D, D}, one[] = {D};
    graph_scope_push(g, "layer.%d", k);
    Tensor *w = param(g, s, "weight", LAYOUT_SAME, 2, square, INIT_NORMAL, .1f);
    x = linear(g, x, w, param(g, s, "bias", LAYOUT_SAME, 1, one, INIT_ZERO, 0));
    x = k == 1 ? batchnorm(g, x, param(g, s, "gain", LAYOUT_SAME, 1, one, INIT_ONE, 0),
                           param(g, s, "shift", LAYOUT_SAME, 1, one, INIT_ZERO, 0),
                           param_state(g, s, "mean", 1, one, INIT_ZERO, false),
                           param_state(g, s, "var", 1, one, INIT_ONE, false), 1e-3f, .1f, true,
                           true)
               : relu(g, x);
    graph_scope_pop(g);
    return x;
}

/* Recorded twice: first to find the parameters. */
static void record(Net *n, Graph *g)
{
    const int rows[] = {BATCH, D}, one[] = {BATCH};
    n->x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 2, rows);
    n->want = graph_leaf(g, KIND_INPUT, DTYPE_F32, "want", 2, rows);
    n->weight = graph_leaf(g, KIND_INPUT, DTYPE_F32, "weight", 1, one);
    Tensor *y = cast(g, n->x, g->act);
    for (int k = 0; k < LAYERS; k++) y = layer(g, &n->store, y, k);
    n->loss = weighted_mse(g, cast(g, y, DTYPE_F32), n->want, n->weight);
}

static Status feed(void *net, long step, int micro)
{
    Net *n = net;
    usleep((useconds_t)(1000 * n->slow_ms));
    float x[BATCH * D], want[BATCH * D], weight[BATCH] = {1, .5f};
    random_normals(x, BATCH * D, (RandomKey){1, STREAM_TEST, (uint32_t)step, (uint64_t)micro});
    random_normals(want, BATCH * D, (RandomKey){2, STREAM_TEST, (uint32_t)step, (uint64_t)micro});
    TRY(exec_write(n->e, n->x, x));
    TRY(exec_write(n->e, n->want, want));
    return exec_write(n->e, n->weight, weight);
}

static Status open_net(Net *n, Ranks *r, const Config *c)
{
    Graph *g = device_graph(r->device);
    record(n, g);
    Status s = graph_status(g);
    graph_free(g);
    TRY(s);
    TRY(params_alloc(&n->store, r->device, true));
    TRY(params_init(&n->store, 4));
    ReduceSettings shared = train_share(c, c->ldm.accumulate, r->comm);
    shared.bucket_bytes = 3 * SQUARES * sizeof(float);
    TRY(optimizer_new(&n->optimizer,
                      (OptimizerSettings){.adamw = true,
                                          .beta1 = .9,
                                          .beta2 = .99,
                                          .epsilon = 1e-8,
                                          .clip_norm = .5,
                                          .ema_decay = .9},
                      (ParamStore *[]){&n->store}, 1, &shared));
    n->g = device_graph(r->device);
    record(n, n->g);
    graph_backward(n->g, 1, &n->loss, NULL);
    params_pin_grads(n->g);
    reduction_place(&n->optimizer.sum, n->g);
    params_bind(n->g);
    graph_finish(n->g, &n->loss, 1);
    TRY(exec_new(&n->e, r->device, n->g, &n->loss, 1));
    n->step = (TrainStep){.comm = r->comm,
                          .optimizer = &n->optimizer,
                          .exec = n->e,
                          .loss = n->loss,
                          .averages = &n->store,
                          .trainer = n,
                          .feed = feed};
    return train_step_open(&n->step);
}

/* Parameters with running averages, averaged parameters, losses and norms. */
static Status run(Net *n, Ranks *r, const char *out)
{
    size_t count = n->store.count, all = 2 * count + 4 * STEPS;
    float *result = calloc(all, sizeof *result);
    Status s = OK;
    CHECK(result);
    for (long t = 1; t <= STEPS && !s; t++) {
        double told[2];
        s = train_step(&n->step, t, .01, false, &told[0], &told[1]);
        memcpy(result + 2 * count + 4 * (t - 1), told, sizeof told);
    }
    if (!s) s = train_step_table(&n->step, "steps", r->log);
    if (!s) s = params_read(&n->store, result);
    if (!s) s = optimizer_averages(&n->optimizer, 0, result + count);
    char *file = path_join(out, "steps");
    if (!s && !comm_rank(r->comm)) s = file_write(file, result, all * sizeof *result);
    free(file);
    free(result);
    return s;
}

Status rank_steps(Ranks *r, const Config *c, const char *out, int slow)
{
    Net n = {.slow_ms = slow == comm_rank(r->comm) ? 100 : 0};
    Status s = comm_agree(r->comm, "the network", open_net(&n, r, c));
    if (!s) s = comm_agree(r->comm, "the steps", run(&n, r, out));
    train_step_close(&n.step);
    optimizer_free(&n.optimizer);
    exec_free(n.e);
    graph_free(n.g);
    params_free(&n.store);
    return s;
}
