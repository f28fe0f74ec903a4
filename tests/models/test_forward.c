/* test_forward.c - equipoise forward refuses what does not fit: one line, the right class, no file.
 */
#include "app/commands.h"
#include "base/file.h"
#include "weights/safetensors.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define VAE SOURCE_DIR "/samples/base/vae"
#define UNET SOURCE_DIR "/samples/base/unet"

static char folder[] = "/tmp/eq-forward-XXXXXX";
static char in[64], out[64];

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static void write_values(const char *path, int n, const SafeSpec *spec, float value)
{
    static float values[4096];
    static const int32_t none[4096];
    for (int i = 0; i < 4096; i++) values[i] = value;
    SafeWriter w = {0};
    require(st_write_begin(&w, path, n, spec, 0, NULL));
    for (int i = 0; i < n; i++) {
        size_t count = 1;
        for (int k = 0; k < spec[i].ndim; k++) count *= (size_t)spec[i].dim[k];
        assert_true(count <= 4096);
        require(spec[i].dtype == SAFE_F32 ? st_write_f32(&w, values, count)
                                          : st_write_i32(&w, none, count));
    }
    require(st_write_commit(&w));
}

static void write_zeros(const char *path, int n, const SafeSpec *spec)
{
    write_values(path, n, spec, 0);
}
static void write_inputs(int n, const SafeSpec *spec) { write_zeros(in, n, spec); }

static Status forward(const char *model, const char *weights, const char *more)
{
    App app = {.log = log_new(true)};
    char *argv[] = {"forward", (char *)model, "--weights", (char *)weights, "--in",
                    in,        "--out",       out,         (char *)more,    NULL};
    Status s = cmd_forward(&app, more ? 9 : 8, argv);
    log_free(app.log);
    return s;
}

static void refused(Status got, Status expected, const char *part)
{
    if (got != expected || !strstr(status_message(), part))
        fail_msg("%d: no \"%s\" in: %s", got, part, got ? status_message() : "(success)");
    assert_null(strchr(status_message(), '\n'));
    assert_false(file_exists(out));
}

/* The last of three ids is one too large. */
static void bad_id(void)
{
    static const int32_t ids[] = {0, 49407, 49408};
    SafeWriter w = {0};
    require(st_write_begin(&w, in, 1, &(SafeSpec){"input_ids", SAFE_I32, 2, {1, 3}}, 0, NULL));
    require(st_write_i32(&w, ids, 3));
    require(st_write_commit(&w));
}

static const SafeSpec latent = {"latent", SAFE_F32, 4, {1, 32, 2, 3}};

