/* test_study_stage.c - records of stages, the lock of a run folder, which films a stage gets. */
#include "study/fold.h"
#include "study/lock.h"
#include "study/stage.h"
#include "study/task.h"
#include "study/times.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h> /* behind the headers it needs */

typedef struct {
    char dir[64];
    Config config;
    Log *log;
} Place;

static int open_place(void **state)
{
    Place *p = calloc(1, sizeof *p);
    strcpy(p->dir, "/tmp/test_stage_XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    config_default(&p->config);
    p->log = log_new(true);
    *state = p;
    return 0;
}

static int close_place(void **state)
{
    Place *p = *state;
    dir_remove(p->dir);
    log_free(p->log);
    free(p);
    return 0;
}

static void write_text(const Place *p, const char *name, const char *text)
{
    char *path = path_join(p->dir, name);
    assert_int_equal(file_write(path, text, strlen(text)), OK);
    free(path);
}

/* Begins stage "ldm-a" with the settings of p->config and DIR/in as its inputs. */
static Status begin(Stage *s, const Place *p)
{
    char *in = path_join(p->dir, "in"), *folder = path_join(p->dir, "ldm-a");
    stage_new(s, "ldm-a", folder);
    stage_setting(s, &p->config, "ldm study.seed");
    Status status = stage_input(s, "base model", in);
    if (!status) status = stage_begin(s);
    free(in);
    free(folder);
    return status;
}

static void make_complete(const Place *p)
{
    Stage s = {0};
    write_text(p, "in/unet/weights", "abc");
    assert_int_equal(begin(&s, p), OK);
    assert_false(s.done);
    write_text(p, "ldm-a/model/unet/weights", "xyz");
    write_text(p, "ldm-a/history.json", "{}");
    assert_int_equal(stage_end(&s, (const char *[]){"model", "history.json"}, 2), OK);
    assert_true(s.done);
    stage_free(&s);
}

static void expect_refused(Place *p, Status code, const char *what)
{
    Stage s = {0};
    assert_int_equal(begin(&s, p), code);
    assert_false(s.done);
    if (!strstr(status_message(), what))
        fail_msg("\"%s\" does not name \"%s\"", status_message(), what);
    stage_free(&s);
}

static void a_complete_stage_is_skipped(void **state)
{
    Place *p = *state;
    Stage s = {0}, down = {0};
    char first[HASH_TEXT], second[HASH_TEXT];
    make_complete(p);
    assert_int_equal(begin(&s, p), OK);
    assert_true(s.done);
    stage_identity(&s, first);
    stage_new(&down, "synth-a", p->dir);
    stage_upstream(&down, &s, "model");
    assert_int_equal(json_object_size(down.inputs), 1);
    assert_string_equal(json_string_value(json_object_get(down.inputs, "ldm-a/model")),
                        json_string_value(json_object_get(s.outputs, "model")));
    stage_free(&down);
    stage_free(&s);
    /* settings of other sections and single ones that it does not name are no inputs */
    p->config.classifier.epochs++;
    p->config.study.repeats++;
    assert_int_equal(begin(&s, p), OK);
    assert_true(s.done);
    stage_identity(&s, second);
    assert_string_equal(first, second);
    stage_free(&s);
}

static void other_inputs_are_refused_by_name(void **state)
{
    Place *p = *state;
    char expected[80];
    make_complete(p);
    int steps = p->config.ldm.steps++;
    snprintf(expected, sizeof expected, "ldm.steps = %d, was %d", steps + 1, steps);
    expect_refused(p, ERR_USAGE, expected);
    p->config.ldm.steps--;
    p->config.study.seed = 77;
    expect_refused(p, ERR_USAGE, "study.seed = 77");
    p->config.study.seed = 0;
    write_text(p, "in/unet/weights", "abd");
    expect_refused(p, ERR_USAGE, "base model");
    write_text(p, "in/unet/weights", "abc");
    write_text(p, "in/unet/more", "");
    expect_refused(p, ERR_USAGE, "base model");
}

static void an_open_stage_continues_or_is_refused(void **state)
{
    Place *p = *state;
    Stage s = {0};
    write_text(p, "in/unet/weights", "abc");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(begin(&s, p), OK);
        assert_false(s.done);
        stage_free(&s);
    }
    p->config.ldm.batch++;
    expect_refused(p, ERR_USAGE, "ldm.batch");
}

