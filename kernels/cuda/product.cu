/* product.cu - convolutions and linear layers: who computes them. See kernels_choice.h.
 *
 * A stream keeps a list of what it has decided, by key. Measuring runs the candidates where the
 * result belongs, one after another, and the winner last; a library's result must agree with ours
 * first.
 */
#include "device.cuh"
#include "kernels_choice.h"
#include "product.h"
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

static const Library *const libraries[] = {&library_cublaslt, &library_cudnn};
enum { LIBRARIES = sizeof libraries / sizeof *libraries, MOST_CANDIDATES = MOST_PLANS + 8 };

/* One way to compute a product. */
struct Way {
    int library;  /* of libraries[]; -1: ours */
    GemmPlan cut; /* of ours; 0 splits: as gemm_conv() cuts it, whatever the number of images */
    int which;    /* of a library's plans */
    void *plan;   /* owned: a library's; made when first run */
    size_t workspace;
};

struct Decision {
    Choice choice;
    Way way;
    bool used;
};

struct Choices {
    Choosing how;
    char only[16];
    bool gradients;
    Decision *made; /* owned */
    int n, room;
    void *context[LIBRARIES]; /* owned: opened when first wanted */
    bool shut[LIBRARIES];     /* it would not open */
    char trouble[256]; /* the first since it was told */
    bool told;
};

/* ---- names -------------------------------------------------------------------------------- */

static const struct {
    int m, n;
} tile_size[] = {
#define SIZE(m, n, wm, wn, stages, blocks, rate) {m, n},
    GEMM_TILES(SIZE)
#undef SIZE
};

static void name_of(char name[24], const Way *w)
{
    if (w->library >= 0) snprintf(name, 24, "%s/%d", libraries[w->library]->name, w->which);
    else if (!w->cut.splits) snprintf(name, 24, "ours");
    else
        snprintf(name, 24, "%dx%d/%d", tile_size[w->cut.tile].m, tile_size[w->cut.tile].n,
                 w->cut.splits);
}

static bool way_of(Way *w, const char *name)
{
    const char *slash = strchr(name, '/');
    int number = slash ? atoi(slash + 1) : 0;
    char again[24];
    *w = {-1, {TILE_64x64, number}, number, NULL, 0};
    for (int i = 0; i < LIBRARIES; i++)
        if (slash && !strncmp(name, libraries[i]->name, (size_t)(slash - name))) w->library = i;
    for (int i = 0; i < TILE_COUNT; i++) {
        snprintf(again, sizeof again, "%dx%d/%d", tile_size[i].m, tile_size[i].n, number);
        if (!strcmp(again, name)) w->cut.tile = (GemmTile)i;
    }
    name_of(again, w);
    return !strcmp(again, name) && number >= 0 && (w->library >= 0 || number <= MOST_SPLITS);
}

static const char NO_IMAGES[] = " one "; /* in a key */

/* counted: n, or the rows of a linear layer, stand in the key. What follows stands at the end. */
static void key_of(char key[MOST_KEY], const Product *p, bool counted)
{
    static const char *const pass[] = {"fwd", "dx", "dw"}, *const act[] = {"", " silu", " relu"};
    const ConvShape *s = &p->shape;
    char images[16], shape[72];
    snprintf(images, sizeof images, "%s", NO_IMAGES);
    if (counted) snprintf(images, sizeof images, " %d ", p->rows ? s->w : s->n);
    char of[24] = "";
    if (p->a2) snprintf(of, sizeof of, " join %d", p->c1);
    if (p->rows) snprintf(shape, sizeof shape, "rows %d-%d", s->c, s->k);
    else if (p->upsampled) snprintf(shape, sizeof shape, "up %dx%dx%d-%d", s->h, s->w, s->c, s->k);
    else
        snprintf(shape, sizeof shape, "%dx%dx%d-%d %dx%d/%d %d,%d,%d,%d", s->h, s->w, s->c, s->k,
                 s->r, s->s, s->stride, s->top, s->left, s->bottom, s->right);
    snprintf(key, MOST_KEY, "%s %s%s%s%s%s%s%s%s%s", pass[p->pass],
             p->type == DTYPE_BF16 ? "bf16" : "fp32", p->bias ? " bias" : "", images, shape, of,
             p->after.v ? " +v" : "", act[p->after.act], p->after.r ? " +r" : "",
             p->geglu ? " geglu" : "");
}

static Decision *find(Choices *c, const char *key)
{
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->made[i].choice.key, key)) return &c->made[i];
    return NULL;
}

/* ---- running ------------------------------------------------------------------------------ */

/* No library reads two tensors or an image before its upsampling, or gates its result. */
static bool is_ours(const Product *p) { return p->a2 || p->upsampled || p->geglu; }