static void test_refusals(void **state)
{
    (void)state;
    char path[600];
    write_inputs(1, &latent);
    refused(forward("vae", VAE, NULL), ERR_USAGE,
            "unknown model vae, expected one of unet, vae-encode, vae-decode, taesd-encode, "
            "taesd-decode, text, inception");
    refused(forward("vae-decode", VAE, NULL), ERR_INPUT, "config.json: ");
    refused(forward("taesd-decode", VAE, "--fast"), ERR_USAGE, "--fast");
    refused(forward("taesd-decode", "/nonexistent", NULL), ERR_INPUT, "/nonexistent");
    refused(forward("unet", SOURCE_DIR "/samples/base", NULL), ERR_INPUT,
            "base: found a whole pipeline, expected the folder of one model in it, as ");
    refused(forward("taesd-encode", VAE, NULL), ERR_INPUT, "no tensor \"sample\"");
    refused(forward("taesd-decode", VAE, "--grad"), ERR_INPUT, "grad.sample");
    refused(forward("taesd-decode", VAE, "--train"), ERR_USAGE, "expected none");
    refused(forward("taesd-decode", VAE, "--dump=" VAE "/config.json"), ERR_USAGE, "--force");
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", VAE);
    refused(forward("inception", path, NULL), ERR_INPUT, "no tensor \"image\"");

    SafeSpec bad = latent;
    bad.dim[1] = 4;
    write_inputs(1, &bad);
    refused(forward("taesd-decode", VAE, NULL), ERR_INPUT,
            "latent [1,2,3,4]: expected [n,h,w,32]; in the file [n,c,h,w]");
    bad.ndim = 3;
    write_inputs(1, &bad);
    refused(forward("taesd-decode", VAE, NULL), ERR_INPUT, "found 3 dimensions, expected 4");
    bad = (SafeSpec){"latent", SAFE_F32, 4, {0, 32, 2, 3}};
    write_inputs(1, &bad);
    refused(forward("taesd-decode", VAE, NULL), ERR_INPUT, "dimension of 0");

    bad_id();
    refused(forward("text", SOURCE_DIR "/samples/base/text_encoder", NULL), ERR_INPUT,
            "in.safetensors: tensor \"input_ids\": element 2: found id 49408, expected 0..49407");

    const SafeSpec unet[] = {{"sample", SAFE_F32, 4, {1, 4, 8, 8}},
                             {"timestep", SAFE_F32, 1, {1}},
                             {"encoder_hidden_states", SAFE_F32, 3, {1, 2, 8}}};
    write_inputs(3, unet);
    refused(forward("unet", path, NULL), ERR_INPUT, "expected a folder with config.json");
    write_inputs(1, &(SafeSpec){"image", SAFE_F32, 4, {1, 3, 8, 8}});
    refused(forward("inception", path, NULL), ERR_INPUT, "fc.weight");
}

/* Weights that do not fit: everything that is wrong, in one line. */
static void test_weights(void **state)
{
    (void)state;
    static const char text[] =
        "{\"hidden_size\": 4, \"num_attention_heads\": 2, \"vocab_size\": 5, "
        "\"intermediate_size\": 8, \"num_hidden_layers\": 1}";
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", folder);
    require(file_write(path, text, sizeof text - 1));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    const SafeSpec weights[] = {
        {"text_model.embeddings.token_embedding.weight", SAFE_F32, 2, {5, 3}},
        {"text_model.embeddings.position_ids", SAFE_F32, 2, {1, 77}},
        {"surplus", SAFE_F32, 1, {2}}};
    write_zeros(path, 3, weights);
    write_inputs(1, &(SafeSpec){"input_ids", SAFE_I64, 2, {1, 3}});
    static const char *const said[] = {"missing", "text_model.embeddings.position_embedding.weight",
                                       "token_embedding.weight [5, 3] not [5, 4]", "unexpected",
                                       "surplus"};
    for (int i = 0; i < 5; i++) refused(forward("text", folder, NULL), ERR_INPUT, said[i]);
    refused(ERR_INPUT, ERR_INPUT, path);
    assert_null(strstr(status_message(), "position_ids"));
}

static void test_success(void **state)
{
    (void)state;
    const SafeSpec both[] = {latent, {"grad.sample", SAFE_F32, 4, {1, 3, 16, 24}}};
    write_inputs(2, both);
    require(forward("taesd-decode", VAE, "--grad"));
    SafeFile f = {0};
    const SafeTensor *t;
    require(st_open(&f, out));
    require(st_expect(&t, &f, "sample", 4, (int64_t[]){1, 3, 16, 24}));
    require(st_expect(&t, &f, "grad.latent", 4, (int64_t[]){1, 32, 2, 3}));
    require(st_expect(&t, &f, "grad.decoder.layers.0.weight", 4, (int64_t[]){64, 32, 3, 3}));
    assert_null(st_find(&f, "grad.encoder.layers.0.weight"));
    st_close(&f);
    char *before, *after;
    size_t n_before, n_after;
    require(file_read(&before, &n_before, out, 1 << 24));
    write_inputs(1, &latent);
    assert_int_equal(forward("taesd-decode", VAE, NULL), ERR_USAGE);
    assert_non_null(strstr(status_message(), "is there, expected a new file, or --force"));
    require(file_read(&after, &n_after, out, 1 << 24));
    assert_int_equal(n_before, n_after);
    assert_memory_equal(before, after, n_before);
    free(after);
    require(forward("taesd-decode", VAE, "--force"));
    require(file_read(&after, &n_after, out, 1 << 24));
    assert_true(n_after < n_before); /* no gradients this time */
    free(before);
    free(after);
    assert_int_equal(unlink(out), 0);
}

