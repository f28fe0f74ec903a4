/* test_buckets.c - buckets of gradients: each gradient lies in one bucket, each of its numbers in one
 * rank's shard; in the graph each bucket stands right behind the last node that has to do with its
 * gradients, so that the first are summed while most of the backward pass is still to come. */
#include "base/random.h"
#include "comm/backend.h"
#include "exec/exec.h"
#include "models/ldm.h"
#include "ops/ops.h"
#include "train/optimizer.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDE = 10, BATCH = 2 };
static const char TINY[] = SOURCE_DIR "/configs/models/tiny";

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

/* Two stores with gradients, some of their parameters at rest; the pass that trains them. */
typedef struct {
    Device *device;
    Ldm m;
    Graph *g;
    Tensor *loss;
    int forward; /* nodes before the backward pass */
} Model;

static int open_model(void **state)
{
    Model *m = calloc(1, sizeof *m);
    require(device_open(&m->device, "cpu", "auto", 1, NULL));
    require(ldm_open(&m->m, m->device, TINY,
                     (LdmUse){.train_unet = true, .train_text = true, .random = true}));
    *state = m;
    return 0;
}

static int close_model(void **state)
{
    Model *m = *state;
    graph_free(m->g);
    ldm_close(&m->m);
    device_close(m->device);
    free(m);
    return 0;
}

static void record(Model *m, bool recompute)
{
    int c = m->m.unet_config.in_channels, tokens[] = {BATCH, ldm_tokens(&m->m)}, one[] = {BATCH};
    int image[] = {BATCH, SIDE, SIDE, c};
    Graph *g = m->g = graph_new();
    Tensor *x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 4, image);
    Tensor *want = graph_leaf(g, KIND_INPUT, DTYPE_F32, "want", 4, image);
    Tensor *time = graph_leaf(g, KIND_INPUT, DTYPE_F32, "time", 1, one);
    Tensor *weight = graph_leaf(g, KIND_INPUT, DTYPE_F32, "weight", 1, one);
    Tensor *ids = graph_leaf(g, KIND_INPUT, DTYPE_I32, "ids", 2, tokens);
    Tensor *context = clip_text(g, &m->m.text, &m->m.text_config, ids);
    Tensor *y = unet(g, &m->m.unet, &m->m.unet_config, x, time, context, recompute);
    m->loss = weighted_mse(g, y, want, weight);
    require(graph_status(g));
    m->forward = g->n;
    graph_backward(g, 1, &m->loss, NULL);
    params_pin_grads(g);
}

static void finish(Model *m)
{
    params_bind(m->g);
    graph_finish(m->g, &m->loss, 1);
    require(graph_status(m->g));
}

/* As rank `rank` of so many would have it; nothing is sent. */
static void open_optimizer(Optimizer *o, Model *m, Comm *fake, int rank, int ranks, size_t bytes,
                           bool sharded)
{
    *fake = (Comm){.rank = rank, .size = ranks};
    require(optimizer_new(o, (OptimizerSettings){.adamw = true},
                          (ParamStore *[]){&m->m.unet, &m->m.text}, 2,
                          &(ReduceSettings){.comm = fake,
                                            .n_micro = 2 * ranks,
                                            .sharded = sharded,
                                            .bucket_bytes = bytes}));
}

/* Adds 1 to count[i] for each float of the store's block that a bucket, or a rank's piece, has. */
static void count_buckets(const Optimizer *o, int store, int *count)
{
    for (int b = 0; b < o->sum.n_bucket; b++) {
        const Bucket *bucket = &o->sum.bucket[b];
        const Piece *span = &o->span[bucket->span];
        if (span->store != store) continue;
        assert_true(bucket->shard % SQUARES == 0);
        for (size_t i = 0; i < bucket->count; i++) count[span->at + bucket->first + i]++;
    }
}

static void count_pieces(const Optimizer *o, int store, int *count)
{
    for (int k = 0; k < o->n_piece; k++)
        if (o->piece[k].store == store)
            for (size_t i = 0; i < o->piece[k].count; i++) count[o->piece[k].at + i]++;
}

/* Once where a trainable parameter is, and not at all where one rests or running averages are; the
 * room between parameters does not matter. */
static void once(const ParamStore *s, const int *count)
{
    for (int i = 0; i < s->n; i++) {
        const Param *p = &s->param[i];
        bool wanted = p->trainable && !p->state;
        for (size_t k = 0; k < p->count; k++)
            if (count[p->offset + k] != wanted)
                fail_msg("%s[%zu] is in %d, expected %d", p->name, k, count[p->offset + k], wanted);
    }
}

static void every_gradient_is_in_one_bucket_and_one_shard(void **state)
{
    Model *m = *state;
    static const size_t sizes[] = {1, 3 * SQUARES * sizeof(float), 1 << 20, 1 << 30};
    params_freeze(&m->m.unet, "down_blocks.1.attentions");
    params_freeze(&m->m.unet, "conv_norm_out");
    for (int ranks = 1; ranks <= 5; ranks++)
        for (int size = 0; size < 4; size++)
            for (int store = 0; store < 2; store++) {
                const ParamStore *s = store ? &m->m.text : &m->m.unet;
                int *bucket = calloc(s->count, sizeof *bucket);
                int *piece = calloc(s->count, sizeof *piece);
                for (int rank = 0; rank < ranks; rank++) {
                    Comm fake;
                    Optimizer o;
                    open_optimizer(&o, m, &fake, rank, ranks, sizes[size], true);
                    if (!rank) count_buckets(&o, store, bucket);
                    count_pieces(&o, store, piece);
                    optimizer_free(&o);
                }
                once(s, bucket);
                once(s, piece);
                free(bucket);
                free(piece);
            }
}