static Status ours(const Product *p, const GemmPlan *cut, Stream *s)
{
    if (p->a2)
        return gemm_joined(p->out, p->a, p->a2, p->c1, p->b, p->bias, &p->after, &p->shape, cut,
                           p->type, s);
    if (p->geglu) return gemm_geglu(p->out, p->a, p->b, p->bias, &p->shape, cut, p->type, s);
    if (p->upsampled)
        return gemm_upsampled(p->out, p->a, p->b, p->bias, &p->after, &p->shape, cut, p->type, s);
    return gemm_conv(p->pass, p->out, p->a, p->b, p->bias, &p->after, &p->shape, cut, p->type, s);
}

static Status open_library(int i, Stream *s)
{
    Choices *c = s->choices;
    if (c->context[i]) return OK;
    if (c->shut[i]) return FAIL(ERR_DEVICE, "no %s", libraries[i]->title);
    Status st = libraries[i]->open(&c->context[i], s->handle);
    c->shut[i] = st != OK;
    return st;
}

static Status run(const Product *p, Way *w, Stream *s)
{
    if (w->library < 0) return ours(p, w->cut.splits ? &w->cut : NULL, s);
    const Library *l = libraries[w->library];
    void *workspace = NULL;
    if (is_ours(p)) return FAIL(ERR_BUG, "%s: not a product that libraries know", l->title);
    TRY(open_library(w->library, s));
    void *context = s->choices->context[w->library];
    if (!w->plan) TRY(l->plan(&w->plan, &w->workspace, p, w->which, context));
    if (w->workspace && !(workspace = stream_scratch(s, w->workspace)))
        return FAIL(ERR_SPACE, "no memory for %s: %zu bytes", l->title, w->workspace);
    return l->run(w->plan, w->workspace, p, workspace, context, s->handle);
}

static void drop(Way *w)
{
    if (w->library >= 0) libraries[w->library]->forget(w->plan);
    w->plan = NULL;
}

static void complain(Choices *c, const char *key)
{
    if (*c->trouble && !c->told) return; /* one line is enough */
    c->told = false;
    snprintf(c->trouble, sizeof c->trouble, "%s: %.150s; ours is used", key, status_message());
}

/* ---- measuring ---------------------------------------------------------------------------- */

/* worst[0] = largest |a|, worst[1] = largest |a - b| - relative * |a|, as bits of floats from 0 on
 */
template <class T>
static __global__ void differ_kernel(int *worst, const T *a, const T *b, size_t count,
                                     float relative)
{
    size_t step = (size_t)gridDim.x * blockDim.x;
    float top = 0, off = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        float x = fabsf(to_float(a[i])), d = fabsf(to_float(a[i]) - to_float(b[i]));
        top = fmaxf(top, x);
        off = fmaxf(off, d <= 3e38f ? d - relative * x : 3e38f);
    }
    atomicMax(&worst[0], __float_as_int(top));
    atomicMax(&worst[1], __float_as_int(off));
}

static size_t count_out(const Product *p)
{
    const ConvShape *s = &p->shape;
    size_t h = (size_t)conv_out(s->h, s->top, s->bottom, s->r, s->stride);
    size_t w = (size_t)conv_out(s->w, s->left, s->right, s->s, s->stride);
    if (p->upsampled) h = 2 * (size_t)s->h, w = 2 * (size_t)s->w;
    if (p->pass == GEMM_DW) return (size_t)s->k * (size_t)s->r * (size_t)s->s * (size_t)s->c;
    return p->pass == GEMM_DX ? product_rows(s) * (size_t)s->c
                              : (size_t)s->n * h * w * (size_t)(p->geglu ? s->k / 2 : s->k);
}

static Dtype type_out(const Product *p) { return p->pass == GEMM_DW ? DTYPE_F32 : p->type; }

/* Two right results differ by what sums of so many terms in fp32 may, and by their last rounding.
 * Tensor cores cut what is added off: for bf16 in, up to 2^-8 of the largest. */
