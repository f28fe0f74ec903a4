/* test_resume.c - training that was stopped at any step and continued is, bit for bit, training
 * that was not; and a synthetic film does not depend on the batch it was made in. On the tiny model
 * and films. */
#include "config/config.h"
#include "base/csv.h"
#include "base/random.h"
#include "sample/sampler.h"
#include "train/classifier.h"
#include "train/ldm_trainer.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { FILMS = 24 };
static const char TINY[] = SOURCE_DIR "/configs/models/tiny";

typedef struct {
    Config config;
    Log *log;
    char folder[128];
    char *path[FILMS];
    LdmFilm film[FILMS];
    ClassifierFilm labelled[FILMS];
} Fixture;

static void open_fixture(Fixture *f, const char *name)
{
    Csv csv;
    memset(f, 0, sizeof *f);
    assert_int_equal(csv_read(&csv, SOURCE_DIR "/samples/tiny/films.csv"), OK);
    assert_true(csv.n_row >= FILMS);
    int path = csv_find(&csv, "path"), label = csv_find(&csv, "label");
    for (int i = 0; i < FILMS; i++) {
        int row = i * csv.n_row / FILMS;
        char *relative = path_join("samples/films", csv_at(&csv, row, path));
        f->path[i] = path_join(SOURCE_DIR, relative);
        free(relative);
        f->film[i] =
            (LdmFilm){f->path[i], i % 2 ? "chest x-ray|film of a chest" : "chest x-ray, pneumonia"};
        f->labelled[i] = (ClassifierFilm){
            f->path[i], strcmp(csv_at(&csv, row, label), "normal") != 0, (uint64_t)i};
    }
    csv_free(&csv);
    config_default(&f->config);
    assert_int_equal(config_read(&f->config, SOURCE_DIR "/configs/tiny.ini"), OK);
    f->config.ldm.accumulate = f->config.classifier.accumulate = 1;
    f->config.ldm.batch = 4;
    f->config.classifier.batch = 16;
    f->log = log_new(true);
    snprintf(f->folder, sizeof f->folder, "/tmp/test_resume-%ld/%s", (long)getpid(), name);
    dir_remove(f->folder);
}

static void close_fixture(Fixture *f)
{
    for (int i = 0; i < FILMS; i++) free(f->path[i]);
    log_free(f->log);
    dir_remove(f->folder);
}

/* SHA-256 of a file below the fixture's folder. */
static void sum(char hash[HASH_TEXT], const Fixture *f, const char *run, const char *file)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", f->folder, run, file);
    if (hash_file(hash, path)) fail_msg("%s", status_message());
}

static Status ldm_on(const Fixture *f, const Config *c, const char *base, const char *run,
                     long stop_after)
{
    char out[256];
    Device *d;
    snprintf(out, sizeof out, "%s/%s", f->folder, run);
    assert_int_equal(device_open(&d, "cpu", "auto", 2, f->log), OK);
    LdmJob job = {.config = c,
                  .base = base,
                  .out = out,
                  .name = "test",
                  .train = f->film,
                  .n_train = 16,
                  .prior = f->film + 16,
                  .n_prior = 4,
                  .val = f->film + 20,
                  .n_val = 4,
                  .identity = "identity",
                  .stop_after = stop_after};
    Status s = ldm_train(&job, d, f->log);
    device_close(d);
    return s;
}

static Status ldm(const Fixture *f, const Config *c, const char *run, long stop_after)
{
    return ldm_on(f, c, TINY, run, stop_after);
}

static const char UNET[] = "model/unet/diffusion_pytorch_model.safetensors";

static void ldm_continues_bit_for_bit(void **state)
{
    (void)state;
    Fixture f;
    char whole[HASH_TEXT], parts[HASH_TEXT];
    open_fixture(&f, "ldm");
    f.config.ldm.steps = 12;
    f.config.ldm.accumulate = 2;
    f.config.ldm.train_text_encoder = 1;
    long stop = 1 + (long)random_below((RandomKey){(uint32_t)time(NULL), STREAM_TEST, 0, 0}, 0, 11);
    print_message("stopped after step %ld\n", stop);
    assert_int_equal(ldm(&f, &f.config, "whole", 0), OK);
    assert_int_equal(ldm(&f, &f.config, "parts", stop), ERR_STOPPED);
    assert_int_equal(ldm(&f, &f.config, "parts", 0), OK);
    sum(whole, &f, "whole", UNET);
    sum(parts, &f, "parts", UNET);
    assert_string_equal(whole, parts);
    sum(whole, &f, "whole", "model/text_encoder/model.safetensors");
    sum(parts, &f, "parts", "model/text_encoder/model.safetensors");
    assert_string_equal(whole, parts);
    sum(whole, &f, "whole", "history.json");
    sum(parts, &f, "parts", "history.json");
    assert_string_equal(whole, parts);
    close_fixture(&f);
}

