/* test_json_config.c - configs of published models read, and refused; model folders. */
#include "base/file.h"
#include "weights/json_config.h"
#include "weights/json_text.h"
#include "weights/model_folder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> /* needs those above */

static char folder[] = "/tmp/test_json_config-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void put(const char *name, const char *text)
{
    assert_int_equal(file_write(in_folder(name), text, strlen(text)), OK);
}

static const char *const blocks[] = {"DownBlock2D", "CrossAttnDownBlock2D"};

typedef struct {
    int channels[4], n_channels, block[4], n_block, groups, heads[2];
    double eps;
    bool flip;
} Unet;

static Status read_unet(Unet *u, const char *text)
{
    static const char *const classes[] = {"UNet2DConditionModel"};
    static const JsonFixed fixed[] = {
        {"act_fn", "\"silu\""}, {"dual_cross_attention", "false"}, {"scale", "1"}};
    static const JsonIgnored ignored[] = {{"sample_size", JSON_WHOLE | JSON_WHOLES},
                                          {"sigma", JSON_NUMBER},
                                          {"names", JSON_WORDS | JSON_TABLE}};
    JsonConfig c;
    int class = 0;
    Status s;
    *u = (Unet){.groups = 32, .heads = {3, 4}};
    put("unet/config.json", text);
    TRY(json_config_open(&c, in_folder("unet/config.json")));
    TRY_OR(done, s, json_config_need(&c, "block_out_channels"));
    TRY_OR(done, s, json_config_choice(&class, &c, "_class_name", classes, 1));
    TRY_OR(done, s,
           json_config_ints(u->channels, &u->n_channels, 4, &c, "block_out_channels", 1, 65536));
    TRY_OR(done, s,
           json_config_choices(u->block, &u->n_block, 4, &c, "down_block_types", blocks, 2));
    TRY_OR(done, s, json_config_int(&u->groups, &c, "norm_num_groups", 1, 64));
    TRY_OR(done, s, json_config_each(u->heads, 2, &c, "heads", 1, 9));
    TRY_OR(done, s, json_config_real(&u->eps, &c, "norm_eps", 0, 1));
    TRY_OR(done, s, json_config_bool(&u->flip, &c, "flip"));
    TRY_OR(done, s, json_config_fixed(&c, fixed, 3));
    TRY_OR(done, s, json_config_finish(&c, ignored, 3));
done:
    json_config_close(&c);
    return s;
}

static void good_configs_read(void **state)
{
    (void)state;
    Unet u;
    assert_int_equal(
        read_unet(&u,
                  "{\"_class_name\": \"UNet2DConditionModel\", \"_diffusers_version\": \"0.6.0\", "
                  "\"block_out_channels\": [320, 640], \"down_block_types\": "
                  "[\"CrossAttnDownBlock2D\", \"DownBlock2D\"], \"norm_num_groups\": null, "
                  "\"norm_eps\": 1e-05, \"flip\": true, "
                  "\"act_fn\": \"silu\", \"scale\": 1.0, \"sample_size\": 64, \"other\": null, "
                  "\"_use_default_values\": []}"),
        OK);
    assert_true(u.n_channels == 2 && u.channels[0] == 320 && u.channels[1] == 640);
    assert_true(u.n_block == 2 && u.block[0] == 1 && u.block[1] == 0);
    assert_true(u.groups == 32 && u.eps == 1e-5 && u.flip);
    assert_true(u.heads[0] == 3 && u.heads[1] == 4);
    assert_int_equal(read_unet(&u, "{\"block_out_channels\": [8], \"heads\": 5, \"sample_size\": "
                                   "[64, 32], \"sigma\": -Infinity, \"names\": {}}"),
                     OK);
    assert_true(u.n_channels == 1 && u.channels[0] == 8 && u.n_block == 0 && !u.flip);
    assert_true(u.heads[0] == 5 && u.heads[1] == 5);
    assert_int_equal(
        read_unet(&u, "{\"block_out_channels\": [8], \"heads\": [6, 7], \"sigma\": 3}"), OK);
    assert_true(u.heads[0] == 6 && u.heads[1] == 7);
}

