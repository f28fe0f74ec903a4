/* clip_text_config.c - config.json of CLIPTextModel, as transformers writes it. */
#include "models/clip_text.h"
#include "weights/json_config.h"

/* Without meaning for the forward pass: training's settings, token ids (the tokenizer's files have
 * them), the projection that CLIPTextModel does not own. */
static const JsonIgnored ignored[] = {
    {"torch_dtype", JSON_WORD},
    {"dtype", JSON_WORD},
    {"dropout", JSON_NUMBER},
    {"bos_token_id", JSON_WHOLE},
    {"eos_token_id", JSON_WHOLE | JSON_WHOLES},
    {"pad_token_id", JSON_WHOLE},
    {"projection_dim", JSON_WHOLE},
    {"initializer_factor", JSON_NUMBER},
    {"initializer_range", JSON_NUMBER},
    {"transformers_version", JSON_WORD},
    {"use_cache", JSON_BOOL},
    {"output_attentions", JSON_BOOL},
    {"return_dict", JSON_BOOL},
    {"output_hidden_states", JSON_BOOL},
    {"id2label", JSON_TABLE},
    {"label2id", JSON_TABLE},
    {"problem_type", JSON_WORD},
    {"is_encoder_decoder", JSON_BOOL},
    {"chunk_size_feed_forward", JSON_WHOLE},
};
static const JsonFixed fixed[] = {{"attention_dropout", "0.0"}};
static const char *const classes[] = {"CLIPTextModel"}, *const types[] = {"clip_text_model"};
/* Absent as well as null where a config was written without its model. */
static const char *const nullable[] = {"architectures", "model_type"};
static const char *const activations[] = {"quick_gelu", "gelu"};

static Status read(ClipTextConfig *c, JsonConfig *j)
{
    int activation = 0, class, type, n;
    double eps = 1e-5;
    TRY(json_config_choices(&class, &n, 1, j, "architectures", classes, 1));
    TRY(json_config_choice(&type, j, "model_type", types, 1));
    TRY(json_config_int(&c->vocab_size, j, "vocab_size", 1, 1 << 24));
    TRY(json_config_int(&c->max_position_embeddings, j, "max_position_embeddings", 2, 65536));
    TRY(json_config_int(&c->hidden_size, j, "hidden_size", 1, 65536));
    TRY(json_config_int(&c->intermediate_size, j, "intermediate_size", 1, 1 << 20));
    TRY(json_config_int(&c->num_hidden_layers, j, "num_hidden_layers", 1, 1024));
    TRY(json_config_int(&c->num_attention_heads, j, "num_attention_heads", 1, 1024));
    TRY(json_config_choice(&activation, j, "hidden_act", activations, 2));
    TRY(json_config_real(&eps, j, "layer_norm_eps", 1e-12, 1));
    TRY(json_config_nulls(j, nullable, 2));
    TRY(json_config_fixed(j, fixed, 1));
    TRY(json_config_finish(j, ignored, (int)(sizeof ignored / sizeof *ignored)));
    if (c->hidden_size % c->num_attention_heads)
        return FAIL(ERR_INPUT,
                    "%s: num_attention_heads: found %d, expected a divisor of hidden_size = %d",
                    j->path, c->num_attention_heads, c->hidden_size);
    c->quick_gelu = activation == 0;
    c->layer_norm_eps = (float)eps;
    return OK;
}

Status clip_text_config_read(ClipTextConfig *out, const char *path)
{
    JsonConfig j = {0};
    ClipTextConfig c = {.vocab_size = 49408,
                        .max_position_embeddings = 77,
                        .hidden_size = 512,
                        .intermediate_size = 2048,
                        .num_hidden_layers = 12,
                        .num_attention_heads = 8};
    TRY(json_config_open(&j, path));
    Status s = read(&c, &j);
    json_config_close(&j);
    if (!s) *out = c;
    return s;
}