/* Whether node t writes a gradient in the bucket, or reads one. */
static bool touches(const Tensor *t, const float *first, size_t count)
{
    const Tensor *all[1 + MAX_SRC] = {t};
    for (int k = 0; k < MAX_SRC; k++)
        if (t->src[k]) all[k + 1] = tensor_root(t->src[k]);
    for (int k = 0; k <= MAX_SRC; k++) {
        if (!all[k] || !all[k]->pinned) continue;
        const float *data = all[k]->data;
        if (data < first + count && first < data + tensor_count(all[k])) return true;
    }
    return false;
}

static bool is_sum(const Tensor *t) { return t->op && !strcmp(t->op->name, "reduce_gradients"); }

/* How many buckets' nodes stand behind node i and its sides. */
static int sums_behind(const Graph *g, int i)
{
    int n = 0;
    if (g->node[i]->owner) i = g->node[i]->owner->id;
    while (++i < g->n && g->node[i]->owner) continue;
    for (; i < g->n && is_sum(g->node[i]); i++) n++;
    return n;
}

/* Behind each node that is the last to touch the gradients of some buckets there are the nodes of so
 * many buckets, and there are no others. *behind: share of the backward nodes behind the first. */
static void check_places(const Graph *g, const Reduction *r, int forward, double *behind)
{
    int n_sum = 0, first_sum = g->n, *last = calloc((size_t)g->n, sizeof *last);
    for (int i = 0; i < g->n; i++) {
        assert_int_equal(g->node[i]->id, i);
        n_sum += is_sum(g->node[i]);
        if (is_sum(g->node[i]) && i < first_sum) first_sum = i;
    }
    assert_int_equal(n_sum, r->n_bucket);
    for (int b = 0; b < r->n_bucket; b++) {
        const Bucket *bucket = &r->bucket[b];
        const float *data = r->span[bucket->span].data + bucket->first;
        int at = g->n;
        while (!touches(g->node[--at], data, bucket->count)) assert_true(at > forward);
        assert_true(bucket->placed);
        last[g->node[at]->owner ? g->node[at]->owner->id : at]++;
    }
    for (int i = 0; i < g->n; i++)
        if (last[i]) assert_int_equal(sums_behind(g, i), last[i]);
    *behind = (double)(g->n - first_sum) / (g->n - forward);
    free(last);
}

static void buckets_stand_right_behind_their_gradients(void **state)
{
    Model *m = *state;
    for (int recompute = 0; recompute < 2; recompute++) {
        Comm fake;
        Optimizer o;
        double behind;
        record(m, recompute);
        int nodes = m->g->n;
        open_optimizer(&o, m, &fake, 1, 2, 1 << 16, false);
        reduction_place(&o.sum, m->g);
        assert_int_equal(m->g->n, nodes + o.sum.n_bucket);
        finish(m);
        check_places(m->g, &o.sum, m->forward, &behind);
        print_message("%d buckets; %.0f %% of the backward nodes behind the first\n",
                      o.sum.n_bucket, 100 * behind);
        assert_true(o.sum.n_bucket > 8 && behind > .7);
        graph_free(m->g);
        m->g = NULL;
        optimizer_free(&o);
    }
}

/* Where nothing is sent, the graph with its buckets computes what the graph without them does. */
static void buckets_change_nothing_by_themselves(void **state)
{
    Model *m = *state;
    size_t n = m->m.unet.count;
    float *grad[2] = {malloc(n * sizeof(float)), malloc(n * sizeof(float))};
    for (int with = 0; with < 2; with++) {
        Comm fake;
        Optimizer o;
        Exec *e;
        record(m, true);
        open_optimizer(&o, m, &fake, 0, 2, 1 << 16, false);
        if (with) reduction_place(&o.sum, m->g);
        reduction_more(&o.sum); /* not the last micro-batch */
        finish(m);
        require(exec_new(&e, m->device, m->g, &m->loss, 1));
        for (int i = 0; i < m->g->n; i++) {
            Tensor *t = m->g->node[i];
            if (t->kind != KIND_INPUT) continue;
            float *x = calloc(tensor_count(t), sizeof *x);
            if (t->dtype == DTYPE_F32)
                random_normals(x, tensor_count(t), (RandomKey){3, STREAM_TEST, 0, (uint64_t)i});
            require(exec_write(e, t, x));
            free(x);
        }
        require(exec_run(e));
        require(device_read(m->device, grad[with], m->m.unet.grad, n * sizeof(float)));
        exec_free(e);
        graph_free(m->g);
        m->g = NULL;
        optimizer_free(&o);
    }
    assert_memory_equal(grad[0], grad[1], n * sizeof(float));
    for (size_t i = 0; i < n; i++) assert_true(grad[0][i] == grad[0][i]);
    free(grad[0]);
    free(grad[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_gradient_is_in_one_bucket_and_one_shard, open_model,
                                        close_model),
        cmocka_unit_test_setup_teardown(buckets_stand_right_behind_their_gradients, open_model,
                                        close_model),
        cmocka_unit_test_setup_teardown(buckets_change_nothing_by_themselves, open_model,
                                        close_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
