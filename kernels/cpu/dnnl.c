/* dnnl.c - oneDNN's engine, stream and primitives, made once per shape (prims.h).
 *
 * Activations are NHWC, our weights [k,r,s,c] ("ohwi"); the primitive chooses its own layout of
 * the weights ("any": plain layouts cost up to three quarters of the speed), and a reorder
 * stands between.
 */
#include "dnnl_versions.h"
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { X, W, Y, N_ARG }; /* operands: x, weights, y; of a product: left, right, y */

typedef struct {
    enum { CONV_DX, CONV_DW, MATMUL } kind;
    int add, threads;
    int size[12];
} PrimKey;

typedef struct {
    PrimKey key;
    dnnl_primitive_t run, reorder; /* reorder: NULL where our weights are used as they are */
    dnnl_memory_t arg[N_ARG];      /* as the caller has them                               */
    dnnl_memory_t packed, pad;     /* weights in the primitive's layout; its scratchpad    */
    size_t packed_bytes, pad_bytes;
    size_t apart; /* floats of the result where we add it ourselves, else 0 */
    bool by_row;  /* of a product: a row has the same bits in any number of them */
} Prim;

struct Dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t attr; /* scratchpad from the caller */
    Prim **slot;                /* hash table, open addressing, at most half full */
    size_t n, cap;
};

