/* test_builders.c - recording models: recompute segments change no bit, configs are read whole or
 * refused by key, inputs that do not fit are refused with the reason. */
#include "base/random.h"
#include "exec/exec.h"
#include "models/autoencoder_tiny.h"
#include "models/clip_text.h"
#include "models/inception_v3.h"
#include "models/unet.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/eq-builders-XXXXXX";

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static const UnetConfig small = {.in_channels = 4,
                                 .out_channels = 4,
                                 .n_block = 2,
                                 .channels = {16, 32},
                                 .layers = {1, 1},
                                 .transformers = {1, 2},
                                 .heads = {2, 4},
                                 .down_attention = {true, false},
                                 .up_attention = {true, true},
                                 .up_transformers = {2, 1},
                                 .time_act = UNET_IDENTITY,
                                 .post_act = UNET_IDENTITY,
                                 .time_dim = 64,
                                 .mid_scale = 1,
                                 .conv_in_kernel = 3,
                                 .conv_out_kernel = 3,
                                 .cross_attention_dim = 12,
                                 .use_linear_projection = true,
                                 .norm_num_groups = 8,
                                 .norm_eps = 1e-5f,
                                 .flip_sin_to_cos = true,
                                 .downsample_padding = 1};

typedef struct {
    Graph *g;
    Tensor *in[3], *out;
} Recorded;

static Recorded record_unet(ParamStore *s, const UnetConfig *c, int h, int w, bool recompute)
{
    Recorded r = {.g = graph_new()};
    r.in[0] = graph_leaf(r.g, KIND_INPUT, DTYPE_F32, "sample", 4, (int[]){2, h, w, 4});
    r.in[1] = graph_leaf(r.g, KIND_INPUT, DTYPE_F32, "timestep", 1, (int[]){2});
    r.in[2] = graph_leaf(r.g, KIND_INPUT, DTYPE_F32, "context", 3, (int[]){2, 5, 12});
    r.out = unet(r.g, s, c, r.in[0], r.in[1], r.in[2], recompute);
    return r;
}

static void fill_normal(Exec *e, Tensor *t, uint32_t seed)
{
    float *v = calloc(tensor_count(t), sizeof *v);
    random_normals(v, tensor_count(t),
                   (RandomKey){.seed = seed, .stream = STREAM_TEST, .step = (uint32_t)t->id});
    require(exec_write(e, t, v));
    free(v);
}

/* Runs forward and backward; gradients are left in the store. */
static size_t run_unet(ParamStore *s, Device *d, uint32_t seed, bool recompute, float *out)
{
    Recorded r = record_unet(s, &small, 15, 13, recompute);
    require(graph_status(r.g));
    if (!s->value) {
        require(params_alloc(s, d, true));
        require(params_init(s, seed));
    }
    graph_backward(r.g, 1, &r.out, &r.in[0]); /* any tensor of this shape will do as gradient */
    params_pin_grads(r.g);
    params_bind(r.g);
    graph_finish(r.g, &r.out, 1);
    Exec *e;
    require(exec_new(&e, d, r.g, &r.out, 1));
    for (int i = 0; i < 3; i++) fill_normal(e, r.in[i], seed);
    require(exec_run(e));
    require(exec_read(e, r.out, out));
    size_t bytes = exec_bytes(e);
    exec_free(e);
    graph_free(r.g);
    return bytes;
}

static void test_recompute(void **state)
{
    (void)state;
    enum { OUT = 2 * 15 * 13 * 4 };
    uint32_t seed = (uint32_t)time(NULL);
    ParamStore s = {0};
    Device *d;
    require(device_open(&d, "cpu", "auto", 0, NULL));
    float *out = calloc(2 * OUT, sizeof *out);
    size_t plain_bytes = run_unet(&s, d, seed, false, out);
    float *plain = calloc(s.count, sizeof *plain);
    memcpy(plain, s.grad, s.count * sizeof *plain);
    memset(s.grad, 0, s.count * sizeof *plain);
    size_t bytes = run_unet(&s, d, seed, true, out + OUT);
    printf("recompute: %.2f MiB instead of %.2f\n", (double)bytes / 1048576,
           (double)plain_bytes / 1048576);
    assert_memory_equal(out, out + OUT, OUT * sizeof *out);
    assert_memory_equal(plain, s.grad, s.count * sizeof *plain);
    assert_true(bytes < plain_bytes);
    double sum = 0;
    for (size_t i = 0; i < s.count; i++) sum += (double)plain[i] * plain[i];
    assert_true(sum > 0);
    free(plain);
    free(out);
    params_free(&s);
    device_close(d);
}

