/* ref.c - the executor of twins and the harness that compares. */
#include "ref/ref.h"
#include "base/random.h"
#include "exec/choices.h"
#include "weights/half.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const RefFamily ref_basic;
extern const RefFamily ref_shape, ref_loss, ref_gaussian, ref_diffusion;
extern const RefFamily ref_point, ref_norm, ref_matrix, ref_after;
const RefFamily *const ref_family[] = {&ref_basic, &ref_shape, &ref_diffusion, &ref_loss,
                                       &ref_point, &ref_norm,  &ref_gaussian,  &ref_matrix,
                                       &ref_after};
const int ref_family_count = sizeof ref_family / sizeof *ref_family;

const Twin *ref_find(const OpDef *op)
{
    for (int f = 0; f < ref_family_count; f++)
        for (int i = 0; i < ref_family[f]->n_twin; i++)
            if (ref_family[f]->twin[i].op == op) return &ref_family[f]->twin[i];
    return NULL;
}

/* ---- leaves --------------------------------------------------------------------------- */

Tensor *case_leaf(Graph *g, const char *name, int ndim, const int *dim)
{
    return graph_leaf(g, KIND_PARAM, ndim > 1 ? g->act : DTYPE_F32, name, ndim, dim);
}
Tensor *case_const(Graph *g, const char *name, Dtype dtype, int ndim, const int *dim)
{
    return graph_leaf(g, KIND_INPUT, dtype, name, ndim, dim);
}
Tensor *case_state(Graph *g, const char *name, int ndim, const int *dim)
{
    return graph_leaf(g, KIND_STATE, DTYPE_F32, name, ndim, dim);
}

double case_normal(uint32_t seed, const Tensor *leaf, size_t i)
{
    return (float)random_normal((RandomKey){seed, STREAM_TEST, 0, (uint64_t)leaf->id}, (uint32_t)i);
}

static double rounded(double v, Dtype type)
{
    float f = (float)v;
    uint16_t half;
    if (type != DTYPE_BF16) return f;
    float_to_bf16(&half, &f, 1);
    bf16_to_float(&f, &half, 1);
    return f;
}

static double naive_scale = 1; /* of the run in progress */

double ref_bf16(double v) { return naive_scale * rounded(v / naive_scale, DTYPE_BF16); }

/* Values are rounded to what the device stores, so that both sides see the same. */
static void fill_leaf(const OpCase *c, const Tensor *t, double *value, uint32_t seed)
{
    size_t n = tensor_count(t);
    bool own = !c || !c->fill || !strcmp(t->name, "dy");
    for (size_t i = 0; own && i < n; i++) value[i] = case_normal(seed, t, i);
    if (!own) c->fill(t, value, n, seed);
    for (size_t i = 0; i < n; i++) value[i] = rounded(value[i], t->dtype);
}

/* ---- running twins -------------------------------------------------------------------- */

void ref_alloc(Graph *g)
{
    for (int i = 0; i < g->n; i++) {
        Tensor *t = g->node[i];
        t->data = t->view_of ? t->view_of->data : calloc(tensor_count(t), sizeof(double));
        CHECK(t->data);
    }
}

void ref_release(Graph *g)
{
    for (int i = 0; i < g->n; i++)
        if (!g->node[i]->view_of) free(g->node[i]->data);
}

void ref_round(const Tensor *t, double scale)
{
    if (t && t->dtype == DTYPE_BF16)
        for (size_t i = 0; i < tensor_count(t); i++)
            ref_data(t)[i] = scale * rounded(ref_data(t)[i] / scale, DTYPE_BF16);
}

/* Each number off by 2^-24 of itself, up or down; or of its distance from their mean, if that is less,
 * as moments of values far from zero are meant to be as exact as of others. Whole ones are counts. */
