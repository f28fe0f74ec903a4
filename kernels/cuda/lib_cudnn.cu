/* lib_cudnn.cu - convolutions, and linear layers as 1x1 convolutions, by cuDNN's graphs of
 * operations.
 *
 * Tensors are described as n, c, h, w with the strides of NHWC. Sums are fp32, and what stands
 * between two operations of a graph is fp32 and never stored, so that a result is rounded once:
 *
 *   FWD         y = conv(x, w)           then, of each what there is: + bias, + v, act, + r
 *   DX          dx = gradient(dy, w)
 *   DW, fp32    dw = gradient(dy, x)     bf16: dw = gradient(dy, x) -> as it is, stored as fp32
 *
 * Of the plans that cuDNN offers those are passed over that are not deterministic, that transform
 * (FFT, Winograd) or shorten sums, and for fp32 those of tensor cores, which would round inputs to
 * TF32; and those that it then cannot make, or that want more scratch than there is for it.
 */
#include "base/library.h"
#include "device.cuh"
#include "product.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#if __has_include(<cudnn_graph.h>)
#include <cudnn_graph.h>
#endif
#if defined CUDNN_VERSION && CUDNN_VERSION >= 90800

/* clang-format off */
#define FUNCTIONS(X) \
    X(cudnnCreate) X(cudnnDestroy) X(cudnnSetStream) X(cudnnGetVersion) X(cudnnGetErrorString) \
    X(cudnnBackendCreateDescriptor) X(cudnnBackendDestroyDescriptor) X(cudnnBackendFinalize) \
    X(cudnnBackendSetAttribute) X(cudnnBackendGetAttribute) X(cudnnBackendExecute)
/* clang-format on */

#define MEMBER(f) decltype(&::f) f;
static struct { FUNCTIONS(MEMBER) } dnn;

static Status need(void)
{
#define NAME(f) #f,
    static const char *const names[] = {FUNCTIONS(NAME)};
    static const char *const files[] = {"libcudnn.so.9", NULL};
    static SharedLibrary loaded;
    return library_need(&loaded, (void **)&dnn, names, sizeof names / sizeof *names, files,
                        "no cuDNN");
}

static Status said(cudnnStatus_t s, const char *doing)
{
    if (s == CUDNN_STATUS_SUCCESS) return OK;
    return FAIL(s == CUDNN_STATUS_ALLOC_FAILED ? ERR_SPACE : ERR_DEVICE, "cuDNN %s: %s", doing,
                dnn.cudnnGetErrorString(s));
}

static Status version(size_t *number)
{
    TRY(need());
    *number = dnn.cudnnGetVersion();
    return OK;
}

/* ---- descriptors -------------------------------------------------------------------------- */

typedef cudnnBackendDescriptor_t Part;

struct DnnContext {
    cudnnHandle_t handle; /* NULL: plans only, for `device` */
    Part device;          /* a GPU that is described and not there, or NULL */
};

struct DnnPlan {
    Part part[128]; /* owned: a plan is kept with all that it was made of */
    int n;
    Part plan; /* one of them */
};

static void cut_back(DnnPlan *m, int n)
{
    while (m->n > n) dnn.cudnnBackendDestroyDescriptor(m->part[--m->n]);
}

static void forget(void *plan)
{
    DnnPlan *m = (DnnPlan *)plan;
    if (!m) return;
    cut_back(m, 0);
    free(m);
}

static Status make(Part *out, DnnPlan *m, cudnnBackendDescriptorType_t kind)
{
    CHECK(m->n < (int)(sizeof m->part / sizeof *m->part));
    TRY(said(dnn.cudnnBackendCreateDescriptor(kind, out), "plan"));
    m->part[m->n++] = *out;
    return OK;
}

static Status set(Part part, int what, cudnnBackendAttributeType_t type, int64_t n,
                  const void *value)
{
    return said(
        dnn.cudnnBackendSetAttribute(part, (cudnnBackendAttributeName_t)what, type, n, value),
        "plan");
}
static Status set_part(Part part, int what, const Part *value)
{
    return set(part, what, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, value);
}
static Status get(Part part, int what, cudnnBackendAttributeType_t type, int64_t most, int64_t *n,
                  void *value)
{
    return said(
        dnn.cudnnBackendGetAttribute(part, (cudnnBackendAttributeName_t)what, type, most, n, value),
        "plan");
}
static Status finish(Part part) { return said(dnn.cudnnBackendFinalize(part), "plan"); }

