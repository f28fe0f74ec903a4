/* rank_statistics.c - see rank.h. Each rank has ROWS rows of a batch; all have the whole one too, for
 * comparison. The loss of a rank is sum(y * weight) over its rows: dx of the whole is compared with
 * each rank's, dgain and dbias with the sums over ranks. */
#include "base/random.h"
#include "exec/exec.h"
#include "ops/ops.h"
#include "rank.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 37, C = 19 };
typedef enum { X, GAIN, BIAS, MEAN, VAR, DY, N_LEAF } Leaf;
typedef enum { Y, DX, DGAIN, DBIAS, NEW_MEAN, NEW_VAR, N_RESULT } Result;

typedef struct {
    Graph *g;
    Exec *e;
    Tensor *leaf[N_LEAF], *result[N_RESULT];
    float *value[N_RESULT]; /* owned */
} Case; /* starts as {0} */

/* The same numbers for the same row, whoever has it; running variances are positive. */
static void fill(float *v, Leaf l, int first_row, int rows)
{
    bool by_row = l == X || l == DY;
    size_t count = (size_t)(by_row ? rows * C : C), from = by_row ? (size_t)(first_row * C) : 0;
    for (size_t i = 0; i < count; i++) {
        v[i] = (float)random_normal((RandomKey){7, STREAM_TEST, 0, (uint64_t)l},
                                    (uint32_t)(from + i));
        if (l == VAR) v[i] = .5f + v[i] * v[i];
        if (l == X) v[i] += 3 * (float)(from + i) / (C * ROWS); /* ranks' means differ */
    }
}

/* comm: statistics over its ranks; `over` false: of these rows alone. */
static void record(Case *c, Device *d, int rows, Comm *comm, bool over)
{
    Graph *g = c->g = device_graph(d);
    static const char *const name[] = {"x", "gain", "bias", "mean", "var", "dy"};
    for (int l = 0; l < N_LEAF; l++) {
        int dim[] = {rows, C}, ndim = l == X || l == DY ? 2 : 1;
        Kind kind = l == DY ? KIND_INPUT : l == MEAN || l == VAR ? KIND_STATE : KIND_PARAM;
        c->leaf[l] = graph_leaf(g, kind, DTYPE_F32, name[l], ndim, dim + 2 - ndim);
    }
    Tensor **t = c->leaf, *x = cast(g, t[X], device_act(d));
    Tensor *y = over ? batchnorm_sync(g, x, t[GAIN], t[BIAS], t[MEAN], t[VAR], 1e-3f, .1f, true,
                                      comm)
                     : batchnorm(g, x, t[GAIN], t[BIAS], t[MEAN], t[VAR], 1e-3f, .1f, true, true);
    c->result[Y] = cast(g, y, DTYPE_F32);
    graph_backward(g, 1, &c->result[Y], &t[DY]);
    for (int k = 0; k < 3; k++) c->result[DX + k] = t[k]->grad;
    c->result[NEW_MEAN] = t[MEAN];
    c->result[NEW_VAR] = t[VAR];
}

static Status run(Case *c, Device *d, int first_row, int rows)
{
    TRY(graph_status(c->g));
    for (int l = 0; l < DY; l++)
        TRY(device_alloc(d, &c->leaf[l]->data, tensor_bytes(c->leaf[l]), "a leaf"));
    graph_finish(c->g, c->result, NEW_MEAN);
    TRY(exec_new(&c->e, d, c->g, c->result, NEW_MEAN));
    for (int l = 0; l < N_LEAF; l++) {
        float *v = calloc(tensor_count(c->leaf[l]), sizeof *v);
        CHECK(v);
        fill(v, (Leaf)l, first_row, rows);
        Status s = exec_write(c->e, c->leaf[l], v);
        free(v);
        TRY(s);
    }
    TRY(exec_run(c->e));
    for (int k = 0; k < N_RESULT; k++) {
        c->value[k] = calloc(tensor_count(c->result[k]), sizeof(float));
        CHECK(c->value[k]);
        TRY(exec_read(c->e, c->result[k], c->value[k]));
    }
    return OK;
}

static void close_case(Case *c, Device *d)
{
    exec_free(c->e);
    for (int l = 0; l < DY; l++) device_release(d, c->leaf[l]->data);
    for (int k = 0; k < N_RESULT; k++) free(c->value[k]);
    graph_free(c->g);
}

/* Largest difference, in units of the largest value. */
static double apart(const float *a, const float *b, size_t n)
{
    double worst = 0, top = 1e-30;
    for (size_t i = 0; i < n; i++) {
        top = fmax(top, fabs(b[i]));
        worst = fmax(worst, isnan(a[i]) ? INFINITY : fabs((double)a[i] - b[i]));
    }
    return worst / top;
}

/* This rank's results against its part of the whole. dgain and dbias: the sums over ranks. */
static Status compare(double *worst, const Case *own, const Case *whole, Comm *comm)
{
    int ranks = comm_size(comm), rank = comm_rank(comm);
    size_t part = (size_t)(rank * ROWS * C);
    *worst = fmax(apart(own->value[Y], whole->value[Y] + part, ROWS * C),
                  apart(own->value[DX], whole->value[DX] + part, ROWS * C));
    for (int k = DGAIN; k <= NEW_VAR; k++) {
        float sum[C] = {0}, *all = calloc((size_t)(ranks * C), sizeof *all);
        CHECK(all);
        Status s = comm_host_gather(comm, "results", all, own->value[k], C * sizeof(float));
        for (int i = 0; i < ranks * C; i++) sum[i % C] += all[i];
        free(all);
        TRY(s);
        bool summed = k == DGAIN || k == DBIAS;
        *worst = fmax(*worst, apart(summed ? sum : own->value[k], whole->value[k], C));
    }
    return OK;
}

Status rank_statistics(Ranks *r)
{
    Case whole = {0}, own = {0}, alone = {0};
    int ranks = comm_size(r->comm), first = comm_rank(r->comm) * ROWS;
    double together, apart_from;
    /* As for an op: 8 roundings of its longest sum. bf16: results are rounded to it. */
    double limit = 8 * 0x1p-24 * (1 + sqrt(ROWS * ranks));
    if (device_act(r->device) == DTYPE_BF16) limit = 0x1p-7;
    record(&whole, r->device, ROWS * ranks, NULL, false);
    record(&own, r->device, ROWS, r->comm, true);
    record(&alone, r->device, ROWS, r->comm, false);
    Status s = run(&whole, r->device, 0, ROWS * ranks);
    if (!s) s = run(&own, r->device, first, ROWS);
    if (!s) s = run(&alone, r->device, first, ROWS);
    if (!s) s = compare(&together, &own, &whole, r->comm);
    if (!s) s = compare(&apart_from, &alone, &whole, r->comm);
    if (!s && !(together < limit))
        s = FAIL(ERR_NUMERIC, "over ranks: %.3g from the whole batch, at most %.3g", together,
                 limit);
    if (!s && ranks > 1 && !(apart_from > .1))
        s = FAIL(ERR_NUMERIC, "each rank alone: %.3g from the whole batch, expected more",
                 apart_from);
    s = comm_agree(r->comm, "statistics", s);
    close_case(&whole, r->device);
    close_case(&own, r->device);
    close_case(&alone, r->device);
    return s;
}
