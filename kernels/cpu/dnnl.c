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

enum { X, W, B, Y, N_ARG }; /* operands: x, weights, bias, y; of a product: left, right, bias, y */

typedef struct {
    int kind; /* Pass, or MATMUL */
    int bias, threads;
    int of, add; /* Part; of is 0 for the whole */
    int size[12];
} PrimKey;
enum { MATMUL = PASS_DW + 1 };

typedef struct {
    PrimKey key;
    dnnl_primitive_t run, reorder; /* reorder: NULL where our weights are used as they are */
    dnnl_memory_t arg[N_ARG];      /* as the caller has them                               */
    dnnl_memory_t packed, pad;     /* weights in the primitive's layout; its scratchpad    */
    size_t packed_bytes, pad_bytes;
    size_t rows, c;                   /* of x where it must be gathered, else 0 */
    size_t apart;                     /* floats of the result where we add it ourselves, else 0 */
    enum { UNKNOWN, NO, YES } by_row; /* a row or image has the same bits in any number of them */
} Prim;

struct Dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t attr;   /* scratchpad from the caller */
    dnnl_primitive_attr_t adding; /* and y += */
    Prim **slot;                  /* hash table, open addressing, at most half full */
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
    if (p->key.kind == MATMUL) p->by_row = !strncmp(impl_of(pd), "brg", 3) ? YES : NO;
    for (int i = 0; i < N_ARG; i++)
        if (i != B || p->key.bias)
            DO(dnnl_memory_create(&p->arg[i], REF(own[i]), d->engine, DNNL_MEMORY_NONE));
    DescRef pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    p->pad_bytes = dnnl_memory_desc_get_size(pad);
    DO(dnnl_memory_create(&p->pad, pad, d->engine, DNNL_MEMORY_NONE));

    bool out = p->key.kind == PASS_DW;
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

/* Whether a primitive that adds into y has summed its own products before: others, those for AVX2 among
 * them, start from y, and their long sum is one. */
static bool sums_first(dnnl_primitive_desc_t pd) { return !strncmp(impl_of(pd), "brg", 3); }

static Status conv_make(Prim *p, const ConvShape *a, const struct Dnnl *d)
{
    int rows = conv_out(a->h, a->top, a->bottom, a->r, a->stride);
    int columns = conv_out(a->w, a->left, a->right, a->s, a->stride);
    const dnnl_dims_t x = {a->n, a->c, a->h, a->w}, w = {a->k, a->c, a->r, a->s}, b = {a->k};
    const dnnl_dims_t y = {a->n, a->k, rows, columns};
    Desc own[N_ARG], any;
    memset(own, 0, sizeof own);
    memset(&any, 0, sizeof any);
    dnnl_primitive_desc_t pd = NULL, forward = NULL;
    Pass pass = (Pass)p->key.kind;
    dnnl_dim_t of = p->key.of ? p->key.of : a->c;
    const dnnl_dims_t w_strides = {a->r * a->s * of, 1, a->s * of, of};
    dnnl_primitive_attr_t attr = p->key.add && pass == PASS_FWD ? d->adding : d->attr;
    dnnl_status_t code = desc_by_tag(&own[X], 4, x, dnnl_f32, dnnl_nhwc);
    if (!code) code = desc_by_strides(&own[W], 4, w, dnnl_f32, w_strides);
    if (!code) code = desc_by_tag(&own[B], 1, b, dnnl_f32, dnnl_a);
    if (!code) code = desc_by_tag(&own[Y], 4, y, dnnl_f32, dnnl_nhwc);
    if (!code) code = desc_by_tag(&any, 4, w, dnnl_f32, dnnl_format_tag_any);
    DescRef bias = p->key.bias ? REF(own[B]) : NULL;
    if (!code && pass != PASS_FWD)
        code = conv_desc(&forward, PASS_FWD, a, REF(own[X]), REF(any), bias, REF(own[Y]), NULL,
                         attr, d->engine);
    if (!code)
        code = conv_desc(&pd, pass, a, REF(own[X]), REF(any), bias, REF(own[Y]), forward, attr,
                         d->engine);
    if (pass == PASS_DW && p->key.add) {
        p->apart = (size_t)a->k * (size_t)(a->r * a->s) * (size_t)a->c;
    } else if (!code && p->key.add && !sums_first(pd)) {
        dnnl_primitive_desc_destroy(pd);
        pd = NULL;
        code = conv_desc(&pd, pass, a, REF(own[X]), REF(any), bias, REF(own[Y]), NULL, d->attr,
                         d->engine);
        p->apart = (size_t)(a->n * rows * columns) * (size_t)a->k;
    }
    if (p->key.of) {
        p->rows = (size_t)a->n * (size_t)a->h * (size_t)a->w;
        p->c = (size_t)a->c;
    }
    Status s = code ? failed(code, "convolution") : prim_finish(p, pd, own, d);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (forward) dnnl_primitive_desc_destroy(forward);
    for (int i = 0; i < N_ARG; i++) desc_free(&own[i]);
    desc_free(&any);
    return s;
}

