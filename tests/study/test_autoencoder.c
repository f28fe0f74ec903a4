/* test_autoencoder.c - training of autoencoders of both kinds: the loss falls, a run that was
 * stopped and continued is bit for bit one that was not, what is frozen stays, and the loss is what
 * it says. */
#include "base/csv.h"
#include "base/random.h"
#include "models/autoencoder.h"
#include "train/autoencoder_trainer.h"
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define TINY SOURCE_DIR "/configs/models/tiny/vae"
#define TRUNK SOURCE_DIR "/samples/trunk.safetensors"
#define KL_CONFIG                                                                                  \
    "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [8, 16], \"norm_num_groups\": "  \
    "4, \"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\"], "                  \
    "\"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]}"

enum { FILMS = 13, TRAIN = 10 };
static char folder[] = "/tmp/eq-autoencoder-XXXXXX";
static const char *path[FILMS];
static Log *quiet;

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static const char *at(const char *name)
{
    static char room[4][256];
    static int next;
    char *p = room[next++ % 4];
    snprintf(p, sizeof room[0], "%s/%s", folder, name);
    return p;
}

static Config settings(bool kl)
{
    Config c;
    config_default(&c);
    c.data.size = 32;
    c.study.seed = 3;
    c.autoencoder.steps = 12;
    c.autoencoder.batch = 4; /* 10 films: two left over in each epoch */
    c.autoencoder.learning_rate = 3e-3;
    c.autoencoder.ema_decay = 0.5;
    c.autoencoder.validate_every = 6;
    if (kl) strcpy(c.autoencoder.init, "random");
    return c;
}

static Status train(const Config *c, bool kl, const char *out, long stop_after)
{
    char whole[256], base[256];
    Device *d;
    snprintf(whole, sizeof whole, "%s", at(out));
    snprintf(base, sizeof base, "%s", kl ? at("kl") : TINY);
    require(autoencoder_train_check(c, base));
    require(device_open(&d, "cpu", "auto", 2, quiet));
    AutoencoderJob job = {.config = c,
                          .base = base,
                          .out = whole,
                          .name = "test",
                          .train = path,
                          .val = path + TRAIN,
                          .n_train = TRAIN,
                          .n_val = FILMS - TRAIN,
                          .identity = "identity",
                          .stop_after = stop_after};
    Status s = autoencoder_train(&job, d, quiet);
    device_close(d);
    return s;
}

/* Column `column` of the history's row `row`, from the end if negative. */
static double history(const char *out, int row, int column)
{
    char name[128];
    snprintf(name, sizeof name, "%s/history.json", out);
    json_t *j = json_load_file(at(name), 0, NULL), *rows = json_object_get(j, "rows");
    assert_true(json_array_size(rows) > 0);
    size_t k = row < 0 ? json_array_size(rows) - 1 : (size_t)row;
    double v = json_number_value(json_array_get(json_array_get(rows, k), (size_t)column));
    json_decref(j);
    return v;
}

static void same_files(const char *one, const char *other)
{
    static const char *const file[] = {"history.json", "model/config.json",
                                       "model/diffusion_pytorch_model.safetensors"};
    for (int i = 0; i < 3; i++) {
        char name[128], a[HASH_TEXT], b[HASH_TEXT];
        snprintf(name, sizeof name, "%s/%s", one, file[i]);
        require(hash_file(a, at(name)));
        snprintf(name, sizeof name, "%s/%s", other, file[i]);
        require(hash_file(b, at(name)));
        assert_string_equal(a, b);
    }
}

static void continues(bool kl, const char *whole, const char *parts)
{
    Config c = settings(kl);
    long stop =
        1 + (long)random_below((RandomKey){(uint32_t)time(NULL), STREAM_TEST, kl, 0}, 0, 11);
    print_message("stopped after step %ld\n", stop);
    require(train(&c, kl, whole, 0));
    assert_int_equal(train(&c, kl, parts, stop), ERR_STOPPED);
    require(train(&c, kl, parts, 0));
    same_files(whole, parts);
    assert_false(dir_exists(at("parts-kl/checkpoints")));
}
static void tiny_continues(void **state)
{
    (void)state;
    continues(false, "whole-tiny", "parts-tiny");
}
static void kl_continues(void **state)
{
    (void)state;
    continues(true, "whole-kl", "parts-kl");
}

