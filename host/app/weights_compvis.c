/* weights_compvis.c - a single-file checkpoint as a model's folder.
 *
 * Which model it is, the configs say that are given with it. Every parameter of that model must be
 * in the checkpoint with its shape, and nothing beside it below the prefixes of the three parts but
 * what those models carry unused. Values pass through a small buffer.
 */
#include "app/weights.h"
#include "base/folder.h"
#include "base/signal.h"
#include "models/compvis.h"
#include "weights/model_folder.h"
#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 14, MAX_COPY_BYTES = 1 << 26 };
enum { PART_UNET, PART_VAE, PART_TEXT, N_PARTS };

static const struct {
    const char *prefix, *folder, *file;
} part_row[N_PARTS] = {
    [PART_UNET] = {"model.diffusion_model.", "unet", "diffusion_pytorch_model.safetensors"},
    [PART_VAE] = {"first_stage_model.", "vae", "diffusion_pytorch_model.safetensors"},
    [PART_TEXT] = {"cond_stage_model.", "text_encoder", "model.safetensors"},
};

/* Where the values of one parameter come from. */
typedef struct {
    const SafeTensor *tensor;
    size_t first, count;
} Source;

typedef struct {
    Log *log;
    SafeFile file;
    UnetConfig unet;
    KlConfig vae;
    ClipTextConfig text;
    bool openclip, keep_dtype;
    SafeDtype dtype;
    ParamStore store[N_PARTS];
    bool *used; /* owned: [file.n] */
} Compvis;

/* ---- which model ------------------------------------------------------------------------- */

static Status read_configs(Compvis *c, const char *folder)
{
    char *path[N_PARTS];
    for (int k = 0; k < N_PARTS; k++) {
        char *part = path_join(folder, part_row[k].folder);
        path[k] = path_join(part, "config.json");
        free(part);
    }
    Status s = unet_config_read(&c->unet, path[PART_UNET]);
    if (!s) s = kl_config_read(&c->vae, path[PART_VAE]);
    if (!s) s = clip_text_config_read(&c->text, path[PART_TEXT]);
    for (int k = 0; k < N_PARTS; k++) free(path[k]);
    return s;
}

/* Records each network once, small: that registers its parameters. */
static Status register_parameters(Compvis *c)
{
    Graph *g = graph_new();
    int deepest = 1 << (c->unet.n_block - 1), coarse = 1 << (c->vae.n_block - 1);
    Tensor *x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "sample", 4,
                           (int[]){1, deepest, deepest, c->unet.in_channels});
    Tensor *t = graph_leaf(g, KIND_INPUT, DTYPE_F32, "timestep", 1, (int[]){1});
    Tensor *context = graph_leaf(g, KIND_INPUT, DTYPE_F32, "context", 3,
                                 (int[]){1, 1, c->unet.cross_attention_dim});
    Tensor *ids =
        graph_leaf(g, KIND_INPUT, DTYPE_I32, "ids", 2, (int[]){1, c->text.max_position_embeddings});
    Tensor *film = graph_leaf(g, KIND_INPUT, DTYPE_F32, "film", 4,
                              (int[]){1, coarse, coarse, c->vae.in_channels});
    Tensor *latent =
        graph_leaf(g, KIND_INPUT, DTYPE_F32, "latent", 4, (int[]){1, 1, 1, c->vae.latent_channels});
    unet(g, &c->store[PART_UNET], &c->unet, x, t, context, false);
    autoencoder_kl_encode(g, &c->store[PART_VAE], &c->vae, film, false);
    autoencoder_kl_decode(g, &c->store[PART_VAE], &c->vae, latent, false);
    clip_text(g, &c->store[PART_TEXT], &c->text, ids);
    Status s = graph_status(g);
    graph_free(g);
    return s;
}