static void expect_graph_error(Graph *g, const Tensor *out, const char *part)
{
    assert_null(out);
    if (!strstr(g->error, part)) fail_msg("no \"%s\" in: %s", part, g->error);
    graph_free(g);
}

static void test_inputs(void **state)
{
    (void)state;
    ParamStore s = {0};
    UnetConfig c = small;
    c.downsample_padding = 0;
    Recorded r = record_unet(&s, &c, 16, 1, false);
    expect_graph_error(r.g, r.out,
                       "sample [2,16,1,4]: expected [n,h,w,4] with h and w of 2 or more");
    c = small;
    c.cross_attention_dim = 13;
    r = record_unet(&s, &c, 16, 12, false);
    expect_graph_error(r.g, r.out, "encoder_hidden_states [2,5,12]: expected [2,tokens,13]");

    InceptionConfig narrow = {.num_classes = 2, .width = 0.25, .aux = true};
    Graph *g = graph_new();
    Tensor *image = graph_leaf(g, KIND_INPUT, DTYPE_F32, "image", 4, (int[]){1, 298, 320, 3});
    expect_graph_error(g, inception_v3(g, &s, &narrow, image, NULL, true).logits,
                       "auxiliary head needs 299 px");
    narrow.aux = false;
    g = graph_new();
    image = graph_leaf(g, KIND_INPUT, DTYPE_F32, "image", 4, (int[]){1, 75, 74, 3});
    expect_graph_error(g, inception_v3(g, &s, &narrow, image, NULL, false).logits, "75 or more");

    TinyConfig tiny = {.latent_channels = 4,
                       .width = 8,
                       .encoder_blocks = {1, 1, 1, 1},
                       .decoder_blocks = {1, 1, 1, 1}};
    g = graph_new();
    image = graph_leaf(g, KIND_INPUT, DTYPE_F32, "image", 4, (int[]){1, 24, 20, 3});
    expect_graph_error(g, autoencoder_tiny_encode(g, &s, &tiny, image), "multiples of 8");

    g = graph_new();
    image = graph_leaf(g, KIND_INPUT, DTYPE_F32, "image", 4, (int[]){1, 3, 5, 2});
    expect_graph_error(g, upsample(g, image, 6, 4), "[1,3,5,2] to 6 x 4 pixels, expected no fewer");

    ClipTextConfig text = {.vocab_size = 9,
                           .max_position_embeddings = 7,
                           .hidden_size = 8,
                           .intermediate_size = 8,
                           .num_hidden_layers = 1,
                           .num_attention_heads = 2};
    g = graph_new();
    Tensor *ids = graph_leaf(g, KIND_INPUT, DTYPE_I32, "ids", 2, (int[]){1, 8});
    expect_graph_error(g, clip_text(g, &s, &text, ids), "t up to 7");
    params_free(&s);
}

/* Dropout: off without rng; with it, features stay and logits change. */
static void test_dropout(void **state)
{
    (void)state;
    InceptionConfig c = {.num_classes = 3, .width = 0.125, .dropout = 0.5f};
    ParamStore s = {0};
    Device *d;
    Exec *e;
    require(device_open(&d, "cpu", "auto", 0, NULL));
    Graph *g = graph_new();
    Tensor *image = graph_leaf(g, KIND_INPUT, DTYPE_F32, "image", 4, (int[]){1, 80, 75, 3});
    Tensor *rng = graph_leaf(g, KIND_INPUT, DTYPE_I32, "rng", 1, (int[]){3});
    InceptionOut plain = inception_v3(g, &s, &c, image, NULL, false),
                 dropped = inception_v3(g, &s, &c, image, rng, false);
    require(graph_status(g));
    require(params_alloc(&s, d, false));
    require(params_init(&s, 5));
    params_bind(g);
    Tensor *keep[] = {plain.features, dropped.features, plain.logits, dropped.logits};
    graph_finish(g, keep, 4);
    require(exec_new(&e, d, g, keep, 4));
    fill_normal(e, image, 5);
    require(exec_write(e, rng, (int32_t[]){1, 2, 3}));
    require(exec_run(e));
    assert_int_equal(plain.features->dim[1], 2048 / 8);
    float v[2][256];
    for (int pair = 0; pair < 2; pair++) {
        for (int k = 0; k < 2; k++) require(exec_read(e, keep[2 * pair + k], v[k]));
        size_t bytes = tensor_bytes(keep[2 * pair]);
        if (pair) assert_memory_not_equal(v[0], v[1], bytes);
        else assert_memory_equal(v[0], v[1], bytes);
    }
    exec_free(e);
    graph_free(g);
    params_free(&s);
    device_close(d);
}

static const char *write_text(const char *text)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/config.json", folder);
    require(file_write(path, text, strlen(text)));
    return path;
}