/* The same with the perceptual loss; the network that looks is part of neither the run's state nor
 * its result, and the loss alone is what the sum of its terms has more. */
static void perceptual_continues(void **state)
{
    (void)state;
    Config c = settings(true);
    c.data.size = 80;
    c.autoencoder.steps = 4;
    c.autoencoder.batch = 2;
    c.autoencoder.perceptual_weight = 0.5;
    strcpy(c.autoencoder.perceptual_weights, TRUNK);
    require(train(&c, true, "whole-look", 0));
    assert_int_equal(train(&c, true, "parts-look", 2), ERR_STOPPED);
    require(train(&c, true, "parts-look", 0));
    same_files("whole-look", "parts-look");

    c.autoencoder.steps = 1;
    c.autoencoder.learning_rate = 0;
    require(train(&c, true, "both", 0));
    c.autoencoder.l1_weight = c.autoencoder.mse_weight = c.autoencoder.kl_weight = 0;
    c.autoencoder.perceptual_weight = 1;
    require(train(&c, true, "look", 0));
    c = settings(true);
    c.data.size = 80;
    c.autoencoder.steps = 1;
    c.autoencoder.batch = 2;
    c.autoencoder.learning_rate = 0;
    require(train(&c, true, "pixels", 0));
    double look = history("look", -1, 2), want = history("pixels", -1, 2) + 0.5 * look;
    print_message("perceptual %g, with it %g\n", look, history("both", -1, 2));
    assert_true(look > 0.05 && fabs(history("both", -1, 2) - want) <= 0x1p-20 * want);
}

static void perceptual_is_refused(void **state)
{
    (void)state;
    Config c = settings(true);
    c.autoencoder.perceptual_weight = 1;
    assert_int_equal(config_check(&c), ERR_USAGE);
    assert_non_null(strstr(status_message(), "without autoencoder.perceptual_weights"));
    strcpy(c.autoencoder.perceptual_weights, TRUNK);
    assert_int_equal(autoencoder_train_check(&c, at("kl")), ERR_USAGE);
    assert_non_null(strstr(status_message(), "data.size = 32, expected 75 or more"));
    c.data.size = 80;
    require(autoencoder_train_check(&c, at("kl")));
    strcpy(c.autoencoder.perceptual_weights, at("none.safetensors"));
    assert_int_equal(autoencoder_train_check(&c, at("kl")), ERR_INPUT);
    strcpy(c.autoencoder.perceptual_weights, TINY "/diffusion_pytorch_model.safetensors");
    assert_int_equal(autoencoder_train_check(&c, at("kl")), ERR_INPUT);
}

static void loss_falls(void **state)
{
    (void)state;
    Config c = settings(true);
    c.autoencoder.steps = 40;
    c.autoencoder.recompute = 1;
    c.autoencoder.validate_every = 10;
    require(train(&c, true, "long", 0));
    double first = history("long", 0, 2), last = history("long", -1, 2);
    print_message("validation loss %.4f, then %.4f\n", first, last);
    assert_true(last < 0.7 * first);
    assert_true(history("long", -1, 3) < 0.7 * history("long", 0, 3));
}

static float *values(const AutoencoderConfig *c, const char *from, ParamStore *s, Device *d)
{
    Graph *g = graph_new();
    Tensor *x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 4, (int[]){1, 8, 8, 3});
    autoencoder_decode(g, s, c, autoencoder_encode(g, s, c, x, false).mean, false);
    require(graph_status(g));
    graph_free(g);
    require(params_alloc(s, d, false));
    require(autoencoder_load(s, c, from));
    float *v = malloc(s->count * sizeof *v);
    require(params_read(s, v));
    return v;
}