static void move(const Tensor *t, RandomKey key)
{
    size_t n = t->dtype == DTYPE_I32 ? 0 : tensor_count(t);
    double *v = ref_data(t), mean = 0;
    key.sample = (uint64_t)t->id;
    for (size_t i = 0; i < n; i++) mean += v[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        double off = 0x1p-24 * fmin(fabs(v[i]), fabs(v[i] - mean));
        if (v[i] != rint(v[i])) v[i] += random_below(key, (uint32_t)i, 2) ? off : -off;
    }
}

/* scale: 0, or every node's outputs are rounded to how they are stored, and inside where it must be.
 * moved: NULL, or every node's result is. */
static void run_to(Graph *g, int last, double scale, const RandomKey *moved)
{
    naive_scale = scale;
    for (int i = 0; i <= last; i++) {
        Tensor *t = g->node[i];
        if (!t->live || !t->op || t->view_of) continue;
        const Twin *twin = ref_find(t->op);
        if (!twin) {
            fprintf(stderr, "op %s has no twin\n", t->op->name);
            abort();
        }
        for (int k = 0; scale && k < ref_naive_count; k++)
            if (ref_naive[k].op == t->op) twin = &ref_naive[k];
        twin->run(t);
        for (int k = 0; scale && k < MAX_SIDE; k++) ref_round(t->side[k], scale);
        if (scale) ref_round(t, scale);
        if (moved) move(t, *moved);
    }
}

void ref_run(Graph *g) { run_to(g, g->n - 1, 0, NULL); }
void ref_run_rounded(Graph *g, double scale) { run_to(g, g->n - 1, scale, NULL); }

/* ---- one case ------------------------------------------------------------------------- */

typedef struct {
    Graph *g;
    Tensor *y, *dy, *leaf[32], *out[40];
    int n_leaf, n_out;
} Built;

static bool build(Built *b, const OpCase *c, Dtype act)
{
    *b = (Built){.g = graph_new()};
    b->g->act = act;
    b->y = c->build(b->g);
    for (int i = 0; i < b->g->n && b->n_leaf < 31; i++)
        if (b->g->node[i]->kind != KIND_ACT) b->leaf[b->n_leaf++] = b->g->node[i];
    if (b->y) b->dy = graph_leaf(b->g, KIND_INPUT, b->y->dtype, "dy", b->y->ndim, b->y->dim);
    b->leaf[b->n_leaf++] = b->dy;
    if (b->y && b->y->trainable) graph_backward(b->g, 1, &b->y, &b->dy);
    if (graph_status(b->g)) {
        printf("FAILED %s: %s\n", c->name, status_message());
        return false;
    }
    b->out[b->n_out++] = b->y;
    for (int i = 0; i < b->n_leaf; i++)
        if (b->leaf[i]->grad) b->out[b->n_out++] = b->leaf[i]->grad;
    graph_finish(b->g, b->out, b->n_out);
    return true;
}

/* I32 leaves are filled as doubles and converted. */
static void store_ref(const Tensor *t, const double *value)
{
    for (size_t i = 0; i < tensor_count(t); i++) {
        if (t->dtype == DTYPE_I32) ((int32_t *)t->data)[i] = (int32_t)value[i];
        else ref_data(t)[i] = value[i];
    }
}

static void fill_ref(const Built *b, const OpCase *c, uint32_t seed)
{
    for (int i = 0; i < b->n_leaf; i++) {
        double *value = calloc(tensor_count(b->leaf[i]), sizeof *value);
        CHECK(value);
        fill_leaf(c, b->leaf[i], value, seed);
        store_ref(b->leaf[i], value);
        free(value);
    }
}

/* State was changed by the run before. */
static void renew_state(Built *b, const OpCase *c, uint32_t seed, const Tensor *except)
{
    for (int i = 0; i < b->n_leaf; i++)
        if (b->leaf[i]->kind == KIND_STATE && b->leaf[i] != except) {
            double *value = calloc(tensor_count(b->leaf[i]), sizeof *value);
            fill_leaf(c, b->leaf[i], value, seed);
            store_ref(b->leaf[i], value);
            free(value);
        }
}