static void bad_configs_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
#define C "\"block_out_channels\": [8], "
        {"{}", "unet/config.json: block_out_channels: found nothing, expected a value"},
        {"{\"block_out_channels\": [8, 8, -3]}",
         "block_out_channels[2]: found -3, expected 1..65536"},
        {"{\"block_out_channels\": [8, 2.5]}",
         "block_out_channels[1]: found 2.5, expected 1..65536"},
        {"{\"block_out_channels\": [8, 1e400]}", "unet/config.json: JSON byte"},
        {"{\"block_out_channels\": [1,2,3,4,5]}",
         "block_out_channels: found a list of 5, expected 1..4 values"},
        {"{\"block_out_channels\": []}",
         "block_out_channels: found a list of 0, expected 1..4 values"},
        {"{\"block_out_channels\": 8}", "block_out_channels: found 8, expected a list"},
        {"{\"block_out_channels\": [[1]]}", "block_out_channels[0]: found [1], expected 1..65536"},
        {"{\"block_out_channels\": \"x\"}", "block_out_channels: found \"x\", expected a list"},
        {"{" C "\"heads\": [4]}", "heads: found a list of 1, expected one value or a list of 2"},
        {"{" C "\"heads\": []}", "heads: found a list of 0, expected one value or a list of 2"},
        {"{" C "\"heads\": [1, 2, 3]}", "heads: found a list of 3, expected"},
        {"{" C "\"heads\": [1, 10]}", "heads[1]: found 10, expected 1..9"},
        {"{" C "\"heads\": 0}", "heads: found 0, expected 1..9"},
        {"{" C "\"sample_size\": \"64\"}",
         "sample_size: found \"64\", expected a whole number or a list of whole numbers"},
        {"{" C "\"sample_size\": [64, true]}", "sample_size: found [64,true], expected"},
        {"{" C "\"sigma\": true}", "sigma: found true, expected a number"},
        {"{" C "\"names\": [\"a\", 1]}",
         "names: found [\"a\",1], expected an object or a list of texts"},
        {"{" C "\"norm_eps\": NaN}", "norm_eps: found NaN, expected 0..1"},
        {"{" C "\"_class_name\": \"UNet3D\"}",
         "_class_name: found \"UNet3D\", expected UNet2DConditionModel"},
        {"{" C "\"down_block_types\": [\"SkipDownBlock2D\"]}",
         "down_block_types[0]: found \"SkipDownBlock2D\", expected DownBlock2D or "
         "CrossAttnDownBlock2D"},
        {"{" C "\"norm_num_groups\": true}", "norm_num_groups: found true, expected 1..64"},
        {"{" C "\"norm_eps\": \"1e-5\"}", "norm_eps: found \"1e-5\", expected 0..1"},
        {"{" C "\"norm_eps\": -1e-5}", "norm_eps: found -1e-5, expected 0..1"},
        {"{" C "\"flip\": 1}", "flip: found 1, expected true or false"},
        {"{" C "\"act_fn\": \"mish\"}", "act_fn: found \"mish\", expected \"silu\""},
        {"{" C "\"dual_cross_attention\": true}",
         "dual_cross_attention: found true, expected false"},
        {"{" C "\"scale\": 2}", "scale: found 2, expected 1"},
        {"{" C "\"norm_num_groups\": 18446744073709551617}",
         "norm_num_groups: found 1.84467441e19, expected 1..64"},
        {"{" C "\"_use_default_values\": [\"flip\"]}",
         "_use_default_values: found [\"flip\"], expected []"},
        {"{" C "\"temporal\": 3}", "temporal: found 3, expected no such key"},
        {"{" C "\"flip\": true, \"flip\": false}", "duplicate"},
        {"{\"block_out_channels\": [8]} x", "found more text, expected the end"},
        {"{\"a\\", "unet/config.json: JSON byte"}, /* nothing behind it is read */
        {"[]", "expected {"},
