/* safetensors_write.c - the header first, then every tensor at its place. */
#include "weights/half.h"
#include "weights/json_text.h"
#include "weights/safetensors.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 4096 };

struct SafeSlot {
    char *name; /* owned */
    SafeDtype dtype;
    uint64_t begin, bytes; /* begin: in the data, then in the file */
};

/* Larger elements first: offsets then divide by their element size without padding. */
static void lay_out(SafeSlot *slot, int n)
{
    uint64_t at = 0;
    for (int bits = 64; bits >= 8; bits /= 2)
        for (int i = 0; i < n; i++)
            if (safe_dtype_bits(slot[i].dtype) == bits) {
                slot[i].begin = at;
                at += slot[i].bytes;
            }
}

static json_t *entry_json(const SafeSpec *spec, const SafeSlot *slot)
{
    json_t *shape = json_array();
    for (int i = 0; i < spec->ndim; i++) json_array_append_new(shape, json_integer(spec->dim[i]));
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", safe_dtype_name(spec->dtype), "shape", shape,
                     "data_offsets", (json_int_t)slot->begin,
                     (json_int_t)(slot->begin + slot->bytes));
}

/* The header's text, padded so that the data begin at a multiple of 8; NULL on a bad name. */
static char *header_text(size_t *length, const SafeSlot *slot, int n, const SafeSpec *spec,
                         int n_meta, const SafeMeta *meta)
{
    json_t *header = json_object(), *about = json_object();
    bool good = true;
    for (int i = 0; i < n_meta; i++)
        good &= !json_object_set_new(about, meta[i].key, json_string(meta[i].value));
    if (n_meta) json_object_set(header, "__metadata__", about);
    for (int i = 0; i < n; i++)
        good &= !json_object_get(header, spec[i].name) &&
                !json_object_set_new(header, spec[i].name, entry_json(&spec[i], &slot[i]));
    char *text = good ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(about);
    json_decref(header);
    if (!text) return NULL;
    size_t bare = strlen(text);
    *length = (bare + 7) / 8 * 8;
    text = realloc(text, *length + 1);
    CHECK(text);
    memset(text + bare, ' ', *length - bare);
    return text;
}

static Status write_header(SafeWriter *w, const SafeSpec *spec, int n_meta, const SafeMeta *meta)
{
    size_t length;
    char *text = header_text(&length, w->slot, w->n, spec, n_meta, meta);
    if (!text)
        return FAIL(ERR_BUG,
                    "%s: found a tensor name twice or text that is no UTF-8, expected neither",
                    w->out.path);
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)((uint64_t)length >> 8 * i);
    Status s = out_write(&w->out, prefix, sizeof prefix);
    if (!s) s = out_write(&w->out, text, length);
    free(text);
    for (int i = 0; i < w->n; i++) w->slot[i].begin += sizeof prefix + length;
    return s;
}

Status st_write_begin(SafeWriter *w, const char *path, int n, const SafeSpec *spec, int n_meta,
                      const SafeMeta *meta)
{
    *w = (SafeWriter){.n = n, .slot = calloc((size_t)n + 1, sizeof *w->slot)};
    CHECK(w->slot);
    for (int i = 0; i < n; i++) {
        uint64_t bytes = (uint64_t)safe_dtype_bits(spec[i].dtype) / 8;
        CHECK(bytes && spec[i].ndim <= SAFE_MAX_DIMS);
        for (int d = 0; d < spec[i].ndim; d++) bytes *= (uint64_t)spec[i].dim[d];
        w->slot[i] =
            (SafeSlot){.name = strdup(spec[i].name), .dtype = spec[i].dtype, .bytes = bytes};
    }
    lay_out(w->slot, n);
    Status s = out_open(&w->out, path);
    if (!s) s = write_header(w, spec, n_meta, meta);
    if (s) st_write_abandon(w);
    return s;
}

/* The tensor that takes the next value: empty ones have none. */
static SafeSlot *current(SafeWriter *w)
{
    while (w->now < w->n && w->done == w->slot[w->now].bytes) {
        w->now++;
        w->done = 0;
    }
    return w->now < w->n ? &w->slot[w->now] : NULL;
}

Status st_write_bytes(SafeWriter *w, const void *v, size_t bytes)
{
    if (!bytes) return OK;
    SafeSlot *slot = current(w);
    CHECK(slot && bytes <= slot->bytes - w->done);
    if (!w->done && fseeko(w->out.f, (off_t)slot->begin, SEEK_SET))
        return FAIL(errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? ERR_SPACE : ERR_INPUT,
                    "%s: cannot write it: %s", w->out.path, strerror(errno));
    TRY(out_write(&w->out, v, bytes));
    w->done += bytes;
    return OK;
}

static Status write_half(SafeWriter *w, const SafeSlot *slot, const float *v, size_t n)
{
    uint16_t half[PIECE];
    bool brain = slot->dtype == SAFE_BF16;
    unsigned infinity = brain ? 0x7f80 : 0x7c00;
    if (brain) float_to_bf16(half, v, n);
    else float_to_half(half, v, n);
    for (size_t i = 0; i < n; i++)
        if ((half[i] & 0x7fffu) == infinity && isfinite(v[i]))
            return FAIL(ERR_NUMERIC,
                        "%s: tensor \"%.200s\": found the value %g, expected %s's range of %s",
                        w->out.path, slot->name, (double)v[i], safe_dtype_name(slot->dtype),
                        brain ? "3.39e38" : "65504");
    return st_write_bytes(w, half, n * sizeof *half);
}

Status st_write_f32(SafeWriter *w, const float *v, size_t n)
{
    if (!n) return OK;
    const SafeSlot *slot = current(w);
    CHECK(slot && safe_dtype_kind(slot->dtype) == 'f' && slot->dtype != SAFE_F64);
    if (slot->dtype == SAFE_F32) return st_write_bytes(w, v, n * sizeof *v);
    for (size_t at = 0; at < n; at += PIECE)
        TRY(write_half(w, slot, v + at, n - at < PIECE ? n - at : PIECE));
    return OK;
}

Status st_write_i32(SafeWriter *w, const int32_t *v, size_t n)
{
    if (!n) return OK;
    const SafeSlot *slot = current(w);
    CHECK(slot && (slot->dtype == SAFE_I32 || slot->dtype == SAFE_I64));
    if (slot->dtype == SAFE_I32) return st_write_bytes(w, v, n * sizeof *v);
    for (size_t i = 0; i < n; i++) {
        int64_t wide = v[i];
        TRY(st_write_bytes(w, &wide, sizeof wide));
    }
    return OK;
}

Status st_write_commit(SafeWriter *w)
{
    CHECK(!current(w));
    Status s = out_commit(&w->out);
    st_write_abandon(w);
    return s;
}

void st_write_abandon(SafeWriter *w)
{
    out_abandon(&w->out);
    for (int i = 0; i < w->n; i++) free(w->slot[i].name);
    free(w->slot);
    *w = (SafeWriter){0};
}
