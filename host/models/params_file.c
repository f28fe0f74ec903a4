/* params_file.c - parameters to and from safetensors: published names, published layouts.
 *
 * A convolution's weight is [k, r, s, c] here and [k, c, r, s] in files; everything else has one
 * layout. Loading checks names and shapes of the whole file first and the values while they are
 * read; the store changes only when all of that is done.
 */
#include "models/params.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int param_file_shape(const Param *p, int64_t dim[MAX_DIM])
{
    static const int oihw[MAX_DIM] = {0, 3, 1, 2};
    if (p->integer) return 0;
    for (int i = 0; i < p->ndim; i++) dim[i] = p->dim[p->layout == LAYOUT_OIHW ? oihw[i] : i];
    return p->ndim;
}

/* to[k][b][a] = from[k][a][b] */
static void swap_inner(float *to, const float *from, size_t k, size_t a, size_t b)
{
    for (size_t i = 0; i < k; i++, to += a * b, from += a * b)
        for (size_t u = 0; u < a; u++)
            for (size_t v = 0; v < b; v++) to[v * a + u] = from[u * b + v];
}

void param_to_file(const Param *p, float *to, const float *from)
{
    const int *d = p->dim;
    if (p->layout == LAYOUT_OIHW)
        swap_inner(to, from, (size_t)d[0], (size_t)d[1] * (size_t)d[2], (size_t)d[3]);
    else memcpy(to, from, p->count * sizeof *to);
}

void param_from_file(const Param *p, float *to, const float *from)
{
    const int *d = p->dim;
    if (p->layout == LAYOUT_OIHW)
        swap_inner(to, from, (size_t)d[0], (size_t)d[3], (size_t)d[1] * (size_t)d[2]);
    else memcpy(to, from, p->count * sizeof *to);
}

/* Does name start with one of the comma-separated prefixes of list? */
static bool listed(const char *list, const char *name)
{
    while (list && *list) {
        size_t n = strcspn(list, ",");
        if (n && !strncmp(name, list, n)) return true;
        list += n + (list[n] == ',');
    }
    return false;
}

void param_file_name(char out[PARAM_NAME], const Param *p, const ParamFile *how)
{
    char name[PARAM_NAME];
    snprintf(name, sizeof name, "%s", p->name);
    if (how->rename) how->rename(name, p->name);
    int n = snprintf(out, PARAM_NAME, "%s%s", how->prefix ? how->prefix : "", name);
    CHECK(n >= 0 && n < PARAM_NAME);
}

static SafeSpec spec_of(const Param *p, const char *name, SafeDtype dtype)
{
    SafeSpec s = {.name = name, .dtype = p->integer ? SAFE_I64 : dtype};
    s.ndim = param_file_shape(p, s.dim);
    return s;
}

/* What is read: source[i] for parameter i, NULL where it is left alone. */
static Status match(const SafeTensor **source, Arena *names, const SafeFile *f, const ParamStore *s,
                    const ParamFile *how)
{
    SafeSpec *want = calloc((size_t)(s->n + f->n) + 1, sizeof *want);
    CHECK(want);
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        const Param *p = &s->param[i];
        char name[PARAM_NAME];
        if (listed(how->skip, p->name)) continue;
        param_file_name(name, p, how);
        source[i] = st_find(f, name);
        if (!source[i] && (p->integer || listed(how->optional, p->name))) continue;
        want[n++] = spec_of(p, arena_strdup(names, name), SAFE_F32);
    }
    /* What is not ours to judge is wanted as it is. */
    size_t prefix = how->prefix ? strlen(how->prefix) : 0;
    for (int i = 0; i < f->n; i++) {
        const SafeTensor *t = &f->tensor[i];
        bool foreign = prefix && strncmp(t->name, how->prefix, prefix);
        if (!foreign && !listed(how->skip, t->name + prefix)) continue;
        want[n] = (SafeSpec){.name = t->name, .ndim = t->ndim};
        memcpy(want[n++].dim, t->dim, sizeof t->dim);
    }
    Status code = st_match(f, n, want, NULL);
    free(want);
    return code;
}

static Status read_one(float *to, float *scratch, const Param *p, const SafeFile *f,
                       const SafeTensor *t)
{
    if (p->integer) {
        int32_t v;
        TRY(st_read_i32(f, t, &v));
        *to = (float)v;
        return OK;
    }
    TRY(st_read_f32(f, t, scratch));
    for (size_t i = 0; i < p->count; i++)
        if (!isfinite(scratch[i]))
            return FAIL(ERR_INPUT, "%s: tensor \"%s\": element %zu is %f, expected a finite number",
                        f->path, t->name, i, (double)scratch[i]);
    param_from_file(p, to, scratch);
    return OK;
}

static size_t largest(const ParamStore *s)
{
    size_t n = 1;
    for (int i = 0; i < s->n; i++)
        if (s->param[i].count > n) n = s->param[i].count;
    return n;
}

Status params_load(ParamStore *s, const char *path, const ParamFile *how)
{
    static const ParamFile as_published = {0};
    SafeFile f = {0};
    Arena names = {0};
    const SafeTensor **source = calloc((size_t)s->n + 1, sizeof *source);
    float *block = calloc(s->count + 1, sizeof *block),
          *scratch = calloc(largest(s), sizeof *scratch);
    CHECK(source && block && scratch);
    Status code;
    TRY_OR(done, code, st_open(&f, path));
    TRY_OR(done, code, match(source, &names, &f, s, how ? how : &as_published));
    TRY_OR(done, code, params_read(s, block));
    for (int i = 0; i < s->n; i++)
        if (source[i])
            TRY_OR(done, code,
                   read_one(block + s->param[i].offset, scratch, &s->param[i], &f, source[i]));
    code = params_write(s, block);
done:
    st_close(&f);
    arena_free(&names);
    free(source);
    free(block);
    free(scratch);
    return code;
}

static Status write_all(SafeWriter *w, const ParamStore *s, const float *block, float *scratch)
{
    for (int i = 0; i < s->n; i++) {
        const Param *p = &s->param[i];
        const float *v = block + p->offset;
        if (p->integer) {
            int32_t k = (int32_t)lrintf(*v);
            TRY(st_write_i32(w, &k, 1));
            continue;
        }
        param_to_file(p, scratch, v);
        TRY(st_write_f32(w, scratch, p->count));
    }
    return OK;
}

Status params_save(const ParamStore *s, const float *value, const char *path, SaveDtype dtype,
                   int n_meta, const SafeMeta *meta)
{
    SafeWriter w = {0};
    SafeSpec *spec = calloc((size_t)s->n + 1, sizeof *spec);
    float *own = value ? NULL : calloc(s->count + 1, sizeof *own),
          *scratch = calloc(largest(s), sizeof *scratch);
    CHECK(spec && (value || own) && scratch);
    Status code;
    if (own) TRY_OR(done, code, params_read(s, own));
    for (int i = 0; i < s->n; i++)
        spec[i] = spec_of(&s->param[i], s->param[i].name, dtype == SAVE_F16 ? SAFE_F16 : SAFE_F32);
    TRY_OR(done, code, st_write_begin(&w, path, s->n, spec, n_meta, meta));
    TRY_OR(done, code, write_all(&w, s, value ? value : own, scratch));
    code = st_write_commit(&w);
done:
    st_write_abandon(&w);
    free(spec);
    free(own);
    free(scratch);
    return code;
}