#undef C
    };
    Unet u;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(read_unet(&u, bad[i].text), ERR_INPUT);
        if (!strstr(status_message(), bad[i].message))
            fail_msg("\"%s\" lacks \"%s\"", status_message(), bad[i].message);
    }
}

/* Python's words for what JSON has not are read, are no texts, and are written as they were. */
static void words_of_python_come_back(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":-Infinity,\"b\":[NaN,Infinity,1.5],\"c\":\"NaN \\\"NaN\"}";
    json_t *all;
    put("python.json", text);
    assert_int_equal(json_file_object(&all, in_folder("python.json"), 1000, 4), OK);
    assert_string_equal(json_text_python(json_object_get(all, "a")), "-Infinity");
    assert_null(json_text_python(json_object_get(all, "c")));
    char *again = json_text_dump(all, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(again, text);
    free(again);
    json_decref(all);
}

/* ---- folders --------------------------------------------------------------------------- */

static void expect_folder(Status want, const char *message)
{
    Status s = model_folder_check(in_folder("m"), true);
    if (s != want || (want && !strstr(status_message(), message)))
        fail_msg("%d \"%s\", expected %d \"%s\"", s, s ? status_message() : "", want, message);
}

/* Of every pair of names, the one that comes first here is taken. */
static void weights_have_an_order(void **state)
{
    (void)state;
    static const char *const name[] = {
        "diffusion_pytorch_model.safetensors",
        "model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "model.safetensors.index.json",
        "diffusion_pytorch_model.fp16.safetensors",
        "model.fp16.safetensors",
        "diffusion_pytorch_model.fp16.safetensors.index.json",
        "diffusion_pytorch_model.safetensors.index.fp16.json",
    };
    for (int i = sizeof name / sizeof *name - 1; i >= 0; i--) {
        char at[128], *weights;
        snprintf(at, sizeof at, "w/%s", name[i]);
        put(at, "");
        assert_true(model_is_weights(at));
        assert_int_equal(model_weights(&weights, in_folder("w")), OK);
        assert_string_equal(weights, in_folder(at));
        free(weights);
    }
    assert_false(model_is_weights("config.json"));
    assert_false(model_is_weights("model_index.json"));
}

static void folders_say_what_is_missing(void **state)
{
    (void)state;
    char *config, *weights;
    expect_folder(ERR_INPUT, "/m: found no such folder");
    put("m/model_index.json",
        "{\"_class_name\": \"StableDiffusionImg2ImgPipeline\", \"unet\": [\"diffusers\", "
        "\"UNet2DConditionModel\"], \"vae\": [\"diffusers\", "
        "\"AutoencoderTiny\"], \"text_encoder\": [\"transformers\", \"CLIPTextModel\"], "
        "\"tokenizer\": [\"transformers\", \"CLIPTokenizer\"]}");
    expect_folder(ERR_INPUT, "m/unet: found no such folder, expected diffusers' unet, vae,");
    put("m/unet/x", "");
    expect_folder(ERR_INPUT, "m/unet/config.json: found no such file");
    put("m/unet/config.json", "{}");
    expect_folder(ERR_INPUT,
                  "m/unet: found no weights, expected diffusion_pytorch_model.safetensors");
    put("m/unet/diffusion_pytorch_model.bin", "");
    expect_folder(ERR_INPUT, "found diffusion_pytorch_model.bin, pickled weights");
    put("m/unet/a.safetensors.index.json", "");
    expect_folder(ERR_INPUT, "found a.safetensors.index.json, another index of shards");
    put("m/unet/diffusion_pytorch_model.safetensors", "");
    put("m/vae/config.json", "{}");
    put("m/vae/v.safetensors", "");
    expect_folder(ERR_INPUT, "m/vae: found v.safetensors, another safetensors file");
    put("m/vae/diffusion_pytorch_model.safetensors", "");
    put("m/text_encoder/config.json", "{}");
    put("m/text_encoder/model.safetensors", "");
    put("m/tokenizer/vocab.json", "{}");
    expect_folder(ERR_INPUT, "m/tokenizer/merges.txt: found no such file");
    put("m/tokenizer/merges.txt", "a b\n");
    put("m/scheduler/scheduler_config.json", "{}");
    expect_folder(OK, "");
    put("m/model_index.json", "{\"_class_name\": \"StableDiffusionXLPipeline\"}");
    expect_folder(ERR_INPUT,
                  "m/model_index.json: _class_name: found \"StableDiffusionXLPipeline\", "
                  "expected StableDiffusionPipeline or StableDiffusionImg2ImgPipeline");
    put("m/model_index.json", "{}");
    expect_folder(ERR_INPUT, "m/model_index.json: _class_name: found nothing, expected a value");
    put("m/model_index.json", "{\"_class_name\": \"StableDiffusionPipeline\", \"unet\": "
                              "[\"diffusers\", \"UNet3DConditionModel\"]}");
    expect_folder(
        ERR_INPUT,
        "m/model_index.json: unet: found UNet3DConditionModel, expected UNet2DConditionModel");
#define INDEX(vae, more) /* as diffusers writes it */ \
    "{\"_class_name\": \"StableDiffusionPipeline\", \"unet\": [\"diffusers\", " \
    "\"UNet2DConditionModel\"], \"vae\": [\"diffusers\", \"" vae "\"], " \
    "\"text_encoder\": [\"transformers\", \"CLIPTextModel\"], " \
    "\"tokenizer\": [\"transformers\", \"CLIPTokenizer\"]" more "}"
    put("m/vae/config.json", "{\"_class_name\": \"AutoencoderTiny\"}");
    put("m/model_index.json", INDEX("AutoencoderKL", ""));
    expect_folder(ERR_INPUT, "m/model_index.json: vae: found AutoencoderKL, expected "
                             "AutoencoderTiny as in");
    put("m/model_index.json",
        INDEX("AutoencoderTiny", ", \"text_encoder_2\": [null, null], \"image_encoder\": "
                                 "[\"transformers\", \"X\"], \"_x\": 1, \"y\": null"));
    expect_folder(OK, "");
    put("m/model_index.json",
        INDEX("AutoencoderTiny", ", \"text_encoder_2\": [\"transformers\", \"CLIPTextModel\"]"));
    expect_folder(ERR_INPUT, "m/model_index.json: text_encoder_2: found an entry that");
    put("m/model_index.json", INDEX("AutoencoderTiny", ", \"foo\": 3"));
    expect_folder(ERR_INPUT, "m/model_index.json: foo: found an entry that");
    unlink(in_folder("m/model_index.json"));
    expect_folder(OK, "");
    unlink(in_folder("m/unet/diffusion_pytorch_model.safetensors"));
    expect_folder(ERR_INPUT, "m/unet: found a.safetensors.index.json, another index of shards");
    assert_int_equal(model_folder_check(in_folder("m"), false), OK);

    assert_int_equal(model_find(&config, &weights, in_folder("m/text_encoder")), OK);
    assert_string_equal(config, in_folder("m/text_encoder/config.json"));
    assert_string_equal(weights, in_folder("m/text_encoder/model.safetensors"));
    free(config);
    free(weights);
    assert_int_equal(model_find(&config, &weights, in_folder("m/unet/x")), OK);
    assert_null(config);
    free(weights);
    assert_int_equal(model_find(&config, &weights, in_folder("m/none")), ERR_INPUT);
    assert_int_equal(model_find(&config, &weights, in_folder("m/tokenizer")), ERR_INPUT);
    assert_null(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_configs_read),
        cmocka_unit_test(bad_configs_are_refused_by_name),
        cmocka_unit_test(words_of_python_come_back),
        cmocka_unit_test(weights_have_an_order),
        cmocka_unit_test(folders_say_what_is_missing),
    };
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dir_remove(folder);
    return failed;
}