static Status check_parts(Compvis *c)
{
    for (int k = 0; k < N_PARTS; k++) {
        bool found = false;
        for (int i = 0; i < c->file.n && !found; i++)
            found =
                !strncmp(c->file.tensor[i].name, part_row[k].prefix, strlen(part_row[k].prefix));
        if (!found)
            return FAIL(ERR_INPUT,
                        "%s: found no tensor \"%s*\", expected a checkpoint of the whole model",
                        c->file.path, part_row[k].prefix);
    }
    c->openclip = st_find(&c->file, "cond_stage_model.model.token_embedding.weight") != NULL;
    return OK;
}

/* ---- where its parameters are -------------------------------------------------------------- */

/* Equal but for trailing ones; rows: times as many in the file. */
static bool fits(const SafeTensor *t, const SafeSpec *want, int64_t rows)
{
    if (t->ndim > 4 || want->ndim > 4) return false;
    for (int i = 0; i < 4; i++) {
        int64_t n = i < want->ndim ? want->dim[i] : 1;
        if ((i < t->ndim ? t->dim[i] : 1) != (i ? n : n * rows)) return false;
    }
    return true;
}

static Status find_source(Source *source, Compvis *c, int k, const SafeSpec *want)
{
    char name[PARAM_NAME] = "", found[SAFE_SHAPE_TEXT], expected[SAFE_SHAPE_TEXT];
    int third = -1;
    if (k == PART_UNET) compvis_unet_name(name, want->name, &c->unet);
    else if (k == PART_VAE) compvis_vae_name(name, want->name, &c->vae);
    else if (c->openclip) compvis_openclip_name(name, &third, want->name);
    else compvis_text_name(name, want->name);
    const SafeTensor *t = *name ? st_find(&c->file, name) : NULL;
    st_shape_text(expected, want->ndim, want->dim);
    if (!t)
        return FAIL(ERR_INPUT, "%s: tensor \"%s\": found none, expected %s as %s says (for %s)",
                    c->file.path, name, expected, part_row[k].folder, want->name);
    if (!fits(t, want, third < 0 ? 1 : 3)) {
        st_shape_text(found, t->ndim, t->dim);
        return FAIL(ERR_INPUT, "%s: tensor \"%s\": found %s, expected %s%s (for %s)", c->file.path,
                    name, found, third < 0 ? "" : "three times ", expected, want->name);
    }
    if (safe_dtype_kind(t->dtype) != 'f')
        return FAIL(ERR_INPUT, "%s: tensor \"%s\": found dtype %s, expected F32, F16 or BF16",
                    c->file.path, name, safe_dtype_name(t->dtype));
    c->used[t - c->file.tensor] = true;
    *source = (Source){.tensor = t, .count = third < 0 ? t->count : t->count / 3};
    source->first = third < 0 ? 0 : (size_t)third * source->count;
    return OK;
}

/* Unused by the model as we run it: the position numbers of old files; OpenCLIP's projection,
 * temperature and last layers, where the config leaves those out; the autoencoder's discriminator.
 */
static bool carried_along(const Compvis *c, const char *name)
{
    int layer;
    size_t n = strlen(name);
    if (n > 12 && !strcmp(name + n - 12, "position_ids")) return true;
    if (!strncmp(name, "first_stage_model.loss.", 23)) return true;
    if (sscanf(name, "cond_stage_model.model.transformer.resblocks.%d.", &layer) == 1)
        return layer >= c->text.num_hidden_layers;
    return c->openclip && (!strcmp(name, "cond_stage_model.model.text_projection") ||
                           !strcmp(name, "cond_stage_model.model.logit_scale"));
}

static Status check_surplus(const Compvis *c, int k)
{
    size_t n = strlen(part_row[k].prefix);
    for (int i = 0; i < c->file.n; i++) {
        const char *name = c->file.tensor[i].name;
        if (c->used[i] || strncmp(name, part_row[k].prefix, n) || carried_along(c, name)) continue;
        return FAIL(ERR_INPUT,
                    "%s: tensor \"%.200s\": found beyond the model, expected what %s/config.json "
                    "says",
                    c->file.path, name, part_row[k].folder);
    }
    return OK;
}

/* ---- writing ------------------------------------------------------------------------------- */

