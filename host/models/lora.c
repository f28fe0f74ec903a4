/* lora.c - reads, merges and writes low-rank changes. */
#include "models/lora.h"
#include "weights/json_text.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { PART_A, PART_B, PART_ALPHA, N_LORA_PARTS } LoraPart;

/* One changed parameter; a, b, alpha: in the file, alpha NULL where there is none. */
typedef struct {
    ParamStore *store;
    const Param *p;
    const SafeTensor *part[N_LORA_PARTS];
    float factor; /* scale * alpha / rank */
} Change;

typedef struct {
    ParamStore *unet, *text;
    SafeFile file;
    Change *change; /* owned */
    int n;
} Lora;

/* ---- names ------------------------------------------------------------------------------ */

static const struct {
    const char *end, *instead; /* what a name ends with, and what the module's name does then */
    LoraPart part;
} ending[] = {
    {".lora_A.weight", "", PART_A},
    {".lora_B.weight", "", PART_B},
    {".lora.down.weight", "", PART_A},
    {".lora.up.weight", "", PART_B},
    {".lora_linear_layer.down.weight", "", PART_A},
    {".lora_linear_layer.up.weight", "", PART_B},
    {".lora_down.weight", "", PART_A},
    {".lora_up.weight", "", PART_B},
    {".processor.to_q_lora.down.weight", ".to_q", PART_A},
    {".processor.to_q_lora.up.weight", ".to_q", PART_B},
    {".processor.to_k_lora.down.weight", ".to_k", PART_A},
    {".processor.to_k_lora.up.weight", ".to_k", PART_B},
    {".processor.to_v_lora.down.weight", ".to_v", PART_A},
    {".processor.to_v_lora.up.weight", ".to_v", PART_B},
    {".processor.to_out_lora.down.weight", ".to_out.0", PART_A},
    {".processor.to_out_lora.up.weight", ".to_out.0", PART_B},
    {".alpha", "", PART_ALPHA},
};

static const char *behind(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) ? NULL : name + n;
}

/* Does `file` name p's module? flat: with _ for each dot. */
static bool names_module(const Param *p, const char *file, bool flat)
{
    size_t n = strlen(p->name), m = strlen(file);
    static const char weight[] = ".weight";
    if (n != m + sizeof weight - 1 || strcmp(p->name + m, weight)) return false;
    for (size_t i = 0; i < m; i++)
        if (file[i] != p->name[i] && !(flat && p->name[i] == '.' && file[i] == '_')) return false;
    return true;
}

/* Text encoders may be written without the top of their names. */
static const Param *find_module(const ParamStore *s, const char *file, bool flat)
{
    for (int i = 0; i < s->n; i++) {
        const Param *p = &s->param[i];
        const char *below = behind(p->name, "text_model.");
        if (names_module(p, file, flat)) return p;
        if (below && names_module(&(Param){.name = below}, file, flat)) return p;
    }
    return NULL;
}

/* The store, part and module that a tensor is for; false where its name says none. */
static bool parse_name(char module[PARAM_NAME], ParamStore **store, LoraPart *part, bool *flat,
                       const Lora *l, const char *name)
{
    static const struct {
        const char *prefix;
        bool text, flat;
    } top[] = {{"unet.", false, false},
               {"text_encoder.", true, false},
               {"lora_unet_", false, true},
               {"lora_te_", true, true},
               {"lora_te1_", true, true}};
    *store = l->unet;
    *flat = false;
    for (size_t i = 0; i < sizeof top / sizeof *top; i++) {
        const char *rest = behind(name, top[i].prefix);
        if (!rest) continue;
        *store = top[i].text ? l->text : l->unet;
        *flat = top[i].flat;
        name = rest;
        break;
    }
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ending / sizeof *ending; i++) {
        size_t m = strlen(ending[i].end);
        if (n < m || strcmp(name + n - m, ending[i].end)) continue;
        *part = ending[i].part;
        return snprintf(module, PARAM_NAME, "%.*s%s", (int)(n - m), name, ending[i].instead) <
               PARAM_NAME;
    }
    return false;
}

static Change *change_of(Lora *l, ParamStore *s, const Param *p)
{
    for (int i = l->n - 1; i >= 0; i--)
        if (l->change[i].p == p) return &l->change[i];
    l->change[l->n] = (Change){.store = s, .p = p};
    return &l->change[l->n++];
}