static double scalar(Built *b, const OpCase *c, uint32_t seed, const Tensor *except)
{
    double sum = 0;
    renew_state(b, c, seed, except);
    run_to(b->g, except ? b->y->id : b->g->n - 1, 0, NULL); /* differences need no gradients */
    for (size_t i = 0; i < tensor_count(b->y); i++) sum += ref_data(b->y)[i] * ref_data(b->dy)[i];
    return sum;
}

static double largest(const double *v, size_t n)
{
    double m = 0;
    for (size_t i = 0; i < n; i++) m = fmax(m, fabs(v[i]));
    return m;
}

/* Of the scalar by element i of t. Central, of fourth order: error of step^4. */
static double difference(Built *b, const OpCase *c, uint32_t seed, Tensor *t, size_t i, double step)
{
    double keep = ref_data(t)[i], f[4];
    step *= fmax(1, fabs(keep));
    for (int p = 0; p < 4; p++) {
        ref_data(t)[i] = keep + step * (double[]){-2, -1, 1, 2}[p];
        f[p] = scalar(b, c, seed, t);
    }
    ref_data(t)[i] = keep;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step);
}

/* The twin's gradients against central differences, at up to 24 elements of each leaf. */
static int check_differences(Built *b, const OpCase *c, uint32_t seed)
{
    int failed = 0;
    for (int l = 0; l < b->n_leaf; l++) {
        Tensor *t = b->leaf[l];
        if (!t->grad) continue;
        size_t n = tensor_count(t);
        double *grad = malloc(n * sizeof *grad);
        CHECK(grad);
        scalar(b, c, seed, NULL);
        memcpy(grad, t->grad->data, n * sizeof *grad);
        double top = largest(grad, n);
        for (uint32_t k = 0; k < 24; k++) {
            size_t i = n <= 24 ? k
                               : random_below((RandomKey){seed, STREAM_TEST, 1, (uint64_t)t->id}, k,
                                              (uint32_t)n);
            if (i >= n) break;
            double scale = fmax(fabs(grad[i]), top), numeric = 0;
            bool near = scale <= 1e-9;
            for (int s = 0; s < 2 && !near; s++) { /* one step may be too short, or too long */
                numeric = difference(b, c, seed, t, i, s ? 1e-4 : 2e-5);
                near = fabs(numeric - grad[i]) <= 1e-6 * scale;
            }
            if (!near) {
                printf("FAILED %s: gradient of %s[%zu] is %.9g, differences say %.9g\n", c->name,
                       t->name, i, grad[i], numeric);
                failed++;
            }
        }
        free(grad);
    }
    return failed;
}

/* What an element of an output may be off by at most. */
typedef struct {
    double moved; /* by twins where what is stored is off by a rounding */
    double naive; /* by twins that round after every node, and inside; 0 for fp32 */
} Slack;

/* A bf16 kernel may be off by what fp32 arithmetic is, 1.5 times the rounding of the exact value, and
 * twice the largest error of the naive runs. */
static int compare(const OpCase *c, const char *what, const float *got, const double *want,
                   const Slack *slack, Dtype act, size_t n)
{
    double top = fmax(largest(want, n), 1e-30);
    double bound = 8 * 0x1p-24 * (1 + sqrt(c->terms)) * top + 4 * slack->moved;
    for (size_t i = 0; i < n; i++) {
        double more = act == DTYPE_BF16 ? 2 * slack->naive + 1.5 * 0x1p-9 * fabs(want[i]) : 0;
        if (!(fabs(got[i] - want[i]) <= bound + more)) {
            printf("FAILED %s%s: %s[%zu] is %.9g, twin says %.9g, bound %.3g\n", c->name,
                   act == DTYPE_BF16 ? " (bf16)" : "", what, i, got[i], want[i], bound + more);
            return 1;
        }
    }
    return 0;
}

