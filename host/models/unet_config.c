/* unet_config.c - config.json of UNet2DConditionModel, as diffusers writes it. */
#include "models/unet.h"
#include "weights/json_config.h"

static const char *const down_types[] = {"DownBlock2D", "CrossAttnDownBlock2D"};
static const char *const up_types[] = {"UpBlock2D", "CrossAttnUpBlock2D"};
static const char *const mid_types[] = {"UNetMidBlock2DCrossAttn", "UNetMidBlock2D"};
static const char *const activations[] = {"silu", "swish", "gelu", "relu", "mish"};
static const UnetActivation activation[] = {UNET_SILU, UNET_SILU, UNET_GELU, UNET_RELU, UNET_MISH};

/* What the family can do beyond this engine, in the state in which it does nothing. */
static const JsonFixed fixed[] = {
    {"_class_name", "\"UNet2DConditionModel\""},
    {"only_cross_attention", "false"},
    {"mid_block_only_cross_attention", "false"},
    {"dual_cross_attention", "false"},
    {"dropout", "0.0"},
    {"resnet_time_scale_shift", "\"default\""},
    {"resnet_skip_time_act", "false"},
    {"resnet_out_scale_factor", "1.0"},
    {"time_embedding_type", "\"positional\""},
    {"time_cond_proj_dim", "null"},
    {"encoder_hid_dim", "null"},
    {"encoder_hid_dim_type", "null"},
    {"num_attention_heads", "null"}, /* by diffusers too: attention_head_dim is the number */
    {"class_embed_type", "null"},
    {"num_class_embeds", "null"},
    {"class_embeddings_concat", "false"}, /* widens the time embeddings, with or without classes */
    {"addition_embed_type", "null"},
    {"attention_type", "\"default\""},
    {"cross_attention_norm", "null"},
};

/* Keys that mean something else than their default where they are null. */
static const char *const nullable[] = {"mid_block_type",
                                       "reverse_transformer_layers_per_block",
                                       "time_embedding_dim",
                                       "time_embedding_act_fn",
                                       "timestep_post_act",
                                       "sample_size"};

/* Without meaning here: numbers of parts that are off; attention is fp32 anyway. */
static const JsonIgnored ignored[] = {
    {"upcast_attention", JSON_BOOL},
    {"addition_time_embed_dim", JSON_WHOLE},
    {"addition_embed_type_num_heads", JSON_WHOLE},
    {"projection_class_embeddings_input_dim", JSON_WHOLE},
};

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
    int n = c->n_block;
    for (int i = 0; i < n; i++) c->layers[i] = 2, c->transformers[i] = 1, c->heads[i] = 8;
    TRY(json_config_each(c->layers, n, j, "layers_per_block", 1, 12));
    TRY(json_config_each(c->transformers, n, j, "transformer_layers_per_block", 1, 64));
    TRY(json_config_each(c->heads, n, j, "attention_head_dim", 1, 1024));
    for (int i = 0; i < n; i++) c->up_transformers[i] = c->transformers[n - 1 - i];
    const char *reverse = "reverse_transformer_layers_per_block";
    const json_t *list = json_object_get(j->value, reverse);
    if (json_config_has(j, reverse) && json_array_size(list) != (size_t)n) /* one makes no model */
        return FAIL(ERR_INPUT, "%s: %s: found %s, expected a list of %d", j->path, reverse,
                    json_is_array(list) ? "a list of another length" : "no list", n);
    return json_config_each(c->up_transformers, n, j, reverse, 1, 64);
}

/* One width for all blocks: they see the same text. */
static Status text_width(UnetConfig *c, JsonConfig *j)
{
    int width[UNET_MAX_BLOCKS];
    for (int i = 0; i < c->n_block; i++) width[i] = c->cross_attention_dim;
    TRY(json_config_each(width, c->n_block, j, "cross_attention_dim", 1, 65536));
    for (int i = 1; i < c->n_block; i++)
        if (width[i] != width[0])
            return FAIL(ERR_INPUT,
                        "%s: cross_attention_dim: found %d and %d, expected one value for all "
                        "blocks",
                        j->path, width[0], width[i]);
    c->cross_attention_dim = width[0];
    return OK;
}