/* Why a tensor has no place: another kind of file, as its name tells, or another model's. */
static Status misfit(const Lora *l, const char *name, bool parsed, bool flat)
{
    static const struct {
        const char *sign, *form;
    } known[] = {
        {"diffusion_model.", "names of single-file checkpoints"},
        {"lora_te2_", "Kohya's names for SDXL's second text encoder"},
        {"input_blocks", "Kohya's names with the blocks of single-file checkpoints"},
        {"middle_block", "Kohya's names with the blocks of single-file checkpoints"},
        {"output_blocks", "Kohya's names with the blocks of single-file checkpoints"},
        {".hada_", "a LoHa of LyCORIS"},
        {".lokr_", "a LoKr of LyCORIS"},
        {".dora_scale", "a DoRA"},
        {".lora_magnitude_vector", "a DoRA"},
        {"transformer.", "a LoRA of a diffusion transformer"},
    };
    const char *form = parsed ? NULL : "a name that is no LoRA's";
    size_t i = 0, n = sizeof known / sizeof *known;
    while (i < n && !strstr(name, known[i].sign)) i++;
    if (i < n) form = known[i].form;
    if (form)
        return FAIL(ERR_INPUT,
                    "%s: tensor \"%.200s\": found %s, expected diffusers' or PEFT's, like "
                    "\"unet.MODULE.lora_A.weight\", or Kohya's with diffusers' modules, like "
                    "\"lora_unet_down_blocks_0_MODULE.lora_down.weight\"",
                    l->file.path, name, form);
    return FAIL(
        ERR_INPUT,
        "%s: tensor \"%.200s\": found no such module in the model, expected a LoRA that was "
        "made for it (the names are %s)",
        l->file.path, name, flat ? "Kohya's" : "diffusers' or PEFT's");
}

static Status sort_tensors(Lora *l)
{
    l->change = calloc((size_t)l->file.n + 1, sizeof *l->change);
    CHECK(l->change);
    for (int i = 0; i < l->file.n; i++) {
        const SafeTensor *t = &l->file.tensor[i];
        char module[PARAM_NAME];
        ParamStore *store;
        LoraPart part;
        bool flat;
        bool parsed = parse_name(module, &store, &part, &flat, l, t->name);
        const Param *p = parsed ? find_module(store, module, flat) : NULL;
        if (!p) return misfit(l, t->name, parsed, flat);
        Change *c = change_of(l, store, p);
        if (c->part[part])
            return FAIL(ERR_INPUT, "%s: tensor \"%.200s\": found \"%.200s\" too, expected one",
                        l->file.path, t->name, c->part[part]->name);
        c->part[part] = t;
    }
    return l->n ? OK : FAIL(ERR_INPUT, "%s: found no tensor, expected a LoRA", l->file.path);
}

/* ---- shapes and scales ------------------------------------------------------------------- */

/* A [rank, in...] and B [out, rank, 1...] of a weight [out, in...]. */
static Status check_shapes(const Lora *l, const Change *c)
{
    const SafeTensor *a = c->part[PART_A], *b = c->part[PART_B];
    int64_t want[MAX_DIM];
    char found_a[SAFE_SHAPE_TEXT], found_b[SAFE_SHAPE_TEXT], expected[SAFE_SHAPE_TEXT];
    int ndim = param_file_shape(c->p, want);
    if (!a || !b)
        return FAIL(ERR_INPUT,
                    "%s: module of %s: found only one of A (down) and B (up), expected "
                    "both",
                    l->file.path, c->p->name);
    bool fits = ndim >= 2 && a->ndim >= 2 && b->ndim >= 2 && a->dim[0] > 0 &&
                b->dim[1] == a->dim[0] && b->dim[0] == want[0] &&
                b->count == (size_t)(b->dim[0] * b->dim[1]) &&
                a->count == (size_t)a->dim[0] * (c->p->count / (size_t)want[0]);
    for (int i = 1; fits && i < 4; i++)
        fits = (i < a->ndim ? a->dim[i] : 1) == (i < ndim ? want[i] : 1);
    if (fits) return OK;
    st_shape_text(found_a, a->ndim, a->dim);
    st_shape_text(found_b, b->ndim, b->dim);
    st_shape_text(expected, ndim, want);
    return FAIL(ERR_INPUT, "%s: module of %s: found A %s and B %s, expected a product of %s",
                l->file.path, c->p->name, found_a, found_b, expected);
}

/* A value of lora_adapter_metadata, NULL if absent: "unet.lora_alpha", or "lora_alpha" alone. */
static json_t *about(json_t *metadata, const char *part, const char *key)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", part, key);
    json_t *v = json_object_get(metadata, full);
    return v ? v : json_object_get(metadata, key);
}