#define UNET_BASE                                                                                  \
    "{\"_class_name\": \"UNet2DConditionModel\", \"sample_size\": 64, \"block_out_channels\": "    \
    "[32, 64], "                                                                                   \
    "\"down_block_types\": [\"CrossAttnDownBlock2D\", \"DownBlock2D\"], "                          \
    "\"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\"], \"norm_num_groups\": 8"

static void test_unet_config(void **state)
{
    (void)state;
    UnetConfig c;
    require(unet_config_read(
        &c, write_text(UNET_BASE ", \"attention_head_dim\": 4, \"class_embed_type\": null}")));
    assert_int_equal(c.n_block, 2);
    assert_true(c.down_attention[0] && !c.down_attention[1] && !c.up_attention[0] &&
                c.up_attention[1]);
    assert_true(c.heads[0] == 4 && c.heads[1] == 4 && c.layers[0] == 2 && c.layers[1] == 2);
    assert_true(c.in_channels == 4 && c.flip_sin_to_cos && c.norm_eps == 1e-5f &&
                c.downsample_padding == 1);
    require(unet_config_read(
        &c,
        write_text(UNET_BASE ", \"attention_head_dim\": [2, 8], \"layers_per_block\": [1, 3]}")));
    assert_true(c.heads[0] == 2 && c.heads[1] == 8 && c.layers[0] == 1 && c.layers[1] == 3);

    static const char *const refused[][2] = {
        {UNET_BASE ", \"resnet_time_scale_shift\": \"scale_shift\"}", "resnet_time_scale_shift"},
        {UNET_BASE ", \"class_embed_type\": \"timestep\"}", "class_embed_type"},
        {UNET_BASE ", \"only_cross_attention\": true}", "only_cross_attention"},
        {UNET_BASE ", \"mid_block_type\": \"UNetMidBlock2DSimpleCrossAttn\"}", "mid_block_type"},
        {UNET_BASE ", \"act_fn\": \"tanh\"}", "act_fn"},
        {UNET_BASE ", \"attention_head_dim\": [2, 4, 8]}", "attention_head_dim"},
        {UNET_BASE ", \"attention_head_dim\": 5}", "attention_head_dim"},
        {UNET_BASE ", \"some_new_option\": 3}", "some_new_option"},
        {"{\"block_out_channels\": [32], \"down_block_types\": [\"AttnDownBlock2D\"], "
         "\"up_block_types\": "
         "[\"UpBlock2D\"]}",
         "AttnDownBlock2D"},
        {"{\"block_out_channels\": [32, 64], \"down_block_types\": [\"DownBlock2D\"], "
         "\"up_block_types\": "
         "[\"UpBlock2D\"]}",
         "down_block_types"},
        {"{}", "block_out_channels"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_int_equal(unet_config_read(&c, write_text(refused[i][0])), ERR_INPUT);
        if (!strstr(status_message(), refused[i][1]))
            fail_msg("no %s in: %s", refused[i][1], status_message());
    }
}

static void test_other_configs(void **state)
{
    (void)state;
    ClipTextConfig t;
    require(clip_text_config_read(
        &t,
        write_text("{\"hidden_act\": \"gelu\", \"hidden_size\": 1024, \"num_hidden_layers\": 23, "
                   "\"num_attention_heads\": 16, \"torch_dtype\": \"float16\"}")));
    assert_true(!t.quick_gelu && t.hidden_size == 1024 && t.vocab_size == 49408 &&
                t.layer_norm_eps == 1e-5f);
    assert_int_equal(clip_text_config_read(&t, write_text("{\"hidden_act\": \"relu\"}")),
                     ERR_INPUT);
    assert_non_null(strstr(status_message(), "hidden_act"));
    assert_int_equal(clip_text_config_read(&t, write_text("{\"num_attention_heads\": 7}")),
                     ERR_INPUT);

    TinyConfig tiny;
    char vae[512];
    snprintf(vae, sizeof vae, "%s/samples/base/vae", SOURCE_DIR);
    require(tiny_config_read(&tiny, vae));
    assert_true(tiny.pool && tiny.latent_channels == 32 && tiny.width == 64 &&
                tiny.decoder_blocks[3] == 1);
    strcat(vae, "/diffusion_pytorch_model.safetensors");
    TinyConfig shapes;
    require(tiny_config_read(&shapes, vae));
    assert_memory_equal(&tiny, &shapes, sizeof tiny);
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recompute),     cmocka_unit_test(test_inputs),
        cmocka_unit_test(test_dropout),       cmocka_unit_test(test_unet_config),
        cmocka_unit_test(test_other_configs),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
