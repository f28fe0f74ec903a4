/* params_load.c - parameters from safetensors, in the forms in which published weights come.
 *
 * Beside the names and shapes of today, these are taken for the same:
 *   to_q, to_k, to_v, to_out.0      query, key, value, proj_attn (autoencoders of old diffusers)
 *   [k, c]                          [k, c, 1, 1], and the other way round: 1 x 1 convolutions
 *
 * Names and shapes of the whole file are checked first, then all its values, and only then does
 * the store change: the file is read twice, so that the model is not in memory twice.
 */
#include "models/params.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* The name that diffusers gave it until 2023; false where there is none. */
static bool old_name(char out[PARAM_NAME], const char *name)
{
    static const char *const pair[][2] = {{".to_q.", ".query."},
                                          {".to_k.", ".key."},
                                          {".to_v.", ".value."},
                                          {".to_out.0.", ".proj_attn."}};
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) {
        const char *at = strstr(name, pair[i][0]);
        if (!at) continue;
        int n = snprintf(out, PARAM_NAME, "%.*s%s%s", (int)(at - name), name, pair[i][1],
                         at + strlen(pair[i][0]));
        return n < PARAM_NAME;
    }
    return false;
}

/* Equal but for trailing ones: [k, c] and [k, c, 1, 1]. */
static bool same_but_ones(const SafeTensor *t, const SafeSpec *want)
{
    bool pair = (t->ndim == 4 && want->ndim == 2) || (t->ndim == 2 && want->ndim == 4);
    for (int i = 0; i < 4 && pair; i++)
        pair = (i < t->ndim ? t->dim[i] : 1) == (i < want->ndim ? want->dim[i] : 1);
    return pair;
}

/* Fills name and shape with those under which the file has p; *source NULL: it has not. */
static SafeSpec find_source(const SafeTensor **source, Arena *names, const SafeFile *f,
                            const Param *p, const ParamFile *how)
{
    char name[PARAM_NAME], old[PARAM_NAME];
    param_file_name(name, p, how);
    *source = st_find(f, name);
    if (!*source && old_name(old, name)) *source = st_find(f, old);
    SafeSpec want = {.name = *source ? (*source)->name : arena_strdup(names, name)};
    want.ndim = param_file_shape(p, want.dim);
    if (*source && same_but_ones(*source, &want)) {
        want.ndim = (*source)->ndim;
        memcpy(want.dim, (*source)->dim, sizeof want.dim);
    }
    return want;
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
        if (listed(how->skip, p->name)) continue;
        SafeSpec one = find_source(&source[i], names, f, p, how);
        if (!source[i] && (p->integer || listed(how->optional, p->name))) continue;
        want[n++] = one;
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

static size_t largest(const SafeTensor *const *source, int n)
{
    size_t most = 1;
    for (int i = 0; i < n; i++)
        if (source[i] && source[i]->count > most) most = source[i]->count;
    return most;
}

/* One tensor's values in the file's layout, all finite. */
static Status read_one(float *v, const Param *p, const SafeFile *f, const SafeTensor *t)
{
    if (p->integer) {
        int32_t whole;
        TRY(st_read_i32(f, t, &whole));
        *v = (float)whole;
        return OK;
    }
    TRY(st_read_f32(f, t, v));
    for (size_t i = 0; i < t->count; i++)
        if (!isfinite(v[i]))
            return FAIL(ERR_INPUT, "%s: tensor \"%s\": element %zu is %f, expected a finite number",
                        t->path, t->name, i, (double)v[i]);
    return OK;
}

/* ours NULL: checks only. */
static Status read_all(ParamStore *s, const SafeFile *f, const SafeTensor *const *source,
                       float *files, float *ours)
{
    for (int i = 0; i < s->n; i++) {
        const Param *p = &s->param[i];
        if (!source[i]) continue;
        TRY(read_one(files, p, f, source[i]));
        if (!ours) continue;
        param_from_file(p, ours, files);
        TRY(device_write(s->device, s->value + p->offset, ours, p->count * sizeof *ours));
    }
    return OK;
}

Status params_load(ParamStore *s, const char *path, const ParamFile *how)
{
    static const ParamFile as_published = {0};
    SafeFile f = {0};
    Arena names = {0};
    const SafeTensor **source = calloc((size_t)s->n + 1, sizeof *source);
    float *files = NULL, *ours = NULL;
    CHECK(source);
    Status code;
    TRY_OR(done, code, st_open(&f, path));
    TRY_OR(done, code, match(source, &names, &f, s, how ? how : &as_published));
    if (!s->value) goto done;
    size_t most = largest(source, s->n);
    files = malloc(most * sizeof *files);
    ours = malloc(most * sizeof *ours);
    if (!files || !ours) {
        code = FAIL(ERR_SPACE, "%s: no memory to read a tensor", path);
        goto done;
    }
    TRY_OR(done, code, read_all(s, &f, source, files, NULL));
    TRY_OR(done, code, read_all(s, &f, source, files, ours));
    code = params_refresh(s);
done:
    st_close(&f);
    arena_free(&names);
    free(source);
    free(files);
    free(ours);
    return code;
}