static void frozen_stays(void **state)
{
    (void)state;
    Config c = settings(false);
    AutoencoderConfig a;
    Device *d;
    strcpy(c.autoencoder.frozen, "encoder., decoder.layers.0.");
    require(train(&c, false, "frozen", 0));
    require(device_open(&d, "cpu", "auto", 2, quiet));
    require(autoencoder_config_read(&a, TINY));
    ParamStore before = {0}, after = {0};
    float *b = values(&a, TINY, &before, d), *v = values(&a, at("frozen/model"), &after, d);
    int moved = 0;
    for (int i = 0; i < before.n; i++) {
        const Param *p = &before.param[i];
        bool same = !memcmp(b + p->offset, v + p->offset, p->count * sizeof *b);
        bool rests = !strncmp(p->name, "encoder.", 8) || !strncmp(p->name, "decoder.layers.0.", 17);
        if (rests && !same) fail_msg("%s moved", p->name);
        moved += !same;
    }
    assert_true(moved > 10);
    free(b);
    free(v);
    params_free(&before);
    params_free(&after);
    device_close(d);

    strcpy(c.autoencoder.frozen, "encoder,decodr.");
    assert_int_equal(autoencoder_train_check(&c, TINY), ERR_USAGE);
    assert_non_null(
        strstr(status_message(), "found decodr., expected the start of a parameter's name"));
    strcpy(c.autoencoder.frozen, "encoder,decoder");
    assert_int_equal(autoencoder_train_check(&c, TINY), ERR_USAGE);
    assert_non_null(strstr(status_message(), "leaves nothing to train"));
}

/* With one weight only the loss is that term; the terms are told apart by their sizes. */
static void loss_is_what_it_says(void **state)
{
    (void)state;
    Config c = settings(true);
    c.autoencoder.steps = 1;
    c.autoencoder.learning_rate = 0; /* every run validates the same network */
    double part[3];
    for (int k = 0; k < 3; k++) {
        char out[16];
        snprintf(out, sizeof out, "term%d", k);
        c.autoencoder.l1_weight = k == 0;
        c.autoencoder.mse_weight = k == 1;
        c.autoencoder.kl_weight = k == 2;
        require(train(&c, true, out, 0));
        part[k] = history(out, -1, 2);
    }
    assert_true(part[0] == history("term0", -1, 3) && part[1] < part[0] && part[2] > 0);
    c.autoencoder.l1_weight = 2;
    c.autoencoder.mse_weight = 3;
    c.autoencoder.kl_weight = 0.5;
    require(train(&c, true, "all", 0));
    double want = 2 * part[0] + 3 * part[1] + 0.5 * part[2], got = history("all", -1, 2);
    print_message("%g and %g and %g make %g\n", part[0], part[1], part[2], got);
    assert_true(fabs(got - want) <= 0x1p-20 * want);

    c.data.size = 33;
    assert_int_equal(autoencoder_train_check(&c, at("kl")), ERR_USAGE);
    strcpy(c.autoencoder.init, "base");
    c.data.size = 32;
    assert_int_equal(autoencoder_train_check(&c, at("kl")), ERR_INPUT);
    assert_non_null(strstr(status_message(), "found no weights"));
}

static int open_all(void **state)
{
    (void)state;
    Csv csv;
    if (!mkdtemp(folder) || csv_read(&csv, SOURCE_DIR "/samples/tiny/films.csv")) return 1;
    int column = csv_find(&csv, "path");
    for (int i = 0; i < FILMS; i++) {
        char *relative = path_join("samples/films", csv_at(&csv, i * csv.n_row / FILMS, column));
        path[i] = path_join(SOURCE_DIR, relative);
        free(relative);
    }
    csv_free(&csv);
    quiet = log_new(true);
    return dir_make(at("kl")) || file_write(at("kl/config.json"), KL_CONFIG, strlen(KL_CONFIG));
}

static int close_all(void **state)
{
    (void)state;
    for (int i = 0; i < FILMS; i++) free((char *)path[i]);
    log_free(quiet);
    return dir_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_continues), cmocka_unit_test(kl_continues),
        cmocka_unit_test(perceptual_continues), cmocka_unit_test(perceptual_is_refused),
        cmocka_unit_test(loss_falls),     cmocka_unit_test(frozen_stays),
        cmocka_unit_test(loss_is_what_it_says),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