static Status read_alpha(double *alpha, bool *root, const Lora *l, const Change *c, json_t *meta)
{
    const SafeTensor *t = c->part[PART_ALPHA];
    const char *part = c->store == l->text ? "text_encoder" : "unet";
    float v = (float)c->part[PART_A]->dim[0];
    if (t) {
        if (t->count != 1)
            return FAIL(ERR_INPUT, "%s: tensor \"%.200s\": found %zu values, expected one",
                        l->file.path, t->name, t->count);
        TRY(st_read_f32(&l->file, t, &v));
    } else if (about(meta, part, "lora_alpha")) {
        const json_t *given = about(meta, part, "lora_alpha");
        if (!json_is_number(given))
            return FAIL(ERR_INPUT,
                        "%s: metadata: found a lora_alpha that is no number, expected one",
                        l->file.path);
        v = (float)json_number_value(given);
    }
    if (!isfinite(v))
        return FAIL(ERR_INPUT, "%s: module of %s: found alpha %g, expected a finite number",
                    l->file.path, c->p->name, (double)v);
    if (json_object_size(about(meta, part, "alpha_pattern")))
        return FAIL(ERR_INPUT,
                    "%s: metadata: found an alpha_pattern, expected one lora_alpha for all modules",
                    l->file.path);
    if (json_is_true(about(meta, part, "use_dora")))
        return FAIL(ERR_INPUT, "%s: metadata: found use_dora, expected a plain LoRA", l->file.path);
    *root = json_is_true(about(meta, part, "use_rslora"));
    *alpha = v;
    return OK;
}

static Status check_all(Lora *l, double scale)
{
    const char *text = st_metadata(&l->file, "lora_adapter_metadata");
    json_t *meta = NULL;
    size_t end;
    Status s = OK;
    if (text) {
        char *place = malloc(strlen(l->file.path) + 64);
        CHECK(place);
        sprintf(place, "%s: lora_adapter_metadata", l->file.path);
        s = json_text_object(&meta, &end, text, strlen(text), place, 8);
        free(place);
        TRY(s);
    }
    for (int i = 0; i < l->n && !s; i++) {
        Change *c = &l->change[i];
        double alpha = 0;
        bool root = false;
        s = check_shapes(l, c);
        if (!s) s = read_alpha(&alpha, &root, l, c, meta);
        if (s) break;
        double rank = (double)c->part[PART_A]->dim[0];
        c->factor = (float)(scale * alpha / (root ? sqrt(rank) : rank));
    }
    json_decref(meta);
    return s;
}

/* ---- merging ----------------------------------------------------------------------------- */

/* w[out, in] += factor * b[out, rank] a[rank, in]; each sum over rank by itself, in order. */
static void add_product(float *w, const float *b, const float *a, size_t out, size_t rank,
                        size_t in, float factor)
{
    enum { WIDTH = 256 };
#pragma omp parallel for
    for (size_t i = 0; i < out; i++)
        for (size_t from = 0; from < in; from += WIDTH) {
            float sum[WIDTH] = {0};
            size_t n = in - from < WIDTH ? in - from : WIDTH;
            for (size_t k = 0; k < rank; k++)
                for (size_t j = 0; j < n; j++) sum[j] += b[i * rank + k] * a[k * in + from + j];
            for (size_t j = 0; j < n; j++) w[i * in + from + j] += factor * sum[j];
        }
}

/* Finite factors may have a product beyond fp32. */
static Status check_finite(const Param *p, const float *v)
{
    for (size_t i = 0; i < p->count; i++)
        if (!isfinite(v[i]))
            return FAIL(ERR_NUMERIC,
                        "%s: element %zu is %f with the LoRA, expected a finite number", p->name, i,
                        (double)v[i]);
    return OK;
}

static Status add_to(ParamStore *s, const Param *p, const float *a, const float *b, size_t rank,
                     float factor)
{
    int64_t dim[MAX_DIM];
    float *ours = malloc(p->count * sizeof *ours), *files = malloc(p->count * sizeof *files);
    Status code = ours && files ? OK : FAIL(ERR_SPACE, "no memory to change %s", p->name);
    if (!code) code = device_read(s->device, ours, s->value + p->offset, p->count * sizeof *ours);
    if (!code) {
        param_file_shape(p, dim);
        param_to_file(p, files, ours);
        add_product(files, b, a, (size_t)dim[0], rank, p->count / (size_t)dim[0], factor);
        code = check_finite(p, files);
    }
    if (!code) {
        param_from_file(p, ours, files);
        code = device_write(s->device, s->value + p->offset, ours, p->count * sizeof *ours);
    }
    free(ours);
    free(files);
    return code;
}

