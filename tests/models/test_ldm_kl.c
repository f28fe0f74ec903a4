/* test_ldm_kl.c - a latent diffusion model whose autoencoder is an AutoencoderKL: latents are the
 * scaled mean, not shifted, whatever the batch, samples lie exp(logvar/2) around it, films come back in [0, 1],
 * the autoencoder is saved as it was. */
#include "base/random.h"
#include "exec/exec.h"
#include "models/ldm.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define TINY SOURCE_DIR "/configs/models/tiny"
#define CONFIG                                                                                     \
    "{ \"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [8, 16, 16], "                  \
    "\"norm_num_groups\": 4, \"down_block_types\": [\"DownEncoderBlock2D\", "                      \
    "\"DownEncoderBlock2D\", \"DownEncoderBlock2D\"], \"up_block_types\": "                        \
    "[\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\"], \"shift_factor\": 0.25, " \
    "\"scaling_factor\": 0.5 }\n"

enum { FILMS = 5, SIDE = 16, CHANNELS = 4, PIXELS = SIDE * SIDE, PER = 4 * 4 * CHANNELS };

static char folder[] = "/tmp/eq-ldm-kl-XXXXXX";

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static const char *at(const char *name)
{
    static char path[4][256];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

/* configs/models/tiny with another autoencoder, of random weights. */
static void make_base(Device *d, uint32_t seed)
{
    static const char *const same[] = {"scheduler", "text_encoder", "tokenizer", "unet"};
    require(dir_make(at("base/vae")));
    for (int i = 0; i < 4; i++) {
        char from[512], to[64];
        snprintf(from, sizeof from, TINY "/%s", same[i]);
        snprintf(to, sizeof to, "base/%s", same[i]);
        assert_int_equal(symlink(from, at(to)), 0);
    }
    require(file_write(at("base/vae/config.json"), CONFIG, strlen(CONFIG)));
    KlConfig c;
    ParamStore s = {0};
    Graph *g = graph_new();
    require(kl_config_read(&c, at("base/vae/config.json")));
    Tensor *x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 4, (int[]){1, 8, 8, 3});
    KlMoments m = autoencoder_kl_encode(g, &s, &c, x, false);
    autoencoder_kl_decode(g, &s, &c, m.mean, false);
    require(graph_status(g));
    require(params_alloc(&s, d, false));
    require(params_init(&s, seed));
    require(params_save(&s, NULL, at("base/vae/diffusion_pytorch_model.safetensors"), SAVE_F32, 0,
                        NULL));
    graph_free(g);
    params_free(&s);
}

/* mean and logvar of films by the network alone, images in [-1, 1] */
static void moments(Ldm *m, const float *films, float *mean, float *logvar)
{
    Graph *g = graph_new();
    Exec *e;
    float three[FILMS * PIXELS * 3];
    for (int i = 0; i < FILMS * PIXELS * 3; i++) three[i] = 2 * films[i / 3] - 1;
    Tensor *x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 4, (int[]){FILMS, SIDE, SIDE, 3});
    KlMoments k = autoencoder_kl_encode(g, &m->vae, &m->vae_config.kl, x, false);
    params_bind(g);
    Tensor *keep[] = {k.mean, k.logvar};
    graph_finish(g, keep, 2);
    require(exec_new(&e, m->device, g, keep, 2));
    require(exec_write(e, x, three));
    require(exec_run(e));
    require(exec_read(e, k.mean, mean));
    require(exec_read(e, k.logvar, logvar));
    exec_free(e);
    graph_free(g);
}

static void test_latents(void **state)
{
    Ldm *m = *state;
    static float films[FILMS * PIXELS], latent[FILMS * PER], deviation[FILMS * PER], one[PER];
    static float mean[FILMS * PER], logvar[FILMS * PER], back[FILMS * PIXELS], again[PIXELS];
    uint32_t seed = (uint32_t)time(NULL);
    for (uint32_t i = 0; i < FILMS * PIXELS; i++)
        films[i] = (float)random_uniform((RandomKey){seed, STREAM_TEST, 0, 0}, i);
    FilmShape shape = film_square(SIDE);
    assert_int_equal(ldm_scale(m), 4);
    assert_int_equal(ldm_latent_count(m, shape), PER);
    require(ldm_encode_moments(m, films, FILMS, shape, latent, deviation));
    moments(m, films, mean, logvar);
    for (int i = 0; i < FILMS * PER; i++) {
        double want = 0.5 * (double)mean[i], wide = 0.5 * exp(0.5 * (double)logvar[i]);
        assert_true(fabs(latent[i] - want) <= 0x1p-22 * (1 + fabs(want)));
        assert_true(fabs(deviation[i] - wide) <= 0x1p-22 * wide);
    }
    for (int i = 0; i < FILMS; i++) {
        require(ldm_encode(m, films + i * PIXELS, 1, shape, one));
        assert_memory_equal(one, latent + i * PER, sizeof one);
    }
    require(ldm_decode(m, latent, FILMS, shape, back));
    require(ldm_decode(m, latent + PER, 1, shape, again));
    assert_memory_equal(again, back + PIXELS, sizeof again);
    double low = 1, high = 0;
    for (int i = 0; i < FILMS * PIXELS; i++) {
        low = fmin(low, back[i]);
        high = fmax(high, back[i]);
    }
    assert_true(low >= 0 && high <= 1 && low < high);
}