static Status kernel_size(int *v, JsonConfig *j, const char *key)
{
    TRY(json_config_int(v, j, key, 1, 15));
    return *v % 2 ? OK
                  : FAIL(ERR_INPUT, "%s: %s: found %d, expected an odd number", j->path, key, *v);
}

static Status activation_of(UnetActivation *v, JsonConfig *j, const char *key)
{
    int i = -1;
    TRY(json_config_choice(&i, j, key, activations, sizeof activations / sizeof *activations));
    if (i >= 0) *v = activation[i];
    return OK;
}

static Status mid_block(UnetConfig *c, JsonConfig *j)
{
    int type = UNET_MID_ATTENTION;
    double scale = 1;
    bool none = json_is_null(json_object_get(j->value, "mid_block_type"));
    TRY(json_config_choice(&type, j, "mid_block_type", mid_types, 2));
    TRY(json_config_real(&scale, j, "mid_block_scale_factor", 1e-6, 1e6));
    c->mid = none ? UNET_MID_NONE : type ? UNET_MID_RESNET : UNET_MID_ATTENTION;
    c->mid_scale = (float)scale;
    return OK;
}

static Status time_embedding(UnetConfig *c, JsonConfig *j)
{
    double shift = 0;
    c->time_dim = 4 * c->channels[0];
    TRY(json_config_bool(&c->flip_sin_to_cos, j, "flip_sin_to_cos"));
    TRY(json_config_real(&shift, j, "freq_shift", 0, 1));
    TRY(json_config_int(&c->time_dim, j, "time_embedding_dim", 1, 65536));
    TRY(activation_of(&c->time_act, j, "time_embedding_act_fn"));
    TRY(activation_of(&c->post_act, j, "timestep_post_act"));
    c->freq_shift = (float)shift;
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
        bool attends = c->down_attention[i] || c->up_attention[c->n_block - 1 - i] ||
                       (i == c->n_block - 1 && c->mid == UNET_MID_ATTENTION);
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
    double eps = 1e-5;
    int size[2]; /* of the images that it learnt from: without meaning for others */
    TRY(json_config_each(size, 2, j, "sample_size", 1, 1 << 20));
    TRY(json_config_int(&c->in_channels, j, "in_channels", 1, 4096));
    TRY(json_config_int(&c->out_channels, j, "out_channels", 1, 4096));
    TRY(json_config_bool(&c->use_linear_projection, j, "use_linear_projection"));
    TRY(json_config_int(&c->norm_num_groups, j, "norm_num_groups", 1, 65536));
    TRY(json_config_real(&eps, j, "norm_eps", 1e-12, 1));
    TRY(json_config_bool(&c->center_input_sample, j, "center_input_sample"));
    TRY(kernel_size(&c->conv_in_kernel, j, "conv_in_kernel"));
    TRY(kernel_size(&c->conv_out_kernel, j, "conv_out_kernel"));
    TRY(activation_of(&c->act, j, "act_fn"));
    TRY(json_config_int(&c->downsample_padding, j, "downsample_padding", 0, 1));
    c->norm_eps = (float)eps;
    TRY(blocks(c, j));
    TRY(text_width(c, j));
    TRY(mid_block(c, j));
    TRY(time_embedding(c, j));
    TRY(json_config_nulls(j, nullable, (int)(sizeof nullable / sizeof *nullable)));
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
                    .time_act = UNET_IDENTITY,
                    .post_act = UNET_IDENTITY,
                    .conv_in_kernel = 3,
                    .conv_out_kernel = 3,
                    .flip_sin_to_cos = true,
                    .downsample_padding = 1};
    TRY(json_config_open(&j, path));
    Status s = read(&c, &j);
    json_config_close(&j);
    if (!s) *out = c;
    return s;
}