static Status failed(dnnl_status_t code, const char *what)
{
    if (code == dnnl_out_of_memory) return FAIL(ERR_SPACE, "oneDNN: %s: out of memory", what);
    return FAIL(ERR_BUG, "oneDNN: %s: status %d", what, (int)code);
}
#define DO(call)                                                                                   \
    do {                                                                                           \
        dnnl_status_t code_ = (call);                                                              \
        if (code_) return failed(code_, #call);                                                    \
    } while (0)

/* ---- making ----------------------------------------------------------------------------- */

static void prim_free(Prim *p)
{
    if (!p) return;
    for (int i = 0; i < N_ARG; i++)
        if (p->arg[i]) dnnl_memory_destroy(p->arg[i]);
    if (p->packed) dnnl_memory_destroy(p->packed);
    if (p->pad) dnnl_memory_destroy(p->pad);
    if (p->reorder) dnnl_primitive_destroy(p->reorder);
    if (p->run) dnnl_primitive_destroy(p->run);
    free(p);
}

static const char *impl_of(dnnl_primitive_desc_t pd)
{
    const char *name = "";
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    return name;
}

/* The primitive of pd, whose operands the caller has as own[]. */
static Status prim_finish(Prim *p, dnnl_primitive_desc_t pd, const Desc own[N_ARG],
                          const struct Dnnl *d)
{
    DO(dnnl_primitive_create(&p->run, pd));
    p->by_row = !strncmp(impl_of(pd), "brg", 3);
    for (int i = 0; i < N_ARG; i++)
        DO(dnnl_memory_create(&p->arg[i], REF(own[i]), d->engine, DNNL_MEMORY_NONE));
    DescRef pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    p->pad_bytes = dnnl_memory_desc_get_size(pad);
    DO(dnnl_memory_create(&p->pad, pad, d->engine, DNNL_MEMORY_NONE));

    bool out = p->key.kind == CONV_DW;
    DescRef theirs = dnnl_primitive_desc_query_md(
        pd, out ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    if (dnnl_memory_desc_equal(theirs, REF(own[W]))) return OK;
    p->packed_bytes = dnnl_memory_desc_get_size(theirs);
    DO(dnnl_memory_create(&p->packed, theirs, d->engine, DNNL_MEMORY_NONE));
    dnnl_primitive_desc_t r;
    DescRef from = out ? theirs : REF(own[W]), to = out ? REF(own[W]) : theirs;
    DO(dnnl_reorder_primitive_desc_create(&r, from, d->engine, to, d->engine, NULL));
    dnnl_status_t code = dnnl_primitive_create(&p->reorder, r);
    dnnl_primitive_desc_destroy(r);
    return code ? failed(code, "reorder of weights") : OK;
}

static Status conv_make(Prim *p, const ConvShape *a, const struct Dnnl *d)
{
    int rows = conv_out(a->h, a->top, a->bottom, a->r, a->stride);
    int columns = conv_out(a->w, a->left, a->right, a->s, a->stride);
    const dnnl_dims_t x = {a->n, a->c, a->h, a->w}, w = {a->k, a->c, a->r, a->s};
    const dnnl_dims_t y = {a->n, a->k, rows, columns};
    const dnnl_dims_t w_strides = {a->r * a->s * a->c, 1, a->s * a->c, a->c};
    Desc own[N_ARG], any;
    memset(own, 0, sizeof own);
    memset(&any, 0, sizeof any);
    dnnl_primitive_desc_t pd = NULL, forward = NULL;
    dnnl_status_t code = desc_by_tag(&own[X], 4, x, dnnl_f32, dnnl_nhwc);
    if (!code) code = desc_by_strides(&own[W], 4, w, dnnl_f32, w_strides);
    if (!code) code = desc_by_tag(&own[Y], 4, y, dnnl_f32, dnnl_nhwc);
    if (!code) code = desc_by_tag(&any, 4, w, dnnl_f32, dnnl_format_tag_any);
    if (!code)
        code = forward_desc(&forward, a, REF(own[X]), REF(any), REF(own[Y]), d->attr, d->engine);
    if (!code)
        code = backward_desc(&pd, p->key.kind == CONV_DW, a, REF(own[X]), REF(any), REF(own[Y]),
                             forward, d->attr, d->engine);
    if (p->key.add) p->apart = (size_t)a->k * (size_t)(a->r * a->s) * (size_t)a->c;
    Status s = code ? failed(code, "convolution") : prim_finish(p, pd, own, d);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (forward) dnnl_primitive_desc_destroy(forward);
    for (int i = 0; i < N_ARG; i++) desc_free(&own[i]);
    desc_free(&any);
    return s;
}

static Status matmul_make(Prim *p, const MatmulShape *a, const struct Dnnl *d)
{
    const dnnl_dims_t x = {a->m, a->k}, w = {a->k, a->n}, y = {a->m, a->n};
    const dnnl_dims_t x_strides = {a->turned ? 1 : a->k, a->turned ? a->m : 1};
    Desc own[N_ARG];
    memset(own, 0, sizeof own);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t code = desc_by_strides(&own[X], 2, x, dnnl_f32, x_strides);
    if (!code) code = desc_by_tag(&own[W], 2, w, dnnl_f32, dnnl_ab);
    if (!code) code = desc_by_tag(&own[Y], 2, y, dnnl_f32, dnnl_ab);
    if (!code)
        code = matmul_desc(&pd, REF(own[X]), REF(own[W]), REF(own[Y]), d->attr, d->engine);
    Status s = code ? failed(code, "matrix product") : prim_finish(p, pd, own, d);
    if (pd) dnnl_primitive_desc_destroy(pd);
    for (int i = 0; i < N_ARG; i++) desc_free(&own[i]);
    return s;
}

/* ---- keeping ---------------------------------------------------------------------------- */

void dnnl_close(struct Dnnl *d)
{
    if (!d) return;
    for (size_t i = 0; i < d->cap; i++) prim_free(d->slot[i]);
    free(d->slot);
    if (d->attr) dnnl_primitive_attr_destroy(d->attr);
    if (d->stream) dnnl_stream_destroy(d->stream);
    if (d->engine) dnnl_engine_destroy(d->engine);
    free(d);
}

static Status dnnl_open(Stream *s)
{
    if (s->dnnl) return OK;
    s->dnnl = calloc(1, sizeof *s->dnnl);
    if (!s->dnnl) return FAIL(ERR_SPACE, "no memory for oneDNN");
    struct Dnnl *d = s->dnnl;
    DO(dnnl_engine_create(&d->engine, dnnl_cpu, 0));
    DO(dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags));
    DO(dnnl_primitive_attr_create(&d->attr));
    DO(dnnl_primitive_attr_set_scratchpad_mode(d->attr, dnnl_scratchpad_mode_user));
    return OK;
}

/* Where the key is, or the empty slot where it belongs. */
static Prim **place(Prim **slot, size_t cap, const PrimKey *key)
{
    uint64_t hash = 14695981039346656037u;
    const unsigned char *byte = (const unsigned char *)key;
    for (size_t i = 0; i < sizeof *key; i++) hash = (hash ^ byte[i]) * 1099511628211u;
    size_t at = (size_t)(hash ^ hash >> 32) & (cap - 1);
    while (slot[at] && memcmp(&slot[at]->key, key, sizeof *key)) at = (at + 1) & (cap - 1);
    return &slot[at];
}

static Status grow(struct Dnnl *d)
{
    if (2 * (d->n + 1) <= d->cap) return OK;
    size_t cap = d->cap ? 2 * d->cap : 64;
    Prim **slot = calloc(cap, sizeof *slot);
    if (!slot) return FAIL(ERR_SPACE, "no memory for a table of primitives");
    for (size_t i = 0; i < d->cap; i++)
        if (d->slot[i]) *place(slot, cap, &d->slot[i]->key) = d->slot[i];
    free(d->slot);
    d->slot = slot;
    d->cap = cap;
    return OK;
}

static Status prim_get(Prim **out, PrimKey key, const ConvShape *conv, const MatmulShape *matmul,
                       Stream *s)
{
    TRY(dnnl_open(s));
    TRY(grow(s->dnnl));
    key.threads = omp_get_max_threads(); /* a primitive is planned for a number of threads */
    Prim **at = place(s->dnnl->slot, s->dnnl->cap, &key);
    if (!*at) {
        Prim *p = calloc(1, sizeof *p);
        if (!p) return FAIL(ERR_SPACE, "no memory for a primitive");
        p->key = key;
        Status failure = conv ? conv_make(p, conv, s->dnnl) : matmul_make(p, matmul, s->dnnl);
        if (failure) {
            prim_free(p);
            return failure;
        }
        *at = p;
        s->dnnl->n++;
    }
    *out = *at;
    return OK;
}

/* ---- running ---------------------------------------------------------------------------- */

static Status point_to(dnnl_memory_t m, void *data)
{
    void *now = NULL;
    DO(dnnl_memory_get_data_handle(m, &now));
    if (now != data) DO(dnnl_memory_set_data_handle(m, data));
    return OK;
}

static void add_to(float *y, const float *x, size_t n)
{
#pragma omp parallel for if (n >= PARALLEL_MIN)
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

static Status prim_run(Prim *p, void *const data[N_ARG], Stream *s)
{
    bool dx = p->key.kind == CONV_DX, dw = p->key.kind == CONV_DW;
    size_t packed = (p->packed_bytes + 63) / 64 * 64, sums = (p->apart + 15) / 16 * 64;
    size_t bytes = packed + sums + p->pad_bytes + 64;
    char *room = stream_scratch(s, bytes);
    if (!room) return FAIL(ERR_SPACE, "no memory for %zu bytes of scratch", bytes);
    for (int i = 0; i < N_ARG; i++) TRY(point_to(p->arg[i], data[i]));
    if (p->packed) TRY(point_to(p->packed, room));
    float *own = (float *)(void *)(room + packed);
    if (p->apart) TRY(point_to(p->arg[W], own));
    TRY(point_to(p->pad, room + packed + sums));

    dnnl_exec_arg_t from_to[] = {{DNNL_ARG_FROM, dw ? p->packed : p->arg[W]},
                                 {DNNL_ARG_TO, dw ? p->arg[W] : p->packed}};
    dnnl_exec_arg_t arg[] = {
        {dx ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, p->arg[X]},
        {dw ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, p->packed ? p->packed : p->arg[W]},
        {dx || dw ? DNNL_ARG_DIFF_DST : DNNL_ARG_DST, p->arg[Y]},
        {DNNL_ARG_SCRATCHPAD, p->pad}};
    if (p->reorder && !dw) DO(dnnl_primitive_execute(p->reorder, s->dnnl->stream, 2, from_to));
    DO(dnnl_primitive_execute(p->run, s->dnnl->stream, 4, arg));
    if (p->reorder && dw) DO(dnnl_primitive_execute(p->reorder, s->dnnl->stream, 2, from_to));
    DO(dnnl_stream_wait(s->dnnl->stream));
    if (p->apart) add_to(data[W], own, p->apart);
    return OK;
}

/* ---- calls ------------------------------------------------------------------------------ */

static Status conv_get(Prim **p, PrimKey key, const ConvShape *a, Stream *s)
{
    _Static_assert(sizeof *a <= sizeof key.size, "a shape is a key");
    memcpy(key.size, a, sizeof *a);
    return prim_get(p, key, a, NULL, s);
}

Status prim_conv_dx(const ConvShape *a, float *dx, const float *dy, const float *w, Stream *s)
{
    Prim *p;
    TRY(conv_get(&p, (PrimKey){.kind = CONV_DX}, a, s));
    return prim_run(p, (void *[]){dx, (void *)w, (void *)dy}, s);
}

Status prim_conv_dw(const ConvShape *a, float *dw, const float *dy, const float *x, bool add,
                    Stream *s)
{
    Prim *p;
    TRY(conv_get(&p, (PrimKey){.kind = CONV_DW, .add = add}, a, s));
    return prim_run(p, (void *[]){(void *)x, dw, (void *)dy}, s);
}

static Status matmul_get(Prim **p, const MatmulShape *a, Stream *s)
{
    PrimKey key = {.kind = MATMUL, .size = {a->m, a->n, a->k, a->turned}};
    return prim_get(p, key, NULL, a, s);
}

Status prim_matmul(const MatmulShape *a, const float *left, const float *right, float *y, Stream *s)
{
    Prim *p;
    TRY(matmul_get(&p, a, s));
    return prim_run(p, (void *[]){(void *)left, (void *)right, y}, s);
}

Status prim_matmul_by_row(const MatmulShape *a, bool *yes, Stream *s)
{
    Prim *p;
    TRY(matmul_get(&p, a, s));
    *yes = p->by_row;
    return OK;
}
