/* test_keys.c - published models register exactly the published names and shapes
 * (tests/golden/models/keys: name, shape in files, "buffer" for running averages). */
#include "models/autoencoder_kl.h"
#include "models/autoencoder_tiny.h"
#include "models/clip_text.h"
#include "models/inception_v3.h"
#include "models/unet.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static Tensor *input(Graph *g, Dtype dtype, int ndim, const int *dim)
{
    return graph_leaf(g, KIND_INPUT, dtype, "input", ndim, dim);
}

static void record_unet(Graph *g, ParamStore *s, UnetConfig c)
{
    unet(g, s, &c, input(g, DTYPE_F32, 4, (int[]){1, 64, 64, 4}),
         input(g, DTYPE_F32, 1, (int[]){1}),
         input(g, DTYPE_F32, 3, (int[]){1, 77, c.cross_attention_dim}), false);
}

static const UnetConfig sd15 = {.in_channels = 4,
                                .out_channels = 4,
                                .n_block = 4,
                                .channels = {320, 640, 1280, 1280},
                                .layers = {2, 2, 2, 2},
                                .transformers = {1, 1, 1, 1},
                                .heads = {8, 8, 8, 8},
                                .down_attention = {true, true, true, false},
                                .up_attention = {false, true, true, true},
                                .up_transformers = {1, 1, 1, 1},
                                .time_act = UNET_IDENTITY,
                                .post_act = UNET_IDENTITY,
                                .time_dim = 1280,
                                .mid_scale = 1,
                                .conv_in_kernel = 3,
                                .conv_out_kernel = 3,
                                .cross_attention_dim = 768,
                                .norm_num_groups = 32,
                                .norm_eps = 1e-5f,
                                .flip_sin_to_cos = true,
                                .downsample_padding = 1};

static void unet_sd15(Graph *g, ParamStore *s) { record_unet(g, s, sd15); }

static void unet_sd21(Graph *g, ParamStore *s)
{
    UnetConfig c = sd15;
    int heads[] = {5, 10, 20, 20};
    memcpy(c.heads, heads, sizeof heads);
    c.cross_attention_dim = 1024;
    c.use_linear_projection = true;
    record_unet(g, s, c);
}

static void record_text(Graph *g, ParamStore *s, int width, int layers, int heads)
{
    ClipTextConfig c = {.vocab_size = 49408,
                        .max_position_embeddings = 77,
                        .hidden_size = width,
                        .intermediate_size = 4 * width,
                        .num_hidden_layers = layers,
                        .num_attention_heads = heads,
                        .quick_gelu = true,
                        .layer_norm_eps = 1e-5f};
    clip_text(g, s, &c, input(g, DTYPE_I32, 2, (int[]){1, 77}));
}

static void clip_text_sd15(Graph *g, ParamStore *s) { record_text(g, s, 768, 12, 12); }
static void clip_text_sd21(Graph *g, ParamStore *s) { record_text(g, s, 1024, 23, 16); }

static void inception(Graph *g, ParamStore *s)
{
    InceptionConfig c = {.num_classes = 1000, .width = 1, .aux = true, .dropout = 0.5f};
    inception_v3(g, s, &c, input(g, DTYPE_F32, 4, (int[]){2, 299, 299, 3}), NULL, true);
}

static void taesd(Graph *g, ParamStore *s)
{
    TinyConfig c = {.latent_channels = 4,
                    .width = 64,
                    .encoder_blocks = {1, 3, 3, 3},
                    .decoder_blocks = {3, 3, 3, 1}};
    autoencoder_tiny_encode(g, s, &c, input(g, DTYPE_F32, 4, (int[]){1, 64, 64, 3}));
    autoencoder_tiny_decode(g, s, &c, input(g, DTYPE_F32, 4, (int[]){1, 8, 8, 4}));
}

static void autoencoder_kl(Graph *g, ParamStore *s)
{
    KlConfig c = {.in_channels = 3,
                  .out_channels = 3,
                  .latent_channels = 4,
                  .n_block = 4,
                  .channels = {128, 256, 512, 512},
                  .layers_per_block = 2,
                  .norm_num_groups = 32,
                  .quant_conv = true,
                  .post_quant_conv = true,
                  .mid_attention = true};
    autoencoder_kl_encode(g, s, &c, input(g, DTYPE_F32, 4, (int[]){1, 64, 64, 3}), false);
    autoencoder_kl_decode(g, s, &c, input(g, DTYPE_F32, 4, (int[]){1, 8, 8, 4}), false);
}

typedef struct {
    const char *keys;
    void (*record)(Graph *g, ParamStore *s);
} Case;

static void shape_text(char text[64], const Param *p)
{
    int64_t dim[MAX_DIM];
    int n = param_file_shape(p, dim), at = 0;
    text[0] = 0;
    for (int i = 0; i < n; i++)
        at += snprintf(text + at, 64 - (size_t)at, "%s%lld", i ? "x" : "", (long long)dim[i]);
    if (!n) strcpy(text, "scalar");
}

static void test_keys(void **state)
{
    const Case *c = *state;
    ParamStore s = {0};
    Graph *g = graph_new();
    c->record(g, &s);
    if (graph_status(g)) fail_msg("%s", status_message());

    char path[512], line[512];
    snprintf(path, sizeof path, "%s/tests/golden/models/keys/%s.tsv", SOURCE_DIR, c->keys);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        char name[256], shape[64], kind[16] = "", got[64];
        assert_true(sscanf(line, "%255s %63s %15s", name, shape, kind) >= 2);
        const Param *p = params_find(&s, name);
        if (!p) fail_msg("%s: %s is not registered", c->keys, name);
        shape_text(got, p);
        if (strcmp(got, shape)) fail_msg("%s: %s is %s, published %s", c->keys, name, got, shape);
        assert_int_equal(p->state, !strcmp(kind, "buffer"));
        n++;
    }
    fclose(f);
    assert_true(n > 100);
    assert_int_equal(s.n, n);
    graph_free(g);
    params_free(&s);
}

#define KEYS(name, record)                                                                         \
    {                                                                                              \
        name, test_keys, NULL, NULL, &(Case) { name, record }                                      \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEYS("unet_sd15", unet_sd15),           KEYS("unet_sd21", unet_sd21),
        KEYS("clip_text_sd15", clip_text_sd15), KEYS("clip_text_sd21", clip_text_sd21),
        KEYS("inception_v3", inception),        KEYS("taesd_diffusers", taesd),
        KEYS("autoencoder_kl_sd", autoencoder_kl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
