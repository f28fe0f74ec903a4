/* test_compvis.c - names of single-file checkpoints, and what `weights convert --config` makes of
 * them and refuses. (Against diffusers' own conversion: tests/parity/compvis.py.) */
#include "base/random.h"
#include "models/compvis.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> /* needs those above */

static char folder[] = "/tmp/test_compvis-XXXXXX";

static const UnetConfig sd15 = {
    .n_block = 4, .layers = {2, 2, 2, 2}, .up_attention = {false, true, true, true}};
static const KlConfig vae15 = {.n_block = 4, .layers_per_block = 2};

/* Pairs as they stand in v1-5-pruned.safetensors and diffusers' folder of it. */
static void names_are_the_published_ones(void **state)
{
    (void)state;
    static const char *const unet[][2] = {
        {"time_embedding.linear_2.bias", "time_embed.2.bias"},
        {"conv_in.weight", "input_blocks.0.0.weight"},
        {"down_blocks.0.resnets.0.norm1.weight", "input_blocks.1.0.in_layers.0.weight"},
        {"down_blocks.0.attentions.1.proj_in.weight", "input_blocks.2.1.proj_in.weight"},
        {"down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"},
        {"down_blocks.1.resnets.0.conv_shortcut.bias", "input_blocks.4.0.skip_connection.bias"},
        {"down_blocks.2.downsamplers.0.conv.bias", "input_blocks.9.0.op.bias"},
        {"down_blocks.3.resnets.1.time_emb_proj.weight", "input_blocks.11.0.emb_layers.1.weight"},
        {"mid_block.resnets.1.conv2.weight", "middle_block.2.out_layers.3.weight"},
        {"mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.bias",
         "middle_block.1.transformer_blocks.0.attn1.to_out.0.bias"},
        {"up_blocks.0.resnets.2.norm2.bias", "output_blocks.2.0.out_layers.0.bias"},
        {"up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"},
        {"up_blocks.1.attentions.0.norm.weight", "output_blocks.3.1.norm.weight"},
        {"up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"},
        {"up_blocks.3.resnets.2.conv1.weight", "output_blocks.11.0.in_layers.2.weight"},
        {"conv_norm_out.weight", "out.0.weight"},
        {"conv_out.bias", "out.2.bias"},
    };
    static const char *const vae[][2] = {
        {"encoder.conv_in.weight", "encoder.conv_in.weight"},
        {"encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
         "encoder.down.1.block.0.nin_shortcut.weight"},
        {"encoder.down_blocks.2.downsamplers.0.conv.bias", "encoder.down.2.downsample.conv.bias"},
        {"encoder.mid_block.attentions.0.group_norm.weight", "encoder.mid.attn_1.norm.weight"},
        {"decoder.mid_block.attentions.0.to_q.weight", "decoder.mid.attn_1.q.weight"},
        {"decoder.mid_block.attentions.0.to_out.0.bias", "decoder.mid.attn_1.proj_out.bias"},
        {"decoder.mid_block.resnets.1.norm2.bias", "decoder.mid.block_2.norm2.bias"},
        {"decoder.up_blocks.0.resnets.2.conv1.weight", "decoder.up.3.block.2.conv1.weight"},
        {"decoder.up_blocks.3.resnets.0.norm1.weight", "decoder.up.0.block.0.norm1.weight"},
        {"decoder.up_blocks.0.upsamplers.0.conv.weight", "decoder.up.3.upsample.conv.weight"},
        {"decoder.conv_norm_out.bias", "decoder.norm_out.bias"},
        {"quant_conv.weight", "quant_conv.weight"},
        {"post_quant_conv.bias", "post_quant_conv.bias"},
    };
    static const struct {
        const char *ours, *theirs;
        int third;
    } clip[] = {
        {"text_model.embeddings.token_embedding.weight", "token_embedding.weight", -1},
        {"text_model.embeddings.position_embedding.weight", "positional_embedding", -1},
        {"text_model.encoder.layers.22.layer_norm2.bias", "transformer.resblocks.22.ln_2.bias", -1},
        {"text_model.encoder.layers.3.mlp.fc2.weight", "transformer.resblocks.3.mlp.c_proj.weight",
         -1},
        {"text_model.encoder.layers.0.self_attn.q_proj.weight",
         "transformer.resblocks.0.attn.in_proj_weight", 0},
        {"text_model.encoder.layers.0.self_attn.v_proj.bias",
         "transformer.resblocks.0.attn.in_proj_bias", 2},
        {"text_model.encoder.layers.0.self_attn.out_proj.bias",
         "transformer.resblocks.0.attn.out_proj.bias", -1},
        {"text_model.final_layer_norm.weight", "ln_final.weight", -1},
    };
    char got[PARAM_NAME], want[PARAM_NAME];
    int third;
    for (size_t i = 0; i < sizeof unet / sizeof *unet; i++) {
        compvis_unet_name(got, unet[i][0], &sd15);
        snprintf(want, sizeof want, "model.diffusion_model.%s", unet[i][1]);
        assert_string_equal(got, want);
    }
    for (size_t i = 0; i < sizeof vae / sizeof *vae; i++) {
        compvis_vae_name(got, vae[i][0], &vae15);
        snprintf(want, sizeof want, "first_stage_model.%s", vae[i][1]);
        assert_string_equal(got, want);
    }
    for (size_t i = 0; i < sizeof clip / sizeof *clip; i++) {
        compvis_openclip_name(got, &third, clip[i].ours);
        snprintf(want, sizeof want, "cond_stage_model.model.%s", clip[i].theirs);
        assert_string_equal(got, want);
        assert_int_equal(third, clip[i].third);
    }
}

