/* test_cost.c - what a stage is said to cost on a counting device is what it then takes on the CPU:
 * the memory to the byte. And models of real size are measured without their memory or weights. */
#include "base/csv.h"
#include "base/random.h"
#include "sample/synthesis.h"
#include "train/classifier.h"
#include "train/ldm_trainer.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILMS = 24, TRAIN = 18, VAL = 6 };
static const char TINY[] = SOURCE_DIR "/configs/models/tiny";

typedef struct {
    Config config;
    Log *log;
    Device *cpu, *counting;
    char folder[64];
    char *path[FILMS];
    LdmFilm film[FILMS];
    ClassifierFilm labelled[FILMS];
    SourceFilm source[FILMS];
} Place;

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static int open_place(void **state)
{
    Place *p = calloc(1, sizeof *p);
    Csv csv;
    strcpy(p->folder, "/tmp/test_cost_XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    require(csv_read(&csv, SOURCE_DIR "/samples/tiny/films.csv"));
    int path = csv_find(&csv, "path");
    for (int i = 0; i < FILMS; i++) {
        char *films = path_join(SOURCE_DIR, "samples/films");
        p->path[i] = path_join(films, csv_at(&csv, i * csv.n_row / FILMS, path));
        free(films);
        p->film[i] = (LdmFilm){p->path[i], "chest x-ray"};
        p->labelled[i] = (ClassifierFilm){p->path[i], i % 2, (uint64_t)i};
        p->source[i] = (SourceFilm){"film", p->path[i], "patient"};
    }
    csv_free(&csv);
    config_default(&p->config);
    require(config_read(&p->config, SOURCE_DIR "/configs/tiny.ini"));
    p->log = log_new(true);
    require(device_open(&p->cpu, "cpu", "auto", 1, p->log));
    require(device_open_counting(&p->counting, DTYPE_F32));
    *state = p;
    return 0;
}

static int close_place(void **state)
{
    Place *p = *state;
    for (int i = 0; i < FILMS; i++) free(p->path[i]);
    device_close(p->cpu);
    device_close(p->counting);
    log_free(p->log);
    dir_remove(p->folder);
    free(p);
    return 0;
}

static LdmJob ldm_job(const Place *p, const char *out)
{
    return (LdmJob){.config = &p->config,
                    .base = TINY,
                    .out = out,
                    .name = "test",
                    .train = p->film,
                    .n_train = TRAIN,
                    .prior = p->film,
                    .n_prior = VAL,
                    .val = p->film + TRAIN,
                    .n_val = VAL,
                    .identity = "identity"};
}

/* Both ways, and that all is given back. */
static void same_peak(const Place *p, const Cost *c)
{
    assert_int_equal(device_peak(p->cpu), c->peak);
    assert_int_equal(device_bytes(p->cpu), 0);
    assert_int_equal(device_bytes(p->counting), 0);
    assert_true(c->parameters + c->activations + c->optimizer <= c->peak);
    assert_true(c->parameters && c->activations && c->unit > 0);
}

static void check_ldm(Place *p, const char *name)
{
    Cost cost;
    char *out = path_join(p->folder, name);
    LdmJob job = ldm_job(p, out);
    device_peak_restart(p->cpu);
    require(ldm_train(&job, p->cpu, p->log));
    require(ldm_measure(&cost, &job, p->counting));
    same_peak(p, &cost);
    assert_true(cost.once > 0 && cost.validation > 0 && cost.gradients && cost.optimizer);
    free(out);
}

static void ldm_takes_what_was_said(void **state)
{
    Place *p = *state;
    p->config.ldm.steps = 2;
    check_ldm(p, "plain");
    p->config.ldm.recompute = 1;
    check_ldm(p, "recompute");
    p->config.ldm.train_text_encoder = 1;
    check_ldm(p, "text");
    p->config.ldm.train_text_encoder = 0;
    p->config.ldm.lora_rank = 2;
    p->config.ldm.ema_decay = 0;
    check_ldm(p, "lora");
}

static void classifier_takes_what_was_said(void **state)
{
    Place *p = *state;
    Cost cost;
    char *out = path_join(p->folder, "classifier");
    ClassifierJob job = {.config = &p->config,
                         .out = out,
                         .name = "test",
                         .train = p->labelled,
                         .n_train = TRAIN,
                         .val = p->labelled + TRAIN,
                         .n_val = VAL,
                         .classes = 2,
                         .identity = "identity"};
    p->config.classifier.epochs = 1;
    strcpy(p->config.classifier.frozen, "Conv2d_1a");
    device_peak_restart(p->cpu);
    require(classifier_train(&job, p->cpu, p->log));
    require(classifier_measure(&cost, &job, p->counting));
    same_peak(p, &cost);

    char *weights = path_join(out, "model.safetensors");
    float probability[2 * FILMS];
    PredictJob predict = {&p->config, weights, 2, p->labelled, FILMS, NULL};
    device_peak_restart(p->cpu);
    require(classifier_predict(&predict, p->cpu, p->log, probability, NULL, NULL));
    require(classifier_measure_predict(&cost, &p->config, p->counting));
    same_peak(p, &cost);
    free(weights);
    free(out);
}

static void synthesis_takes_what_was_said(void **state)
{
    Place *p = *state;
    Cost cost, whole;
    char *out = path_join(p->folder, "ldm"), *model = path_join(out, "model"),
         *films = path_join(p->folder, "films");
    LdmJob train = ldm_job(p, out);
    SynthesisJob job = {.config = &p->config,
                        .model = model,
                        .out = films,
                        .label = "virus",
                        .prompts = "chest x-ray",
                        .source = p->source,
                        .n_source = FILMS,
                        .count = 5,
                        .name = "test"};
    p->config.ldm.steps = 1;
    p->config.synthesis.batch = 2;
    require(ldm_train(&train, p->cpu, p->log));
    device_peak_restart(p->cpu);
    require(synthesis_run(&job, p->cpu, p->log));
    require(synthesis_measure(&cost, &job, p->counting));
    same_peak(p, &cost);
    /* twice the batch: the same per film; no guidance: about half */
    p->config.synthesis.batch *= 2;
    require(synthesis_measure(&whole, &job, p->counting));
    assert_true(fabs(whole.unit / cost.unit - 1) < .01);
    p->config.synthesis.guidance = 1;
    require(synthesis_measure(&whole, &job, p->counting));
    assert_true(whole.unit < .8 * cost.unit && whole.unit > .4 * cost.unit);
    free(films);
    free(model);
    free(out);
}

static long peak_kib(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

/* Stable Diffusion 1.5 at 512 px has 859,520,964 parameters in its UNet, 123,060,480 in the text
 * encoder and 83,653,863 in the autoencoder; a call of the UNet is about 0.8 TFLOP, of Inception-V3
 * at 299 px about 11 GFLOP. */
static void real_sizes_are_measured_without_their_memory(void **state)
{
    Place *p = *state;
    Cost cost;
    Config *c = &p->config;
    LdmJob ldm = ldm_job(p, "nowhere");
    ldm.base = SOURCE_DIR "/configs/models/sd15";
    c->data.size = 512;
    c->ldm.batch = 2;
    long before = peak_kib();
    require(ldm_measure(&cost, &ldm, p->counting));
    double floats = (double)cost.parameters / 4, expected = 2 * 859520964. + 123060480. + 83653863.;
    assert_true(floats >= expected && floats < expected * 1.0001);
    assert_true((double)cost.gradients / 4 >= 859520964. && (double)cost.gradients / 4 < 859.6e6);
    assert_true((double)cost.optimizer / 4 >= 3 * 859520964.); /* two moments, averages */
    print_message("SD 1.5, batch 2: %.2f TFLOP a step, %.1f GiB\n", 1e-12 * cost.unit,
                  (double)cost.peak / (1 << 30));
    assert_true(cost.unit > 2 * 3 * .65e12 && cost.unit < 2 * 3 * .9e12);

    ClassifierJob job = {.config = c, .n_train = TRAIN, .n_val = VAL, .classes = 2};
    c->data.size = 299;
    c->classifier.width = 1;
    c->classifier.batch = 32;
    require(classifier_measure(&cost, &job, p->counting));
    assert_true(cost.unit > 32 * 3 * 10.5e9 && cost.unit < 32 * 3 * 12e9);
    require(classifier_measure_predict(&cost, c, p->counting));
    assert_true(cost.unit > 10.5e9 && cost.unit < 12e9);
    assert_true(peak_kib() - before < 400 << 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ldm_takes_what_was_said, open_place, close_place),
        cmocka_unit_test_setup_teardown(classifier_takes_what_was_said, open_place, close_place),
        cmocka_unit_test_setup_teardown(synthesis_takes_what_was_said, open_place, close_place),
        cmocka_unit_test_setup_teardown(real_sizes_are_measured_without_their_memory, open_place,
                                        close_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