static void test_save(void **state)
{
    Ldm *m = *state;
    char before[HASH_TEXT], after[HASH_TEXT];
    static const char *const file[] = {"vae/config.json",
                                       "vae/diffusion_pytorch_model.safetensors"};
    require(ldm_save(m, at("saved/"), NULL, NULL));
    for (int i = 0; i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "base/%s", file[i]);
        require(hash_file(before, at(name)));
        snprintf(name, sizeof name, "saved/%s", file[i]);
        require(hash_file(after, at(name)));
        assert_string_equal(before, after);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    AutoencoderConfig c;
    static const char *const text[][2] = {
        {"{\"_class_name\": \"VQModel\"}", "_class_name: found VQModel"},
        {"{\"_class_name\": \"AutoencoderKL\", \"in_channels\": 1}", "in_channels"},
        {"{\"_class_name\": \"AutoencoderTiny\", \"latent_channels\": 65}", "latent_channels"},
#define TINY_CONFIG "{\"_class_name\": \"AutoencoderTiny\", \"latent_channels\": 2"
        {TINY_CONFIG ", \"latents_mean\": [1, 2]}", "latents_std: found 0 numbers, expected 2"},
        {TINY_CONFIG ", \"latents_mean\": [1, 2], \"latents_std\": [1]}", "latents_std: found 1"},
        {TINY_CONFIG ", \"latents_mean\": [1, 2], \"latents_std\": [1, 0]}",
         "latents_std[1]: found 0"},
        {TINY_CONFIG ", \"latents_mean\": [1, NaN], \"latents_std\": [1, 1]}", "latents_mean[1]"},
        {TINY_CONFIG ", \"latents_mean\": \"x\"}", "latents_mean: found \"x\", expected a list"},
        {TINY_CONFIG ", \"force_upcast\": \"x\"}", "force_upcast: found \"x\", expected true or"},
        {TINY_CONFIG ", \"latent_magnitude\": true}",
         "latent_magnitude: found true, expected a number"},
        {TINY_CONFIG ", \"num_encoder_blocks\": [1, 3, 3]}", "num_encoder_blocks: found 3 values"},
        {TINY_CONFIG ", \"num_decoder_blocks\": 3}",
         "num_decoder_blocks: found 3, expected a list"},
    };
    require(dir_make(at("bad")));
    require(file_write(at("bad/diffusion_pytorch_model.safetensors"), "", 0));
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        require(file_write(at("bad/config.json"), text[i][0], strlen(text[i][0])));
        assert_int_equal(autoencoder_config_read(&c, at("bad")), ERR_INPUT);
        if (!strstr(status_message(), text[i][1]))
            fail_msg("no %s in: %s", text[i][1], status_message());
    }
}

static Device *device;

/* What opening the model said. */
static void said(char **text)
{
    Ldm m;
    size_t n;
    Log *log = log_new(true);
    log_file(log, at("log.jsonl"));
    log_info(log, "opening");
    require(ldm_open(&m, device, at("base"), (LdmUse){.random = true, .log = log}));
    ldm_close(&m);
    log_free(log);
    require(file_read(text, &n, at("log.jsonl"), 1 << 20));
    unlink(at("log.jsonl"));
}

static void test_unheeded_is_said(void **state)
{
    (void)state;
    char plain[sizeof CONFIG] = CONFIG, *text;
    said(&text);
    if (!strstr(text, "base/vae/config.json: shift_factor, latents_mean and latents_std have no "
                      "effect"))
        fail_msg("no warning in %s", text);
    free(text);
    memcpy(strstr(plain, "0.25"), "null", 4);
    require(file_write(at("base/vae/config.json"), plain, strlen(plain)));
    said(&text);
    if (strstr(text, "no effect")) fail_msg("without a shift_factor: %s", text);
    free(text);
    require(file_write(at("base/vae/config.json"), CONFIG, strlen(CONFIG)));
}

static int open_model(void **state)
{
    static Ldm m;
    if (!mkdtemp(folder)) return 1;
    require(device_open(&device, "cpu", "auto", 0, NULL));
    make_base(device, (uint32_t)time(NULL));
    require(ldm_open(&m, device, at("base"), (LdmUse){.random = true, .seed = 3}));
    *state = &m;
    return 0;
}

static int close_model(void **state)
{
    ldm_close(*state);
    device_close(device);
    return dir_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latents),
        cmocka_unit_test(test_save),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_unheeded_is_said),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