static Status read_part(float **v, const Lora *l, const SafeTensor *t)
{
    *v = malloc(t->count * sizeof **v);
    if (!*v) return FAIL(ERR_SPACE, "%s: no memory to read a tensor", l->file.path);
    TRY(st_read_f32(&l->file, t, *v));
    for (size_t i = 0; i < t->count; i++)
        if (!isfinite((*v)[i]))
            return FAIL(ERR_INPUT,
                        "%s: tensor \"%.200s\": element %zu is %f, expected a finite "
                        "number",
                        l->file.path, t->name, i, (double)(*v)[i]);
    return OK;
}

/* apply false: checks the values only. */
static Status use_change(const Lora *l, const Change *c, bool apply)
{
    float *a = NULL, *b = NULL;
    Status s = read_part(&a, l, c->part[PART_A]);
    if (!s) s = read_part(&b, l, c->part[PART_B]);
    if (!s && apply) s = add_to(c->store, c->p, a, b, (size_t)c->part[PART_A]->dim[0], c->factor);
    free(a);
    free(b);
    return s;
}

Status lora_merge(ParamStore *unet, ParamStore *text, const char *path, double scale)
{
    Lora l = {.unet = unet, .text = text};
    Status s;
    TRY(st_open(&l.file, path));
    TRY_OR(done, s, sort_tensors(&l));
    TRY_OR(done, s, check_all(&l, scale));
    TRY_OR(done, s, device_sync(unet->device));
    for (int apply = 0; apply < 2; apply++)
        for (int i = 0; i < l.n; i++) TRY_OR(done, s, use_change(&l, &l.change[i], apply));
    TRY_OR(done, s, params_refresh(unet));
    s = params_refresh(text);
done:
    free(l.change);
    st_close(&l.file);
    return s;
}

/* ---- trained ones ------------------------------------------------------------------------ */

/* The adapter's whole block on the host, heap. */
static Status own_block(float **block, const ParamStore *adapter, const float *value)
{
    *block = malloc(adapter->count * sizeof **block + 1);
    if (!*block) return FAIL(ERR_SPACE, "no memory for a LoRA");
    if (!value) return params_read(adapter, *block);
    memcpy(*block, value, adapter->count * sizeof **block);
    return OK;
}

Status lora_merge_adapter(ParamStore *s, const float *value)
{
    const ParamStore *adapter = s->adapter;
    float *block;
    Status code = own_block(&block, adapter, value);
    for (int i = 0; i + 1 < adapter->n && !code; i += 2) { /* A, B, A, B, ... */
        const Param *a = &adapter->param[i], *b = &adapter->param[i + 1], *p = NULL;
        char module[PARAM_NAME];
        snprintf(module, sizeof module, "%.*s", (int)(strlen(a->name) - strlen(".lora_A.weight")),
                 a->name);
        p = find_module(s, module, false);
        CHECK(p && b->dim[1] == a->dim[0]);
        code = add_to(s, p, block + a->offset, block + b->offset, (size_t)a->dim[0], 1);
    }
    if (!code) code = params_refresh(s);
    free(block);
    return code;
}

Status lora_save(const ParamStore *adapter, const float *value, const char *path)
{
    SafeWriter w = {0};
    Arena names = {0};
    float *block;
    SafeSpec *spec = calloc((size_t)adapter->n + 1, sizeof *spec);
    CHECK(spec);
    Status s;
    TRY_OR(done, s, own_block(&block, adapter, value));
    for (int i = 0; i < adapter->n; i++) {
        spec[i] = (SafeSpec){.name = arena_printf(&names, "unet.%s", adapter->param[i].name)};
        spec[i].ndim = param_file_shape(&adapter->param[i], spec[i].dim);
    }
    TRY_OR(done, s, st_write_begin(&w, path, adapter->n, spec, 1, &(SafeMeta){"format", "pt"}));
    for (int i = 0; i < adapter->n; i++)
        TRY_OR(done, s,
               st_write_f32(&w, block + adapter->param[i].offset, adapter->param[i].count));
    s = st_write_commit(&w);
done:
    st_write_abandon(&w);
    arena_free(&names);
    free(spec);
    free(block);
    return s;
}
