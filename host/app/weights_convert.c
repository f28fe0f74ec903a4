/* weights_convert.c - the same weights in another precision, in one file where they were in shards.
 *
 * A folder is walked, and of it only what a model is made of (safetensors, JSON, text) is converted
 * or copied. Values pass through a small buffer.
 */
#include "app/weights.h"
#include "base/folder.h"
#include "base/signal.h"
#include "base/text.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 14, MAX_COPY_BYTES = 1 << 26 };

static Status convert_tensor(SafeWriter *out, const SafeFile *f, const SafeTensor *t, Log *log)
{
    float v[PIECE];
    size_t n_bad = 0;
    bool number = safe_dtype_kind(t->dtype) == 'f';
    size_t width = number ? 1 : (size_t)safe_dtype_bits(t->dtype) / 8,
           total = number ? t->count : (size_t)t->bytes;
    size_t room = number ? PIECE : sizeof v / width * width;
    for (size_t at = 0; at < total; at += room) {
        TRY(signal_check());
        size_t n = total - at < room ? total - at : room;
        TRY(number ? st_read_f32_part(f, t, at, n, v) : st_read_bytes(f, t, at, n, v));
        TRY(number ? st_write_f32(out, v, n) : st_write_bytes(out, v, n));
        for (size_t i = 0; number && i < n; i++) n_bad += !isfinite(v[i]);
    }
    if (n_bad)
        log_warn(log, "%s: tensor \"%s\": %zu values are NaN or infinite", f->path, t->name,
                 n_bad);
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
        TRY_OR(done, s, convert_tensor(&out, &f, &f.tensor[i], w->log));
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

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* Where a file of weights goes: shards under the one name that their index stands for; half
 * precision's mark is left out of the name. Heap. */
static char *target_of(const char *relative)
{
    static const char *const tail[] = {".safetensors.index.json", ".safetensors.index.fp16.json",
                                       ".safetensors"};
    size_t n = strlen(relative);
    for (int i = 0; i < 3; i++)
        if (ends_with(relative, tail[i])) {
            n -= strlen(tail[i]);
            break;
        }
    if (n > 5 && !strncmp(relative + n - 5, ".fp16", 5)) n -= 5;
    char *to = malloc(n + sizeof ".safetensors");
    CHECK(to);
    sprintf(to, "%.*s.safetensors", (int)n, relative);
    return to;
}

/* NAME-00001-of-00002.safetensors beside the index that has it: read through that. Half precision's
 * NAME.fp16-00001-of-00002.safetensors may belong to NAME.safetensors.index.fp16.json. */
static bool is_indexed(const char *path)
{
    static const char *const tail[] = {".safetensors.index.json", ".safetensors.index.fp16.json"};
    size_t n = strlen(path), stem = n - 27;
    int at = 0;
    bool found = false;
    if (n <= 27) return false;
    sscanf(path + stem, "-%*5[0-9]-of-%*5[0-9].safetensors%n", &at);
    if (at != 27) return false;
    bool half = stem > 5 && !strncmp(path + stem - 5, ".fp16", 5);
    for (int i = 0; i < 4 && !found; i++) {
        char *index = malloc(n + 8);
        CHECK(index);
        sprintf(index, "%.*s%s", (int)(half && i < 2 ? stem - 5 : stem), path, tail[i % 2]);
        found = file_exists(index);
        free(index);
    }
    return found;
}

/* The whole file goes before shards, full precision before half. better: what there is of the former,
 * heap; NULL where `relative` is as good. */
static char *better_of(const Walk *w, const char *name, const char *relative)
{
    Text index = {0};
    text_add(&index, "%s.index.json", name);
    const char *const other[] = {name, index.s};
    char *better = NULL;
    for (int i = 0; i < 2 && !better && strcmp(other[i], relative); i++) {
        char *path = path_join(w->from, other[i]);
        if (file_exists(path)) better = strdup(other[i]);
        free(path);
    }
    free(index.s);
    return better;
}

static Status convert_weights(Walk *w, const char *path, const char *relative)
{
    char *name = target_of(relative), *to = path_join(w->to, name),
         *better = better_of(w, name, relative);
    Status s = OK;
    if (better || (strcmp(name, relative) && file_exists(to)))
        log_warn(w->log, "%s: is left out, %s being there too", path, better ? better : name);
    else s = convert_file(w, path, to);
    free(name);
    free(to);
    free(better);
    return s;
}

static Status convert_visit(Walk *w, const char *path, const char *relative)
{
    char *data = NULL, *to = NULL;
    size_t size;
    Status s = OK;
    if (is_indexed(path)) return OK;
    if (st_is_index(relative) || ends_with(relative, ".safetensors"))
        return convert_weights(w, path, relative);
    if (ends_with(relative, ".json") || ends_with(relative, ".txt")) {
        to = path_join(w->to, relative);
        s = file_read(&data, &size, path, MAX_COPY_BYTES);
        if (!s) s = file_write(to, data, size);
    } else {
        log_warn(w->log, "%s: is left out, being no safetensors, .json or .txt", path);
    }
    free(data);
    free(to);
    return s;
}

static Status convert_folder(Walk *w, const char *to)
{
    w->to = folder_begin(to);
    Status s = weights_walk(w);
    if (!s && !w->n_files)
        s = FAIL(ERR_INPUT, "%s: found no safetensors file, expected one", w->from);
    return folder_end(s, (char *)w->to, to);
}

Status weights_convert(Log *log, const char *from, const char *to, SafeDtype dtype)
{
    Walk w = {.log = log, .from = from, .visit = convert_visit, .dtype = dtype};
    if (file_exists(to)) return FAIL(ERR_USAGE, "%s: is there already; nothing is overwritten", to);
    return dir_exists(from) ? convert_folder(&w, to) : convert_file(&w, from, to);
}