typedef struct {
    float *value[72];
    int n;
} Snapshot; /* outputs, then state leaves */

static void poison(Device *d, const Tensor *t)
{
    void *ones = malloc(tensor_bytes(t));
    CHECK(ones);
    memset(ones, 0xff, tensor_bytes(t));
    CHECK(!device_write(d, t->data, ones, tensor_bytes(t)));
    free(ones);
}

/* Values to the device's storage and back; I32 stays what it is. */
static void write_values(Exec *e, Tensor *t, const double *value)
{
    size_t n = tensor_count(t);
    float *raw = malloc(n * sizeof *raw);
    uint16_t *half = malloc(n * sizeof *half);
    CHECK(raw && half);
    for (size_t k = 0; k < n; k++) {
        if (t->dtype == DTYPE_I32) ((int32_t *)(void *)raw)[k] = (int32_t)value[k];
        else raw[k] = (float)value[k];
    }
    float_to_bf16(half, raw, n);
    CHECK(!exec_write(e, t, t->dtype == DTYPE_BF16 ? (void *)half : raw));
    free(half);
    free(raw);
}

static float *read_values(Exec *e, const Tensor *t)
{
    size_t n = tensor_count(t);
    float *value = malloc(n * sizeof *value);
    uint16_t *half = malloc(n * sizeof *half);
    CHECK(value && half);
    CHECK(!exec_read(e, t, t->dtype == DTYPE_BF16 ? (void *)half : value));
    if (t->dtype == DTYPE_BF16) bf16_to_float(value, half, n);
    free(half);
    return value;
}

static void run_on(Snapshot *s, Device *d, const OpCase *c, Dtype act, uint32_t seed, bool *seen)
{
    Built b;
    Exec *e;
    *s = (Snapshot){0};
    CHECK(build(&b, c, act));
    for (int i = 0; i < b.n_leaf; i++)
        if (b.leaf[i]->kind != KIND_INPUT)
            CHECK(!device_alloc(d, &b.leaf[i]->data, tensor_bytes(b.leaf[i]), "leaf"));
    CHECK(!exec_new(&e, d, b.g, b.out, b.n_out));
    for (int i = 0; i < b.g->n; i++) { /* what a kernel forgets to write stays NaN */
        Tensor *t = b.g->node[i];
        if (t->live && t->kind == KIND_ACT) poison(d, t);
        for (int k = 0; k < op_table_count; k++)
            if (t->op == op_table[k] && t->live) seen[k] = true;
    }
    for (int i = 0; i < b.n_leaf; i++) {
        Tensor *t = b.leaf[i];
        double *value = calloc(tensor_count(t), sizeof *value);
        CHECK(value);
        fill_leaf(c, t, value, seed);
        write_values(e, t, value);
        free(value);
    }
    Status failed = exec_run(e);
    if (failed) printf("FAILED %s: %s\n", c->name, status_message());
    for (int i = 0; i < b.n_out + b.n_leaf; i++) {
        Tensor *t = i < b.n_out ? b.out[i] : b.leaf[i - b.n_out];
        if (i >= b.n_out && t->kind != KIND_STATE) continue;
        s->value[s->n++] = read_values(e, t);
    }
    for (int i = 0; i < b.n_leaf; i++)
        if (b.leaf[i]->kind != KIND_INPUT) device_release(d, b.leaf[i]->data);
    exec_free(e);
    graph_free(b.g);
}

/* The outputs and state of the twin graph, side by side with a Snapshot. */
static int outputs(const Built *b, Tensor **list)
{
    int n = 0;
    for (int i = 0; i < b->n_out; i++) list[n++] = b->out[i];
    for (int i = 0; i < b->n_leaf; i++)
        if (b->leaf[i]->kind == KIND_STATE) list[n++] = b->leaf[i];
    return n;
}

