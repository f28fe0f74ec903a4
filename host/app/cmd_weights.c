/* cmd_weights.c - equipoise weights: what is in weight files, and the same in another precision.
 *
 * Both take a file or a folder; a folder is walked, and of it only what a model is made of
 * (safetensors, JSON, text) is converted or copied. Values pass through a small buffer.
 */
#include "app/commands.h"
#include "app/options.h"
#include "base/file.h"
#include "base/signal.h"
#include "weights/model_folder.h"
#include "weights/safetensors.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 1 << 14, MAX_DEPTH = 4, MAX_COPY_BYTES = 1 << 26 };

static const double suspicious =
    1e4; /* weights are small; more hints at bytes read as another dtype */

static const Option option[] = {
    {"dtype", "f16|f32", "convert: precision of the numbers in OUT", NULL},
};
static const Usage usage = {
    .command = "weights",
    .arguments = "inspect PATH | convert IN OUT",
    .help = "inspect: lists the tensors, metadata and SHA-256 of a safetensors file or of all in a "
            "folder.\n"
            "convert: writes a file, or a model's folder, with its numbers in another precision.",
    .least = 2,
    .most = 3,
    .option = option,
    .n_option = 1,
};

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* ---- walking a folder ------------------------------------------------------------------ */

typedef struct Walk Walk;
struct Walk {
    Log *log;
    const char *from, *to; /* roots; to: NULL when inspecting */
    SafeDtype dtype;
    Status (*visit)(Walk *w, const char *path, const char *relative);
    int n_files; /* safetensors seen */
    size_t n_values;
    uint64_t bytes;
};

static Status walk(Walk *w, const char *relative, int depth)
{
    DirList l;
    char *dir = path_join(w->from, relative);
    Status s =
        depth > MAX_DEPTH
            ? FAIL(ERR_INPUT, "%s: lies deeper than %d folders, expected a model", dir, MAX_DEPTH)
            : dir_list(&l, dir);
    for (int i = 0; !s && i < l.n; i++) {
        if (strstr(l.name[i], ".tmp-")) continue; /* unfinished, perhaps our own */
        char *inner = path_join(relative, l.name[i]), *path = path_join(w->from, inner);
        s = dir_exists(path) ? walk(w, inner, depth + 1) : w->visit(w, path, inner);
        free(inner);
        free(path);
    }
    if (depth <= MAX_DEPTH) dir_list_free(&l);
    free(dir);
    return s;
}

/* ---- inspect --------------------------------------------------------------------------- */

/* Text of a file on one line: control characters spelled out. */
static void print_text(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f) printf("\\x%02x", *c);
        else putchar(*c);
}

typedef struct {
    double largest;
    size_t n_bad;
} Range;

static Status measure(Range *r, const SafeFile *f, const SafeTensor *t)
{
    float v[PIECE];
    *r = (Range){0};
    for (size_t at = 0; at < t->count; at += PIECE) {
        TRY(signal_check());
        size_t n = t->count - at < PIECE ? t->count - at : PIECE;
        TRY(st_read_f32_part(f, t, at, n, v));
        for (size_t i = 0; i < n; i++) {
            if (!isfinite(v[i])) r->n_bad++;
            else if (fabs(v[i]) > r->largest) r->largest = fabs(v[i]);
        }
    }
    return OK;
}

static Status print_tensor(Walk *w, const SafeFile *f, const SafeTensor *t)
{
    char shape[SAFE_SHAPE_TEXT];
    Range r;
    st_shape_text(shape, t->ndim, t->dim);
    printf("  ");
    print_text(t->name);
    printf("  %s %s", safe_dtype_name(t->dtype), shape);
    if (safe_dtype_kind(t->dtype) == 'f') {
        TRY(measure(&r, f, t));
        printf("  max %.4g", r.largest);
        if (r.n_bad) printf(", %zu not finite", r.n_bad);
        if (r.n_bad)
            log_warn(w->log, "%s: tensor \"%s\": %zu values are NaN or infinite", f->path, t->name,
                     r.n_bad);
        else if (r.largest > suspicious)
            log_warn(w->log, "%s: tensor \"%s\": largest value %.3g, is %s its true dtype?",
                     f->path, t->name, r.largest, safe_dtype_name(t->dtype));
    }
    printf("\n");
    return OK;
}

static Status inspect_file(Walk *w, const char *path)
{
    SafeFile f;
    char sum[HASH_TEXT];
    size_t n_values = 0;
    uint64_t bytes = 0;
    TRY(st_open(&f, path));
    Status s = hash_file(sum, path);
    if (!s) printf("%s\n  sha256 %s\n", path, sum);
    for (int i = 0; !s && i < f.n_meta; i++) {
        printf("  metadata ");
        print_text(f.meta[i].key);
        printf(": ");
        print_text(f.meta[i].value);
        printf("\n");
    }
    for (int i = 0; !s && i < f.n; i++) {
        s = print_tensor(w, &f, &f.tensor[i]);
        n_values += f.tensor[i].count;
        bytes += f.tensor[i].bytes;
    }
    if (!s)
        printf("  %d tensors, %zu values, %llu bytes\n", f.n, n_values, (unsigned long long)bytes);
    st_close(&f);
    w->n_files++;
    w->n_values += n_values;
    w->bytes += bytes;
    return s;
}

static Status inspect_visit(Walk *w, const char *path, const char *relative)
{
    return ends_with(relative, ".safetensors") ? inspect_file(w, path) : OK;
}

