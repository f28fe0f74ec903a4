/* test_config_keys.c - nothing in a config.json is overlooked: for each key that diffusers'
 * UNet2DConditionModel (0.42) and transformers' CLIPTextConfig (5.23) have, a value other than the
 * default either changes the recorded graph, or is refused by name, or is one of the few that are
 * known to have no meaning here.
 *
 * A graph is compared as text: kinds, shapes, names, sources, and the bytes of the ops' arguments.
 */
#include "base/file.h"
#include "base/text.h"
#include "models/clip_text.h"
#include "models/inception_v3.h"
#include "models/unet.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/eq-keys-XXXXXX";

typedef enum { CHANGES, REFUSED, NOTHING } Effect;
typedef struct {
    const char *key, *value; /* as JSON */
    Effect effect;
} Row;

static const char unet_base[] =
    "{\"block_out_channels\": [32, 64], \"norm_num_groups\": 8, \"cross_attention_dim\": 12,"
    "\"down_block_types\": [\"CrossAttnDownBlock2D\", \"DownBlock2D\"],"
    "\"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\"]}";

static const Row unet_rows[] = {
    {"_class_name", "\"UNet2DConditionModel\"", NOTHING},
    {"_class_name", "\"UNet3DConditionModel\"", REFUSED},
    {"_diffusers_version", "\"0.6.0\"", NOTHING},
    {"sample_size", "64", NOTHING},
    {"sample_size", "[64, 32]", NOTHING},
    {"sample_size", "null", NOTHING},
    {"sample_size", "[64]", REFUSED},
    {"sample_size", "\"64\"", REFUSED},
    {"in_channels", "5", CHANGES},
    {"in_channels", "null", REFUSED},
    {"out_channels", "5", CHANGES},
    {"center_input_sample", "true", CHANGES},
    {"flip_sin_to_cos", "false", CHANGES},
    {"flip_sin_to_cos", "null", REFUSED},
    {"freq_shift", "1", CHANGES},
    {"down_block_types", "[\"DownBlock2D\", \"CrossAttnDownBlock2D\"]", CHANGES},
    {"down_block_types", "[\"CrossAttnDownBlock2D\", \"AttnDownBlock2D\"]", REFUSED},
    {"down_block_types", "[\"CrossAttnDownBlock2D\", \"SimpleCrossAttnDownBlock2D\"]", REFUSED},
    {"down_block_types", "[\"CrossAttnDownBlock2D\"]", REFUSED},
    {"mid_block_type", "null", CHANGES},
    {"mid_block_type", "\"UNetMidBlock2D\"", CHANGES},
    {"mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"", REFUSED},
    {"up_block_types", "[\"CrossAttnUpBlock2D\", \"UpBlock2D\"]", CHANGES},
    {"up_block_types", "[\"UpBlock2D\", \"AttnUpBlock2D\"]", REFUSED},
    {"only_cross_attention", "true", REFUSED},
    {"only_cross_attention", "[true, false]", REFUSED},
    {"block_out_channels", "[64, 32]", CHANGES},
    {"layers_per_block", "1", CHANGES},
    {"layers_per_block", "[2, 1]", CHANGES},
    {"layers_per_block", "[1]", REFUSED},
    {"layers_per_block", "[1, 1, 1]", REFUSED},
    {"downsample_padding", "0", CHANGES},
    {"mid_block_scale_factor", "1.5", CHANGES},
    {"dropout", "0.1", REFUSED},
    {"act_fn", "\"gelu\"", CHANGES},
    {"act_fn", "\"relu\"", CHANGES},
    {"act_fn", "\"mish\"", CHANGES},
    {"act_fn", "\"swish\"", NOTHING}, /* silu */
    {"act_fn", "\"tanh\"", REFUSED},
    {"norm_num_groups", "4", CHANGES},
    {"norm_num_groups", "null", REFUSED},
    {"norm_eps", "1e-6", CHANGES},
    {"cross_attention_dim", "13", CHANGES},
    {"cross_attention_dim", "[13, 13]", CHANGES},
    {"cross_attention_dim", "[12, 13]", REFUSED},
    {"cross_attention_dim", "[13]", REFUSED},
    {"transformer_layers_per_block", "2", CHANGES},
    {"transformer_layers_per_block", "[1, 2]", CHANGES},
    {"transformer_layers_per_block", "[2]", REFUSED},
    {"transformer_layers_per_block", "[1, 2, 1]", REFUSED},
    {"transformer_layers_per_block", "[[1, 2], 1]", REFUSED},
    {"reverse_transformer_layers_per_block", "[1, 2]", CHANGES},
    {"reverse_transformer_layers_per_block", "[2]", REFUSED},
    {"reverse_transformer_layers_per_block", "1", REFUSED},
    {"reverse_transformer_layers_per_block", "null", NOTHING},
    {"reverse_transformer_layers_per_block", "[[1, 2], 1]", REFUSED},
    {"encoder_hid_dim", "16", REFUSED},
    {"encoder_hid_dim_type", "\"text_proj\"", REFUSED},
    {"attention_head_dim", "4", CHANGES},
    {"attention_head_dim", "[4, 8]", CHANGES},
    {"attention_head_dim", "[4]", REFUSED},
    {"attention_head_dim", "[]", REFUSED},
    {"block_out_channels", "32", REFUSED},
    {"block_out_channels", "[]", REFUSED},
    {"up_block_types", "\"UpBlock2D\"", REFUSED},
    {"num_attention_heads", "4", REFUSED},
    {"dual_cross_attention", "true", REFUSED},
    {"use_linear_projection", "true", CHANGES},
    {"class_embed_type", "\"timestep\"", REFUSED},
    {"addition_embed_type", "\"text\"", REFUSED},
    {"addition_time_embed_dim", "256", NOTHING},
    {"num_class_embeds", "10", REFUSED},
    {"upcast_attention", "true", NOTHING},
    {"upcast_attention", "\"yes\"", REFUSED},
    {"upcast_attention", "1", REFUSED},
    {"class_embeddings_concat", "0", REFUSED},
    {"addition_time_embed_dim", "256.5", REFUSED},
    {"resnet_time_scale_shift", "\"scale_shift\"", REFUSED},
    {"resnet_skip_time_act", "true", REFUSED},
    {"resnet_out_scale_factor", "2.0", REFUSED},
    {"time_embedding_type", "\"fourier\"", REFUSED},
    {"time_embedding_dim", "96", CHANGES},
    {"time_embedding_act_fn", "\"silu\"", CHANGES},
    {"timestep_post_act", "\"silu\"", CHANGES},
    {"time_cond_proj_dim", "256", REFUSED},
    {"conv_in_kernel", "1", CHANGES},
    {"conv_in_kernel", "4", REFUSED},
    {"conv_out_kernel", "5", CHANGES},
    {"projection_class_embeddings_input_dim", "64", NOTHING},
    {"attention_type", "\"gated\"", REFUSED},
    {"class_embeddings_concat", "true", REFUSED},
    {"mid_block_only_cross_attention", "true", REFUSED},
    {"cross_attention_norm", "\"layer_norm\"", REFUSED},
    {"addition_embed_type_num_heads", "32", NOTHING},
    {"an_option_of_tomorrow", "1", REFUSED},
};

static const char text_base[] =
    "{\"vocab_size\": 50, \"hidden_size\": 16, \"intermediate_size\": 32,"
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"max_position_embeddings\": 9}";

static const Row text_rows[] = {
    {"architectures", "[\"CLIPTextModel\"]", NOTHING},
    {"architectures", "null", NOTHING},
    {"architectures", "[\"T5EncoderModel\"]", REFUSED},
    {"model_type", "\"clip_text_model\"", NOTHING},
    {"model_type", "\"t5\"", REFUSED},
    {"_name_or_path", "\"x\"", NOTHING},
    {"transformers_version", "\"4.0\"", NOTHING},
    {"torch_dtype", "\"float16\"", NOTHING},
    {"dtype", "\"float16\"", NOTHING},
    {"output_hidden_states", "true", NOTHING},
    {"output_attentions", "true", NOTHING},
    {"return_dict", "false", NOTHING},
    {"chunk_size_feed_forward", "2", NOTHING},
    {"is_encoder_decoder", "true", NOTHING},
    {"id2label", "{\"0\": \"x\"}", NOTHING},
    {"label2id", "{\"x\": 0}", NOTHING},
    {"problem_type", "\"x\"", NOTHING},
    {"use_cache", "false", NOTHING},
    {"dropout", "0.1", NOTHING},
    {"projection_dim", "768", NOTHING},
    {"initializer_range", "0.1", NOTHING},
    {"initializer_factor", "2.0", NOTHING},
    {"bos_token_id", "0", NOTHING},
    {"eos_token_id", "2", NOTHING},
    {"eos_token_id", "[2, 3]", NOTHING},
    {"eos_token_id", "\"2\"", REFUSED},
    {"use_cache", "1", REFUSED},
    {"torch_dtype", "16", REFUSED},
    {"id2label", "[]", REFUSED},
    {"dropout", "\"0.1\"", REFUSED},
    {"pad_token_id", "0", NOTHING},
    {"vocab_size", "51", CHANGES},
    {"hidden_size", "32", CHANGES},
    {"intermediate_size", "31", CHANGES},
    {"num_hidden_layers", "3", CHANGES},
    {"num_attention_heads", "4", CHANGES},
    {"num_attention_heads", "3", REFUSED},
    {"max_position_embeddings", "10", CHANGES},
    {"max_position_embeddings", "1", REFUSED}, /* no room for start and end */
    {"hidden_act", "\"gelu\"", CHANGES},
    {"hidden_act", "\"gelu_new\"", REFUSED},
    {"hidden_act", "null", REFUSED},
    {"layer_norm_eps", "1e-6", CHANGES},
    {"attention_dropout", "0.1", REFUSED},
    {"an_option_of_tomorrow", "1", REFUSED},
};

static const char inception_base[] =
    "{\"num_classes\": 3, \"aux_logits\": false, \"width\": 0.125}";

static const Row inception_rows[] = {
    {"num_classes", "4", CHANGES},
    {"aux_logits", "true", CHANGES},
    {"aux", "true", REFUSED},
    {"transform_input", "true", CHANGES},
    {"dropout", "0.2", CHANGES},
    {"width", "0.25", CHANGES},
    {"init_weights", "true", NOTHING},
    {"init_weights", "1", REFUSED},
    {"architecture", "\"inception_v3\"", NOTHING},
    {"architectures", "[1]", REFUSED},
    {"num_classes", "null", REFUSED},
    {"transform_input", "1", REFUSED},
    {"inception_blocks", "[]", REFUSED},
};

/* ---- one graph as text ------------------------------------------------------------------ */

static size_t args_bytes(const char *op)
{
    static const struct {
        const char *op;
        size_t bytes;
    } size[] = {{"conv2d", sizeof(ConvArgs)},         {"attention", sizeof(AttentionArgs)},
                {"groupnorm", sizeof(GroupnormArgs)}, {"layernorm", sizeof(LayernormArgs)},
                {"batchnorm", sizeof(BatchnormArgs)}, {"batchnorm_train", sizeof(BatchnormArgs)},
                {"scale_shift", sizeof(ScaleArgs)},   {"channel_affine", sizeof(ChannelAffineArgs)},
                {"dropout", sizeof(DropoutArgs)},     {"timestep_embedding", sizeof(TimestepArgs)}};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        if (!strcmp(op, size[i].op)) return size[i].bytes;
    return 0;
}

static void describe(const Graph *g, Text *out)
{
    char shape[64];
    for (int i = 0; i < g->n; i++) {
        const Tensor *t = g->node[i];
        text_add(out, "%s %s %s", t->op ? t->op->name : "leaf", tensor_shape_text(t, shape),
                 t->name);
        for (int k = 0; k < MAX_SRC; k++)
            if (t->src[k]) text_add(out, " %d", t->src[k]->id);
        for (size_t k = 0; t->args && t->op && k < args_bytes(t->op->name); k++)
            text_add(out, " %02x", ((const unsigned char *)t->args)[k]);
        text_add(out, "\n");
    }
}

static Tensor *input(Graph *g, Dtype dtype, int ndim, const int *dim)
{
    return graph_leaf(g, KIND_INPUT, dtype, "input", ndim, dim);
}

static Status unet_text(Text *out, const char *path)
{
    UnetConfig c;
    ParamStore s = {0};
    TRY(unet_config_read(&c, path));
    Graph *g = graph_new();
    unet(g, &s, &c, input(g, DTYPE_F32, 4, (int[]){1, 8, 8, c.in_channels}),
         input(g, DTYPE_F32, 1, (int[]){1}),
         input(g, DTYPE_F32, 3, (int[]){1, 5, c.cross_attention_dim}), false);
    Status status = graph_status(g);
    describe(g, out);
    graph_free(g);
    params_free(&s);
    return status;
}

static Status clip_text_text(Text *out, const char *path)
{
    ClipTextConfig c;
    ParamStore s = {0};
    TRY(clip_text_config_read(&c, path));
    Graph *g = graph_new();
    clip_text(g, &s, &c, input(g, DTYPE_I32, 2, (int[]){1, 7}));
    Status status = graph_status(g);
    describe(g, out);
    graph_free(g);
    params_free(&s);
    return status;
}

static Status inception_text(Text *out, const char *path)
{
    (void)path;
    InceptionConfig c;
    ParamStore s = {0};
    TRY(inception_config_read(&c, folder));
    Graph *g = graph_new();
    inception_v3(g, &s, &c, input(g, DTYPE_F32, 4, (int[]){2, 299, 299, 3}),
                 input(g, DTYPE_I32, 1, (int[]){3}), true);
    Status status = graph_status(g);
    describe(g, out);
    graph_free(g);
    params_free(&s);
    return status;
}

/* ---- the table ---------------------------------------------------------------------------- */

/* base with key set to value, written as the folder's config.json */
static const char *write_config(const char *base, const char *key, const char *value)
{
    static char path[64];
    json_t *all = json_loads(base, 0, NULL),
           *v = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    assert_true(all && (v || !value));
    if (value) json_object_set_new(all, key, v);
    char *text = json_dumps(all, 0);
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(file_write(path, text, strlen(text)), OK);
    free(text);
    json_decref(all);
    return path;
}

static void check(const char *base, const Row *row, size_t n,
                  Status (*graph_text)(Text *, const char *))
{
    Text plain = {0};
    if (graph_text(&plain, write_config(base, NULL, NULL))) fail_msg("%s", status_message());
    for (size_t i = 0; i < n; i++) {
        Text other = {0};
        Status s = graph_text(&other, write_config(base, row[i].key, row[i].value));
        bool same = other.s && !strcmp(plain.s, other.s);
        Effect found = s ? REFUSED : same ? NOTHING : CHANGES;
        static const char *const word[] = {"changes the graph", "is refused", "does nothing"};
        if (found != row[i].effect)
            fail_msg("%s = %s %s, expected that it %s%s%s", row[i].key, row[i].value, word[found],
                     word[row[i].effect], s ? ": " : "", s ? status_message() : "");
        if (s) assert_int_equal(s, ERR_INPUT);
        if (s && !strstr(status_message(), row[i].key))
            fail_msg("no \"%s\" in: %s", row[i].key, status_message());
        free(other.s);
    }
    free(plain.s);
}

static void test_unet(void **state)
{
    (void)state;
    check(unet_base, unet_rows, sizeof unet_rows / sizeof *unet_rows, unet_text);
}

static void test_text(void **state)
{
    (void)state;
    check(text_base, text_rows, sizeof text_rows / sizeof *text_rows, clip_text_text);
}

static void test_inception(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(file_write(path, "", 0), OK); /* a folder of a model has one */
    check(inception_base, inception_rows, sizeof inception_rows / sizeof *inception_rows,
          inception_text);
}

static int open_folder(void **state)
{
    (void)state;
    return !mkdtemp(folder);
}

static int close_folder(void **state)
{
    (void)state;
    return dir_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_unet), cmocka_unit_test(test_text),
                                       cmocka_unit_test(test_inception)};
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
