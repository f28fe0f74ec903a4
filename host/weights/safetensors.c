/* safetensors.c - opening: the header and its rules; looking up. Several shards are opened in
 * safetensors_shards.c; values are read in safetensors_read.c and written in safetensors_write.c.
 */
#include "weights/safetensors.h"
#include "weights/json_text.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_HEADER = 100000000, LENGTH_BYTES = 8, HEADER_DEPTH = 3 };

static const struct {
    const char *name;
    int bits;
    char kind;
} dtype_row[N_SAFE_DTYPES] = {
#define ROW(name, bits, kind) {#name, bits, kind},
    SAFE_DTYPES(ROW)
#undef ROW
};

const char *safe_dtype_name(SafeDtype d) { return dtype_row[d].name; }
int safe_dtype_bits(SafeDtype d) { return dtype_row[d].bits; }
char safe_dtype_kind(SafeDtype d) { return dtype_row[d].kind; }

void st_shape_text(char text[SAFE_SHAPE_TEXT], int ndim, const int64_t *dim)
{
    int at = snprintf(text, SAFE_SHAPE_TEXT, "[");
    for (int i = 0; i < ndim; i++)
        at += snprintf(text + at, (size_t)(SAFE_SHAPE_TEXT - at), "%s%lld", i ? ", " : "",
                       (long long)dim[i]);
    snprintf(text + at, (size_t)(SAFE_SHAPE_TEXT - at), "]");
}

/* ---- what else it may be --------------------------------------------------------------- */

/* The kind of file that begins so, or NULL. Asked only once the file has proved to be no
 * safetensors: the first bytes are its length and may by chance look like anything. */
