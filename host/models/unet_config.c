/* unet_config.c - config.json of UNet2DConditionModel, as diffusers writes it. */
#include "models/unet.h"
#include "weights/json_config.h"

static const char *const down_types[] = {"DownBlock2D", "CrossAttnDownBlock2D"};
static const char *const up_types[] = {"UpBlock2D", "CrossAttnUpBlock2D"};

/* What the family can do beyond this engine, in the state in which it does nothing. */
static const JsonFixed fixed[] = {
    {"center_input_sample", "false"},
    {"mid_block_type", "\"UNetMidBlock2DCrossAttn\""},
    {"only_cross_attention", "false"},
    {"mid_block_only_cross_attention", "false"},
    {"dual_cross_attention", "false"},
    {"mid_block_scale_factor", "1"},
    {"dropout", "0.0"},
    {"act_fn", "\"silu\""},
    {"resnet_time_scale_shift", "\"default\""},
    {"resnet_skip_time_act", "false"},
    {"resnet_out_scale_factor", "1.0"},
    {"time_embedding_type", "\"positional\""},
    {"time_embedding_dim", "null"},
    {"time_embedding_act_fn", "null"},
    {"timestep_post_act", "null"},
    {"time_cond_proj_dim", "null"},
    {"reverse_transformer_layers_per_block", "null"},
    {"encoder_hid_dim", "null"},
    {"encoder_hid_dim_type", "null"},
    {"class_embed_type", "null"},
    {"num_class_embeds", "null"},
    {"addition_embed_type", "null"},
    {"conv_in_kernel", "3"},
    {"conv_out_kernel", "3"},
    {"attention_type", "\"default\""},
    {"cross_attention_norm", "null"},
};

/* Without meaning here: image size and numbers of parts that are off; attention is fp32 anyway. */
static const char *const ignored[] = {
    "sample_size",
    "upcast_attention",
    "class_embeddings_concat",
    "addition_time_embed_dim",
    "addition_embed_type_num_heads",
    "projection_class_embeddings_input_dim",
};

/* One value for all blocks, or one for each. */
static Status per_block(int v[UNET_MAX_BLOCKS], JsonConfig *j, const char *key, int n_block,
                        int most)
{
    int n = 0;
    TRY(json_config_ints(v, &n, UNET_MAX_BLOCKS, j, key, 1, most));
    if (n > 1 && n != n_block)
        return FAIL(ERR_INPUT,
                    "%s: %s: found %d values, expected one, or one for each of the %d blocks",
                    j->path, key, n, n_block);
    for (int i = 1; i < n_block && n < 2; i++) v[i] = v[0];
    return OK;
}

static Status block_types(bool attention[UNET_MAX_BLOCKS], JsonConfig *j, const char *key,
                          const char *const *name, int n_block)
{
    int type[UNET_MAX_BLOCKS], n = 0;
    TRY(json_config_need(j, key));
    TRY(json_config_choices(type, &n, UNET_MAX_BLOCKS, j, key, name, 2));
    if (n != n_block)
        return FAIL(ERR_INPUT, "%s: %s: found %d blocks, expected %d as in block_out_channels",
                    j->path, key, n, n_block);
    for (int i = 0; i < n; i++) attention[i] = type[i] == 1;
    return OK;
}

static Status blocks(UnetConfig *c, JsonConfig *j)
{
    TRY(json_config_need(j, "block_out_channels"));
    TRY(json_config_ints(c->channels, &c->n_block, UNET_MAX_BLOCKS, j, "block_out_channels", 1,
                         65536));
    TRY(block_types(c->down_attention, j, "down_block_types", down_types, c->n_block));
    TRY(block_types(c->up_attention, j, "up_block_types", up_types, c->n_block));
    c->layers[0] = 2;
    c->transformers[0] = 1;
    c->heads[0] = 8;
    TRY(per_block(c->layers, j, "layers_per_block", c->n_block, 12));
    TRY(per_block(c->transformers, j, "transformer_layers_per_block", c->n_block, 64));
    TRY(per_block(c->heads, j, "attention_head_dim", c->n_block, 1024));
    if (json_config_has(j, "num_attention_heads"))
        TRY(per_block(c->heads, j, "num_attention_heads", c->n_block, 1024));
    return OK;
}

static Status sizes_fit(const UnetConfig *c, const char *path)
{
    for (int i = 0; i < c->n_block; i++) {
        if (c->channels[i] % c->norm_num_groups)
            return FAIL(
                ERR_INPUT,
                "%s: block_out_channels: found %d, expected multiples of norm_num_groups = %d",
                path, c->channels[i], c->norm_num_groups);
        bool attends =
            c->down_attention[i] || c->up_attention[c->n_block - 1 - i] || i == c->n_block - 1;
        if (attends && c->channels[i] % c->heads[i])
            return FAIL(
                ERR_INPUT,
                "%s: attention_head_dim: found %d heads for %d channels, expected a divisor", path,
                c->heads[i], c->channels[i]);
    }
    if (c->channels[0] % 2)
        return FAIL(ERR_INPUT, "%s: block_out_channels[0]: found %d, expected an even number", path,
                    c->channels[0]);
    return OK;
}

static Status read(UnetConfig *c, JsonConfig *j)
{
    double eps = 1e-5, shift = 0;
    TRY(json_config_int(&c->in_channels, j, "in_channels", 1, 4096));
    TRY(json_config_int(&c->out_channels, j, "out_channels", 1, 4096));
    TRY(json_config_int(&c->cross_attention_dim, j, "cross_attention_dim", 1, 65536));
    TRY(json_config_bool(&c->use_linear_projection, j, "use_linear_projection"));
    TRY(json_config_int(&c->norm_num_groups, j, "norm_num_groups", 1, 65536));
    TRY(json_config_real(&eps, j, "norm_eps", 1e-12, 1));
    TRY(json_config_bool(&c->flip_sin_to_cos, j, "flip_sin_to_cos"));
    TRY(json_config_real(&shift, j, "freq_shift", 0, 1));
    TRY(json_config_int(&c->downsample_padding, j, "downsample_padding", 0, 1));
    c->norm_eps = (float)eps;
    c->freq_shift = (float)shift;
    TRY(blocks(c, j));
    TRY(json_config_fixed(j, fixed, (int)(sizeof fixed / sizeof *fixed)));
    TRY(json_config_finish(j, ignored, (int)(sizeof ignored / sizeof *ignored)));
    return sizes_fit(c, j->path);
}

Status unet_config_read(UnetConfig *out, const char *path)
{
    JsonConfig j = {0};
    UnetConfig c = {.in_channels = 4,
                    .out_channels = 4,
                    .cross_attention_dim = 1280,
                    .norm_num_groups = 32,
                    .flip_sin_to_cos = true,
                    .downsample_padding = 1};
    TRY(json_config_open(&j, path));
    Status s = read(&c, &j);
    json_config_close(&j);
    if (!s) *out = c;
    return s;
}
