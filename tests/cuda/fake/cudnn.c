/* cudnn.c - a libcudnn.so for tests: graphs of one convolution, forward or a gradient, and at most
 * four pointwise operations behind it. Descriptors are kept as cudnn_graph.h defines their
 * attributes: one of a wrong type, a missing one and a change after finalizing are refused. Offers,
 * in this order: a plan that is not deterministic, one of tensor cores, a plain one with workspace;
 * as fallback a plain one. The first, and the second for fp32, give wrong results: they must not be
 * taken. FAKE_FAIL=the workspace: the third wants too much of it; the third plan: it is refused. */
#include "fake.h"
#include <cudnn_graph.h>
#include <math.h>

#define KIND(name) CUDNN_BACKEND_##name##_DESCRIPTOR
#define ATTR(name) CUDNN_ATTR_##name
#define TYPE(name) CUDNN_TYPE_##name

/* What a kind of descriptor must or may have. */
typedef struct {
    int kind, name, type, count;
    bool must;
} Row;
#define CONV(op, NAME, X, W, Y)                                                                    \
    {KIND(OPERATION_CONVOLUTION_##op), ATTR(OPERATION_CONVOLUTION_##NAME##_ALPHA), TYPE(FLOAT), 1, \
     true},                                                                                        \
        {KIND(OPERATION_CONVOLUTION_##op), ATTR(OPERATION_CONVOLUTION_##NAME##_BETA), TYPE(FLOAT), \
         1, true},                                                                                 \
        {KIND(OPERATION_CONVOLUTION_##op), ATTR(OPERATION_CONVOLUTION_##NAME##_CONV_DESC),         \
         TYPE(BACKEND_DESCRIPTOR), 1, true},                                                       \
        {KIND(OPERATION_CONVOLUTION_##op), ATTR(OPERATION_CONVOLUTION_##NAME##_##X),               \
         TYPE(BACKEND_DESCRIPTOR), 1, true},                                                       \
        {KIND(OPERATION_CONVOLUTION_##op), ATTR(OPERATION_CONVOLUTION_##NAME##_##W),               \
         TYPE(BACKEND_DESCRIPTOR), 1, true},                                                       \
    {                                                                                              \
        KIND(OPERATION_CONVOLUTION_##op), ATTR(OPERATION_CONVOLUTION_##NAME##_##Y),                \
            TYPE(BACKEND_DESCRIPTOR), 1, true                                                      \
    }
enum { OPS = 5, MOST = 6 }; /* MOST: values of an attribute */
static const Row rows[] = {
    {KIND(TENSOR), ATTR(TENSOR_UNIQUE_ID), TYPE(INT64), 1, true},
    {KIND(TENSOR), ATTR(TENSOR_DATA_TYPE), TYPE(DATA_TYPE), 1, true},
    {KIND(TENSOR), ATTR(TENSOR_DIMENSIONS), TYPE(INT64), 4, true},
    {KIND(TENSOR), ATTR(TENSOR_STRIDES), TYPE(INT64), 4, true},
    {KIND(TENSOR), ATTR(TENSOR_BYTE_ALIGNMENT), TYPE(INT64), 1, true},
    {KIND(TENSOR), ATTR(TENSOR_IS_VIRTUAL), TYPE(BOOLEAN), 1, false},
    {KIND(CONVOLUTION), ATTR(CONVOLUTION_SPATIAL_DIMS), TYPE(INT64), 1, true},
    {KIND(CONVOLUTION), ATTR(CONVOLUTION_COMP_TYPE), TYPE(DATA_TYPE), 1, true},
    {KIND(CONVOLUTION), ATTR(CONVOLUTION_CONV_MODE), TYPE(CONVOLUTION_MODE), 1, true},
    {KIND(CONVOLUTION), ATTR(CONVOLUTION_PRE_PADDINGS), TYPE(INT64), 2, true},
    {KIND(CONVOLUTION), ATTR(CONVOLUTION_POST_PADDINGS), TYPE(INT64), 2, true},
    {KIND(CONVOLUTION), ATTR(CONVOLUTION_DILATIONS), TYPE(INT64), 2, true},
    {KIND(CONVOLUTION), ATTR(CONVOLUTION_FILTER_STRIDES), TYPE(INT64), 2, true},
    CONV(FORWARD, FORWARD, X, W, Y),
    CONV(BACKWARD_DATA, BWD_DATA, DX, W, DY),
    CONV(BACKWARD_FILTER, BWD_FILTER, X, DW, DY),
    {KIND(POINTWISE), ATTR(POINTWISE_MODE), TYPE(POINTWISE_MODE), 1, true},
    {KIND(POINTWISE), ATTR(POINTWISE_MATH_PREC), TYPE(DATA_TYPE), 1, true},
    {KIND(OPERATION_POINTWISE), ATTR(OPERATION_POINTWISE_PW_DESCRIPTOR), TYPE(BACKEND_DESCRIPTOR),
     1, true},
    {KIND(OPERATION_POINTWISE), ATTR(OPERATION_POINTWISE_XDESC), TYPE(BACKEND_DESCRIPTOR), 1, true},
    {KIND(OPERATION_POINTWISE), ATTR(OPERATION_POINTWISE_BDESC), TYPE(BACKEND_DESCRIPTOR), 1,
     false},
    {KIND(OPERATION_POINTWISE), ATTR(OPERATION_POINTWISE_YDESC), TYPE(BACKEND_DESCRIPTOR), 1, true},
    {KIND(OPERATIONGRAPH), ATTR(OPERATIONGRAPH_HANDLE), TYPE(HANDLE), 1, true},
    {KIND(OPERATIONGRAPH), ATTR(OPERATIONGRAPH_OPS), TYPE(BACKEND_DESCRIPTOR), OPS, true},
    {KIND(ENGINEHEUR), ATTR(ENGINEHEUR_OPERATION_GRAPH), TYPE(BACKEND_DESCRIPTOR), 1, true},
    {KIND(ENGINEHEUR), ATTR(ENGINEHEUR_MODE), TYPE(HEUR_MODE), 1, true},
    {KIND(EXECUTION_PLAN), ATTR(EXECUTION_PLAN_HANDLE), TYPE(HANDLE), 1, true},
    {KIND(EXECUTION_PLAN), ATTR(EXECUTION_PLAN_ENGINE_CONFIG), TYPE(BACKEND_DESCRIPTOR), 1, true},
    {KIND(VARIANT_PACK), ATTR(VARIANT_PACK_UNIQUE_IDS), TYPE(INT64), MOST, true},
    {KIND(VARIANT_PACK), ATTR(VARIANT_PACK_DATA_POINTERS), TYPE(VOID_PTR), MOST, true},
    {KIND(VARIANT_PACK), ATTR(VARIANT_PACK_WORKSPACE), TYPE(VOID_PTR), 1, true},
};
enum { ROWS = sizeof rows / sizeof *rows, WORKSPACE = 1 << 16 };

typedef struct Desc Desc;
struct Desc {
    int kind;
    bool done;
    int64_t n[ROWS]; /* elements set */
    union {
        int64_t i;
        float f;
        void *p;
        bool b;
        int e;
    } v[ROWS][MOST];
    int engine;     /* of an engine and its configuration: its number */
    const Desc *of; /* of an engine: its graph */
};

struct cudnnContext {
    cudaStream_t stream;
};
static int calls;

EXPORTED int fake_cudnn_calls(void) { return calls; }
EXPORTED size_t cudnnGetVersion(void) { return 91900; }
EXPORTED const char *cudnnGetErrorString(cudnnStatus_t s)
{
    return s == CUDNN_STATUS_SUCCESS         ? "CUDNN_STATUS_SUCCESS"
           : s == CUDNN_STATUS_BAD_PARAM     ? "CUDNN_STATUS_BAD_PARAM"
           : s == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED"
                                             : "CUDNN_STATUS_EXECUTION_FAILED";
}
EXPORTED cudnnStatus_t cudnnCreate(cudnnHandle_t *h)
{
    if (fake_fails("cudnnCreate")) return CUDNN_STATUS_NOT_INITIALIZED;
    *h = calloc(1, sizeof **h);
    return CUDNN_STATUS_SUCCESS;
}
EXPORTED cudnnStatus_t cudnnDestroy(cudnnHandle_t h)
{
    free(h);
    return CUDNN_STATUS_SUCCESS;
}
EXPORTED cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t stream)
{
    h->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- descriptors ---- */

static int row_of(int kind, int name)
{
    for (int i = 0; i < ROWS; i++)
        if (rows[i].kind == kind && rows[i].name == name) return i;
    return -1;
}
#define VALUE(d, kind_, name_) ((d)->v[row_of(KIND(kind_), ATTR(name_))])

static size_t size_of(int type)
{
    switch (type) {
    case TYPE(INT64):
        return 8;
    case TYPE(FLOAT):
        return sizeof(float);
    case TYPE(BOOLEAN):
        return sizeof(bool);
    case TYPE(HANDLE):
    case TYPE(VOID_PTR):
    case TYPE(BACKEND_DESCRIPTOR):
        return sizeof(void *);
    default:
        return sizeof(int);
    }
}

EXPORTED cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t kind,
                                                    cudnnBackendDescriptor_t *out)
{
    Desc *d = calloc(1, sizeof *d);
    d->kind = kind;
    *out = d;
    return CUDNN_STATUS_SUCCESS;
}
EXPORTED cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    free(d);
    return CUDNN_STATUS_SUCCESS;
}
EXPORTED cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t desc,
                                                cudnnBackendAttributeName_t name,
                                                cudnnBackendAttributeType_t type, int64_t n,
                                                const void *value)
{
    Desc *d = desc;
    int row = row_of(d->kind, name);
    if (row < 0 || d->done || (int)type != rows[row].type || n < 1 || n > rows[row].count || !value)
        return CUDNN_STATUS_BAD_PARAM;
    d->n[row] = n;
    for (int64_t i = 0; i < n; i++)
        memcpy(&d->v[row][i], (const char *)value + (size_t)i * size_of(type), size_of(type));
    for (int64_t i = 0; i < n && type == CUDNN_TYPE_BACKEND_DESCRIPTOR; i++)
        if (!((const Desc *)d->v[row][i].p)->done) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- one convolution and what follows ---- */

typedef struct {
    int64_t id, dim[4], stride[4];
    bool half, between;
    char *at;
} Tensor;
typedef struct {
    int mode;     /* a pointwise operation */
    Tensor added; /* where mode is ADD: its dimensions are those of the result, or 1 */
} Step;
typedef struct {
    int kind, engine, n_more;
    Step more[OPS - 1];
    Tensor x, w, y, out; /* out: where the result goes, x, w or y unless something follows */
    int64_t before[2], after[2], step[2];
    void *workspace;
} Job;

static Tensor tensor_of(const Desc *d)
{
    Tensor t = {.id = VALUE(d, TENSOR, TENSOR_UNIQUE_ID)[0].i,
                .half = VALUE(d, TENSOR, TENSOR_DATA_TYPE)[0].e == CUDNN_DATA_BFLOAT16,
                .between = VALUE(d, TENSOR, TENSOR_IS_VIRTUAL)[0].b};
    for (int i = 0; i < 4; i++) {
        t.dim[i] = VALUE(d, TENSOR, TENSOR_DIMENSIONS)[i].i;
        t.stride[i] = VALUE(d, TENSOR, TENSOR_STRIDES)[i].i;
    }
    return t;
}

static bool same_shape(const Tensor *a, const Tensor *b)
{
    return !memcmp(a->dim, b->dim, sizeof a->dim);
}

static bool spreads_over(const Tensor *added, const Tensor *out)
{
    bool yes = added->dim[1] == out->dim[1];
    for (int i = 0; i < 4; i++) yes &= added->dim[i] == 1 || added->dim[i] == out->dim[i];
    return yes;
}

/* op reads *result, which is not stored, and becomes where the result is. */
static bool read_step(Job *j, const Desc *op, const Desc **result)
{
    const Desc *kind = VALUE(op, OPERATION_POINTWISE, OPERATION_POINTWISE_PW_DESCRIPTOR)[0].p;
    const Desc *added = VALUE(op, OPERATION_POINTWISE, OPERATION_POINTWISE_BDESC)[0].p;
    Step *step = &j->more[j->n_more++];
    Tensor from = j->out;
    step->mode = VALUE(kind, POINTWISE, POINTWISE_MODE)[0].e;
    bool adds = step->mode == CUDNN_POINTWISE_ADD;
    bool right = adds == (added != NULL) && from.between && !from.half &&
                 VALUE(op, OPERATION_POINTWISE, OPERATION_POINTWISE_XDESC)[0].p == *result &&
                 (adds || step->mode == CUDNN_POINTWISE_IDENTITY ||
                  step->mode == CUDNN_POINTWISE_SWISH_FWD ||
                  step->mode == CUDNN_POINTWISE_RELU_FWD);
    *result = VALUE(op, OPERATION_POINTWISE, OPERATION_POINTWISE_YDESC)[0].p;
    j->out = tensor_of(*result);
    if (adds) step->added = tensor_of(added);
    return right && same_shape(&from, &j->out) && (!adds || spreads_over(&step->added, &j->out));
}

static cudnnStatus_t read_graph(Job *j, const Desc *graph)
{
    static const int names[3][4] = {
        {ATTR(OPERATION_CONVOLUTION_FORWARD_X), ATTR(OPERATION_CONVOLUTION_FORWARD_W),
         ATTR(OPERATION_CONVOLUTION_FORWARD_Y), ATTR(OPERATION_CONVOLUTION_FORWARD_CONV_DESC)},
        {ATTR(OPERATION_CONVOLUTION_BWD_DATA_DX), ATTR(OPERATION_CONVOLUTION_BWD_DATA_W),
         ATTR(OPERATION_CONVOLUTION_BWD_DATA_DY), ATTR(OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC)},
        {ATTR(OPERATION_CONVOLUTION_BWD_FILTER_X), ATTR(OPERATION_CONVOLUTION_BWD_FILTER_DW),
         ATTR(OPERATION_CONVOLUTION_BWD_FILTER_DY),
         ATTR(OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC)}};
    int row = row_of(KIND(OPERATIONGRAPH), ATTR(OPERATIONGRAPH_OPS));
    const Desc *op = graph->v[row][0].p;
    *j = (Job){.kind = op->kind == KIND(OPERATION_CONVOLUTION_FORWARD)         ? 0
                       : op->kind == KIND(OPERATION_CONVOLUTION_BACKWARD_DATA) ? 1
                                                                               : 2};
    const Desc *part[4];
    for (int i = 0; i < 4; i++) part[i] = op->v[row_of(op->kind, names[j->kind][i])][0].p;
    j->x = tensor_of(part[0]), j->w = tensor_of(part[1]), j->y = tensor_of(part[2]);
    const Desc *c = part[3], *result = part[j->kind == 0 ? 2 : j->kind == 1 ? 0 : 1];
    for (int i = 0; i < 2; i++) {
        j->before[i] = VALUE(c, CONVOLUTION, CONVOLUTION_PRE_PADDINGS)[i].i;
        j->after[i] = VALUE(c, CONVOLUTION, CONVOLUTION_POST_PADDINGS)[i].i;
        j->step[i] = VALUE(c, CONVOLUTION, CONVOLUTION_FILTER_STRIDES)[i].i;
        if (VALUE(c, CONVOLUTION, CONVOLUTION_DILATIONS)[i].i != 1)
            return CUDNN_STATUS_NOT_SUPPORTED;
        int64_t out =
            (j->x.dim[2 + i] + j->before[i] + j->after[i] - j->w.dim[2 + i]) / j->step[i] + 1;
        if (out != j->y.dim[2 + i]) return CUDNN_STATUS_BAD_PARAM;
    }
    if (VALUE(c, CONVOLUTION, CONVOLUTION_CONV_MODE)[0].e != CUDNN_CROSS_CORRELATION ||
        VALUE(c, CONVOLUTION, CONVOLUTION_COMP_TYPE)[0].e != CUDNN_DATA_FLOAT ||
        j->x.dim[0] != j->y.dim[0] || j->x.dim[1] != j->w.dim[1] || j->w.dim[0] != j->y.dim[1])
        return CUDNN_STATUS_BAD_PARAM;
    j->out = tensor_of(result);
    for (int i = 1; i < graph->n[row]; i++)
        if (!read_step(j, graph->v[row][i].p, &result)) return CUDNN_STATUS_NOT_SUPPORTED;
    return j->out.between ? CUDNN_STATUS_BAD_PARAM : CUDNN_STATUS_SUCCESS;
}

static size_t offset(const Tensor *t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (size_t)(a * t->stride[0] + b * t->stride[1] + c * t->stride[2] + d * t->stride[3]);
}

/* sum[out's elements in order of its dimensions] += products */
static void convolve(const Job *j, double *sum)
{
    const Tensor *x = &j->x, *w = &j->w, *y = &j->y;
    const int64_t *d = y->dim, *f = w->dim, *in = x->dim;
#define EACH(i, n) for (int64_t i = 0; i < (n); i++)
    EACH(n, d[0]) EACH(p, d[2]) EACH(q, d[3]) EACH(r, f[2]) EACH(s, f[3])
    {
        int64_t h = p * j->step[0] + r - j->before[0], v = q * j->step[1] + s - j->before[1];
        if (h < 0 || h >= in[2] || v < 0 || v >= in[3]) continue;
        EACH(k, d[1]) EACH(c, f[1])
        {
            double a = j->kind == 1 ? 1 : fake_load(x->at, x->half, offset(x, n, c, h, v));
            double b = j->kind == 2 ? 1 : fake_load(w->at, w->half, offset(w, k, c, r, s));
            double e = j->kind == 0 ? 1 : fake_load(y->at, y->half, offset(y, n, k, p, q));
            size_t at = (size_t)(j->kind == 0   ? ((n * d[1] + k) * d[2] + p) * d[3] + q
                                 : j->kind == 1 ? ((n * in[1] + c) * in[2] + h) * in[3] + v
                                                : ((k * f[1] + c) * f[2] + r) * f[3] + s);
            sum[at] += a * b * e;
        }
    }
}

static double go_on(const Step *s, double v, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const Tensor *t = &s->added;
    if (s->mode == CUDNN_POINTWISE_SWISH_FWD) return v / (1 + exp(-v));
    if (s->mode == CUDNN_POINTWISE_RELU_FWD) return v < 0 ? 0 : v;
    if (s->mode != CUDNN_POINTWISE_ADD) return v;
    size_t at = offset(t, t->dim[0] > 1 ? a : 0, b, t->dim[2] > 1 ? c : 0, t->dim[3] > 1 ? d : 0);
    return v + fake_load(t->at, t->half, at);
}

static void work(void *data)
{
    Job *j = data;
    const int64_t *d = j->out.dim;
    double *sum = calloc((size_t)(d[0] * d[1] * d[2] * d[3]), sizeof *sum);
    if (j->workspace) memset(j->workspace, 0xab, WORKSPACE);
    convolve(j, sum);
    bool wrong = j->engine == 0 || (j->engine == 1 && !j->x.half && !j->y.half);
    size_t i = 0;
    EACH(a, d[0]) EACH(b, d[1]) EACH(c, d[2]) EACH(e, d[3])
    {
        double v = sum[i++];
        for (int k = 0; k < j->n_more; k++) v = go_on(&j->more[k], v, a, b, c, e);
        fake_store(j->out.at, j->out.half, offset(&j->out, a, b, c, e),
                   wrong ? 1e30 : v * fake_scale());
    }
    free(sum);
}

/* ---- engines and plans ---- */

static bool is_third(const Desc *plan)
{
    const Desc *config = VALUE(plan, EXECUTION_PLAN, EXECUTION_PLAN_ENGINE_CONFIG)[0].p;
    return config && config->engine == 2;
}

EXPORTED cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t desc)
{
    Desc *d = desc;
    Job j;
    if (d->kind == KIND(EXECUTION_PLAN) &&
        (fake_fails("cudnnBackendFinalize") || (fake_fails("the third plan") && is_third(d))))
        return CUDNN_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < ROWS; i++)
        if (rows[i].kind == d->kind && rows[i].must && !d->n[i]) return CUDNN_STATUS_BAD_PARAM;
    d->done = true;
    return d->kind == KIND(OPERATIONGRAPH) ? read_graph(&j, d) : CUDNN_STATUS_SUCCESS;
}

EXPORTED cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const desc,
                                                cudnnBackendAttributeName_t name,
                                                cudnnBackendAttributeType_t type, int64_t most,
                                                int64_t *n, void *value)
{
    const Desc *d = desc;
    static const cudnnBackendNumericalNote_t note[] = {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC,
                                                       CUDNN_NUMERICAL_NOTE_TENSOR_CORE};
    if (name == ATTR(ENGINEHEUR_RESULTS) && d->done) {
        bool fallback = VALUE(d, ENGINEHEUR, ENGINEHEUR_MODE)[0].e == CUDNN_HEUR_MODE_FALLBACK;
        int64_t offers = fallback ? 1 : 3;
        *n = offers < most ? offers : most;
        for (int i = 0; i < *n; i++) {
            Desc *config = ((void **)value)[i];
            config->engine = fallback ? 3 : i;
            config->of = VALUE(d, ENGINEHEUR, ENGINEHEUR_OPERATION_GRAPH)[0].p;
            config->done = true;
        }
    } else if (name == ATTR(ENGINECFG_ENGINE) && d->done && most >= 1) {
        Desc *engine = *(void **)value;
        engine->engine = d->engine;
        engine->done = true;
        *n = 1;
    } else if (name == ATTR(ENGINE_NUMERICAL_NOTE) && d->done && type == TYPE(NUMERICAL_NOTE)) {
        *n = d->engine < 2;
        if (*n) memcpy(value, &note[d->engine], sizeof *note);
    } else if (name == ATTR(EXECUTION_PLAN_WORKSPACE_SIZE) && d->done && type == TYPE(INT64)) {
        *(int64_t *)value = is_third(d) ? WORKSPACE << (fake_fails("the workspace") ? 10 : 0) : 0;
        *n = 1;
    } else {
        return CUDNN_STATUS_BAD_PARAM;
    }
    return CUDNN_STATUS_SUCCESS;
}

static bool bind_tensor(Tensor *t, const Desc *pack)
{
    int ids = row_of(KIND(VARIANT_PACK), ATTR(VARIANT_PACK_UNIQUE_IDS));
    size_t bytes = t->half ? 2 : 4, end = 0;
    for (int i = 0; i < 4; i++) end += (size_t)((t->dim[i] - 1) * t->stride[i]);
    for (int64_t i = 0; i < pack->n[ids]; i++)
        if (pack->v[ids][i].i == t->id)
            t->at = VALUE(pack, VARIANT_PACK, VARIANT_PACK_DATA_POINTERS)[i].p;
    return t->at && fake_aligned(t->at, 16) && hostcuda_contains(t->at, (end + 1) * bytes);
}

EXPORTED cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t plan,
                                           cudnnBackendDescriptor_t pack)
{
    const Desc *config = VALUE((Desc *)plan, EXECUTION_PLAN, EXECUTION_PLAN_ENGINE_CONFIG)[0].p;
    Job *j = malloc(sizeof *j); /* a recording may run it at any time */
    if (fake_fails("cudnnBackendExecute")) return CUDNN_STATUS_EXECUTION_FAILED;
    cudnnStatus_t s = read_graph(j, config->of);
    if (s || !((Desc *)pack)->done || !((Desc *)plan)->done) return CUDNN_STATUS_BAD_PARAM;
    j->engine = config->engine;
    if (config->engine == 2) {
        j->workspace = VALUE((Desc *)pack, VARIANT_PACK, VARIANT_PACK_WORKSPACE)[0].p;
        if (!hostcuda_contains(j->workspace, WORKSPACE)) return CUDNN_STATUS_BAD_PARAM;
    }
    Tensor *bound[] = {&j->x, &j->w, &j->y, &j->out};
    for (int i = 0; i < 4; i++)
        if (!bound[i]->between && !bind_tensor(bound[i], pack)) return CUDNN_STATUS_BAD_PARAM;
    for (int i = 0; i < j->n_more; i++)
        if (j->more[i].mode == CUDNN_POINTWISE_ADD && !bind_tensor(&j->more[i].added, pack))
            return CUDNN_STATUS_BAD_PARAM;
    calls++;
    return cudaLaunchHostFunc(h->stream, work, j) ? CUDNN_STATUS_EXECUTION_FAILED
                                                  : CUDNN_STATUS_SUCCESS;
}