static const char *disguise(const unsigned char *b, size_t n)
{
    static const struct {
        const char *magic;
        size_t n;
        const char *what;
    } known[] = {
        {"PK\3\4", 4, "a zip archive (PyTorch .pt, .pth, .ckpt or .bin)"},
        {"GGUF", 4, "a GGUF file"},
        {"version https://git-lfs", 23, "a git-lfs pointer (the file itself was never downloaded)"},
        {"\x89HDF", 4, "an HDF5 file"},
        {"\x93NUMPY", 6, "a NumPy array"},
        {"\x1f\x8b", 2, "gzip data"},
        {"{", 1, "JSON text (an index of shards is named *.safetensors.index.json)"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (n >= known[i].n && !memcmp(b, known[i].magic, known[i].n)) return known[i].what;
    if (n >= 2 && b[0] == 0x80 && b[1] >= 1 && b[1] <= 5)
        return "a Python pickle (loading one runs code)";
    while (n && strchr(" \t\r\n", *b) && *b) b++, n--;
    if (n >= 5 &&
        (!strncasecmp((const char *)b, "<!doc", 5) || !strncasecmp((const char *)b, "<html", 5)))
        return "an HTML page (an error page saved as the file?)";
    return NULL;
}

static Status wrong_kind(const char *path, const unsigned char *head, size_t n)
{
    const char *what = disguise(head, n);
    return what ? FAIL(ERR_INPUT, "%s: is %s, expected safetensors", path, what) : OK;
}

/* ---- one entry of the header ----------------------------------------------------------- */

static bool multiply(uint64_t *product, uint64_t a, uint64_t b)
{
    if (b && a > UINT64_MAX / b) return false;
    *product = a * b;
    return true;
}

static Status entry_fail(const SafeFile *f, const char *name, const char *found,
                         const char *expected)
{
    return FAIL(ERR_INPUT, "%s: tensor \"%.200s\": found %s, expected %s", f->path, name, found,
                expected);
}

static Status read_dtype(SafeTensor *t, const SafeFile *f, const json_t *value)
{
    if (!json_is_string(value))
        return entry_fail(f, t->name, "no dtype text", "a dtype like \"F32\"");
    for (int d = 0; d < N_SAFE_DTYPES; d++)
        if (!strcmp(dtype_row[d].name, json_string_value(value))) {
            t->dtype = (SafeDtype)d;
            return OK;
        }
    return FAIL(ERR_INPUT,
                "%s: tensor \"%.200s\": found dtype \"%.40s\", expected F32, F16, BF16, "
                "F64, I64, I32 or another that the format knows",
                f->path, t->name, json_string_value(value));
}

static Status read_shape(SafeTensor *t, const SafeFile *f, const json_t *value)
{
    if (!json_is_array(value)) return entry_fail(f, t->name, "no shape", "a shape like [320, 768]");
    size_t n = json_array_size(value);
    if (n > SAFE_MAX_DIMS)
        return FAIL(ERR_INPUT, "%s: tensor \"%.200s\": found %zu dimensions, expected at most %d",
                    f->path, t->name, n, SAFE_MAX_DIMS);
    uint64_t count = 1, bits;
    t->ndim = (int)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(value, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return entry_fail(f, t->name, "a dimension that is no whole number from 0 up",
                              "sizes only");
        t->dim[i] = json_integer_value(d);
        if (!multiply(&count, count, (uint64_t)t->dim[i]))
            return entry_fail(f, t->name, "more elements than 64 bits count",
                              "a shape that fits the file");
    }
    if (!multiply(&bits, count, (uint64_t)dtype_row[t->dtype].bits) || count > SIZE_MAX)
        return entry_fail(f, t->name, "more bytes than 64 bits count",
                          "a shape that fits the file");
    if (bits % 8) return entry_fail(f, t->name, "data that end inside a byte", "whole bytes");
    t->count = (size_t)count;
    t->bytes = bits / 8;
    return OK;
}

/* Offsets count from the first byte behind the header. */
static Status read_offsets(SafeTensor *t, const SafeFile *f, const json_t *value,
                           uint64_t data_bytes)
{
    const json_t *from = json_array_get(value, 0), *to = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(from) || !json_is_integer(to) ||
        json_integer_value(from) < 0)
        return entry_fail(f, t->name, "no pair of data_offsets", "data_offsets like [0, 64]");
    long long begin = json_integer_value(from), end = json_integer_value(to);
    if (end < begin || (uint64_t)end > data_bytes)
        return FAIL(ERR_INPUT,
                    "%s: tensor \"%.200s\": found data_offsets [%lld, %lld], expected begin <= "
                    "end <= %llu",
                    f->path, t->name, begin, end, (unsigned long long)data_bytes);
    if ((uint64_t)(end - begin) != t->bytes) {
        char shape[SAFE_SHAPE_TEXT];
        st_shape_text(shape, t->ndim, t->dim);
        return FAIL(ERR_INPUT, "%s: tensor \"%.200s\": found %lld bytes, expected %llu for %s %s",
                    f->path, t->name, end - begin, (unsigned long long)t->bytes,
                    safe_dtype_name(t->dtype), shape);
    }
    t->offset = (uint64_t)begin;
    return OK;
}

static Status read_entry(SafeTensor *t, SafeFile *f, const char *name, const json_t *entry,
                         uint64_t data_bytes)
{
    size_t length = strlen(name);
    t->name = name;
    if (length > SAFE_MAX_NAME)
        return FAIL(ERR_INPUT,
                    "%s: tensor \"%.40s...\": found a name of %zu bytes, expected at most %d",
                    f->path, name, length, SAFE_MAX_NAME);
    t->name = arena_strdup(&f->arena, name);
    if (!json_is_object(entry))
        return entry_fail(f, name, "no object", "{dtype, shape, data_offsets}");
    TRY(read_dtype(t, f, json_object_get(entry, "dtype")));
    TRY(read_shape(t, f, json_object_get(entry, "shape")));
    TRY(read_offsets(t, f, json_object_get(entry, "data_offsets"), data_bytes));
    if (json_object_size(entry) != 3)
        return entry_fail(f, name, "further fields", "dtype, shape and data_offsets only");
    return OK;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const SafeMeta *)a)->key, ((const SafeMeta *)b)->key);
}

static Status read_metadata(SafeFile *f, json_t *meta)
{
    const char *key;
    json_t *value;
    if (!json_is_object(meta))
        return FAIL(ERR_INPUT,
                    "%s: header: found __metadata__ that is no object, expected {key: text}",
                    f->path);
    f->meta = arena_alloc(&f->arena, (json_object_size(meta) + 1) * sizeof *f->meta);
    json_object_foreach(meta, key, value)
    {
        if (!json_is_string(value))
            return FAIL(ERR_INPUT,
                        "%s: header: found __metadata__ \"%.200s\" that is no text, expected text",
                        f->path, key);
        f->meta[f->n_meta++] = (SafeMeta){arena_strdup(&f->arena, key),
                                          arena_strdup(&f->arena, json_string_value(value))};
    }
    qsort(f->meta, (size_t)f->n_meta, sizeof *f->meta, by_key);
    return OK;
}