static void damaged_outputs_and_records_are_refused(void **state)
{
    Place *p = *state;
    make_complete(p);
    write_text(p, "ldm-a/model/unet/weights", "xyZ");
    expect_refused(p, ERR_INPUT, "ldm-a/model: has changed");
    write_text(p, "ldm-a/model/unet/weights", "xyz");
    char *path = path_join(p->dir, "ldm-a/history.json");
    assert_int_equal(unlink(path), 0);
    free(path);
    expect_refused(p, ERR_INPUT, "history.json: is gone");
    write_text(p, "ldm-a/stage.json", "{\"stage\": ");
    expect_refused(p, ERR_INPUT, "stage.json:1");
    write_text(p, "ldm-a/stage.json",
               "{\"program\": \"" EQ_VERSION "\", \"done\": true, \"inputs\": {}}");
    expect_refused(p, ERR_INPUT, "no inputs or outputs");
}

static void settings_that_differ_are_named(void **state)
{
    Place *p = *state;
    Config was = p->config;
    Text t = {0};
    assert_int_equal(settings_difference(&t, &p->config, &was), 0);
    strcpy(p->config.data.source,
           "/somewhere/else"); /* paths are not compared, what they lead to is */
    assert_int_equal(settings_difference(&t, &p->config, &was), 0);
    p->config.parallel.zero = 1; /* nor is how ranks share the work */
    p->config.parallel.timeout_s = 20;
    assert_int_equal(settings_difference(&t, &p->config, &was), 0);
    assert_null(t.s);
    strcpy(p->config.synthesis.source, "disease");
    p->config.ldm.learning_rate = .25;
    assert_int_equal(settings_difference(&t, &p->config, &was), 2);
    assert_non_null(strstr(t.s, "synthesis.source = disease, was normal"));
    assert_non_null(strstr(t.s, "ldm.learning_rate = 0.25, was 0.0001"));
    free(t.s);
}

/* ---- the lock ------------------------------------------------------------------------- */

/* The exit code of a child that tries to lock DIR and, if it can, ends without unlocking. */
static int child_locks(const Place *p)
{
    int code = -1;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        RunLock l = {0};
        _exit(run_lock(&l, p->dir, 0, p->log));
    }
    assert_int_equal(waitpid(pid, &code, 0), pid);
    return WEXITSTATUS(code);
}

static void one_process_holds_a_run(void **state)
{
    Place *p = *state;
    RunLock l = {0};
    char *path = path_join(p->dir, "lock");
    assert_int_equal(run_lock(&l, p->dir, 0, p->log), OK);
    assert_int_equal(child_locks(p), ERR_USAGE);
    run_unlock(&l);
    assert_false(file_exists(path));
    assert_int_equal(child_locks(p), OK);
    assert_true(file_exists(path)); /* left by a process that is gone */
    assert_int_equal(run_lock(&l, p->dir, 0, p->log), OK);
    run_unlock(&l);
    run_unlock(&l);
    free(path);
}

/* A stage that begins "later" than it ends: the clock was set back while it ran. */
static void a_stage_never_ends_before_it_begins(void **state)
{
    Place *p = *state;
    char *folder = path_join(p->dir, "ldm-a"), *path = path_join(folder, "times.json");
    Stage s = {0};
    StageTime now = time_begin(0, 1), later = now;
    later.began_s += 5000;
    stage_new(&s, "ldm-a", folder);
    time_end(&later, &s, OK, 0, p->log);
    time_end(&now, &s, OK, 0, p->log);
    json_t *list = json_load_file(path, 0, NULL), *one;
    size_t i;
    assert_int_equal(json_array_size(list), 2);
    json_array_foreach(list, i, one)
    {
        double began = json_number_value(json_object_get(one, "began")),
               ended = json_number_value(json_object_get(one, "ended"));
        assert_true(began > 0 && ended >= began && ended < now.began_s + 5001);
    }
    json_decref(list);
    stage_free(&s);
    free(path);
    free(folder);
}

