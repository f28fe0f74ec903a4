/* bench_kernels.c - times single ops on the device's own clock.
 *
 * A row is one op, or its backward pass, at one shape. It has several sets of buffers that take
 * turns, so that none is still in a cache; one measurement is one replay of a recording of all
 * sets, repeated in it until 20 launches are in where a launch is short. Bytes: each input read
 * once, each output written once. FLOPs: of the op, without padding. Data are normal, weights of
 * variance 1 / fan in: zeros would be faster than life.
 */
#include "app/bench.h"
#include "base/random.h"
#include "base/signal.h"
#include "exec/choices.h"
#include "exec/exec.h"
#include "exec/sweep.h"
#include "ops/ops.h"
#include "weights/half.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LEAST_SETS = 4, MOST_SETS = 32, LEAST_LAUNCHES = 20, SHORT_US = 100 };
enum { POOL = 1 << 20, BLOCKS = 5, MILLION = 1 << 20 };

static const struct {
    const char *name;
    BenchPart part[3];
    int n_part;
} op_of[] = {[BENCH_CONV] = {"conv2d", {PART_FORWARD, PART_DX, PART_DW}, 3},
             [BENCH_LINEAR] = {"linear", {PART_FORWARD, PART_DX, PART_DW}, 3},
             [BENCH_ATTENTION] = {"attention", {PART_FORWARD, PART_BACKWARD}, 2},
             [BENCH_GROUPNORM] = {"groupnorm", {PART_FORWARD, PART_BACKWARD}, 2},
             [BENCH_LAYERNORM] = {"layernorm", {PART_FORWARD, PART_BACKWARD}, 2},
             [BENCH_GEGLU] = {"geglu", {PART_FORWARD, PART_BACKWARD}, 2},
             [BENCH_BATCHNORM] = {"batchnorm", {PART_FORWARD, PART_BACKWARD}, 2},
             [BENCH_ADAMW] = {"adamw", {PART_FORWARD}, 1},
             [BENCH_SQ_NORM] = {"sq_norm", {PART_FORWARD}, 1},
             [BENCH_COPY] = {"copy", {PART_FORWARD}, 1}};
static const char *const part_name[] = {"fwd", "bwd", "dx", "dw"};
static const char *const by_name[] = {"ours", "cublaslt", "cudnn"};

/* What a row runs, again and again. */
typedef struct {
    const KernelBench *b;
    BenchShape shape; /* shrunk */
    BenchPart part;
    const float *pool; /* [POOL] normals */
    int sets;

    Graph *g;
    Exec *e;
    Tensor **run; /* owned: the nodes that are timed */
    int n_run;
    Tensor *state[2 * MOST_SETS]; /* their data is owned */
    int n_state;

    float *block[BLOCKS]; /* owned: of a sweep */
    void *half;           /* owned */
    Update update;
    size_t count;
    double bytes, flops; /* of one set */
} Work;

static bool is_sweep(const Work *w) { return w->shape.op >= BENCH_ADAMW; }

/* ---- shapes ----------------------------------------------------------------------------- */

static int shrunk(int v, int by, int unit)
{
    int least = v < unit ? v : unit;
    v = v / by / unit * unit;
    return v < least ? least : v;
}

static BenchShape shape_of(const BenchShape *full, int by)
{
    BenchShape s = *full;
    if (by == 1) return s;
    /* one key has a gradient of rounding alone, one value no variance */
    int unit = s.heads ? 4 : s.w > 1 ? 2 : 1;
    s.h = s.op >= BENCH_ADAMW ? 1 : shrunk(s.h, by, unit) + s.r - 1;
    s.w = s.w == 1 ? 1 : shrunk(s.w, by, unit) + s.s - 1;
    if (s.heads) {
        s.c = s.k = s.c / s.heads;
        s.heads = 1;
    } else if (s.op < BENCH_ADAMW) {
        s.c = shrunk(s.c, by, 8);
        s.k = shrunk(s.k, by, 8);
    }
    return s;
}

/* ---- recording -------------------------------------------------------------------------- */

static Tensor *input(Work *w, const char *name, int ndim, const int *dim, bool trained)
{
    Tensor *t = graph_leaf(w->g, KIND_INPUT, ndim > 1 ? w->g->act : DTYPE_F32, name, ndim, dim);
    if (t) t->trainable = trained && w->part != PART_FORWARD;
    return t;
}