/* ---- the whole header ------------------------------------------------------------------ */

static int by_place(const void *a, const void *b)
{
    const SafeTensor *s = a, *t = b;
    if (s->offset != t->offset) return s->offset < t->offset ? -1 : 1;
    if (s->bytes != t->bytes) return s->bytes < t->bytes ? -1 : 1;
    return strcmp(s->name, t->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(SafeTensor *const *)a)->name, (*(SafeTensor *const *)b)->name);
}

/* Sorted by place, each tensor must begin where the one before it ends, the last at the end. */
static Status check_layout(const SafeFile *f, uint64_t data_bytes)
{
    uint64_t end = 0;
    for (int i = 0; i < f->n; i++) {
        const SafeTensor *t = &f->tensor[i];
        if (t->offset != end)
            return FAIL(ERR_INPUT,
                        "%s: tensor \"%.200s\": found its data at %llu, expected at %llu (%s)",
                        f->path, t->name, (unsigned long long)t->offset, (unsigned long long)end,
                        t->offset < end ? "it overlaps another" : "there is a hole before it");
        end += t->bytes;
    }
    if (end == data_bytes) return OK;
    return FAIL(ERR_INPUT,
                "%s: found %llu bytes behind the header, expected %llu as its tensors have",
                f->path, (unsigned long long)data_bytes, (unsigned long long)end);
}

static Status read_entries(SafeFile *f, json_t *header, uint64_t data_start, uint64_t data_bytes)
{
    const char *name;
    json_t *entry;
    f->tensor = arena_alloc(&f->arena, (json_object_size(header) + 1) * sizeof *f->tensor);
    json_object_foreach(header, name, entry)
    {
        if (!strcmp(name, "__metadata__")) {
            TRY(read_metadata(f, entry));
            continue;
        }
        TRY(read_entry(&f->tensor[f->n], f, name, entry, data_bytes));
        f->n++;
    }
    qsort(f->tensor, (size_t)f->n, sizeof *f->tensor, by_place);
    TRY(check_layout(f, data_bytes));
    f->by_name = arena_alloc(&f->arena, ((size_t)f->n + 1) * sizeof *f->by_name);
    for (int i = 0; i < f->n; i++) {
        f->tensor[i].offset += data_start;
        f->tensor[i].path = f->path;
        f->tensor[i].fd = f->fd;
        f->by_name[i] = &f->tensor[i];
    }
    qsort(f->by_name, (size_t)f->n, sizeof *f->by_name, by_name);
    return OK;
}

static Status read_at(const char *path, int fd, void *to, size_t n, uint64_t at)
{
    for (size_t got = 0; got < n;) {
        ssize_t more = pread(fd, (char *)to + got, n - got, (off_t)(at + got));
        if (more < 0 && errno == EINTR) continue;
        if (more < 0) return FAIL(ERR_INPUT, "%s: cannot read it: %s", path, strerror(errno));
        if (!more)
            return FAIL(ERR_INPUT,
                        "%s: found its end at byte %llu, expected %llu bytes more (did it change?)",
                        path, (unsigned long long)(at + got), (unsigned long long)(n - got));
        got += (size_t)more;
    }
    return OK;
}

Status st_read_bytes(const SafeFile *f, const SafeTensor *t, uint64_t first, size_t n, void *out)
{
    (void)f;
    CHECK(first <= t->bytes && n <= t->bytes - first);
    return read_at(t->path, t->fd, out, n, t->offset + first);
}

/* Length and first bytes: everything that can be known before memory is asked for. */
static Status check_start(const SafeFile *f, uint64_t *length, uint64_t size)
{
    unsigned char b[64] = {0};
    size_t n = size < sizeof b ? (size_t)size : sizeof b;
    TRY(read_at(f->path, f->fd, b, n, 0));
    *length = 0;
    for (int i = 0; i < LENGTH_BYTES; i++) *length |= (uint64_t)b[i] << 8 * i;
    bool fits = size >= LENGTH_BYTES && *length <= MAX_HEADER && *length <= size - LENGTH_BYTES;
    if (fits && *length >= 2 && b[LENGTH_BYTES] == '{') return OK;

    TRY(wrong_kind(f->path, b, n));
    if (size < LENGTH_BYTES)
        return FAIL(ERR_INPUT, "%s: found %llu bytes, expected at least the %d of a length",
                    f->path, (unsigned long long)size, LENGTH_BYTES);
    if (!fits || *length < 2)
        return FAIL(ERR_INPUT, "%s: found a header length of %llu, expected 2..%llu", f->path,
                    (unsigned long long)*length,
                    (unsigned long long)(size - LENGTH_BYTES < MAX_HEADER ? size - LENGTH_BYTES
                                                                          : MAX_HEADER));
    return FAIL(ERR_INPUT, "%s: found byte 0x%02x at the start of the header, expected {", f->path,
                b[LENGTH_BYTES]);
}