/* The decoder's output for latents of small whole numbers, written as `dtype`. */
static void decode_as(SafeDtype dtype, float *film, size_t n_film)
{
    enum { COUNT = 32 * 2 * 3 };
    float v[COUNT];
    int32_t whole[COUNT];
    SafeWriter w = {0};
    const SafeSpec spec = {"latent", dtype, 4, {1, 32, 2, 3}};
    for (int i = 0; i < COUNT; i++) v[i] = (float)(whole[i] = i * 7 % 5 - 2);
    require(st_write_begin(&w, in, 1, &spec, 0, NULL));
    require(dtype == SAFE_F32 ? st_write_f32(&w, v, COUNT) : st_write_i32(&w, whole, COUNT));
    require(st_write_commit(&w));
    require(forward("taesd-decode", VAE, "--force"));
    SafeFile f = {0};
    const SafeTensor *t;
    require(st_open(&f, out));
    require(st_expect(&t, &f, "sample", 4, (int64_t[]){1, 3, 16, 24}));
    assert_int_equal(t->count, n_film);
    require(st_read_f32(&f, t, film));
    st_close(&f);
    assert_int_equal(unlink(out), 0);
}

/* Whole numbers are turned into our layout like others. */
static void test_integers(void **state)
{
    enum { FILM = 3 * 16 * 24 };
    (void)state;
    static float as_float[FILM], as_whole[FILM];
    decode_as(SAFE_F32, as_float, FILM);
    decode_as(SAFE_I32, as_whole, FILM);
    assert_memory_equal(as_float, as_whole, sizeof as_float);
}

/* The UNet's output for two latents at these times; n: as the file has it. */
static void unet_at_times(SafeDtype dtype, int ndim, int n, float *y)
{
    enum { LATENT = 2 * 32 * 8 * 8, TEXT = 2 * 3 * 64 };
    static const float time[] = {7, 7};
    static float v[LATENT + TEXT];
    SafeWriter w = {0};
    const SafeSpec spec[] = {{"sample", SAFE_F32, 4, {2, 32, 8, 8}},
                             {"timestep", dtype, ndim, {n}},
                             {"encoder_hidden_states", SAFE_F32, 3, {2, 3, 64}}};
    for (int i = 0; i < LATENT + TEXT; i++) v[i] = (float)(i * 29 % 23 - 11) / 8;
    require(st_write_begin(&w, in, 3, spec, 0, NULL));
    require(st_write_f32(&w, v, LATENT));
    require(dtype == SAFE_F32 ? st_write_f32(&w, time, (size_t)n)
                              : st_write_i32(&w, (int32_t[]){7, 7}, (size_t)n));
    require(st_write_f32(&w, v + LATENT, TEXT));
    require(st_write_commit(&w));
    require(forward("unet", UNET, "--force"));
    SafeFile f = {0};
    const SafeTensor *t;
    require(st_open(&f, out));
    require(st_expect(&t, &f, "sample", 4, (int64_t[]){2, 32, 8, 8}));
    require(st_read_f32(&f, t, y));
    st_close(&f);
    assert_int_equal(unlink(out), 0);
}

/* One time serves the whole batch, with or without a dimension. */
static void test_times(void **state)
{
    (void)state;
    static float each[4096], one[4096], scalar[4096];
    unet_at_times(SAFE_F32, 1, 2, each);
    unet_at_times(SAFE_F32, 1, 1, one);
    unet_at_times(SAFE_I64, 0, 1, scalar);
    assert_memory_equal(each, one, sizeof each);
    assert_memory_equal(each, scalar, sizeof each);
}