static double *copied(const Tensor *t)
{
    size_t bytes = tensor_count(t) * sizeof(double);
    double *value = malloc(bytes);
    CHECK(value);
    return memcpy(value, t->data, bytes);
}

static double apart(const Tensor *t, const double *want)
{
    double most = 0;
    for (size_t i = 0; i < tensor_count(t); i++) most = fmax(most, fabs(ref_data(t)[i] - want[i]));
    return most;
}

/* Once more, with every number that is stored off by a rounding. What is left of terms that cancel, as
 * in a softmax that is nearly all of one key, moves by more than that. */
static void run_moved(const Built *b, const OpCase *c, uint32_t seed, uint32_t draw)
{
    RandomKey key = {.seed = seed, .stream = STREAM_TEST, .step = 16 + draw};
    fill_ref(b, c, seed);
    for (int k = 0; k < b->n_leaf; k++) move(b->leaf[k], key);
    run_to(b->g, b->g->n - 1, 0, &key);
}

/* Several draws of either error: where few numbers go in, as a step's coefficients, or few come out,
 * one draw may be far smaller than others. */
static void find_slack(Slack *slack, double *const *want, Tensor *const *list, int n,
                       const Built *b, const OpCase *c, uint32_t seed)
{
    size_t numbers = 0;
    for (int k = 0; k < b->n_leaf; k++) numbers += tensor_count(b->leaf[k]);
    uint32_t draws = numbers < 16384 ? 12 : 2;
    for (uint32_t i = 0; i < draws; i++) {
        run_moved(b, c, seed, i);
        for (int k = 0; k < n; k++) slack[k].moved = fmax(slack[k].moved, apart(list[k], want[k]));
        if (b->g->act != DTYPE_BF16) continue;
        fill_ref(b, c, seed);
        run_to(b->g, b->g->n - 1, exp2((double)i / draws), NULL);
        for (int k = 0; k < n; k++) slack[k].naive = fmax(slack[k].naive, apart(list[k], want[k]));
    }
}

/* Where a library was asked for by $EQ_KERNELS. */
static void tell_kernels(const OpCase *c, Device *d)
{
    const char *wanted = getenv("EQ_KERNELS");
    Text used = {0};
    device_kernels_used(d, &used);
    if (wanted && used.s && !strstr(used.s, wanted)) printf("%s: not by %s\n", c->name, wanted);
    free(used.s);
}

int ref_check(const OpCase *c, const char *device, Dtype act, uint32_t seed, bool *seen)
{
    Built b;
    Device *d;
    Snapshot one, two;
    Tensor *list[72];
    double *want[72] = {0};
    Slack slack[72] = {0};
    if (!build(&b, c, act)) return 1;
    ref_alloc(b.g);
    fill_ref(&b, c, seed);
    int failed = act == DTYPE_F32 ? check_differences(&b, c, seed) : 0, n = outputs(&b, list);

    CHECK(!device_open(&d, device, "auto", 0, NULL));
    run_on(&one, d, c, act, seed, seen);
    run_on(&two, d, c, act, seed, seen);
    tell_kernels(c, d);
    scalar(&b, c, seed, NULL);
    for (int k = 0; k < n; k++) want[k] = copied(list[k]);
    find_slack(slack, want, list, n, &b, c, seed);
    for (int k = 0; k < n; k++) {
        const Tensor *t = list[k];
        size_t count = tensor_count(t);
        failed += compare(c, k ? t->name : "y", one.value[k], want[k], &slack[k], act, count);
        if (memcmp(one.value[k], two.value[k], count * sizeof(float))) {
            printf("FAILED %s: two runs differ in %s\n", c->name, t->name);
            failed++;
        }
        free(one.value[k]);
        free(two.value[k]);
        free(want[k]);
    }
    device_close(d);
    ref_release(b.g);
    graph_free(b.g);
    return failed;
}
