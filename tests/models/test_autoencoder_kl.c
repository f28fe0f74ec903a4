/* test_autoencoder_kl.c - AutoencoderKL: configs are read whole or refused by key, sizes that do
 * not fit are refused with the reason, recompute segments change no bit. */
#include "base/random.h"
#include "exec/exec.h"
#include "models/autoencoder_kl.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/eq-kl-XXXXXX";

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static const char *write_text(const char *text)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/config.json", folder);
    require(file_write(path, text, strlen(text)));
    return path;
}

#define TWO                                                                                        \
    "{\"block_out_channels\": [32, 64], \"down_block_types\": [\"DownEncoderBlock2D\", "           \
    "\"DownEncoderBlock2D\"], \"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]"

static void test_config(void **state)
{
    (void)state;
    KlConfig c;
    require(kl_config_read(&c, write_text("{\"_class_name\": \"AutoencoderKL\"}")));
    assert_true(c.n_block == 1 && c.channels[0] == 64 && c.layers_per_block == 1 &&
                c.latent_channels == 4 && c.norm_num_groups == 32);
    assert_true(c.quant_conv && c.post_quant_conv && c.mid_attention && !c.has_shift);
    assert_true(c.scaling_factor == 0.18215f);
    require(kl_config_read(&c, write_text(TWO ", \"mid_block_add_attention\": null, "
                                              "\"use_post_quant_conv\": null}")));
    assert_true(!c.mid_attention && !c.post_quant_conv && c.quant_conv);
    require(kl_config_read(
        &c,
        write_text(TWO ", \"act_fn\": \"swish\", \"use_quant_conv\": false, \"shift_factor\": "
                       "0.5, \"scaling_factor\": 2, \"latent_channels\": 2, \"latents_mean\": [1, "
                       "-2], \"latents_std\": [0.5, 3], \"sample_size\": 64, \"force_upcast\": "
                       "true, \"mid_block_add_attention\": false}")));
    assert_true(c.n_block == 2 && c.channels[1] == 64 && c.activation == KL_SILU);
    assert_true(!c.quant_conv && c.post_quant_conv && !c.mid_attention);
    assert_true(c.scaling_factor == 2 && c.has_shift);
    require(kl_config_read(&c, write_text(TWO ", \"shift_factor\": 0.0, \"latents_mean\": null}")));
    assert_false(c.has_shift);
    require(kl_config_read(&c, write_text(TWO ", \"latents_std\": [1, 2, 3, 4]}")));
    assert_true(c.has_shift);

    static const char *const refused[][2] = {
        {"{\"_class_name\": \"VQModel\"}",
         "_class_name: found \"VQModel\", expected \"AutoencoderKL\""},
        {TWO ", \"act_fn\": \"mish\"}", "act_fn"},
        {TWO ", \"norm_num_groups\": 24}", "block_out_channels"},
        {TWO ", \"latent_channels\": 65}", "latent_channels"},
        {TWO ", \"latents_mean\": 1}", "latents_mean: found 1, expected a list of numbers"},
        {TWO ", \"latents_std\": [1, \"a\"]}", "latents_std: found [1,\"a\"], expected a list of"},
        {TWO ", \"shift_factor\": true}", "shift_factor: found true, expected a number"},
        {TWO ", \"force_upcast\": 1}", "force_upcast: found 1, expected true or false"},
        {TWO ", \"sample_size\": 0.5}", "sample_size: found 0.5, expected a whole number"},
        {TWO ", \"scaling_factor\": null}", "scaling_factor: found null, expected a value"},
        {TWO ", \"layers_per_block\": [1, 1]}", "layers_per_block: found [1,1], expected 1..64"},
        {TWO ", \"pool\": true}", "pool"},
        {"{\"block_out_channels\": []}", "block_out_channels"},
        {"{\"block_out_channels\": [32, 64]}", "down_block_types"},
        {"{\"down_block_types\": [\"AttnDownEncoderBlock2D\"]}", "AttnDownEncoderBlock2D"},
        {"{\"up_block_types\": [\"AttnUpDecoderBlock2D\"]}", "AttnUpDecoderBlock2D"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_int_equal(kl_config_read(&c, write_text(refused[i][0])), ERR_INPUT);
        if (!strstr(status_message(), refused[i][1]))
            fail_msg("no %s in: %s", refused[i][1], status_message());
    }
}

static const KlConfig small = {.in_channels = 3,
                               .out_channels = 2,
                               .latent_channels = 4,
                               .n_block = 2,
                               .channels = {16, 32},
                               .layers_per_block = 1,
                               .norm_num_groups = 8,
                               .quant_conv = true,
                               .post_quant_conv = true,
                               .mid_attention = true};

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
    Graph *g = graph_new();
    Tensor *x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "sample", 4, (int[]){1, 9, 1, 3});
    expect_graph_error(g, autoencoder_kl_encode(g, &s, &small, x, false).mean,
                       "sample [1,9,1,3]: expected [n,h,w,3] with h and w of 2 or more");
    g = graph_new();
    x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "latent", 4, (int[]){1, 9, 2, 3});
    expect_graph_error(g, autoencoder_kl_decode(g, &s, &small, x, false),
                       "latent [1,9,2,3]: expected [n,h,w,4]");
    params_free(&s);
}

