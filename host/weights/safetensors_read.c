/* safetensors_read.c - values of a tensor as floats or integers, through a small buffer, and the
 * comparison of a file with what a model needs. */
#include "base/text.h"
#include "weights/half.h"
#include "weights/safetensors.h"
#include <stdlib.h>
#include <string.h>

/* The format is little endian and so is every machine this is built for. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "values are copied as they lie in the file");

enum { PIECE = 1 << 14 }; /* elements a turn */

typedef union {
    double f64[PIECE];
    int64_t i64[PIECE];
    uint16_t u16[PIECE];
} Piece;

Status st_read_f32_part(const SafeFile *f, const SafeTensor *t, size_t first, size_t n, float *out)
{
    if (safe_dtype_kind(t->dtype) != 'f')
        return FAIL(ERR_INPUT,
                    "%s: tensor \"%.200s\": found dtype %s, expected F32, F16, BF16 or F64",
                    t->path, t->name, safe_dtype_name(t->dtype));
    CHECK(first <= t->count && n <= t->count - first);
    size_t width = (size_t)safe_dtype_bits(t->dtype) / 8;
    if (t->dtype == SAFE_F32) return st_read_bytes(f, t, first * width, n * width, out);

    Piece *p = malloc(sizeof *p);
    if (!p) return FAIL(ERR_SPACE, "%s: no memory to read a tensor", t->path);
    Status s = OK;
    for (size_t at = 0; at < n && !s; at += PIECE) {
        size_t m = n - at < PIECE ? n - at : PIECE;
        s = st_read_bytes(f, t, (first + at) * width, m * width, p);
        if (s) break;
        if (t->dtype == SAFE_F16) half_to_float(out + at, p->u16, m);
        else if (t->dtype == SAFE_BF16) bf16_to_float(out + at, p->u16, m);
        else
            for (size_t i = 0; i < m; i++) out[at + i] = (float)p->f64[i];
    }
    free(p);
    return s;
}

Status st_read_f32(const SafeFile *f, const SafeTensor *t, float *out)
{
    return st_read_f32_part(f, t, 0, t->count, out);
}

static Status narrow(const SafeTensor *t, int32_t *out, const int64_t *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (in[i] < INT32_MIN || in[i] > INT32_MAX)
            return FAIL(ERR_INPUT, "%s: tensor \"%.200s\": found the value %lld, expected 32 bits",
                        t->path, t->name, (long long)in[i]);
        out[i] = (int32_t)in[i];
    }
    return OK;
}

Status st_read_i32(const SafeFile *f, const SafeTensor *t, int32_t *out)
{
    if (safe_dtype_kind(t->dtype) != 'i')
        return FAIL(ERR_INPUT, "%s: tensor \"%.200s\": found dtype %s, expected I32 or I64",
                    t->path, t->name, safe_dtype_name(t->dtype));
    if (t->dtype == SAFE_I32) return st_read_bytes(f, t, 0, (size_t)t->bytes, out);
    Piece *p = malloc(sizeof *p);
    if (!p) return FAIL(ERR_SPACE, "%s: no memory to read a tensor", t->path);
    Status s = OK;
    for (size_t at = 0; at < t->count && !s; at += PIECE) {
        size_t m = t->count - at < PIECE ? t->count - at : PIECE;
        s = st_read_bytes(f, t, at * 8, m * 8, p);
        if (!s) s = narrow(t, out + at, p->i64, m);
    }
    free(p);
    return s;
}

/* ---- a file against a model ------------------------------------------------------------ */

enum { LISTED = 4 };

typedef struct {
    Text text;
    int n;
} Complaint;

static void complain(Complaint *c, const char *name, int ndim, const int64_t *dim)
{
    char shape[SAFE_SHAPE_TEXT];
    if (c->n++ >= LISTED) return;
    st_shape_text(shape, ndim, dim);
    text_add(&c->text, "%s%.80s %s", c->n > 1 ? ", " : "", name, shape);
}

static void report(Text *line, Complaint *c, const char *what)
{
    if (c->n) text_add(line, "%s%d %s: %s", line->n ? "; " : "", c->n, what, c->text.s);
    if (c->n > LISTED) text_add(line, ", ...");
    free(c->text.s);
}

static int by_spec_name(const void *a, const void *b)
{
    return strcmp((*(const SafeSpec *const *)a)->name, (*(const SafeSpec *const *)b)->name);
}

static void find_unexpected(Complaint *c, const SafeFile *f, int n, const SafeSpec *want,
                            bool (*ignore)(const char *name))
{
    const SafeSpec **sorted = malloc(((size_t)n + 1) * sizeof *sorted);
    CHECK(sorted);
    for (int i = 0; i < n; i++) sorted[i] = &want[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_spec_name);
    for (int i = 0; i < f->n; i++) {
        const SafeTensor *t = f->by_name[i];
        const SafeSpec key = {.name = t->name}, *at = &key;
        if (bsearch(&at, sorted, (size_t)n, sizeof *sorted, by_spec_name)) continue;
        if (!ignore || !ignore(t->name)) complain(c, t->name, t->ndim, t->dim);
    }
    free(sorted);
}

Status st_match(const SafeFile *f, int n, const SafeSpec *want, bool (*ignore)(const char *name))
{
    Complaint missing = {0}, misshapen = {0}, unexpected = {0};
    Text line = {0};
    for (int i = 0; i < n; i++) {
        const SafeTensor *t = st_find(f, want[i].name);
        if (!t) complain(&missing, want[i].name, want[i].ndim, want[i].dim);
        else if (t->ndim != want[i].ndim ||
                 memcmp(t->dim, want[i].dim, (size_t)t->ndim * sizeof *t->dim)) {
            char expected[SAFE_SHAPE_TEXT];
            complain(&misshapen, t->name, t->ndim, t->dim);
            st_shape_text(expected, want[i].ndim, want[i].dim);
            if (misshapen.n <= LISTED) text_add(&misshapen.text, " not %s", expected);
        }
    }
    find_unexpected(&unexpected, f, n, want, ignore);
    report(&line, &missing, "missing");
    report(&line, &misshapen, "of another shape");
    report(&line, &unexpected, "unexpected");
    Status s = line.n
                   ? FAIL(ERR_INPUT,
                          "%s: found tensors that do not fit the model, expected all of its %d: %s",
                          f->path, n, line.s)
                   : OK;
    free(line.s);
    return s;
}