static Status agrees(bool *yes, const Product *p, const void *kept, int *worst, Stream *s)
{
    size_t count = count_out(p), terms = p->pass == GEMM_FWD  ? (size_t)p->shape.c
                                         : p->pass == GEMM_DX ? (size_t)p->shape.k
                                                              : product_rows(&p->shape);
    if (p->pass != GEMM_DW) terms *= (size_t)p->shape.r * (size_t)p->shape.s;
    bool half = type_out(p) == DTYPE_BF16;
    unsigned blocks = sweep_blocks(count, 256);
    float found[2],
        bound = p->type == DTYPE_BF16 ? 0x1p-8f : 16 * 0x1p-24f * (1 + sqrtf((float)terms));
    cudaMemsetAsync(worst, 0, sizeof found, s->handle);
    if (half)
        differ_kernel<bf16><<<blocks, 256, 0, s->handle>>>(worst, (const bf16 *)kept,
                                                           (const bf16 *)p->out, count, 0x1p-7f);
    else
        differ_kernel<float><<<blocks, 256, 0, s->handle>>>(worst, (const float *)kept,
                                                            (const float *)p->out, count, 0);
    TRY(launched("compare"));
    cudaMemcpyAsync(found, worst, sizeof found, cudaMemcpyDeviceToHost, s->handle);
    cudaStreamSynchronize(s->handle);
    *yes = found[1] <= bound * found[0];
    return launched("compare");
}

struct Trial {
    Way way[MOST_CANDIDATES];
    float us[MOST_CANDIDATES]; /* infinite: it cannot */
    int n;
    cudaEvent_t begin, end;
    void *kept; /* our result, and behind it room for two numbers */
};

static Status clock(float *us, const Product *p, Way *w, int times, const Trial *t, Stream *s)
{
    cudaEventRecord(t->begin, s->handle);
    for (int i = 0; i < times; i++) TRY(run(p, w, s));
    cudaEventRecord(t->end, s->handle);
    cudaEventSynchronize(t->end);
    cudaEventElapsedTime(us, t->begin, t->end);
    *us *= 1e3f / (float)times;
    return launched("measure");
}

/* Once to be ready, once to know how often, then as the mean. */
static Status measure(float *us, const Product *p, Way *w, const Trial *t, Stream *s)
{
    *us = INFINITY;
    TRY(run(p, w, s));
    TRY(clock(us, p, w, 1, t, s));
    return clock(us, p, w, *us < 500 ? 10 : 2, t, s);
}

static Status list_ways(Trial *t, const Product *p, const Choices *c)
{
    GemmPlan cut[MOST_PLANS];
    TRY(gemm_plans(&t->n, p->pass, &p->shape, p->c1, p->upsampled, p->type, cut));
    for (int i = 0; i < t->n; i++) t->way[i] = {-1, cut[i], 0, NULL, 0};
    bool ours_only = !c->gradients || is_ours(p);
    for (int l = 0; l < LIBRARIES && !ours_only; l++)
        for (int k = 0; k < libraries[l]->most && t->n < MOST_CANDIDATES; k++)
            t->way[t->n++] = {l, {TILE_64x64, 0}, k, NULL, 0};
    return OK;
}

/* The fastest of those whose result agrees with ours. */
static Status pick(int *best, Trial *t, const Product *p, const char *key, Stream *s)
{
    size_t bytes = (count_out(p) * dtype_bytes(type_out(p)) + 255) / 256 * 256;
    for (;;) {
        bool right = true;
        *best = 0;
        for (int i = 1; i < t->n; i++)
            if (t->us[i] < t->us[*best]) *best = i;
        TRY(run(p, &t->way[*best], s));
        if (t->way[*best].library < 0) return OK;
        TRY(agrees(&right, p, t->kept, (int *)((char *)t->kept + bytes), s));
        if (right) return OK;
        FAIL(ERR_NUMERIC, "%s: another result than ours", libraries[t->way[*best].library]->title);
        complain(s->choices, key);
        t->us[*best] = INFINITY;
    }
}

static Status try_all(int *best, Trial *t, const Product *p, const char *key, Stream *s)
{
    size_t bytes = count_out(p) * dtype_bytes(type_out(p));
    TRY(list_ways(t, p, s->choices));
    cudaEventCreate(&t->begin);
    cudaEventCreate(&t->end);
    if (cudaMalloc(&t->kept, (bytes + 255) / 256 * 256 + 2 * sizeof(float)) != cudaSuccess)
        while (t->way[t->n - 1].library >= 0) t->n--; /* nothing to compare with */
    TRY((cudaGetLastError(), measure(&t->us[0], p, &t->way[0], t, s)));
    if (t->kept) cudaMemcpyAsync(t->kept, p->out, bytes, cudaMemcpyDeviceToDevice, s->handle);
    for (int i = 1; i < t->n; i++) {
        Status st = measure(&t->us[i], p, &t->way[i], t, s);
        if (st && t->way[i].library < 0) return st;
        if (st) t->us[i] = INFINITY;
    }
    return pick(best, t, p, key, s);
}

static Status fastest(Way *w, float *us, const Product *p, const char *key, Stream *s)
{
    Trial t = {};
    int best = 0;
    Status st = try_all(&best, &t, p, key, s);
    for (int i = 0; i < t.n; i++)
        if (st || i != best) drop(&t.way[i]);
    *w = t.way[best];
    *us = t.us[best];
    if (t.begin) cudaEventDestroy(t.begin);
    if (t.end) cudaEventDestroy(t.end);
    cudaFree(t.kept);
    return st;
}