/* ---- a whole checkpoint -------------------------------------------------------------------- */

static const char UNET[] =
    "{\"_class_name\": \"UNet2DConditionModel\", \"block_out_channels\": [4], "
    "\"down_block_types\": [\"DownBlock2D\"], \"up_block_types\": [\"UpBlock2D\"], "
    "\"layers_per_block\": 1, \"attention_head_dim\": 1, \"cross_attention_dim\": 4, "
    "\"norm_num_groups\": 2}";
static const char VAE[] = "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [4], "
                          "\"down_block_types\": [\"DownEncoderBlock2D\"], "
                          "\"up_block_types\": [\"UpDecoderBlock2D\"], \"norm_num_groups\": 2}";
static const char TEXT[] = "{\"vocab_size\": 5, \"hidden_size\": 4, \"intermediate_size\": 6, "
                           "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, "
                           "\"max_position_embeddings\": 7}";

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(file_write(path, text, strlen(text)), OK);
}

typedef struct {
    SafeSpec spec[400];
    int n;
    Arena names;
} Checkpoint;

static void add_spec(Checkpoint *c, const char *name, int ndim, const int64_t *dim)
{
    SafeSpec *s = &c->spec[c->n++];
    *s = (SafeSpec){.name = arena_strdup(&c->names, name), .dtype = SAFE_F16, .ndim = ndim};
    if (ndim) memcpy(s->dim, dim, (size_t)ndim * sizeof *dim);
}

/* All parameters of the three models, OpenCLIP's in their thirds, value = place in the list. */
static void fill(Checkpoint *c)
{
    ParamStore s[3] = {{0}};
    UnetConfig u;
    KlConfig k;
    ClipTextConfig t;
    char path[256], name[PARAM_NAME];
    int third;
    snprintf(path, sizeof path, "%s/config/unet/config.json", folder);
    assert_int_equal(unet_config_read(&u, path), OK);
    snprintf(path, sizeof path, "%s/config/vae/config.json", folder);
    assert_int_equal(kl_config_read(&k, path), OK);
    snprintf(path, sizeof path, "%s/config/text_encoder/config.json", folder);
    assert_int_equal(clip_text_config_read(&t, path), OK);
    Graph *g = graph_new();
    int image[] = {1, 1, 1, 4}, film[] = {1, 1, 1, 3}, one[] = {1}, ids[] = {1, 7},
        context[] = {1, 1, 4};
    unet(g, &s[0], &u, graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 4, image),
         graph_leaf(g, KIND_INPUT, DTYPE_F32, "t", 1, one),
         graph_leaf(g, KIND_INPUT, DTYPE_F32, "c", 3, context), false);
    autoencoder_kl_encode(g, &s[1], &k, graph_leaf(g, KIND_INPUT, DTYPE_F32, "f", 4, film), false);
    autoencoder_kl_decode(g, &s[1], &k, graph_leaf(g, KIND_INPUT, DTYPE_F32, "l", 4, image), false);
    clip_text(g, &s[2], &t, graph_leaf(g, KIND_INPUT, DTYPE_I32, "i", 2, ids));
    assert_int_equal(graph_status(g), OK);
    for (int m = 0; m < 3; m++)
        for (int i = 0; i < s[m].n; i++) {
            int64_t dim[MAX_DIM];
            int ndim = param_file_shape(&s[m].param[i], dim);
            third = -1;
            if (m == 0) compvis_unet_name(name, s[m].param[i].name, &u);
            else if (m == 1) compvis_vae_name(name, s[m].param[i].name, &k);
            else compvis_openclip_name(name, &third, s[m].param[i].name);
            assert_true(*name);
            if (third == 0) dim[0] *= 3;
            if (third <= 0) add_spec(c, name, ndim, dim);
        }
    for (int m = 0; m < 3; m++) params_free(&s[m]);
    graph_free(g);
    add_spec(c, "cond_stage_model.model.logit_scale", 0, NULL);
    add_spec(c, "cond_stage_model.model.transformer.resblocks.1.ln_1.bias", 1, (int64_t[]){4});
    add_spec(c, "betas", 1, (int64_t[]){3});
}