/* ---- folds ---------------------------------------------------------------------------- */

static void add_film(Manifest *m, int i, const char *label, const char *patient, Split split)
{
    char id[32], path[48];
    snprintf(id, sizeof id, "f%d", i);
    snprintf(path, sizeof path, "images/f%d.png", i);
    ManifestRow r = {.id = id,
                     .path = path,
                     .label_name = label,
                     .patient = patient,
                     .source = "x",
                     .split = split,
                     .width = 80,
                     .height = 80};
    hash_bytes(r.sha256, id, strlen(id));
    manifest_add(m, &r);
}

/* 9 films of each split: 6 normal, 2 bacteria, 1 virus, 3 films a patient; pool: 4 patients of 1..4
 * films */
static void make_manifest(Manifest *m, const Place *p)
{
    int k = 0;
    char *path = path_join(p->dir, "manifest.csv");
    static const char *const label[9] = {"normal", "normal", "bacteria", "normal", "virus",
                                         "normal", "normal", "bacteria", "normal"};
    manifest_init(m, path);
    free(path);
    for (Split s = SPLIT_TRAIN; s <= SPLIT_TEST; s++)
        for (int i = 0; i < 9; i++) {
            char patient[32];
            snprintf(patient, sizeof patient, "p%d-%d", (int)s, i / 3);
            add_film(m, k++, label[i], patient, s);
        }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j <= i; j++) {
            char patient[32];
            snprintf(patient, sizeof patient, "pool%d", i);
            add_film(m, k++, "normal", patient, SPLIT_POOL);
        }
    assert_int_equal(manifest_finish(m), OK);
}

static const ManifestRow *row_of(const Manifest *m, const char *path)
{
    for (int i = 0; i < m->n; i++)
        if (strstr(path, m->row[i].path) && !strcmp(strstr(path, m->row[i].path), m->row[i].path))
            return &m->row[i];
    fail_msg("%s is in no row", path);
    return NULL;
}

static void tasks_get_the_films_of_one_split(void **state)
{
    Place *p = *state;
    Manifest m = {0};
    Arena a = {0};
    ClassifierFilm *film;
    const ManifestRow **row;
    int n, diseased = 0;
    make_manifest(&m, p);
    assert_int_equal(fold_task(&film, &row, &n, &a, &m, SPLIT_VAL, "normal", "bacteria"), OK);
    assert_int_equal(n, 8);
    for (int i = 0; i < n; i++) {
        const ManifestRow *r = row_of(&m, film[i].path);
        assert_ptr_equal(r, row[i]);
        assert_int_equal(r->split, SPLIT_VAL);
        assert_int_equal(film[i].label, !strcmp(r->label_name, "bacteria"));
        assert_true(film[i].id == film_key(r->id));
        diseased += film[i].label;
    }
    assert_int_equal(diseased, 2);
    assert_int_equal(fold_task(&film, NULL, &n, &a, &m, SPLIT_POOL, "normal", "bacteria"),
                     ERR_INPUT);
    assert_int_equal(fold_task(&film, NULL, &n, &a, &m, SPLIT_VAL, "normal", "fungus"), ERR_USAGE);
    assert_non_null(strstr(status_message(), "bacteria, normal, virus"));
    manifest_free(&m);
    arena_free(&a);
}