/* ---- the door ----------------------------------------------------------------------------- */

static const Way as_predicted = {-1, {TILE_64x64, 0}, 0, NULL, 0};

static Decision *keep(Choices *c, const char *key, const Way *w, float us)
{
    if (c->n == c->room) {
        c->room = 2 * c->room + 64;
        c->made = (Decision *)realloc(c->made, (size_t)c->room * sizeof *c->made);
        CHECK(c->made);
    }
    Decision *d = &c->made[c->n++];
    *d = {};
    snprintf(d->choice.key, sizeof d->choice.key, "%s", key);
    d->choice.us = us;
    d->way = *w;
    name_of(d->choice.name, w);
    return d;
}

static Status decide(Decision **d, const Product *p, const char *key, Stream *s)
{
    Choices *c = s->choices;
    Way w = as_predicted;
    float us = 0;
    for (int i = 0; i < LIBRARIES; i++)
        if (!strcmp(c->only, libraries[i]->name)) w.library = i;
    if (!*c->only && c->how == CHOOSE_FASTEST) TRY(fastest(&w, &us, p, key, s));
    *d = keep(c, key, &w, us);
    return OK;
}

Status product_run(const Product *p, Stream *s)
{
    Choices *c = s->choices;
    if (!c || (c->how == CHOOSE_OURS && !*c->only)) return ours(p, NULL, s);
    char key[MOST_KEY];
    key_of(key, p, c->gradients || *c->only); /* a library's plan is of a number of images */
    Decision *d = find(c, key);
    if (!d) {
        cudaStreamCaptureStatus recorded = cudaStreamCaptureStatusNone;
        cudaStreamIsCapturing(s->handle, &recorded);
        if (recorded != cudaStreamCaptureStatusNone) return ours(p, NULL, s);
        TRY(decide(&d, p, key, s));
    }
    d->used = true;
    Status st = run(p, &d->way, s);
    if (!st || (d->way.library < 0 && !d->way.cut.splits)) return st;
    if (st != ERR_BUG || !*c->only) complain(c, key); /* what it does not take is no trouble */
    drop(&d->way);
    d->way = as_predicted;
    d->choice.us = 0;
    name_of(d->choice.name, &d->way);
    return ours(p, NULL, s);
}

void cuda_choose(Stream *s, Choosing how, const char *only)
{
    if (!s->choices) s->choices = (Choices *)calloc(1, sizeof *s->choices);
    CHECK(s->choices);
    while (s->choices->n) drop(&s->choices->made[--s->choices->n].way);
    s->choices->how = how;
    *s->choices->trouble = 0;
    snprintf(s->choices->only, sizeof s->choices->only, "%s", only ? only : "");
}

void cuda_choose_for_gradients(Stream *s, bool gradients)
{
    if (s->choices) s->choices->gradients = gradients;
}

bool cuda_choice_add(Stream *s, const Choice *c)
{
    Way w;
    if (!way_of(&w, c->name)) return false;
    if (w.library >= 0 && strstr(c->key, NO_IMAGES)) return false;
    if (s && !find(s->choices, c->key)) keep(s->choices, c->key, &w, c->us);
    return true;
}

bool cuda_choice_used(const Stream *s, int i, Choice *out)
{
    const Choices *c = s->choices;
    for (int k = 0; c && k < c->n; k++)
        if (c->made[k].used && !i--) {
            *out = c->made[k].choice;
            return true;
        }
    return false;
}

const char *cuda_choice_trouble(Stream *s)
{
    Choices *c = s->choices;
    if (!c || !*c->trouble || c->told) return NULL;
    c->told = true;
    return c->trouble;
}

void cuda_library_versions(char text[96], const char **why)
{
    static char missing[256];
    size_t v;
    int n = 0;
    *missing = 0;
    for (const Library *l : libraries) {
        if (l->version(&v)) snprintf(missing, sizeof missing, "%s", status_message());
        else
            n += snprintf(text + n, (size_t)(96 - n), "%s%s %zu.%zu.%zu", n ? ", " : "", l->title,
                          v / 10000, v / 100 % 100, v % 100);
    }
    text[n] = 0;
    *why = missing;
}

void choices_free(Choices *c)
{
    if (!c) return;
    for (int i = 0; i < c->n; i++) drop(&c->made[i].way);
    for (int i = 0; i < LIBRARIES; i++) libraries[i]->close(c->context[i]);
    free(c->made);
    free(c);
}