static void write_checkpoint(const Checkpoint *c, const char *name)
{
    char path[256];
    SafeWriter w;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(st_write_begin(&w, path, c->n, c->spec, 0, NULL), OK);
    for (int i = 0; i < c->n; i++) {
        size_t count = 1;
        for (int d = 0; d < c->spec[i].ndim; d++) count *= (size_t)c->spec[i].dim[d];
        for (size_t k = 0; k < count; k++)
            assert_int_equal(st_write_f32(&w, &(float){(float)(i + (int)k)}, 1), OK);
    }
    assert_int_equal(st_write_commit(&w), OK);
}

/* Exit code of the conversion; what it said in `said`. */
static int convert(const char *from, const char *to, char said[2048])
{
    char command[1024], path[256];
    size_t size;
    snprintf(command, sizeof command,
             "cd '%s' && '" PROGRAM "' weights convert %s %s --config config >out 2>&1", folder,
             from, to);
    int code = system(command);
    snprintf(path, sizeof path, "%s/out", folder);
    char *text;
    assert_int_equal(file_read(&text, &size, path, 1 << 20), OK);
    snprintf(said, 2048, "%s", text);
    free(text);
    return code < 0 ? code : code >> 8;
}

static void expect_refusal(const Checkpoint *c, const char *message)
{
    char said[2048], path[256];
    write_checkpoint(c, "bad.safetensors");
    assert_int_equal(convert("bad.safetensors", "bad", said), 3);
    if (!strstr(said, message)) fail_msg("\"%s\" lacks \"%s\"", said, message);
    snprintf(path, sizeof path, "%s/bad", folder);
    assert_false(file_exists(path));
}

static void checkpoints_convert_or_are_refused(void **state)
{
    (void)state;
    static Checkpoint c;
    char said[2048], path[256];
    SafeFile f;
    put("config/unet/config.json", UNET);
    put("config/vae/config.json", VAE);
    put("config/text_encoder/config.json", TEXT);
    put("config/unet/diffusion_pytorch_model.safetensors", "not copied");
    fill(&c);
    write_checkpoint(&c, "good.safetensors");
    if (convert("good.safetensors", "good", said)) fail_msg("%s", said);
    snprintf(path, sizeof path, "%s/good/text_encoder/model.safetensors", folder);
    assert_int_equal(st_open(&f, path), OK);
    for (int third = 0; third < 3; third++) { /* rows of the one matrix */
        char name[64];
        float v[16];
        snprintf(name, sizeof name, "text_model.encoder.layers.0.self_attn.%c_proj.weight",
                 "qkv"[third]);
        const SafeTensor *t = st_find(&f, name);
        assert_non_null(t);
        assert_int_equal(t->dtype, SAFE_F16);
        assert_int_equal(st_read_f32(&f, t, v), OK);
        assert_true(v[15] == v[0] + 15);
        static float first;
        if (!third) first = v[0];
        assert_true(v[0] == first + (float)(16 * third));
    }
    st_close(&f);
    assert_int_equal(convert("good.safetensors", "good", said), 2);

    Checkpoint bad = c;
    bad.spec[0] = c.spec[c.n - 1], bad.n--;
    expect_refusal(&bad, "tensor \"model.diffusion_model.time_embed.0.weight\": found none");
    bad = c;
    bad.spec[0].dim[0]++;
    expect_refusal(&bad, "found [17, 4], expected [16, 4]");
    bad = c;
    bad.spec[c.n - 1].name = "model.diffusion_model.label_emb.weight";
    expect_refusal(&bad, "\"model.diffusion_model.label_emb.weight\": found beyond the model");
    bad = c;
    bad.n = 10;
    expect_refusal(&bad, "found no tensor \"first_stage_model.*\"");
    arena_free(&c.names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_the_published_ones),
        cmocka_unit_test(checkpoints_convert_or_are_refused),
    };
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dir_remove(folder);
    return failed;
}