static Tensor *state(Work *w, const char *name, int c)
{
    Tensor *t = graph_leaf(w->g, KIND_STATE, DTYPE_F32, name, 1, &c);
    if (t) w->state[w->n_state++] = t;
    return t;
}

static Tensor *record_matrix(Work *w)
{
    const BenchShape *s = &w->shape;
    int n = w->b->batch;
    bool dx = w->part == PART_DX, dw = w->part == PART_DW, conv = s->op == BENCH_CONV;
    int image[] = {n, s->h, s->w, s->c}, rows[] = {n, s->h, s->c};
    int filter[] = {s->k, s->r, s->s, s->c}, matrix[] = {s->k, s->c};
    Tensor *x = input(w, "x", conv ? 4 : 3, conv ? image : rows, dx);
    Tensor *weight = input(w, "w", conv ? 4 : 2, conv ? filter : matrix, dw);
    Tensor *bias = dx || dw ? NULL : input(w, "b", 1, &s->k, false);
    if (!conv) return linear(w->g, x, weight, bias);
    int py = s->valid ? 0 : s->r / 2, px = s->valid ? 0 : s->s / 2;
    ConvArgs a = {s->stride, py, px, py, px};
    return conv2d(w->g, x, weight, bias, a);
}

static Tensor *record_attention(Work *w)
{
    const BenchShape *s = &w->shape;
    int q[] = {w->b->batch, s->h, s->c}, k[] = {w->b->batch, s->w, s->c};
    Tensor *query = input(w, "q", 3, q, true), *key = input(w, "k", 3, k, true);
    return attention(w->g, query, key, input(w, "v", 3, k, true), s->heads, false);
}

static Tensor *record_norm(Work *w)
{
    const BenchShape *s = &w->shape;
    int n = w->b->batch, image[] = {n, s->h, s->w, s->c}, rows[] = {n * s->h, s->c}, groups = 32;
    bool tokens = s->op == BENCH_LAYERNORM || s->op == BENCH_GEGLU;
    Tensor *x = input(w, "x", tokens ? 2 : 4, tokens ? rows : image, true);
    if (s->op == BENCH_GEGLU) return geglu(w->g, x);
    Tensor *gain = input(w, "gain", 1, &s->c, true), *bias = input(w, "bias", 1, &s->c, true);
    while (s->c % groups) groups /= 2;
    if (s->op == BENCH_LAYERNORM) return layernorm(w->g, x, gain, bias, 1e-5f);
    if (s->op == BENCH_GROUPNORM) return groupnorm(w->g, x, gain, bias, groups, 1e-5f, ACT_SILU);
    Tensor *mean = state(w, "mean", s->c), *var = state(w, "var", s->c);
    return batchnorm(w->g, x, gain, bias, mean, var, 1e-3f, .1f, true, true);
}

static Tensor *record_one(Work *w)
{
    if (w->shape.op <= BENCH_LINEAR) return record_matrix(w);
    return w->shape.op == BENCH_ATTENTION ? record_attention(w) : record_norm(w);
}

static double bytes_of(const Tensor *t) { return t ? (double)tensor_bytes(t) : 0; }

/* The nodes behind `first` that compute, and what they cost. */
static void choose_nodes(Work *w, int first)
{
    w->run = calloc((size_t)w->g->n + 1, sizeof(Tensor *));
    CHECK(w->run);
    for (int i = first; i < w->g->n; i++) {
        Tensor *t = w->g->node[i];
        if (!t->live || !t->op || t->view_of) continue;
        w->run[w->n_run++] = t;
        w->bytes += bytes_of(t) / w->sets;
        for (int k = 0; k < MAX_SRC; k++) w->bytes += bytes_of(t->src[k]) / w->sets;
        for (int k = 0; k < MAX_SIDE; k++) w->bytes += bytes_of(t->side[k]) / w->sets;
        if (t->op->flops) w->flops += t->op->flops(t) / w->sets;
    }
}

