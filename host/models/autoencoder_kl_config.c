/* autoencoder_kl_config.c - config.json of AutoencoderKL, as diffusers writes it. */
#include "models/autoencoder_kl.h"
#include "weights/json_config.h"

static const char *const down_types[] = {"DownEncoderBlock2D"};
static const char *const up_types[] = {"UpDecoderBlock2D"};
static const char *const activations[] = {"silu", "relu", "gelu", "swish"};

/* Without meaning here: image size of tiling, half precision that is not used, and what shifts the
 * latents of other models than Stable Diffusion, whose pipelines do not look at it. */
static const JsonIgnored ignored[] = {{"sample_size", JSON_WHOLE | JSON_WHOLES},
                                      {"force_upcast", JSON_BOOL},
                                      {"shift_factor", JSON_NUMBER},
                                      {"latents_mean", JSON_NUMBERS},
                                      {"latents_std", JSON_NUMBERS}};
static const JsonFixed fixed[] = {{"_class_name", "\"AutoencoderKL\""}};
/* Python's None is no: null switches off what is on by default. */
static const char *const nullable[] = {"use_quant_conv", "use_post_quant_conv",
                                       "mid_block_add_attention"};

/* Every block is of the one kind that we have: as many as block_out_channels, or absent where that
 * has one block. */
static Status block_types(JsonConfig *j, const char *key, const char *const *name, int n_block)
{
    int type[KL_MAX_BLOCKS], n = 1;
    TRY(json_config_choices(type, &n, KL_MAX_BLOCKS, j, key, name, 1));
    if (n != n_block)
        return FAIL(ERR_INPUT, "%s: %s: found %d blocks, expected %d as in block_out_channels",
                    j->path, key, n, n_block);
    return OK;
}

static Status blocks(KlConfig *c, JsonConfig *j)
{
    TRY(json_config_ints(c->channels, &c->n_block, KL_MAX_BLOCKS, j, "block_out_channels", 1,
                         65536));
    TRY(block_types(j, "down_block_types", down_types, c->n_block));
    TRY(block_types(j, "up_block_types", up_types, c->n_block));
    for (int i = 0; i < c->n_block; i++)
        if (c->channels[i] % c->norm_num_groups)
            return FAIL(
                ERR_INPUT,
                "%s: block_out_channels: found %d, expected multiples of norm_num_groups = %d",
                j->path, c->channels[i], c->norm_num_groups);
    return OK;
}

static Status part(bool *on, JsonConfig *j, const char *key)
{
    if (json_is_null(json_object_get(j->value, key))) *on = false;
    return json_config_bool(on, j, key);
}

static Status read(KlConfig *c, JsonConfig *j)
{
    double scaling = 0.18215;
    int activation = 0;
    TRY(json_config_fixed(j, fixed, 1));
    TRY(json_config_int(&c->in_channels, j, "in_channels", 1, 4096));
    TRY(json_config_int(&c->out_channels, j, "out_channels", 1, 4096));
    TRY(json_config_int(&c->latent_channels, j, "latent_channels", 1, KL_MAX_LATENT));
    TRY(json_config_int(&c->layers_per_block, j, "layers_per_block", 1, 64));
    TRY(json_config_int(&c->norm_num_groups, j, "norm_num_groups", 1, 65536));
    TRY(json_config_choice(&activation, j, "act_fn", activations, 4));
    c->activation = activation == 3 ? KL_SILU : (KlActivation)activation;
    TRY(part(&c->quant_conv, j, "use_quant_conv"));
    TRY(part(&c->post_quant_conv, j, "use_post_quant_conv"));
    TRY(part(&c->mid_attention, j, "mid_block_add_attention"));
    TRY(json_config_real(&scaling, j, "scaling_factor", 1e-6, 1e6));
    c->scaling_factor = (float)scaling;
    c->has_shift = json_number_value(json_object_get(j->value, "shift_factor")) != 0 ||
                   json_config_has(j, "latents_mean") || json_config_has(j, "latents_std");
    TRY(blocks(c, j));
    TRY(json_config_nulls(j, nullable, 3));
    return json_config_finish(j, ignored, (int)(sizeof ignored / sizeof *ignored));
}

Status kl_config_read(KlConfig *out, const char *path)
{
    JsonConfig j = {0};
    KlConfig c = {.in_channels = 3,
                  .out_channels = 3,
                  .latent_channels = 4,
                  .n_block = 1,
                  .channels = {64},
                  .layers_per_block = 1,
                  .norm_num_groups = 32,
                  .quant_conv = true,
                  .post_quant_conv = true,
                  .mid_attention = true};
    TRY(json_config_open(&j, path));
    Status s = read(&c, &j);
    json_config_close(&j);
    if (!s) *out = c;
    return s;
}
