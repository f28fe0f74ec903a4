/* autoencoder.c - one face for the autoencoders of latent diffusion models. */
#include "models/autoencoder.h"
#include "base/folder.h"
#include "weights/model_folder.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Status read_kl(AutoencoderConfig *c, const char *config)
{
    const KlConfig *k = &c->kl;
    TRY(kl_config_read(&c->kl, config));
    if (k->in_channels != 3 || k->out_channels != 3)
        return FAIL(ERR_INPUT, "%s: in_channels and out_channels: found %d and %d, expected 3",
                    config, k->in_channels, k->out_channels);
    c->latent_channels = k->latent_channels;
    c->scale = 1 << (k->n_block - 1);
    c->standardised = true;
    for (int i = 0; i < k->latent_channels; i++) {
        c->mean[i] = 0;
        c->std[i] = 1 / k->scaling_factor;
    }
    return OK;
}

static Status numbers(float *v, const JsonConfig *j, const char *key, int n, bool positive)
{
    const json_t *list = json_object_get(j->value, key);
    if (json_array_size(list) != (size_t)n)
        return FAIL(ERR_INPUT, "%s: %s: found %zu numbers, expected %d, one a latent channel",
                    j->path, key, json_array_size(list), n);
    for (int i = 0; i < n; i++) {
        const json_t *x = json_array_get(list, (size_t)i);
        v[i] = (float)json_number_value(x);
        if (!json_is_number(x) || !isfinite(v[i]) || (positive && !(v[i] > 0)))
            return FAIL(ERR_INPUT, "%s: %s[%d]: found %g, expected a finite number%s", j->path, key,
                        i, (double)v[i], positive ? " above 0" : "");
    }
    return OK;
}

/* latents_mean and latents_std: both or neither, one number a channel. */
static Status read_statistics(AutoencoderConfig *c, const JsonConfig *j)
{
    c->standardised = json_config_has(j, "latents_mean") || json_config_has(j, "latents_std");
    if (!c->standardised) return OK;
    TRY(numbers(c->mean, j, "latents_mean", c->latent_channels, false));
    return numbers(c->std, j, "latents_std", c->latent_channels, true);
}

static Status read_tiny(AutoencoderConfig *c, const ModelSource *m, const char *path)
{
    TRY(tiny_config_read(&c->tiny, path));
    c->latent_channels = c->tiny.latent_channels;
    c->scale = TINY_SCALE;
    if (c->latent_channels > MAX_LATENT)
        return FAIL(ERR_INPUT, "%s: latent_channels: found %d, expected 1..%d", path,
                    c->latent_channels, MAX_LATENT);
    for (int i = 0; i < c->latent_channels; i++) c->mean[i] = 0, c->std[i] = 1;
    return m->json.value ? read_statistics(c, &m->json) : OK;
}

Status autoencoder_config_read(AutoencoderConfig *out, const char *path)
{
    ModelSource m = {0};
    AutoencoderConfig c = {0};
    Status s;
    TRY_OR(done, s, model_source_open(&m, path));
    const json_t *class = json_object_get(m.json.value, "_class_name");
    const char *name = json_string_value(class);
    c.is_kl = name && !strcmp(name, "AutoencoderKL");
    if (name && !c.is_kl && strcmp(name, "AutoencoderTiny"))
        s = FAIL(ERR_INPUT, "%s: _class_name: found %.80s, expected AutoencoderKL or "
                 "AutoencoderTiny", m.json.path, name);
    else s = c.is_kl ? read_kl(&c, m.json.path) : read_tiny(&c, &m, path);
    if (!s) *out = c;
done:
    model_source_close(&m);
    return s;
}

Status autoencoder_load(ParamStore *s, const AutoencoderConfig *c, const char *path)
{
    char *config, *weights;
    if (!c->is_kl) return autoencoder_tiny_load(s, path);
    TRY(model_find(&config, &weights, path));
    Status code = params_load(s, weights, NULL);
    free(config);
    free(weights);
    return code;
}

KlMoments autoencoder_encode(Graph *g, ParamStore *s, const AutoencoderConfig *c, Tensor *film,
                             bool recompute)
{
    if (!c->is_kl) return (KlMoments){.mean = autoencoder_tiny_encode(g, s, &c->tiny, film)};
    return autoencoder_kl_encode(g, s, &c->kl, scale_shift(g, film, 2, -1), recompute);
}

Tensor *autoencoder_decode(Graph *g, ParamStore *s, const AutoencoderConfig *c, Tensor *latent,
                           bool recompute)
{
    if (!c->is_kl) return autoencoder_tiny_decode(g, s, &c->tiny, latent);
    return scale_shift(g, autoencoder_kl_decode(g, s, &c->kl, latent, recompute), 0.5f, 0.5f);
}

static Status copy_but_weights(const char *to, const char *from)
{
    DirList list;
    Status s = OK;
    TRY(dir_list(&list, from));
    for (int i = 0; i < list.n && !s; i++) {
        char *source = path_join(from, list.name[i]), *target = path_join(to, list.name[i]);
        if (!dir_exists(source) && !model_is_weights(list.name[i])) s = file_copy(source, target);
        free(source);
        free(target);
    }
    dir_list_free(&list);
    return s;
}

Status autoencoder_save(const char *folder, const char *base, const ParamStore *s,
                        const float *values)
{
    char *temp = folder_begin(folder);
    char *weights = path_join(temp, "diffusion_pytorch_model.safetensors");
    Status code = dir_make(temp);
    if (!code) code = copy_but_weights(temp, base);
    if (!code) code = params_save(s, values, weights, SAVE_F32, 1, &(SafeMeta){"format", "pt"});
    free(weights);
    return folder_end(code, temp, folder);
}
