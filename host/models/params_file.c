/* params_file.c - a parameter's name, shape and values in files, and saving: published names,
 * published layouts. Loading is in params_load.c.
 *
 * A convolution's weight is [k, r, s, c] here and [k, c, r, s] in files; everything else has one
 * layout.
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

static size_t largest(const ParamStore *s)
{
    size_t n = 1;
    for (int i = 0; i < s->n; i++)
        if (s->param[i].count > n) n = s->param[i].count;
    return n;
}

/* value NULL: the store's own, read one parameter at a time. */
static Status write_all(SafeWriter *w, const ParamStore *s, const float *value, float *ours,
                        float *files)
{
    for (int i = 0; i < s->n; i++) {
        const Param *p = &s->param[i];
        const float *v = value ? value + p->offset : ours;
        if (!value)
            TRY(device_read(s->device, ours, s->value + p->offset, p->count * sizeof *ours));
        if (p->integer) {
            int32_t k = (int32_t)lrintf(*v);
            TRY(st_write_i32(w, &k, 1));
            continue;
        }
        param_to_file(p, files, v);
        TRY(st_write_f32(w, files, p->count));
    }
    return OK;
}

Status params_save(const ParamStore *s, const float *value, const char *path, SaveDtype dtype,
                   int n_meta, const SafeMeta *meta)
{
    SafeWriter w = {0};
    SafeSpec *spec = calloc((size_t)s->n + 1, sizeof *spec);
    float *ours = malloc(largest(s) * sizeof *ours), *files = malloc(largest(s) * sizeof *files);
    CHECK(spec && ours && files);
    Status code;
    TRY_OR(done, code, device_sync(s->device));
    for (int i = 0; i < s->n; i++)
        spec[i] = spec_of(&s->param[i], s->param[i].name, dtype == SAVE_F16 ? SAFE_F16 : SAFE_F32);
    TRY_OR(done, code, st_write_begin(&w, path, s->n, spec, n_meta, meta));
    TRY_OR(done, code, write_all(&w, s, value, ours, files));
    code = st_write_commit(&w);
done:
    st_write_abandon(&w);
    free(spec);
    free(ours);
    free(files);
    return code;
}
