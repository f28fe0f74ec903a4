/* test_inception_files.c - files of Inception-V3 weights: an auxiliary head is whole or absent,
 * whether it is used or not, as torchvision's loading has it; the last layer's shape tells classes
 * and width. */
#include "app/commands.h"
#include "base/file.h"
#include "config/config.h"
#include "models/perceptual.h"
#include "train/classifier.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { CLASSES = 3 };
static const double WIDTH = 1.0 / 64;
static char folder[] = "/tmp/eq-inception-XXXXXX";
static char weights[64], in[64], out[64];
static ParamStore all;

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

/* Every parameter but those whose names start so, with shape[] as fc.weight's where it is given. */
static void write_without(const char *skip, const SafeSpec *fc, const char *width)
{
    static const float zeros[1 << 20];
    SafeSpec *spec = calloc((size_t)all.n + 1, sizeof *spec);
    SafeWriter w = {0};
    int n = 0;
    for (int i = 0; i < all.n; i++) {
        const Param *p = &all.param[i];
        if (p->integer || (skip && !strncmp(p->name, skip, strlen(skip)))) continue;
        spec[n] = (SafeSpec){.name = p->name};
        spec[n].ndim = param_file_shape(p, spec[n].dim);
        if (fc && !strcmp(p->name, fc->name)) spec[n] = *fc;
        n++;
    }
    require(st_write_begin(&w, weights, n, spec, width ? 1 : 0, &(SafeMeta){"width", width}));
    for (int i = 0; i < n; i++) {
        size_t count = 1;
        for (int k = 0; k < spec[i].ndim; k++) count *= (size_t)spec[i].dim[k];
        assert_true(count <= sizeof zeros / sizeof *zeros);
        require(st_write_f32(&w, zeros, count));
    }
    require(st_write_commit(&w));
    free(spec);
}

static void write_image(int size)
{
    static const float zeros[2 * 3 * 299 * 299];
    SafeWriter w = {0};
    const SafeSpec spec = {"image", SAFE_F32, 4, {2, 3, size, size}};
    require(st_write_begin(&w, in, 1, &spec, 0, NULL));
    require(st_write_f32(&w, zeros, 6 * (size_t)size * (size_t)size));
    require(st_write_commit(&w));
}

static Status forward(const char *more)
{
    App app = {.log = log_new(true)};
    char *argv[] = {"forward", "inception", "--weights", weights,      "--in", in,
                    "--out",   out,         "--force",   (char *)more, NULL};
    Status s = cmd_forward(&app, more ? 10 : 9, argv);
    log_free(app.log);
    return s;
}

static Status forward_only(void)
{
    write_image(INCEPTION_LEAST_PX);
    return forward(NULL);
}

static Status forward_train(void)
{
    write_image(INCEPTION_LEAST_AUX_PX);
    return forward("--train");
}

static Status perceptual(void)
{
    Perceptual p;
    Status s = perceptual_open(&p, NULL, weights);
    perceptual_close(&p);
    return s;
}

/* Checks of a classifier that starts from the weights, without and with the head. */
static Status classifier(double aux_weight)
{
    static Config c;
    config_default(&c);
    c.data.size = 299;
    c.classifier.width = WIDTH;
    c.classifier.aux_weight = aux_weight;
    strcpy(c.classifier.weights, weights);
    return classifier_check(&c);
}
static Status classifier_plain(void) { return classifier(0); }
static Status classifier_with_head(void) { return classifier(0.4); }

static Status predict(void)
{
    static Config c;
    Device *d;
    float none;
    config_default(&c);
    c.data.size = INCEPTION_LEAST_PX;
    c.classifier.width = WIDTH;
    require(device_open(&d, "cpu", "auto", 0, NULL));
    PredictJob job = {.config = &c, .weights = weights, .classes = CLASSES};
    Status s = classifier_predict(&job, d, NULL, &none, NULL, NULL);
    device_close(d);
    return s;
}

static Status (*const use[])(void) = {forward_only,     forward_train,        perceptual,
                                      classifier_plain, classifier_with_head, predict};
enum { USES = sizeof use / sizeof *use };

static void a_head_is_whole_or_absent(void **state)
{
    (void)state;
    static const char *const part[] = {"AuxLogits.fc", "AuxLogits.fc.bias",
                                       "AuxLogits.conv0.conv.weight", "AuxLogits.conv1",
                                       "AuxLogits.conv1.bn.running_var"};
    write_without(NULL, NULL, "0.015625");
    for (int k = 0; k < USES; k++) require(use[k]());
    write_without("AuxLogits.", NULL, "0.015625");
    for (int k = 0; k < USES; k++) require(use[k]());
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        write_without(part[i], NULL, "0.015625");
        for (int k = 0; k < USES; k++) {
            Status s = use[k]();
            if (s != ERR_INPUT || !strstr(status_message(), part[i]) ||
                !strstr(status_message(), "expected the whole auxiliary head"))
                fail_msg("%s, use %d: %d %s", part[i], k, s, s ? status_message() : "");
            assert_non_null(strstr(status_message(), weights));
        }
    }
}

static void the_last_layer_tells(void **state)
{
    (void)state;
    int64_t features = params_find(&all, "fc.weight")->dim[1];
    SafeSpec fc = {"fc.weight", SAFE_F32, 2, {CLASSES, 2 * features}};
    static const struct {
        int ndim;
        int64_t dim[4];
        const char *said;
    } bad[] = {
        {2,
         {3, 4096},
         "\"fc.weight\": found [3, 4096], expected 512 features, 64 for each filter of"},
        {4, {3, 144, 1, 1}, "\"fc.weight\": found [3, 144, 1, 1], expected [classes, features]"},
        {1, {144}, "\"fc.weight\": found [144], expected [classes, features]"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fc.ndim = bad[i].ndim;
        memcpy(fc.dim, bad[i].dim, sizeof bad[i].dim);
        write_without(NULL, &fc, NULL);
        assert_int_equal(forward_only(), ERR_INPUT);
        if (!strstr(status_message(), bad[i].said)) fail_msg("%s", status_message());
    }
    write_without("fc.", NULL, NULL);
    assert_int_equal(forward_only(), ERR_INPUT);
    assert_non_null(
        strstr(status_message(), "found no \"fc.weight\" [classes, features], expected an Inc"));
    write_without("Conv2d_1a_3x3.", NULL, NULL);
    assert_int_equal(forward_only(), ERR_INPUT);
    assert_non_null(strstr(status_message(), "found no \"Conv2d_1a_3x3.conv.weight\" [filters"));
}

static int open_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return 1;
    snprintf(weights, sizeof weights, "%s/w.safetensors", folder);
    snprintf(in, sizeof in, "%s/in.safetensors", folder);
    snprintf(out, sizeof out, "%s/out.safetensors", folder);
    const InceptionConfig c = {.num_classes = CLASSES, .width = WIDTH, .aux = true};
    Graph *g = graph_new();
    inception_v3(g, &all, &c,
                 graph_leaf(g, KIND_INPUT, DTYPE_F32, "image", 4, (int[]){1, 299, 299, 3}), NULL,
                 false);
    Status s = graph_status(g);
    graph_free(g);
    return s;
}

static int close_folder(void **state)
{
    (void)state;
    params_free(&all);
    return dir_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_head_is_whole_or_absent),
                                       cmocka_unit_test(the_last_layer_tells)};
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