/* Everything keeps its own memory: nodes are run out of their order, and more than once. */
static Status record(Work *w)
{
    Tensor *y[MOST_SETS], *dy[MOST_SETS] = {0};
    Graph *g = w->g = device_graph(w->b->device);
    for (int i = 0; i < w->sets; i++) y[i] = record_one(w);
    TRY(graph_status(g));
    int first = 0;
    if (w->part != PART_FORWARD) {
        for (int i = 0; i < w->sets; i++)
            dy[i] = graph_leaf(g, KIND_INPUT, y[i]->dtype, "dy", y[i]->ndim, y[i]->dim);
        first = g->n;
        graph_backward(g, w->sets, y, dy);
    }
    TRY(graph_status(g));
    Tensor **keep = calloc((size_t)g->n + 1, sizeof(Tensor *));
    CHECK(keep);
    int n = 0;
    for (int i = first; i < g->n; i++)
        if (g->node[i]->kind == KIND_ACT && !g->node[i]->owner) keep[n++] = g->node[i];
    graph_finish(g, keep, n);
    for (int i = n = 0; i < g->n; i++)
        if (g->node[i]->live && g->node[i]->kind == KIND_ACT) keep[n++] = g->node[i];
    Status s = OK;
    for (int i = 0; i < w->n_state && !s; i++)
        s = device_alloc(w->b->device, &w->state[i]->data, tensor_bytes(w->state[i]), "state");
    if (!s) s = exec_new(&w->e, w->b->device, g, keep, n);
    free(keep);
    choose_nodes(w, first);
    return s;
}

/* ---- data ------------------------------------------------------------------------------- */

/* The pool from a place of its own on, `scale` times, and again and again behind it. */
static Status fill(const Work *w, void *to, Dtype type, size_t count, float scale, int number)
{
    size_t n = count < POOL ? count : POOL, unit = dtype_bytes(type);
    float *v = malloc(n * sizeof *v);
    uint16_t *half = malloc(n * sizeof *half);
    CHECK(v && half);
    for (size_t i = 0; i < n; i++) v[i] = scale * w->pool[((size_t)number * 7919 + i) % POOL];
    float_to_bf16(half, v, n);
    Status s = device_write(w->b->device, to, type == DTYPE_BF16 ? (void *)half : v, n * unit);
    for (size_t done = n; done < count && !s; done *= 2) {
        size_t more = count - done < done ? count - done : done;
        s = device_copy(w->b->device, (char *)to + done * unit, to, more * unit);
    }
    free(half);
    free(v);
    return s;
}

static Status fill_leaves(const Work *w)
{
    for (int i = 0; i < w->g->n; i++) {
        const Tensor *t = w->g->node[i];
        if (!t->live || (t->kind != KIND_INPUT && t->kind != KIND_STATE)) continue;
        bool weight = !strcmp(t->name, "w");
        float fan = weight ? (float)tensor_count(t) / (float)t->dim[0] : 1;
        TRY(fill(w, t->data, t->dtype, tensor_count(t), 1 / sqrtf(fan), i));
    }
    return OK;
}

/* A step of AdamW reads and writes value, m, v and average, reads the gradient, writes the copy. */
static Status open_sweep(Work *w)
{
    Device *d = w->b->device;
    bool adamw = w->shape.op == BENCH_ADAMW;
    int blocks = adamw ? BLOCKS : w->shape.op == BENCH_COPY ? 2 : 1;
    w->sets = 1;
    w->count = (size_t)w->shape.h * MILLION / (size_t)w->b->shrink;
    for (int i = 0; i < blocks; i++) {
        TRY(device_alloc(d, (void **)&w->block[i], w->count * sizeof(float), "a sweep"));
        TRY(fill(w, w->block[i], DTYPE_F32, w->count, i == 3 ? 0 : 1e-2f, i));
    }
    bool half = adamw && device_act(d) == DTYPE_BF16;
    if (half) TRY(device_alloc(d, &w->half, w->count * 2, "a sweep"));
    w->bytes = (adamw ? half ? 38. : 36. : w->shape.op == BENCH_COPY ? 8. : 4.) * (double)w->count;
    TRY(update_new(&w->update, d));
    w->update.adamw = (Adamw){.rate = 1e-4,
                              .beta1 = .9,
                              .beta2 = .999,
                              .eps = 1e-8,
                              .weight_decay = 1e-2,
                              .ema_decay = .999,
                              .step = 1000};
    w->update.share = w->update.clip = 1;
    TRY(sweep_begin(d, &w->update));
    TRY(sweep_sq_norm(d, &w->update, false, w->block[0], w->count));
    return sweep_norm(d, &w->update);
}

static Status open_work(Work *w)
{
    if (is_sweep(w)) return open_sweep(w);
    w->sets = 1;
    double once = 2.0 * w->b->batch * w->shape.h * w->shape.w * (w->shape.c + w->shape.k);
    double rotate = 1048576.0 * w->b->rotate_mib;
    if (rotate > 0) w->sets = (int)fmin(MOST_SETS, fmax(LEAST_SETS, ceil(rotate / once)));
    TRY(record(w));
    TRY(fill_leaves(w));
    return exec_run(w->e); /* the forward pass, and the size of scratch memory */
}