/* A LoRA stopped and continued is the same file; the folder beside it is the base with that file
 * merged, and only what the LoRA names differs from the base. */
static void lora_continues_and_merges(void **state)
{
    (void)state;
    static const char LORA[] = "pytorch_lora_weights.safetensors";
    Fixture f;
    Device *d;
    Ldm base = {0}, merged = {0}, saved = {0};
    char whole[HASH_TEXT], parts[HASH_TEXT], folder[256], model[256], file[256];
    open_fixture(&f, "lora");
    f.config.ldm.steps = 2;
    assert_int_equal(ldm(&f, &f.config, "base", 0), OK);
    snprintf(folder, sizeof folder, "%s/base/model", f.folder);
    f.config.ldm.steps = 12;
    f.config.ldm.lora_rank = 3;
    strcpy(f.config.ldm.init, "base");
    long stop = 1 + (long)random_below((RandomKey){(uint32_t)time(NULL), STREAM_TEST, 0, 0}, 1, 11);
    print_message("stopped after step %ld\n", stop);
    assert_int_equal(ldm_on(&f, &f.config, folder, "whole", 0), OK);
    assert_int_equal(ldm_on(&f, &f.config, folder, "parts", stop), ERR_STOPPED);
    assert_int_equal(ldm_on(&f, &f.config, folder, "parts", 0), OK);
    sum(whole, &f, "whole", LORA);
    sum(parts, &f, "parts", LORA);
    assert_string_equal(whole, parts);
    sum(whole, &f, "whole", UNET);
    sum(parts, &f, "parts", UNET);
    assert_string_equal(whole, parts);

    snprintf(file, sizeof file, "%s/whole/%s", f.folder, LORA);
    snprintf(model, sizeof model, "%s/whole/model", f.folder);
    assert_int_equal(device_open(&d, "cpu", "auto", 2, f.log), OK);
    assert_int_equal(ldm_open(&base, d, folder, (LdmUse){0}), OK);
    assert_int_equal(ldm_open(&merged, d, folder, (LdmUse){.lora = file, .lora_scale = 1}), OK);
    assert_int_equal(ldm_open(&saved, d, model, (LdmUse){0}), OK);
    assert_memory_equal(merged.unet.value, saved.unet.value, saved.unet.count * sizeof(float));
    assert_memory_equal(base.text.value, saved.text.value, saved.text.count * sizeof(float));
    int changed = 0;
    for (int i = 0; i < base.unet.n; i++) {
        const Param *p = &base.unet.param[i];
        const char *end = strstr(p->name, ".attn");
        bool adapted = end && strstr(end, ".to_") && strstr(end, ".weight");
        bool same = !memcmp(base.unet.value + p->offset, saved.unet.value + p->offset,
                            p->count * sizeof(float));
        if (same == adapted) fail_msg("%s is %s", p->name, same ? "as it was" : "changed");
        changed += adapted;
    }
    assert_true(changed > 0 && changed % 8 == 0);
    ldm_close(&base);
    ldm_close(&merged);
    ldm_close(&saved);
    device_close(d);
    close_fixture(&f);
}

/* The same test with one thing left out of what is restored must fail: the run is stopped, its Adam
 * moments are lost (a run of the first steps alone leaves weights, not moments), and training goes
 * on from the weights. */
static void lost_moments_are_noticed(void **state)
{
    (void)state;
    Fixture f;
    char whole[HASH_TEXT], again[HASH_TEXT], base[256];
    open_fixture(&f, "control");
    f.config.ldm.steps = 10;
    f.config.ldm.warmup = 0;
    f.config.ldm.ema_decay = 0;
    assert_int_equal(ldm(&f, &f.config, "whole", 0), OK);
    Config half = f.config;
    half.ldm.steps = 5;
    assert_int_equal(ldm(&f, &half, "half", 0), OK);
    strcpy(half.ldm.init, "base");
    snprintf(base, sizeof base, "%s/half/model", f.folder);
    Device *d;
    assert_int_equal(device_open(&d, "cpu", "auto", 2, f.log), OK);
    char out[256];
    snprintf(out, sizeof out, "%s/again", f.folder);
    LdmJob job = {.config = &half,
                  .base = base,
                  .out = out,
                  .name = "test",
                  .train = f.film,
                  .n_train = 16,
                  .prior = f.film + 16,
                  .n_prior = 4,
                  .identity = "identity"};
    assert_int_equal(ldm_train(&job, d, f.log), OK);
    device_close(d);
    sum(whole, &f, "whole", UNET);
    sum(again, &f, "again", UNET);
    assert_string_not_equal(whole, again);
    close_fixture(&f);
}