static void diffusion_models_and_sources_see_training_films_only(void **state)
{
    Place *p = *state;
    Manifest m = {0};
    Arena a = {0};
    SourceFilm *source;
    LdmFilm *film;
    int n;
    make_manifest(&m, p);
    assert_int_equal(fold_sources(&source, &n, &a, &m, "normal"), OK);
    assert_int_equal(n, 6);
    for (int i = 0; i < n; i++) {
        const ManifestRow *r = row_of(&m, source[i].path);
        assert_int_equal(r->split, SPLIT_TRAIN);
        assert_string_equal(r->id, source[i].id);
        assert_string_equal(r->patient, source[i].patient);
    }
    assert_int_equal(
        fold_prompted(&film, &n, &a, &m, &p->config, 1u << SPLIT_TRAIN | 1u << SPLIT_POOL, NULL),
        OK);
    assert_int_equal(n, 19);
    for (int i = 0; i < n; i++) {
        const ManifestRow *r = row_of(&m, film[i].path);
        assert_true(r->split == SPLIT_TRAIN || r->split == SPLIT_POOL);
        const char *prompts;
        assert_int_equal(class_prompts(&prompts, &p->config, r->label_name), OK);
        assert_string_equal(film[i].prompts, prompts);
    }
    strcpy(p->config.data.disease_b, "fungus"); /* then the virus has no prompts */
    assert_int_equal(fold_prompted(&film, &n, &a, &m, &p->config, 1u << SPLIT_TRAIN, NULL),
                     ERR_USAGE);
    manifest_free(&m);
    arena_free(&a);
}

static void patients_are_the_labels_of_the_pretext_task(void **state)
{
    Place *p = *state;
    Manifest m = {0};
    Arena a = {0};
    ClassifierFilm *train, *val;
    int n_train, n_val, classes, films[16] = {0};
    make_manifest(&m, p);
    assert_int_equal(fold_patients(&train, &n_train, &val, &n_val, &classes, &a, &m), OK);
    assert_int_equal(classes, 3 + 4);
    assert_int_equal(n_train + n_val, 9 + 10);
    assert_int_equal(n_val, 3 + 2); /* patients with three films and more */
    for (int i = 0; i < n_train + n_val; i++) {
        const ClassifierFilm *f = i < n_train ? &train[i] : &val[i - n_train];
        const ManifestRow *r = row_of(&m, f->path);
        assert_true(r->split == SPLIT_TRAIN || r->split == SPLIT_POOL);
        assert_in_range(f->label, 0, classes - 1);
        films[f->label]++;
        for (int k = 0; k < n_train; k++)
            assert_int_equal(!strcmp(row_of(&m, train[k].path)->patient, r->patient),
                             train[k].label == f->label);
    }
    for (int k = 0; k < classes; k++) assert_true(films[k] > 0);
    manifest_free(&m);
    arena_free(&a);
}

static void synthetic_films_fill_what_is_missing(void **state)
{
    Place *p = *state;
    Manifest m = {0};
    int n_train, n_val;
    make_manifest(&m, p);
    assert_int_equal(synthetic_wanted(&n_train, &n_val, &p->config, &m, "virus"), OK);
    assert_int_equal(n_train, 5); /* 6 normal, 1 virus, in both */
    assert_int_equal(n_val, 5);
    strcpy(p->config.classifier.synthetic_in, "train");
    assert_int_equal(synthetic_wanted(&n_train, &n_val, &p->config, &m, "bacteria"), OK);
    assert_int_equal(n_train, 4);
    assert_int_equal(n_val, 0);
    strcpy(p->config.classifier.synthetic_in, "train+val");
    p->config.synthesis.count = 7;
    assert_int_equal(synthetic_wanted(&n_train, &n_val, &p->config, &m, "bacteria"), OK);
    assert_int_equal(n_train + n_val, 7);
    assert_in_range(n_val, 3, 4);
    p->config.synthesis.count = 0;
    strcpy(p->config.data.normal, "virus"); /* now the "disease" is the larger class */
    assert_int_equal(synthetic_wanted(&n_train, &n_val, &p->config, &m, "bacteria"), ERR_USAGE);
    manifest_free(&m);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_place, close_place)
    const struct CMUnitTest tests[] = {
        TEST(a_complete_stage_is_skipped),
        TEST(other_inputs_are_refused_by_name),
        TEST(an_open_stage_continues_or_is_refused),
        TEST(damaged_outputs_and_records_are_refused),
        TEST(settings_that_differ_are_named),
        TEST(one_process_holds_a_run),
        TEST(a_stage_never_ends_before_it_begins),
        TEST(tasks_get_the_films_of_one_split),
        TEST(diffusion_models_and_sources_see_training_films_only),
        TEST(patients_are_the_labels_of_the_pretext_task),
        TEST(synthetic_films_fill_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