static Status matmul_make(Prim *p, const MatmulShape *a, const struct Dnnl *d)
{
    const dnnl_dims_t x = {a->m, a->k}, w = {a->k, a->n}, b = {1, a->n}, y = {a->m, a->n};
    Desc own[N_ARG];
    memset(own, 0, sizeof own);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_dim_t of = p->key.of ? p->key.of : a->k;
    const dnnl_dims_t x_strides = {a->a_turned ? 1 : of, a->a_turned ? a->m : 1};
    const dnnl_dims_t w_strides = {a->b_turned ? 1 : a->n, a->b_turned ? of : 1};
    dnnl_status_t code = desc_by_strides(&own[X], 2, x, dnnl_f32, x_strides);
    if (!code) code = desc_by_strides(&own[W], 2, w, dnnl_f32, w_strides);
    if (!code) code = desc_by_tag(&own[B], 2, b, dnnl_f32, dnnl_ab);
    if (!code) code = desc_by_tag(&own[Y], 2, y, dnnl_f32, dnnl_ab);
    if (!code)
        code = matmul_desc(&pd, REF(own[X]), REF(own[W]), p->key.bias ? REF(own[B]) : NULL,
                           REF(own[Y]), p->key.add ? d->adding : d->attr, d->engine);
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
    if (d->adding) dnnl_primitive_attr_destroy(d->adding);
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
    DO(dnnl_primitive_attr_create(&d->adding));
    DO(dnnl_primitive_attr_set_scratchpad_mode(d->adding, dnnl_scratchpad_mode_user));
    dnnl_post_ops_t ops;
    DO(dnnl_post_ops_create(&ops));
    dnnl_status_t code = append_sum(ops);
    if (!code) code = dnnl_primitive_attr_set_post_ops(d->adding, ops);
    dnnl_post_ops_destroy(ops);
    return code ? failed(code, "sum into y") : OK;
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

/* to[rows, c] = the first c of the `of` channels from x on */
static void gather(float *to, const float *x, size_t rows, size_t c, size_t of)
{
#pragma omp parallel for if (rows * c >= PARALLEL_MIN)
    for (size_t r = 0; r < rows; r++) memcpy(to + r * c, x + r * of, c * sizeof *to);
}

static void add_to(float *y, const float *x, size_t n)
{
#pragma omp parallel for if (n >= PARALLEL_MIN)
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

static Status prim_run(Prim *p, void *const data[N_ARG], Stream *s)
{
    bool dx = p->key.kind == PASS_DX, dw = p->key.kind == PASS_DW;
    int result = dw ? W : Y; /* what is added up, where something is */
    size_t packed = (p->packed_bytes + 63) / 64 * 64, part = (p->rows * p->c + 15) / 16 * 64;
    size_t sums = (p->apart + 15) / 16 * 64, bytes = packed + part + sums + p->pad_bytes + 64;
    char *room = stream_scratch(s, bytes);
    if (!room) return FAIL(ERR_SPACE, "no memory for %zu bytes of scratch", bytes);
    for (int i = 0; i < N_ARG; i++)
        if (p->arg[i]) TRY(point_to(p->arg[i], data[i]));
    if (p->packed) TRY(point_to(p->packed, room));
    if (part) {
        float *x = (float *)(void *)(room + packed);
        gather(x, data[X], p->rows, p->c, (size_t)p->key.of);
        TRY(point_to(p->arg[X], x));
    }
    float *own = (float *)(void *)(room + packed + part);
    if (p->apart) TRY(point_to(p->arg[result], own));
    TRY(point_to(p->pad, room + packed + part + sums));

    dnnl_exec_arg_t from_to[] = {{DNNL_ARG_FROM, dw ? p->packed : p->arg[W]},
                                 {DNNL_ARG_TO, dw ? p->arg[W] : p->packed}};
    dnnl_exec_arg_t arg[] = {
        {dx ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, p->arg[X]},
        {dw ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, p->packed ? p->packed : p->arg[W]},
        {dx || dw ? DNNL_ARG_DIFF_DST : DNNL_ARG_DST, p->arg[Y]},
        {DNNL_ARG_SCRATCHPAD, p->pad},
        {DNNL_ARG_BIAS, p->arg[B]}};
    if (p->reorder && !dw) DO(dnnl_primitive_execute(p->reorder, s->dnnl->stream, 2, from_to));
    DO(dnnl_primitive_execute(p->run, s->dnnl->stream, p->arg[B] ? 5 : 4, arg));
    if (p->reorder && dw) DO(dnnl_primitive_execute(p->reorder, s->dnnl->stream, 2, from_to));
    DO(dnnl_stream_wait(s->dnnl->stream));
    if (p->apart) add_to(data[result], own, p->apart);
    return OK;
}

/* ---- long sums in parts ----------------------------------------------------------------- */

/* oneDNN adds the c * taps products of a forward pass one after the other to one fp32 number,
 * whose error grows with the square root of their number. Where there are more than WHOLE,
 * parts of the channels, alike in size and of about PART products, are added into y in order.
 * More parts cost time: each reads and writes y, and gathers its channels of x. */
enum { WHOLE = 400, PART = 288, CHANNELS = 16 /* the primitives' own steps */ };

typedef struct {
    int from, c, of; /* channels from..from+c-1; of: all there are, 0 where this is all */
} Part;

static Part part_from(int from, int c, int taps)
{
    int parts = c * taps <= WHOLE ? 1 : (c * taps + PART - 1) / PART;
    int most = parts > 1 ? (c + parts * CHANNELS - 1) / (parts * CHANNELS) * CHANNELS : c;
    return most >= c ? (Part){0, c, 0} : (Part){from, c - from < most ? c - from : most, c};
}

static Status conv_get(Prim **p, Pass pass, const ConvShape *a, Part part, bool bias, Stream *s)
{
    PrimKey key = {.kind = pass, .bias = bias && !part.from, .of = part.of, .add = part.from > 0};
    ConvShape shape = *a;
    shape.c = part.c;
    _Static_assert(sizeof shape <= sizeof key.size, "a shape is a key");
    memcpy(key.size, &shape, sizeof shape);
    return prim_get(p, key, &shape, NULL, s);
}

Status prim_conv_dw(const ConvShape *a, float *dw, const float *dy, const float *x, bool add,
                    Stream *s)
{
    Prim *p;
    PrimKey key = {.kind = PASS_DW, .add = add};
    memcpy(key.size, a, sizeof *a);
    TRY(prim_get(&p, key, a, NULL, s));
    return prim_run(p, (void *[]){(void *)x, dw, NULL, (void *)dy}, s);
}

Status prim_conv(Pass pass, const ConvShape *a, float *x, float *w, float *b, float *y, Stream *s)
{
    Prim *p;
    int taps = pass == PASS_FWD ? a->r * a->s : 0;
    for (Part part = {0}; part.from < a->c; part.from += part.c) {
        part = part_from(part.from, a->c, taps);
        TRY(conv_get(&p, pass, a, part, b != NULL, s));
        TRY(prim_run(p, (void *[]){x + part.from, w + part.from, b, y}, s));
    }
    return OK;
}

static Status matmul_get(Prim **p, const MatmulShape *a, Part part, bool bias, Stream *s)
{
    MatmulShape shape = *a;
    shape.k = part.c;
    return prim_get(p,
                    (PrimKey){.kind = MATMUL,
                              .bias = bias && !part.from,
                              .of = part.of,
                              .add = part.from > 0,
                              .size = {a->m, a->n, part.c, a->a_turned, a->b_turned}},
                    NULL, &shape, s);
}

static int matmul_taps(const MatmulShape *a) { return !a->a_turned && a->b_turned; }

Status prim_matmul(const MatmulShape *a, const float *left, const float *right, const float *bias,
                   float *y, Stream *s)
{
    Prim *p;
    for (Part part = {0}; part.from < a->k; part.from += part.c) {
        part = part_from(part.from, a->k, matmul_taps(a));
        TRY(matmul_get(&p, a, part, bias != NULL, s));
        TRY(prim_run(
            p, (void *[]){(void *)(left + part.from), (void *)(right + part.from), (void *)bias, y},
            s));
    }
    return OK;
}

/* ---- one image or many ------------------------------------------------------------------ */

Status prim_matmul_by_row(const MatmulShape *a, bool bias, bool *yes, Stream *s)
{
    Prim *p;
    *yes = true;
    for (Part part = {0}; *yes && part.from < a->k; part.from += part.c) {
        part = part_from(part.from, a->k, matmul_taps(a));
        TRY(matmul_get(&p, a, part, bias, s));
        *yes = p->by_row == YES;
    }
    return OK;
}

/* Numbers without pattern in (-1, 1): sums taken in another order then round otherwise. */
static void scatter(float *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t h = (uint32_t)i * 0x9e3779b9u;
        h = (h ^ h >> 15) * 0x85ebca6bu;
        h = (h ^ h >> 13) * 0xc2b2ae35u;
        v[i] = (float)(int32_t)(h ^ h >> 16) * 0x1p-31f;
    }
}

/* Whether p computes each of its images to the bit as a primitive for one image does. */
static Status compare_images(Prim *p, const ConvShape *a, Part part, Stream *s)
{
    Prim *single;
    ConvShape one = *a;
    one.n = 1;
    TRY(conv_get(&single, PASS_FWD, &one, part, p->key.bias, s));
    size_t n = (size_t)a->n, x = (size_t)a->h * (size_t)a->w * (size_t)a->c, k = (size_t)a->k;
    size_t w = k * (size_t)a->r * (size_t)a->s * (size_t)a->c;
    size_t y = (size_t)conv_out(a->h, a->top, a->bottom, a->r, a->stride) *
               (size_t)conv_out(a->w, a->left, a->right, a->s, a->stride) * k;
    float *v = aligned_alloc(64, ((n * x + w + k + n * y + y) * sizeof *v + 63) / 64 * 64);
    if (!v) return FAIL(ERR_SPACE, "no memory to compare %d images with one", a->n);
    float *weight = v + n * x, *bias = weight + w, *many = bias + k, *alone = many + n * y;
    scatter(v, n * x + w + k);
    memset(many, 0, (n + 1) * y * sizeof *v); /* a part adds to it */
    Status failure = prim_run(p, (void *[]){v, weight, bias, many}, s);
    p->by_row = YES;
    for (size_t i = 0; !failure && i < n && p->by_row == YES; i++) {
        memset(alone, 0, y * sizeof *v);
        failure = prim_run(single, (void *[]){v + i * x, weight, bias, alone}, s);
        if (memcmp(alone, many + i * y, y * sizeof *v)) p->by_row = NO;
    }
    free(v);
    return failure;
}

Status prim_conv_by_image(const ConvShape *a, bool bias, bool *yes, Stream *s)
{
    Prim *p;
    *yes = true;
    if (a->n == 1) return OK; /* the trial would run it twice more */
    for (Part part = {0}; *yes && part.from < a->c; part.from += part.c) {
        part = part_from(part.from, a->c, a->r * a->s);
        TRY(conv_get(&p, PASS_FWD, a, part, bias, s));
        if (p->by_row == UNKNOWN) TRY(compare_images(p, a, part, s));
        *yes = p->by_row == YES;
    }
    return OK;
}