static Status classify(const Fixture *f, const Config *c, const char *run, long stop_after)
{
    char out[256];
    Device *d;
    snprintf(out, sizeof out, "%s/%s", f->folder, run);
    assert_int_equal(device_open(&d, "cpu", "auto", 2, f->log), OK);
    ClassifierJob job = {.config = c,
                         .seed = 3,
                         .out = out,
                         .name = "test",
                         .train = f->labelled,
                         .n_train = 18,
                         .val = f->labelled + 18,
                         .n_val = 6,
                         .classes = 2,
                         .identity = "identity",
                         .stop_after = stop_after};
    Status s = classifier_train(&job, d, f->log);
    device_close(d);
    return s;
}

static void classifier_continues_bit_for_bit(void **state)
{
    (void)state;
    Fixture f;
    char whole[HASH_TEXT], parts[HASH_TEXT];
    open_fixture(&f, "classifier");
    f.config.classifier.batch = 4;
    f.config.classifier.epochs = 4;
    long stop = 1 + (long)random_below((RandomKey){(uint32_t)time(NULL), STREAM_TEST, 1, 0}, 0, 15);
    print_message("stopped after step %ld\n", stop);
    assert_int_equal(classify(&f, &f.config, "whole", 0), OK);
    assert_int_equal(classify(&f, &f.config, "parts", stop), ERR_STOPPED);
    assert_int_equal(classify(&f, &f.config, "parts", 0), OK);
    sum(whole, &f, "whole", "model.safetensors");
    sum(parts, &f, "parts", "model.safetensors");
    assert_string_equal(whole, parts);
    sum(whole, &f, "whole", "history.json");
    sum(parts, &f, "parts", "history.json");
    assert_string_equal(whole, parts);
    close_fixture(&f);
}

static void other_identity_is_refused(void **state)
{
    (void)state;
    Fixture f;
    open_fixture(&f, "identity");
    assert_int_equal(classify(&f, &f.config, "run", 1), ERR_STOPPED);
    char out[256];
    Device *d;
    snprintf(out, sizeof out, "%s/run", f.folder);
    assert_int_equal(device_open(&d, "cpu", "auto", 2, f.log), OK);
    ClassifierJob job = {.config = &f.config,
                         .seed = 3,
                         .out = out,
                         .name = "test",
                         .train = f.labelled,
                         .n_train = 18,
                         .val = f.labelled + 18,
                         .n_val = 6,
                         .classes = 2,
                         .identity = "another"};
    assert_int_equal(classifier_train(&job, d, f.log), ERR_USAGE);
    device_close(d);
    assert_int_equal(device_open(&d, "cpu", "auto", 1, f.log), OK);
    job.identity = "identity";
    assert_int_equal(classifier_train(&job, d, f.log), ERR_USAGE);
    assert_non_null(strstr(status_message(), "1 threads"));
    device_close(d);
    close_fixture(&f);
}

/* A damaged newest checkpoint is passed over for the one before; the result is the same. */
static void damaged_checkpoint_is_passed_over(void **state)
{
    (void)state;
    Fixture f;
    char whole[HASH_TEXT], parts[HASH_TEXT], path[512];
    open_fixture(&f, "damage");
    f.config.ldm.steps = 12;
    f.config.ldm.checkpoint_every = 3;
    assert_int_equal(ldm(&f, &f.config, "whole", 0), OK);
    assert_int_equal(ldm(&f, &f.config, "parts", 8), ERR_STOPPED);
    snprintf(path, sizeof path, "%s/parts/checkpoints/step-000000008/state.safetensors", f.folder);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, -100, SEEK_END);
    int byte = fgetc(file);
    fseek(file, -1, SEEK_CUR);
    fputc(byte ^ 4, file);
    fclose(file);
    assert_int_equal(ldm(&f, &f.config, "parts", 0), OK);
    sum(whole, &f, "whole", UNET);
    sum(parts, &f, "parts", UNET);
    assert_string_equal(whole, parts);
    close_fixture(&f);
}