static Status write_values(SafeWriter *w, const Compvis *c, const Source *source)
{
    float v[PIECE];
    size_t n_bad = 0;
    for (size_t at = 0; at < source->count; at += PIECE) {
        size_t n = source->count - at < PIECE ? source->count - at : PIECE;
        TRY(signal_check());
        TRY(st_read_f32_part(&c->file, source->tensor, source->first + at, n, v));
        TRY(st_write_f32(w, v, n));
        for (size_t i = 0; i < n; i++) n_bad += !isfinite(v[i]);
    }
    if (n_bad)
        log_warn(c->log, "%s: tensor \"%s\": %zu values are NaN or infinite", c->file.path,
                 source->tensor->name, n_bad);
    return OK;
}

static Status write_part(Compvis *c, int k, const char *folder)
{
    ParamStore *s = &c->store[k];
    SafeWriter w = {0};
    SafeSpec *spec = calloc((size_t)s->n + 1, sizeof *spec);
    Source *source = calloc((size_t)s->n + 1, sizeof *source);
    char *part = path_join(folder, part_row[k].folder), *path = path_join(part, part_row[k].file);
    CHECK(spec && source);
    Status code;
    for (int i = 0; i < s->n; i++) {
        spec[i] = (SafeSpec){.name = s->param[i].name};
        spec[i].ndim = param_file_shape(&s->param[i], spec[i].dim);
        TRY_OR(done, code, find_source(&source[i], c, k, &spec[i]));
        SafeDtype own = source[i].tensor->dtype;
        spec[i].dtype = !c->keep_dtype ? c->dtype : own == SAFE_F64 ? SAFE_F32 : own;
    }
    TRY_OR(done, code, check_surplus(c, k));
    TRY_OR(done, code, st_write_begin(&w, path, s->n, spec, 1, &(SafeMeta){"format", "pt"}));
    for (int i = 0; i < s->n; i++) {
        TRY_OR(done, code, write_values(&w, c, &source[i]));
        log_progress(c->log, part_row[k].folder, i + 1, s->n, NULL);
    }
    TRY_OR(done, code, st_write_commit(&w));
    log_progress_end(c->log);
done:
    st_write_abandon(&w);
    free(spec);
    free(source);
    free(part);
    free(path);
    return code;
}

static Status copy_config(Walk *w, const char *path, const char *relative)
{
    size_t n = strlen(relative), size;
    char *data;
    if (n < 5 || (strcmp(relative + n - 5, ".json") && strcmp(relative + n - 4, ".txt"))) return OK;
    if (model_is_weights(relative)) return OK; /* an index */
    TRY(file_read(&data, &size, path, MAX_COPY_BYTES));
    char *to = path_join(w->to, relative);
    Status s = file_write(to, data, size);
    free(data);
    free(to);
    return s;
}

static Status write_all(Compvis *c, const char *config, const char *to)
{
    Walk w = {.log = c->log, .from = config, .to = to, .visit = copy_config};
    for (int k = 0; k < N_PARTS; k++) TRY(write_part(c, k, to));
    return weights_walk(&w);
}

static Status write_folder(Compvis *c, const char *config, const char *to)
{
    char *temp = folder_begin(to);
    return folder_end(write_all(c, config, temp), temp, to);
}

Status weights_compvis(Log *log, const char *from, const char *config, const char *to,
                       const SafeDtype *dtype)
{
    Compvis c = {.log = log, .keep_dtype = !dtype, .dtype = dtype ? *dtype : SAFE_F32};
    Status s;
    if (file_exists(to)) return FAIL(ERR_USAGE, "%s: is there already; nothing is overwritten", to);
    TRY_OR(done, s, st_open(&c.file, from));
    TRY_OR(done, s, read_configs(&c, config));
    TRY_OR(done, s, check_parts(&c));
    TRY_OR(done, s, register_parameters(&c));
    c.used = calloc((size_t)c.file.n + 1, sizeof *c.used);
    CHECK(c.used);
    s = write_folder(&c, config, to);
done:
    for (int k = 0; k < N_PARTS; k++) params_free(&c.store[k]);
    st_close(&c.file);
    free(c.used);
    return s;
}