static void close_work(Work *w)
{
    Device *d = w->b->device;
    exec_free(w->e);
    for (int i = 0; i < w->n_state; i++) device_release(d, w->state[i]->data);
    graph_free(w->g);
    free(w->run);
    for (int i = 0; i < BLOCKS; i++) device_release(d, w->block[i]);
    device_release(d, w->half);
    if (w->update.set) update_free(&w->update, d);
}

/* ---- time ------------------------------------------------------------------------------- */

static Status enqueue(const Work *w)
{
    Device *d = w->b->device;
    float *const *v = w->block;
    if (w->shape.op == BENCH_COPY) return device_copy(d, v[0], v[1], w->count * sizeof(float));
    if (w->shape.op == BENCH_SQ_NORM) return sweep_sq_norm(d, &w->update, false, v[0], w->count);
    if (w->shape.op == BENCH_ADAMW)
        return sweep_adamw(d, &w->update, v[0], v[1], v[2], v[3], v[4], w->half, w->count);
    for (int i = 0; i < w->n_run; i++) TRY(device_run(d, w->run[i]));
    return OK;
}

static Status enqueue_all(const Work *w, const Recording *r, int times)
{
    if (r) return device_replay(w->b->device, r);
    for (int i = 0; i < times; i++) TRY(enqueue(w));
    return OK;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* us[n]: microseconds of `times` passes over all sets, n measurements. */
static Status sample(const Work *w, const Recording *r, int times, int n, double *us)
{
    Device *d = w->b->device;
    float *ms = calloc(2 * (size_t)n, sizeof *ms);
    CHECK(ms);
    Status s = OK;
    for (int i = 0; i < n && !s; i++) {
        s = device_mark(d, 2 * i);
        if (!s) s = enqueue_all(w, r, times);
        if (!s) s = device_mark(d, 2 * i + 1);
    }
    if (!s) s = device_sync(d);
    if (!s) s = device_marks_ms(d, ms, 2 * n - 1);
    for (int i = 0; i < n && !s; i++) us[i] = 1e3 * (double)ms[2 * i];
    free(ms);
    return s;
}

static Status record_times(const Work *w, Recording **r, int times)
{
    Device *d = w->b->device;
    *r = NULL;
    if (!device_can_record(d)) return OK;
    TRY(device_record_begin(d));
    Status s = enqueue_all(w, NULL, times);
    Status end = device_record_end(d, r);
    return s ? s : end;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* us[samples], sorted: of one set. */
static Status measure(const Work *w, double *us, int *launches)
{
    Recording *r = NULL;
    int times = 1;
    Status s;
    TRY_OR(done, s, sample(w, NULL, 1, 1, us));
    if (us[0] < (double)SHORT_US * w->sets) times = (LEAST_LAUNCHES - 1) / w->sets + 1;
    TRY_OR(done, s, record_times(w, &r, times));
    for (double start = now_ms(); !s && now_ms() - start < w->b->warm_ms;) {
        s = enqueue_all(w, r, times);
        if (!s) s = device_sync(w->b->device);
    }
    if (s) goto done;
    TRY_OR(done, s, sample(w, r, times, w->b->samples, us));
    for (int i = 0; i < w->b->samples; i++) us[i] /= (double)times * w->sets;
    qsort(us, (size_t)w->b->samples, sizeof *us, by_size);
    *launches = times * w->sets;
done:
    device_recording_free(w->b->device, r);
    return s;
}

/* ---- rows ------------------------------------------------------------------------------- */

static const char header[] =
    "case,op,part,model,count,n,h,w,c,k,r,s,stride,heads,valid,dtype,sets,launches,samples,"
    "median_us,p10_us,p90_us,bytes,flops,tflops,tbs,bound_us,bound_percent,note,kernel";

static void print_shape(const KernelBench *b, int number, const BenchShape *s, BenchPart part)
{
    printf("%d,%s,%s,%s,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d,%s,", number, op_of[s->op].name,
           part_name[part], s->model, s->count, s->op >= BENCH_ADAMW ? 1 : b->batch, s->h, s->w,
           s->c, s->k, s->r, s->s, s->stride, s->heads, s->valid,
           device_act(b->device) == DTYPE_BF16 ? "bf16" : "fp32");
}

static void print_times(const Work *w, const double *us, int launches)
{
    int n = w->b->samples;
    double median = us[n / 2], limit = 0;
    printf("%d,%d,%d,%.3f,%.3f,%.3f,%.0f,%.0f,%.2f,%.4f,", w->sets, launches, n, median, us[n / 10],
           us[(n * 9 - 1) / 10], w->bytes, w->flops, 1e-6 * w->flops / median,
           1e-6 * w->bytes / median);
    if (w->b->tbs > 0) limit = 1e-6 * w->bytes / w->b->tbs;
    if (w->b->tflops > 0) limit = fmax(limit, 1e-6 * w->flops / w->b->tflops);
    if (limit > 0 && (w->b->tflops > 0 || w->flops == 0))
        printf("%.3f,%.1f,,", limit, 100 * limit / median);
    else printf(",,,");
}

static Status need_library(int by, const Text *used)
{
    if (!by || (used->s && strstr(used->s, by_name[by]))) return OK;
    return FAIL(ERR_SPACE, "not of this shape, or not there: see `equipoise devices`");
}

static Status run_row(const KernelBench *b, const float *pool, int number, const BenchShape *full,
                      BenchPart part, int by)
{
    Work w = {.b = b, .shape = shape_of(full, b->shrink), .part = part, .pool = pool};
    Text used = {0};
    int launches = 0;
    double *us = calloc((size_t)b->samples + 1, sizeof *us);
    CHECK(us);
    Status s = b->list ? OK : open_work(&w);
    if (b->libraries) device_force_kernels(b->device, by ? by_name[by] : NULL);
    if (!s && !b->list) s = enqueue(&w); /* alone, as an executor's first run */
    device_kernels_used(b->device, &used);
    if (!s && !b->list) s = need_library(by, &used);
    if (!s && !b->list) s = measure(&w, us, &launches);
    print_shape(b, number, &w.shape, part);
    if (!s && !b->list) {
        print_times(&w, us, launches);
    } else {
        printf(",,,,,,,,,,,,\"%s%.200s\",", s ? "not run: " : "", s ? status_message() : "");
        if (s == ERR_SPACE) s = OK; /* the smaller ones may fit */
    }
    printf("%s\n", used.s ? used.s : by_name[by]);
    fflush(stdout);
    close_work(&w);
    free(used.s);
    free(us);
    return s;
}

static bool wanted(const KernelBench *b, BenchOp op, BenchPart part)
{
    char name[32];
    snprintf(name, sizeof name, "%s %s", op_of[op].name, part_name[part]);
    return !b->only || !strncmp(name, b->only, strlen(b->only));
}

/* number < 0: every row that is wanted; else that row. */
static Status run_rows(const KernelBench *b, const float *pool, long number)
{
    int row = 0, n_run = 0;
    for (int i = 0; i < bench_shape_count * (b->libraries ? 3 : 1); i++) {
        int by = i / bench_shape_count;
        const BenchShape *s = &bench_shape[i % bench_shape_count];
        for (int p = 0; p < op_of[s->op].n_part && (!by || s->op <= BENCH_LINEAR); p++, row++) {
            BenchPart part = op_of[s->op].part[p];
            if (number < 0 ? !wanted(b, s->op, part) : row != number) continue;
            TRY(signal_check());
            TRY(run_row(b, pool, row, s, part, by));
            n_run++;
        }
    }
    if (n_run) return OK;
    if (number < 0)
        return FAIL(ERR_USAGE, "bench: --only is \"%s\", expected how a row that --list has begins",
                    b->only);
    return FAIL(ERR_USAGE, "bench: standard input: found row %ld, expected 0..%d", number, row - 1);
}

static Status run_asked(const KernelBench *b, const float *pool)
{
    char line[32];
    long row;
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (!text_to_long(&row, line) || row < 0)
            return FAIL(ERR_USAGE, "bench: standard input: found \"%s\", expected a row's number",
                        line);
        TRY(run_rows(b, pool, row));
    }
    return OK;
}

Status bench_kernels(const KernelBench *b)
{
    float *pool = malloc(POOL * sizeof *pool);
    CHECK(pool);
    random_normals(pool, POOL, (RandomKey){.seed = 1, .stream = STREAM_TEST});
    puts(header);
    fflush(stdout);
    Status s = b->piped ? run_asked(b, pool) : run_rows(b, pool, -1);
    free(pool);
    return s;
}