/* Files get no larger than `bytes`: as on a full disk. */
static void limit_files(rlim_t bytes)
{
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
    r.rlim_cur = bytes < r.rlim_max ? bytes : r.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

typedef Status Training(const Fixture *f, const Config *c, const char *run, long stop_after);

static void expect_full(Training *train, const Fixture *f, long stop_after, const char *expected)
{
    limit_files(4096);
    Status s = train(f, &f->config, "parts", stop_after);
    limit_files(RLIM_INFINITY);
    assert_int_equal(s, ERR_SPACE);
    if (!strstr(status_message(), expected))
        fail_msg("\"%s\" does not say \"%s\"", status_message(), expected);
}

/* Who stops on a full disk is not told that the state is kept, but what is; it continues there. */
static void a_stop_on_a_full_disk_says_what_is_kept(void **state)
{
    (void)state;
    static const struct {
        Training *train;
        const char *result;
    } kind[] = {{ldm, UNET}, {classify, "model.safetensors"}};
    char whole[HASH_TEXT], parts[HASH_TEXT];
    signal(SIGXFSZ, SIG_IGN);
    for (int i = 0; i < 2; i++) {
        Fixture f;
        open_fixture(&f, "full");
        f.config.ldm.steps = 8;
        f.config.classifier.batch = 4;
        f.config.classifier.epochs = 2;
        Training *train = kind[i].train;
        expect_full(train, &f, 2, "at step 2, whose state cannot be saved; nothing is kept");
        assert_int_equal(train(&f, &f.config, "parts", 3), ERR_STOPPED);
        assert_non_null(strstr(status_message(), "stopped at step 3, its state is kept"));
        expect_full(train, &f, 5, "the last that is kept is of step 3");
        assert_int_equal(train(&f, &f.config, "parts", 0), OK);
        assert_int_equal(train(&f, &f.config, "whole", 0), OK);
        sum(whole, &f, "whole", kind[i].result);
        sum(parts, &f, "parts", kind[i].result);
        assert_string_equal(whole, parts);
        close_fixture(&f);
    }
}

static void films_do_not_depend_on_their_batch(void **state)
{
    (void)state;
    enum { N = 5, SIZE = 80, PIXELS = SIZE * SIZE };
    static float one[N * PIXELS], many[N * PIXELS], source[N * PIXELS];
    for (int i = 0; i < N * PIXELS; i++)
        source[i] = (float)random_uniform((RandomKey){(uint32_t)time(NULL), STREAM_TEST, 2, 0},
                                          (uint32_t)i);
    Ldm m;
    Device *d;
    Sampler *s;
    assert_int_equal(device_open(&d, "cpu", "auto", 2, NULL), OK);
    assert_int_equal(ldm_open(&m, d, TINY, (LdmUse){.random = true, .seed = 5}), OK);
    SamplerSettings set = {
        .image_to_image = true, .strength = .7, .guidance = 3, .eta = .5, .steps = 6};
    SampleRequest r[N];
    for (int i = 0; i < N; i++)
        r[i] = (SampleRequest){.id = 100 + (uint64_t)i,
                               .prompt = i % 2 ? "chest x-ray" : "pneumonia",
                               .source = source + i * PIXELS};
    assert_int_equal(sampler_open(&s, &m, film_square(SIZE), 1, set, 9), OK);
    for (int i = 0; i < N; i++) assert_int_equal(sampler_run(s, &r[i], 1, one + i * PIXELS), OK);
    sampler_close(s);
    static const int batch[] = {2, 3, 5, 8};
    for (int b = 0; b < 4; b++) {
        assert_int_equal(sampler_open(&s, &m, film_square(SIZE), batch[b], set, 9), OK);
        for (int i = 0; i < N; i += batch[b])
            assert_int_equal(
                sampler_run(s, r + i, N - i < batch[b] ? N - i : batch[b], many + i * PIXELS), OK);
        sampler_close(s);
        assert_memory_equal(one, many, sizeof one);
    }
    r[0].id = 7; /* another id is another film: the test can fail */
    assert_int_equal(sampler_open(&s, &m, film_square(SIZE), 1, set, 9), OK);
    assert_int_equal(sampler_run(s, r, 1, many), OK);
    assert_memory_not_equal(one, many, PIXELS * sizeof *one);
    sampler_close(s);
    ldm_close(&m);
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ldm_continues_bit_for_bit),
        cmocka_unit_test(lora_continues_and_merges),
        cmocka_unit_test(lost_moments_are_noticed),
        cmocka_unit_test(classifier_continues_bit_for_bit),
        cmocka_unit_test(other_identity_is_refused),
        cmocka_unit_test(damaged_checkpoint_is_passed_over),
        cmocka_unit_test(a_stop_on_a_full_disk_says_what_is_kept),
        cmocka_unit_test(films_do_not_depend_on_their_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
