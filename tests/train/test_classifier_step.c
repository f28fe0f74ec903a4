/* test_classifier_step.c - a step whose gradient is no number leaves the classifier as it was,
 * running averages of its batch normalisations included. */
#include "base/random.h"
#include "train/classifier_net.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { SIZE = 80, BATCH = 3, PIXELS = BATCH * SIZE * SIZE };

typedef struct {
    Config config;
    Log *log;
    Device *device;
    ClassifierNet net;
    ClassifierPass pass;
    Optimizer optimizer;
    TrainStep step;
    float *pixel;
} Fixture;

static Status feed(void *fixture, long step, int micro)
{
    Fixture *f = fixture;
    (void)step, (void)micro;
    return classifier_pass_write(&f->pass, f->pixel, (int[BATCH]){0, 1, 0}, (int32_t[3]){1, 2, 0});
}

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static int open_fixture(void **state)
{
    Fixture *f = calloc(1, sizeof *f);
    uint32_t seed = (uint32_t)time(NULL);
    f->log = log_new(true);
    f->pixel = malloc(PIXELS * sizeof *f->pixel);
    config_default(&f->config);
    f->config.data.size = SIZE;
    f->config.classifier.width = 0.0625;
    require(device_open(&f->device, "cpu", "auto", 2, f->log));
    require(classifier_net_open(&f->net, f->device, &f->config, 2, true));
    require(params_init(&f->net.store, seed));
    require(optimizer_new(&f->optimizer, (OptimizerSettings){.momentum = .9, .clip_norm = 1},
                          (ParamStore *[]){&f->net.store}, 1, &(ReduceSettings){.n_micro = 1}));
    require(classifier_pass_open(&f->pass, &f->net, &f->config, BATCH, &f->optimizer, NULL));
    f->step = classifier_step(&f->pass, &f->optimizer);
    f->step.trainer = f;
    f->step.feed = feed;
    require(train_step_open(&f->step));
    for (int i = 0; i < PIXELS; i++)
        f->pixel[i] = (float)random_uniform((RandomKey){seed, STREAM_TEST, 0, 0}, (uint32_t)i);
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    Fixture *f = *state;
    train_step_close(&f->step);
    optimizer_free(&f->optimizer);
    classifier_pass_close(&f->pass);
    params_free(&f->net.store);
    device_close(f->device);
    log_free(f->log);
    free(f->pixel);
    free(f);
    return 0;
}

/* One step with the first pixel as given; the parameters and averages afterwards, heap. */
static float *step(Fixture *f, float first, bool good)
{
    double norm, loss;
    float *after = malloc(f->net.store.count * sizeof *after);
    assert_non_null(after);
    f->pixel[0] = first;
    require(train_step(&f->step, 1, .01, false, &loss, &norm));
    assert_int_equal(isfinite(norm) != 0, good);
    require(params_read(&f->net.store, after));
    return after;
}

static void bad_step_leaves_no_trace(void **state)
{
    Fixture *f = *state;
    const ParamStore *s = &f->net.store;
    size_t all = s->count * sizeof(float), n_param = s->count_param;
    float *before = step(f, .5f, true), *bad = step(f, NAN, false);
    assert_memory_equal(before + n_param, bad + n_param, all - n_param * sizeof(float));
    assert_memory_equal(before, bad, all);
    free(bad);
    bad = step(f, INFINITY, false);
    assert_memory_equal(before, bad, all);
    float *good =
        step(f, .25f, true); /* and a good one moves both, so that the above means something */
    assert_memory_not_equal(before, good, n_param * sizeof(float));
    assert_memory_not_equal(before + n_param, good + n_param, all - n_param * sizeof(float));
    for (size_t i = 0; i < s->count; i++) assert_true(isfinite(good[i]));
    free(before);
    free(bad);
    free(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bad_step_leaves_no_trace, open_fixture, close_fixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