static void bad_results(const char *model, const char *option, const char *name, size_t count)
{
    SafeFile f = {0};
    const SafeTensor *t;
    static float v[4096];
    assert_int_equal(forward(model, VAE, option), ERR_NUMERIC);
    assert_non_null(strstr(status_message(), out));
    if (!strstr(status_message(), name)) fail_msg("no \"%s\" in: %s", name, status_message());
    assert_null(strchr(status_message(), '\n'));
    require(st_open(&f, out)); /* it is there all the same, with what went bad */
    assert_non_null(t = st_find(&f, name));
    assert_int_equal(t->count, count);
    require(st_read_f32(&f, t, v));
    size_t n_bad = 0;
    for (size_t i = 0; i < count; i++) n_bad += !isfinite(v[i]);
    assert_true(n_bad > 0);
    char said[64];
    snprintf(said, sizeof said, "\"%s\", %zu of %zu, from element", name, n_bad, count);
    if (!strstr(status_message(), said)) fail_msg("no \"%s\" in: %s", said, status_message());
    st_close(&f);
    assert_int_equal(unlink(out), 0);
}

/* Bad numbers that were given are an input's fault; those that arose are written and named. */
static void test_bad_numbers(void **state)
{
    (void)state;
    const SafeSpec both[] = {latent, {"grad.sample", SAFE_F32, 4, {1, 3, 16, 24}}};
    const SafeSpec film = {"sample", SAFE_F32, 4, {1, 3, 16, 24}};
    write_values(in, 1, &latent, NAN);
    refused(forward("taesd-decode", VAE, NULL), ERR_INPUT,
            "in.safetensors: tensor \"latent\": element 0 is nan, expected");
    write_values(in, 1, &film, -INFINITY);
    refused(forward("taesd-encode", VAE, NULL), ERR_INPUT, "element 0 is -inf, expected");
    write_values(in, 1, &film, 3e38f);
    bad_results("taesd-encode", NULL, "latent", 1 * 32 * 2 * 3);
    write_values(in, 2, both, 3e38f); /* latents are bounded by the decoder, gradients are not */
    bad_results("taesd-decode", "--grad", "grad.latent", 1 * 32 * 2 * 3);
}

/* Nothing that is read is written over. */
static void test_places(void **state)
{
    (void)state;
    char *before, *after, dump[80], twice[80];
    size_t n_before, n_after;
    write_inputs(1, &latent);
    require(file_read(&before, &n_before, in, 1 << 20));
    snprintf(dump, sizeof dump, "--dump=%s", in);
    snprintf(twice, sizeof twice, "--dump=%s", out);
    refused(forward("taesd-decode", VAE, twice), ERR_USAGE, "expected two files");
    refused(forward("taesd-decode", VAE, "--dump="), ERR_USAGE, "--dump is \"\", expected FILE");
    refused(forward("taesd-decode", VAE, dump), ERR_USAGE, "which is read");
    App app = {.log = log_new(true)};
    char *argv[] = {"forward", "taesd-decode", "--weights", VAE,       "--in",
                    in,        "--out",        in,          "--force", NULL};
    refused(cmd_forward(&app, 9, argv), ERR_USAGE, "which is read, expected another file");
    log_free(app.log);
    require(file_read(&after, &n_after, in, 1 << 20));
    assert_int_equal(n_before, n_after);
    assert_memory_equal(before, after, n_before);
    free(before);
    free(after);
}

static int open_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return 1;
    snprintf(in, sizeof in, "%s/in.safetensors", folder);
    snprintf(out, sizeof out, "%s/out.safetensors", folder);
    return 0;
}

static int close_folder(void **state)
{
    (void)state;
    return dir_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_weights),
        cmocka_unit_test(test_success),  cmocka_unit_test(test_integers),
        cmocka_unit_test(test_times),    cmocka_unit_test(test_bad_numbers),
        cmocka_unit_test(test_places)};
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