/* Decodes the mean of an odd image's latent, backward too; gradients are left in the store. */
static size_t run(ParamStore *s, Device *d, uint32_t seed, bool recompute, float *out)
{
    Graph *g = graph_new();
    Exec *e;
    Tensor *x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "sample", 4, (int[]){2, 13, 11, 3});
    KlMoments m = autoencoder_kl_encode(g, s, &small, x, recompute);
    Tensor *y = autoencoder_kl_decode(g, s, &small, m.mean, recompute);
    require(graph_status(g));
    assert_true(m.logvar->dim[1] == 6 && m.logvar->dim[2] == 5 && m.logvar->dim[3] == 4);
    assert_true(y->dim[1] == 12 && y->dim[2] == 10 && y->dim[3] == 2);
    if (!s->value) {
        require(params_alloc(s, d, true));
        require(params_init(s, seed));
    }
    Tensor *keep[] = {y, m.logvar};
    graph_backward(g, 2, keep, NULL);
    params_pin_grads(g);
    params_bind(g);
    graph_finish(g, keep, 2);
    require(exec_new(&e, d, g, keep, 2));
    float v[2 * 13 * 11 * 3];
    random_normals(v, sizeof v / sizeof *v, (RandomKey){.seed = seed, .stream = STREAM_TEST});
    require(exec_write(e, x, v));
    require(exec_run(e));
    require(exec_read(e, y, out));
    size_t bytes = exec_bytes(e);
    exec_free(e);
    graph_free(g);
    return bytes;
}

static void test_recompute(void **state)
{
    (void)state;
    enum { OUT = 2 * 12 * 10 * 2 };
    static float out[2][OUT];
    uint32_t seed = (uint32_t)time(NULL);
    ParamStore s = {0};
    Device *d;
    require(device_open(&d, "cpu", "auto", 0, NULL));
    size_t plain_bytes = run(&s, d, seed, false, out[0]);
    float *plain = calloc(s.count, sizeof *plain);
    memcpy(plain, s.grad, s.count * sizeof *plain);
    memset(s.grad, 0, s.count * sizeof *plain);
    size_t bytes = run(&s, d, seed, true, out[1]);
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_memory_equal(plain, s.grad, s.count * sizeof *plain);
    assert_true(bytes < plain_bytes);
    for (int i = 0; i < s.n; i++) {
        const Param *p = &s.param[i];
        double sum = 0;
        for (size_t k = 0; k < p->count; k++) sum += fabs((double)plain[p->offset + k]);
        if (!(sum > 0)) fail_msg("%s has no gradient", p->name);
    }
    free(plain);
    params_free(&s);
    device_close(d);
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
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_inputs),
        cmocka_unit_test(test_recompute),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