static Status inspect(App *app, const char *path)
{
    Walk w = {.log = app->log, .from = path, .visit = inspect_visit};
    if (!dir_exists(path)) return inspect_file(&w, path);
    char *index = path_join(path, "model_index.json");
    Status s = file_exists(index) ? model_folder_check(path) : OK;
    free(index);
    TRY(s);
    TRY(walk(&w, "", 0));
    if (!w.n_files) return FAIL(ERR_INPUT, "%s: found no safetensors file, expected one", path);
    printf("%d files, %zu values, %llu bytes\n", w.n_files, w.n_values,
           (unsigned long long)w.bytes);
    return OK;
}

/* ---- convert --------------------------------------------------------------------------- */

static Status convert_tensor(SafeWriter *out, const SafeFile *f, const SafeTensor *t)
{
    float v[PIECE];
    bool number = safe_dtype_kind(t->dtype) == 'f';
    size_t width = number ? 1 : (size_t)safe_dtype_bits(t->dtype) / 8,
           total = number ? t->count : (size_t)t->bytes;
    size_t room = number ? PIECE : sizeof v / width * width;
    for (size_t at = 0; at < total; at += room) {
        TRY(signal_check());
        size_t n = total - at < room ? total - at : room;
        TRY(number ? st_read_f32_part(f, t, at, n, v) : st_read_bytes(f, t, at, n, v));
        TRY(number ? st_write_f32(out, v, n) : st_write_bytes(out, v, n));
    }
    return OK;
}

static Status make_specs(SafeSpec **spec, const SafeFile *f, SafeDtype dtype)
{
    *spec = calloc((size_t)f->n + 1, sizeof **spec);
    CHECK(*spec);
    for (int i = 0; i < f->n; i++) {
        const SafeTensor *t = &f->tensor[i];
        if (safe_dtype_bits(t->dtype) < 8)
            return FAIL(ERR_INPUT, "%s: tensor \"%.200s\": found dtype %s, expected whole bytes",
                        f->path, t->name, safe_dtype_name(t->dtype));
        (*spec)[i] = (SafeSpec){.name = t->name,
                                .ndim = t->ndim,
                                .dtype = safe_dtype_kind(t->dtype) == 'f' ? dtype : t->dtype};
        memcpy((*spec)[i].dim, t->dim, sizeof t->dim);
    }
    return OK;
}

static Status convert_file(Walk *w, const char *from, const char *to)
{
    SafeFile f;
    SafeWriter out = {0};
    SafeSpec *spec = NULL;
    Status s;
    TRY(st_open(&f, from));
    TRY_OR(done, s, make_specs(&spec, &f, w->dtype));
    TRY_OR(done, s, st_write_begin(&out, to, f.n, spec, f.n_meta, f.meta));
    for (int i = 0; i < f.n; i++) {
        TRY_OR(done, s, convert_tensor(&out, &f, &f.tensor[i]));
        log_progress(w->log, from, i + 1, f.n, NULL);
    }
    TRY_OR(done, s, st_write_commit(&out));
    log_progress_end(w->log);
    w->n_files++;
done:
    st_write_abandon(&out);
    st_close(&f);
    free(spec);
    return s;
}

static Status convert_visit(Walk *w, const char *path, const char *relative)
{
    char *to = path_join(w->to, relative), *data = NULL;
    size_t size;
    Status s = OK;
    if (ends_with(relative, ".safetensors")) {
        s = convert_file(w, path, to);
    } else if (ends_with(relative, ".json") || ends_with(relative, ".txt")) {
        s = file_read(&data, &size, path, MAX_COPY_BYTES);
        if (!s) s = file_write(to, data, size);
    } else {
        log_warn(w->log, "%s: is left out, being no safetensors, .json or .txt", path);
    }
    free(data);
    free(to);
    return s;
}

/* Made beside its final name and renamed when all of it is there. */
static Status convert_folder(Walk *w, const char *to)
{
    char *temp = malloc(strlen(to) + 32);
    CHECK(temp);
    size_t n = strlen(to);
    while (n > 1 && to[n - 1] == '/') n--;
    sprintf(temp, "%.*s.tmp-%ld", (int)n, to, (long)getpid());
    w->to = temp;
    Status s = walk(w, "", 0);
    if (!s && !w->n_files)
        s = FAIL(ERR_INPUT, "%s: found no safetensors file, expected one", w->from);
    if (!s) s = dir_rename(temp, to);
    if (s) {
        char *message = strdup(status_message());
        CHECK(message);
        dir_remove(temp);
        status_set(s, message);
        free(message);
    }
    free(temp);
    return s;
}

static Status convert(App *app, const char *from, const char *to, const char *dtype)
{
    Walk w = {.log = app->log, .from = from, .visit = convert_visit};
    if (!strcmp(dtype, "f16")) w.dtype = SAFE_F16;
    else if (!strcmp(dtype, "f32")) w.dtype = SAFE_F32;
    else return FAIL(ERR_USAGE, "weights: --dtype %s: expected f16 or f32", dtype);
    if (file_exists(to)) return FAIL(ERR_USAGE, "%s: is there already; nothing is overwritten", to);
    return dir_exists(from) ? convert_folder(&w, to) : convert_file(&w, from, to);
}

Status cmd_weights(App *app, int argc, char **argv)
{
    Options o;
    const char *dtype;
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    if (!strcmp(o.argument[0], "inspect")) {
        if (o.n_argument != 2) return FAIL(ERR_USAGE, "weights inspect: expected one PATH");
        return inspect(app, o.argument[1]);
    }
    if (strcmp(o.argument[0], "convert"))
        return FAIL(ERR_USAGE, "weights: found %s, expected inspect or convert", o.argument[0]);
    if (o.n_argument != 3) return FAIL(ERR_USAGE, "weights convert: expected IN and OUT");
    TRY(options_need(&dtype, &o, "dtype"));
    return convert(app, o.argument[1], o.argument[2], dtype);
}