static Status parse(SafeFile *f, uint64_t size)
{
    uint64_t length = 0;
    json_t *header = NULL;
    size_t end;
    Status s;
    TRY(check_start(f, &length, size));
    char *text = malloc((size_t)length);
    if (!text) return FAIL(ERR_SPACE, "%s: no memory for its header", f->path);
    TRY_OR(done, s, read_at(f->path, f->fd, text, (size_t)length, LENGTH_BYTES));
    TRY_OR(done, s, json_text_object(&header, &end, text, (size_t)length, f->path, HEADER_DEPTH));
    for (; end < length; end++)
        if (text[end] != ' ') {
            s = FAIL(ERR_INPUT,
                     "%s: header byte %zu: found text behind the closing }, expected spaces",
                     f->path, end);
            goto done;
        }
    TRY_OR(done, s, read_entries(f, header, LENGTH_BYTES + length, size - LENGTH_BYTES - length));
done:
    json_decref(header);
    free(text);
    return s;
}

static Status open_single(SafeFile *f, const char *path)
{
    struct stat st;
    Status s;
    SafeFile r = {.fd = -1};
    *f = (SafeFile){0};
    if (dir_exists(path))
        return FAIL(ERR_INPUT, "%s: is a directory, expected a safetensors file", path);
    r.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block */
    if (r.fd < 0) return FAIL(ERR_INPUT, "%s: cannot open it: %s", path, strerror(errno));
    r.path = path_join("", path);
    if (fstat(r.fd, &st) || !S_ISREG(st.st_mode)) {
        s = FAIL(ERR_INPUT, "%s: is no regular file, expected a safetensors file", path);
        goto done;
    }
    TRY_OR(done, s, parse(&r, (uint64_t)st.st_size));
    *f = r;
    r = (SafeFile){0};
done:
    st_close(&r);
    return s;
}

Status st_open(SafeFile *f, const char *path)
{
    return st_is_index(path) ? st_open_shards(f, path) : open_single(f, path);
}

void st_close(SafeFile *f)
{
    for (int i = 0; i < f->n_shard; i++) st_close(&f->shard[i]);
    free(f->shard);
    if (f->path && f->fd >= 0) close(f->fd);
    free(f->path);
    arena_free(&f->arena);
    *f = (SafeFile){0};
}

/* ---- looking up ------------------------------------------------------------------------ */

const SafeTensor *st_find(const SafeFile *f, const char *name)
{
    int low = 0, high = f->n;
    while (low < high) {
        int mid = low + (high - low) / 2, order = strcmp(name, f->by_name[mid]->name);
        if (!order) return f->by_name[mid];
        if (order < 0) high = mid;
        else low = mid + 1;
    }
    return NULL;
}

const char *st_metadata(const SafeFile *f, const char *key)
{
    for (int i = 0; i < f->n_meta; i++)
        if (!strcmp(f->meta[i].key, key)) return f->meta[i].value;
    return NULL;
}

static bool same_shape(const SafeTensor *t, int ndim, const int64_t *dim)
{
    return t->ndim == ndim && (!ndim || !memcmp(t->dim, dim, (size_t)ndim * sizeof *dim));
}

Status st_expect(const SafeTensor **t, const SafeFile *f, const char *name, int ndim,
                 const int64_t *dim)
{
    char found[SAFE_SHAPE_TEXT], expected[SAFE_SHAPE_TEXT];
    *t = NULL;
    const SafeTensor *it = st_find(f, name);
    st_shape_text(expected, ndim, dim);
    if (!it)
        return FAIL(ERR_INPUT, "%s: tensor \"%.200s\": found none, expected %s", f->path, name,
                    expected);
    st_shape_text(found, it->ndim, it->dim);
    if (!same_shape(it, ndim, dim)) return entry_fail(f, name, found, expected);
    *t = it;
    return OK;
}