static const cudnnDataType_t FP32 = CUDNN_DATA_FLOAT;
enum { X = 1, W, Y, BIAS, V, R, BETWEEN }; /* tensors by name; BETWEEN and on: not stored */

/* A tensor of n x h x w places of c channels. */
static Status tensor(Part *t, DnnPlan *m, int64_t name, cudnnDataType_t type, int n, int c, int h,
                     int w)
{
    int64_t dim[] = {n, c, h, w}, aligned = 16;
    int64_t stride[] = {(int64_t)h * w * c, 1, (int64_t)w * c, c};
    bool between = name >= BETWEEN;
    TRY(make(t, m, CUDNN_BACKEND_TENSOR_DESCRIPTOR));
    TRY(set(*t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &name));
    TRY(set(*t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
    TRY(set(*t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim));
    TRY(set(*t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride));
    TRY(set(*t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &aligned));
    TRY(set(*t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &between));
    return finish(*t);
}

static Status filter(Part *f, DnnPlan *m, const ConvShape *s)
{
    int64_t before[] = {s->top, s->left}, after[] = {s->bottom, s->right}, one[] = {1, 1}, two = 2;
    int64_t stride[] = {s->stride, s->stride};
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    TRY(make(f, m, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR));
    TRY(set(*f, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &two));
    TRY(set(*f, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &FP32));
    TRY(set(*f, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode));
    TRY(set(*f, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before));
    TRY(set(*f, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after));
    TRY(set(*f, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, one));
    TRY(set(*f, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride));
    return finish(*f);
}

static const struct {
    cudnnBackendDescriptorType_t kind;
    int alpha, beta, filter, x, w, y; /* names of its attributes */
} operation[] = {
#define ROW(KIND, NAME, X, W, Y)                                                                   \
    {                                                                                              \
        CUDNN_BACKEND_OPERATION_CONVOLUTION_##KIND##_DESCRIPTOR,                                   \
            CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_ALPHA,                                       \
            CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_BETA,                                        \
            CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_CONV_DESC,                                   \
            CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##X,                                         \
            CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##W,                                         \
            CUDNN_ATTR_OPERATION_CONVOLUTION_##NAME##_##Y                                          \
    }
    ROW(FORWARD, FORWARD, X, W, Y), ROW(BACKWARD_DATA, BWD_DATA, DX, W, DY),
    ROW(BACKWARD_FILTER, BWD_FILTER, X, DW, DY)};

/* One pointwise operation behind a product. */
struct Step {
    cudnnPointwiseMode_t mode;
    int name, n, h, w; /* of the tensor that it adds; 0: none */
    cudnnDataType_t type;
};
enum { MOST_STEPS = 4 };

/* How many there are. h, w: of y. */
static int steps_of(Step *step, const Product *p, cudnnDataType_t type, int h, int w)
{
    int n = 0, images = p->shape.n;
    bool stays = p->pass == GEMM_DW && type != FP32;
    if (stays) step[n++] = {CUDNN_POINTWISE_IDENTITY, 0, 0, 0, 0, FP32};
    if (p->bias) step[n++] = {CUDNN_POINTWISE_ADD, BIAS, 1, 1, 1, FP32};
    if (p->after.v) step[n++] = {CUDNN_POINTWISE_ADD, V, images, 1, 1, type};
    if (p->after.act == ACT_SILU) step[n++] = {CUDNN_POINTWISE_SWISH_FWD, 0, 0, 0, 0, FP32};
    if (p->after.act == ACT_RELU) step[n++] = {CUDNN_POINTWISE_RELU_FWD, 0, 0, 0, 0, FP32};
    if (p->after.r) step[n++] = {CUDNN_POINTWISE_ADD, R, images, h, w, type};
    return n;
}

/* out = x + a tensor of k channels, or what the step's mode says of x */
static Status follow(Part *op, DnnPlan *m, const Step *step, int k, const Part *x, const Part *out)
{
    Part kind, added;
    if (step->name) TRY(tensor(&added, m, step->name, step->type, step->n, k, step->h, step->w));
    TRY(make(&kind, m, CUDNN_BACKEND_POINTWISE_DESCRIPTOR));
    TRY(set(kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &step->mode));
    TRY(set(kind, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &FP32));
    TRY(finish(kind));
    TRY(make(op, m, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR));
    TRY(set_part(*op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &kind));
    TRY(set_part(*op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x));
    if (step->name) TRY(set_part(*op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &added));
    TRY(set_part(*op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, out));
    return finish(*op);
}

static Status product(Part *op, DnnPlan *m, const Product *p, const Part of[Y + 1])
{
    const float one = 1, zero = 0;
    Part taps;
    TRY(filter(&taps, m, &p->shape));
    TRY(make(op, m, operation[p->pass].kind));
    TRY(set(*op, operation[p->pass].alpha, CUDNN_TYPE_FLOAT, 1, &one));
    TRY(set(*op, operation[p->pass].beta, CUDNN_TYPE_FLOAT, 1, &zero));
    TRY(set_part(*op, operation[p->pass].filter, &taps));
    TRY(set_part(*op, operation[p->pass].x, &of[X]));
    TRY(set_part(*op, operation[p->pass].w, &of[W]));
    TRY(set_part(*op, operation[p->pass].y, &of[Y]));
    return finish(*op);
}

static Status describe(Part *graph, DnnPlan *m, const Product *p, const DnnContext *c)
{
    const ConvShape *s = &p->shape;
    int h = conv_out(s->h, s->top, s->bottom, s->r, s->stride);
    int w = conv_out(s->w, s->left, s->right, s->s, s->stride);
    cudnnDataType_t type = p->type == DTYPE_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    bool dw = p->pass == GEMM_DW;
    Step step[MOST_STEPS];
    int n = steps_of(step, p, type, h, w), result = dw ? W : p->pass == GEMM_DX ? X : Y;
    Part of[Y + 1], op[MOST_STEPS + 1], to[MOST_STEPS + 1];
    TRY(tensor(&of[X], m, X, type, s->n, s->c, s->h, s->w));
    TRY(tensor(&of[W], m, W, dw ? FP32 : type, s->k, s->c, s->r, s->s));
    TRY(tensor(&of[Y], m, Y, type, s->n, s->k, h, w));
    to[n] = of[result];
    for (int i = 0; i < n; i++)
        TRY(dw ? tensor(&to[i], m, BETWEEN + i, FP32, s->k, s->c, s->r, s->s)
               : tensor(&to[i], m, BETWEEN + i, FP32, s->n, s->k, h, w));
    of[result] = to[0];
    TRY(product(&op[0], m, p, of));
    for (int i = 0; i < n; i++) TRY(follow(&op[i + 1], m, &step[i], s->k, &to[i], &to[i + 1]));
    TRY(make(graph, m, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR));
    if (c->handle)
        TRY(set(*graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &c->handle));
    TRY(set(*graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n + 1, op));
    return finish(*graph);
}

/* ---- plans -------------------------------------------------------------------------------- */

/* One is measured: where kernels are compiled, making a plan takes cuDNN seconds. */
enum { MOST = 1, MOST_OFFERS = 16 };

static Status acceptable(bool *yes, DnnPlan *m, Part offer, Dtype type)
{
    cudnnBackendNumericalNote_t note[32];
    int64_t n = 0;
    Part engine;
    TRY(make(&engine, m, CUDNN_BACKEND_ENGINE_DESCRIPTOR));
    TRY(get(offer, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine));
    TRY(get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, 32, &n, note));
    *yes = true;
    for (int64_t i = 0; i < n && i < 32; i++) {
        bool rounds = note[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE ||
                      note[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
        if (note[i] == CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP || (rounds && type == DTYPE_BF16))
            continue;
        *yes = false;
    }
    return OK;
}

/* m->plan = that of an offer */
static Status finish_plan(DnnPlan *m, size_t *workspace, const Part *offer, const DnnContext *c)
{
    int64_t bytes = 0, n;
    TRY(make(&m->plan, m, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR));
    if (c->handle)
        TRY(set(m->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &c->handle));
    if (c->device) TRY(set_part(m->plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, &c->device));
    TRY(set_part(m->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, offer));
    TRY(finish(m->plan));
    TRY(get(m->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &bytes));
    *workspace = (size_t)bytes;
    return bytes <= MOST_WORKSPACE
               ? OK
               : FAIL(ERR_DEVICE, "cuDNN plan: it wants %lld bytes", (long long)bytes);
}

/* Offers of one kind; none where cuDNN has none. */
static Status offers(int64_t *n, Part offer[MOST_OFFERS], DnnPlan *m, const Part *graph,
                     cudnnBackendHeurMode_t mode, const DnnContext *c)
{
    Part list;
    *n = 0;
    TRY(make(&list, m, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR));
    TRY(set_part(list, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph));
    TRY(set(list, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode));
    if (c->device) TRY(set_part(list, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, &c->device));
    if (finish(list)) return OK;
    for (int i = 0; i < MOST_OFFERS; i++)
        TRY(make(&offer[i], m, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
    TRY(get(list, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST_OFFERS, n,
            offer));
    if (*n > MOST_OFFERS) *n = MOST_OFFERS;
    return OK;
}

/* m->plan = the which-th of acceptable offers' plans that can be made */
static Status complete(DnnPlan *m, size_t *workspace, const Product *p, int which,
                       const DnnContext *c)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    Part graph, offer[MOST_OFFERS];
    char why[128] = "";
    int left = which;
    TRY(describe(&graph, m, p, c));
    for (cudnnBackendHeurMode_t mode : modes) {
        int64_t n;
        TRY(offers(&n, offer, m, &graph, mode, c));
        for (int64_t i = 0; i < n; i++) {
            bool yes;
            TRY(acceptable(&yes, m, offer[i], p->type));
            int before = m->n;
            if (!yes) continue;
            if (finish_plan(m, workspace, &offer[i], c)) {
                snprintf(why, sizeof why, ": %.120s", status_message());
            } else if (!left--) return OK;
            cut_back(m, before);
        }
    }
    return FAIL(ERR_DEVICE, "cuDNN: no plan %d for this shape%s", which, why);
}

static Status plan(void **out, size_t *workspace, const Product *p, int which, void *context)
{
    DnnPlan *m = (DnnPlan *)calloc(1, sizeof *m);
    *out = NULL;
    if (!m) return FAIL(ERR_SPACE, "no memory for a plan");
    Status s = complete(m, workspace, p, which, (DnnContext *)context);
    if (s) forget(m);
    else *out = m;
    return s;
}

static Status run(void *plan, size_t, const Product *p, void *workspace, void *context, void *)
{
    bool fwd = p->pass == GEMM_FWD, dw = p->pass == GEMM_DW;
    const void *x = fwd ? p->a : dw ? p->b : p->out;
    int64_t names[R] = {X, W, Y}, n = 3;
    const void *at[R] = {x, dw ? p->out : p->b, fwd ? p->out : p->a};
    if (p->bias) names[n] = BIAS, at[n++] = p->bias;
    if (p->after.v) names[n] = V, at[n++] = p->after.v;
    if (p->after.r) names[n] = R, at[n++] = p->after.r;
    Part pack;
    TRY(said(dnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack),
             "run"));
    Status s = set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, names);
    if (!s) s = set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, at);
    if (!s) s = set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (!s) s = finish(pack);
    if (!s)
        s = said(
            dnn.cudnnBackendExecute(((DnnContext *)context)->handle, ((DnnPlan *)plan)->plan, pack),
            "run");
    dnn.cudnnBackendDestroyDescriptor(pack);
    return s;
}

/* ---- contexts ----------------------------------------------------------------------------- */

static void close(void *context)
{
    DnnContext *c = (DnnContext *)context;
    if (c && c->handle) dnn.cudnnDestroy(c->handle);
    if (c && c->device) dnn.cudnnBackendDestroyDescriptor(c->device);
    free(c);
}

static Status open(void **context, void *stream)
{
    *context = NULL;
    TRY(need());
    DnnContext *c = (DnnContext *)calloc(1, sizeof *c);
    if (!c) return FAIL(ERR_SPACE, "no memory for cuDNN");
    Status s = said(dnn.cudnnCreate(&c->handle), "start");
    if (!s) s = said(dnn.cudnnSetStream(c->handle, (cudaStream_t)stream), "stream");
    if (s) close(c);
    else *context = c;
    return s;
}

Status cudnn_open_described(void **context, const char *json)
{
    *context = NULL;
    TRY(need());
    DnnContext *c = (DnnContext *)calloc(1, sizeof *c);
    if (!c) return FAIL(ERR_SPACE, "no memory for cuDNN");
    Status s =
        said(dnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &c->device),
             "device");
    if (!s)
        s = set(c->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                (int64_t)strlen(json) + 1, json);
    if (!s) s = finish(c->device);
    if (s) close(c);
    else *context = c;
    return s;
}
#else
#define ABSENT "no cuDNN: this program was built without headers of 9.8 or later"
#include "library_absent.h"
Status cudnn_open_described(void **, const char *) { return absent(); }
#endif

const Library library_cudnn = {"cudnn", "cuDNN", MOST, plan, run, forget, open, close, version};
