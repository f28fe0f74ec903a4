/* autoencoder_tiny_file.c - config and weights of TAESD and TAEF2, in each form in which they come.
 *
 *   diffusers   encoder.layers.N and decoder.layers.N in one file
 *   original    a file for each half, names begin with N; the decoder's N counts its clamp, so it
 *               is one more than diffusers'
 */
#include "models/autoencoder_tiny.h"
#include "weights/model_folder.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { FORM_DIFFUSERS, FORM_ENCODER, FORM_DECODER } Form;

static const TinyConfig published = {.latent_channels = 4,
                                     .width = 64,
                                     .encoder_blocks = {1, 3, 3, 3},
                                     .decoder_blocks = {3, 3, 3, 1}};

static Form form_of(const SafeFile *f)
{
    if (st_find(f, "encoder.layers.0.weight") || st_find(f, "decoder.layers.0.weight"))
        return FORM_DIFFUSERS;
    return st_find(f, "0.weight") ? FORM_ENCODER : FORM_DECODER;
}

static void encoder_name(char file_name[PARAM_NAME], const char *name)
{
    static const char top[] = "encoder.layers.";
    strcpy(file_name, strncmp(name, top, sizeof top - 1) ? name : name + sizeof top - 1);
}

static void decoder_name(char file_name[PARAM_NAME], const char *name)
{
    int layer, at = 0;
    if (sscanf(name, "decoder.layers.%d%n", &layer, &at) == 1 && at)
        snprintf(file_name, PARAM_NAME, "%d%s", layer + 1, name + at);
}

/* The first convolution and the one to or from the latent, whichever half the file holds. */
static Status from_shapes(TinyConfig *c, const SafeFile *f)
{
    static const char *const first[] = {"encoder.layers.0.weight", "0.weight"};
    static const char *const last[] = {"encoder.layers.14.weight", "14.weight"};
    static const char *const pool[] = {"encoder.layers.11.pool.0.weight", "11.pool.0.weight",
                                       "decoder.layers.2.pool.0.weight", "3.pool.0.weight"};
    Form form = form_of(f);
    const SafeTensor *in = st_find(f, first[form == FORM_ENCODER]),
                     *out = st_find(f, last[form == FORM_ENCODER]);
    *c = published;
    if (in && out && in->ndim == 4 && out->ndim == 4) {
        c->width = (int)in->dim[0];
        c->latent_channels = (int)out->dim[0];
    } else {
        in = st_find(f, form == FORM_DECODER ? "1.weight" : "decoder.layers.0.weight");
        if (!in || in->ndim != 4)
            return FAIL(
                ERR_INPUT,
                "%s: found neither \"%s\" nor \"%s\" nor \"1.weight\", expected an AutoencoderTiny",
                f->path, first[0], first[1]);
        c->width = (int)in->dim[0];
        c->latent_channels = (int)in->dim[1];
    }
    int from = form == FORM_DIFFUSERS ? 0
               : form == FORM_ENCODER ? 1
                                      : 3,
        step = form == FORM_DIFFUSERS ? 2 : 4;
    for (int i = from; i < 4; i += step) c->pool |= st_find(f, pool[i]) != NULL;
    return OK;
}

/* Without meaning here: what diffusers' wrapper does with ranges of values, and our latents'
 * statistics. */
static const JsonIgnored ignored[] = {{"latent_magnitude", JSON_NUMBER},
                                      {"latent_shift", JSON_NUMBER},
                                      {"force_upcast", JSON_BOOL},
                                      {"block_out_channels", JSON_WHOLES},
                                      {"latents_mean", JSON_NUMBERS},
                                      {"latents_std", JSON_NUMBERS}};
static const JsonFixed fixed[] = {
    {"_class_name", "\"AutoencoderTiny\""},
    {"in_channels", "3"},
    {"out_channels", "3"},
    {"act_fn", "\"relu\""},
    {"upsample_fn", "\"nearest\""},
    {"upsampling_scaling_factor", "2"},
    {"scaling_factor", "1.0"},
    {"shift_factor", "0.0"},
};

static Status stages(int v[TINY_STAGES], JsonConfig *j, const char *key, int most)
{
    int n = TINY_STAGES;
    TRY(json_config_ints(v, &n, TINY_STAGES, j, key, 1, most));
    if (n != TINY_STAGES)
        return FAIL(ERR_INPUT, "%s: %s: found %d values, expected %d", j->path, key, n,
                    TINY_STAGES);
    return OK;
}

static Status from_json(TinyConfig *c, JsonConfig *j)
{
    static const char *const widths[] = {"encoder_block_out_channels",
                                         "decoder_block_out_channels"};
    *c = published;
    TRY(json_config_int(&c->latent_channels, j, "latent_channels", 1, 4096));
    TRY(json_config_bool(&c->pool, j, "pool"));
    TRY(stages(c->encoder_blocks, j, "num_encoder_blocks", 64));
    TRY(stages(c->decoder_blocks, j, "num_decoder_blocks", 64));
    for (int half = 0; half < 2; half++) {
        int v[TINY_STAGES] = {c->width, c->width, c->width, c->width};
        TRY(stages(v, j, widths[half], 65536));
        if (!half) c->width = v[0];
        for (int i = 0; i < TINY_STAGES; i++)
            if (v[i] != c->width)
                return FAIL(ERR_INPUT, "%s: %s[%d]: found %d, expected %d as everywhere", j->path,
                            widths[half], i, v[i], c->width);
    }
    TRY(json_config_nulls(j, NULL, 0));
    TRY(json_config_fixed(j, fixed, (int)(sizeof fixed / sizeof *fixed)));
    return json_config_finish(j, ignored, (int)(sizeof ignored / sizeof *ignored));
}

Status tiny_config_read(TinyConfig *out, const char *path)
{
    ModelSource m;
    TinyConfig c;
    Status s;
    TRY_OR(done, s, model_source_open(&m, path));
    TRY_OR(done, s, m.json.value ? from_json(&c, &m.json) : from_shapes(&c, &m.file));
    *out = c;
done:
    model_source_close(&m);
    return s;
}

static bool has_half(const ParamStore *s, const char *prefix)
{
    for (int i = 0; i < s->n; i++)
        if (!strncmp(s->param[i].name, prefix, strlen(prefix))) return true;
    return false;
}

Status tiny_names(ParamFile *how, const ParamStore *s, const char *weights_file)
{
    static void (*const rename_to[])(char *, const char *) = {
        [FORM_DIFFUSERS] = NULL, [FORM_ENCODER] = encoder_name, [FORM_DECODER] = decoder_name};
    SafeFile f = {0};
    TRY(st_open(&f, weights_file));
    const char *other = !has_half(s, "encoder.")   ? "encoder."
                        : !has_half(s, "decoder.") ? "decoder."
                                                   : NULL;
    *how = (ParamFile){.rename = rename_to[form_of(&f)], .skip = other};
    st_close(&f);
    return OK;
}

Status autoencoder_tiny_load(ParamStore *s, const char *path)
{
    char *config, *weights;
    ParamFile how;
    TRY(model_find(&config, &weights, path));
    Status code = tiny_names(&how, s, weights);
    if (!code) code = params_load(s, weights, &how);
    free(config);
    free(weights);
    return code;
}
