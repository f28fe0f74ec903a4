/* test_parallel.c - training over ranks: 1 rank x 4 micro-batches, 2 x 2 and 4 x 1 give the same
 * weights to the bit; so does sharded state; a checkpoint of so many ranks continues on others;
 * ranks stop and fail together. On CPU ranks that mpirun starts (train_rank, tests/train/rank.c).
 *
 * With an argument: only the tests of that name, which may have * and ?.
 */
#include "base/text.h"
#include "train/runs.h"
#include <sys/wait.h>

enum { TRAIN_FILM = 5, VAL_FILM = 26 }; /* numbers of films that train_rank uses so */

/* Exit code; what was said on stderr goes to FOLDER/said. */
static int start(int ranks, const char *kind, const char *run, const char *settings)
{
    Text t = {0};
    text_add(&t, "timeout 300 ");
    if (ranks > 1) text_add(&t, "mpirun --oversubscribe -np %d ", ranks);
    text_add(&t, "'%s' %s '%s/%s' %s >'%s/said' 2>&1", RANK_PROGRAM, kind, folder, run, settings,
             folder);
    int code = system(t.s);
    free(t.s);
    assert_true(WIFEXITED(code));
    return WEXITSTATUS(code);
}

static void run(int ranks, const char *kind, const char *name, const char *settings)
{
    if (start(ranks, kind, name, settings))
        fail_msg("%s on %d: %s", name, ranks, read_said("said"));
}

static void stops(int ranks, const char *kind, const char *name, const char *settings)
{
    int code = start(ranks, kind, name, settings);
    if (code != ERR_STOPPED)
        fail_msg("%s on %d ends with %d: %s", name, ranks, code, read_said("said"));
}

static const char *const autoencoder_files[] = {"model/diffusion_pytorch_model.safetensors",
                                                "history.json", NULL};
#define LDM                                                                                        \
    "ldm.steps=50 ldm.batch=1 ldm.prior_share=0 ldm.accumulate=4 ldm.train_text_encoder=1 "        \
    "ldm.validate_every=25 parallel.bucket_mb=1"
#define LDM_SHORT LDM " ldm.steps=12"
/* 20 films: two steps an epoch, and four left over */
#define CLASSIFIER                                                                                 \
    "classifier.epochs=25 classifier.batch=2 classifier.accumulate=4 classifier.patience=0 "       \
    "parallel.bucket_mb=1"
#define CLASSIFIER_SHORT CLASSIFIER " classifier.epochs=4"
#define AUTOENCODER                                                                                \
    "autoencoder.steps=4 autoencoder.batch=2 autoencoder.accumulate=4 "                            \
    "autoencoder.learning_rate=1e-3 parallel.zero=1"

/* ---- the tests ------------------------------------------------------------------------------- */

static void ldm_is_the_same_on_any_number_of_ranks(void **state)
{
    (void)state;
    run(1, "ldm", "ldm-1", LDM);
    run(2, "ldm", "ldm-2", LDM);
    run(4, "ldm", "ldm-4", LDM);
    run(4, "ldm", "ldm-4-zero", LDM " parallel.zero=1");
    same_run("ldm-1", "ldm-2", ldm_files);
    same_run("ldm-1", "ldm-4", ldm_files);
    same_run("ldm-1", "ldm-4-zero", ldm_files);
}

/* Six micro-batches: two ranks' threes are no nodes of the tree; three ranks' shards are ragged. */
static void ldm_is_the_same_where_nothing_divides(void **state)
{
    (void)state;
    run(1, "ldm", "six-1", LDM " ldm.steps=6 ldm.accumulate=6");
    run(2, "ldm", "six-2", LDM " ldm.steps=6 ldm.accumulate=6");
    run(3, "ldm", "six-3", LDM " ldm.steps=6 ldm.accumulate=6 parallel.zero=1");
    same_run("six-1", "six-2", ldm_files);
    same_run("six-1", "six-3", ldm_files);
    assert_int_equal(start(4, "ldm", "six-4", LDM " ldm.accumulate=6"), ERR_USAGE);
    char *text = read_said("said");
    assert_non_null(strstr(text, "ldm.accumulate = 6"));
    assert_non_null(strstr(text, "the nearest are 4 and 8"));
    free(text);
}

static void classifier_is_the_same_on_any_number_of_ranks(void **state)
{
    (void)state;
    run(1, "classifier", "classifier-1", CLASSIFIER);
    run(2, "classifier", "classifier-2", CLASSIFIER);
    run(4, "classifier", "classifier-4", CLASSIFIER);
    run(4, "classifier", "classifier-4-zero", CLASSIFIER_SHORT " parallel.zero=1");
    run(1, "classifier", "classifier-short", CLASSIFIER_SHORT);
    same_run("classifier-1", "classifier-2", classifier_files);
    same_run("classifier-1", "classifier-4", classifier_files);
    same_run("classifier-short", "classifier-4-zero", classifier_files);
    assert_false(same("classifier-1", "classifier-short", classifier_files[0]));
}

static void fast_is_near(void **state)
{
    (void)state;
    run(4, "ldm", "ldm-fast", LDM " parallel.reduction=fast");
    run(3, "ldm", "six-fast",
        LDM " ldm.steps=6 ldm.accumulate=6 parallel.reduction=fast "
            "parallel.zero=1");
    run(4, "classifier", "classifier-fast", CLASSIFIER " parallel.reduction=fast");
    double d = apart("ldm-1", "ldm-fast", ldm_files[0]),
           z = apart("six-1", "six-fast", ldm_files[0]),
           c = apart("classifier-1", "classifier-fast", classifier_files[0]);
    print_message("LDM %.2g, with shards %.2g; classifier %.2g\n", d, z, c);
    assert_true(d < 1e-5 && z < 1e-5 && c < 1e-5);
    assert_true(apart("ldm-1", "six-1", ldm_files[0]) > 1e-2);
}

static void autoencoder_is_the_same_on_any_number_of_ranks(void **state)
{
    (void)state;
    run(1, "autoencoder", "autoencoder-1", AUTOENCODER);
    run(4, "autoencoder", "autoencoder-4", AUTOENCODER);
    same_run("autoencoder-1", "autoencoder-4", autoencoder_files);
}

/* One number of the first moments of a checkpoint, by a little; its hash is made right again. */
static void tamper(const char *name, long step)
{
    char path[256], hash[HASH_TEXT];
    SafeFile f;
    uint64_t size;
    OutFile o;
    snprintf(path, sizeof path, "%s/%s/checkpoints/step-%09ld/state.safetensors", folder, name,
             step);
    assert_int_equal(st_open(&f, path), OK);
    const SafeTensor *m = st_find(&f, "m");
    assert_non_null(m);
    uint64_t at = m->offset + m->bytes / 8 * 4;
    st_close(&f);
    FILE *file = fopen(path, "r+b");
    float value;
    assert_non_null(file);
    fseek(file, (long)at, SEEK_SET);
    assert_int_equal(fread(&value, sizeof value, 1, file), 1);
    value = value * 1.25f + 1e-6f;
    fseek(file, (long)at, SEEK_SET);
    fwrite(&value, sizeof value, 1, file);
    fclose(file);
    assert_int_equal(hash_file(hash, path), OK);
    assert_int_equal(file_size(&size, path), OK);
    snprintf(path, sizeof path, "%s/%s/checkpoints/step-%09ld/MANIFEST.json", folder, name, step);
    assert_int_equal(out_open(&o, path), OK);
    out_printf(&o, "{\"file\": \"state.safetensors\", \"bytes\": %llu, \"sha256\": \"%s\"}",
               (unsigned long long)size, hash);
    assert_int_equal(out_commit(&o), OK);
}

/* Saved by so many ranks, with shards or without, continued by so many others. Only one of them is
 * asked to stop. */
static void checkpoints_continue_on_other_ranks(void **state)
{
    (void)state;
    static const struct {
        int from, on, from_zero, on_zero;
        const char *kind, *whole, *settings;
    } row[] = {
        {4, 1, 1, 0, "ldm", "ldm-short", LDM_SHORT},
        {4, 2, 0, 1, "ldm", "ldm-short", LDM_SHORT},
        {1, 4, 0, 1, "ldm", "ldm-short", LDM_SHORT},
        {4, 2, 1, 1, "classifier", "classifier-short", CLASSIFIER_SHORT},
    };
    char name[32], first[512], then[512];
    run(1, "ldm", "ldm-short", LDM_SHORT);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        snprintf(name, sizeof name, "part-%zu", i);
        snprintf(first, sizeof first, "%s parallel.zero=%d stop=5 stopper=%d", row[i].settings,
                 row[i].from_zero, row[i].from - 1);
        snprintf(then, sizeof then, "%s parallel.zero=%d", row[i].settings, row[i].on_zero);
        stops(row[i].from, row[i].kind, name, first);
        run(row[i].on, row[i].kind, name, then);
        same_run(row[i].whole, name, *row[i].kind == 'l' ? ldm_files : classifier_files);
    }
    stops(4, "ldm", "tampered", LDM_SHORT " parallel.zero=1 stop=5 stopper=2");
    tamper("tampered", 5);
    run(2, "ldm", "tampered", LDM_SHORT);
    assert_false(same("ldm-short", "tampered", ldm_files[0]));
}

/* Lines on stderr that are the program's. */
static int count_lines(const char *text, const char *start_of)
{
    int n = 0;
    for (; (text = strstr(text, start_of)); text++) n++;
    return n;
}

/* The film is of one rank only; what it says is said once, and all leave with its class. */
static void one_bad_film_ends_all(void **state)
{
    (void)state;
    static const char *const kind[] = {"ldm", "classifier", "autoencoder"};
    static const char *const settings[] = {LDM, CLASSIFIER, AUTOENCODER};
    char path[128], name[32], with[512];
    for (int i = 0; i < 3; i++) {
        for (int val = 0; val < 2; val++) {
            snprintf(name, sizeof name, "bad-%d-%d", i, val);
            snprintf(path, sizeof path, "%s/%s/bad.png", folder, name);
            assert_int_equal(file_write(path, "no film", 7), OK);
            snprintf(with, sizeof with, "%s bad=%d", settings[i], val ? VAL_FILM : TRAIN_FILM);
            int code = start(4, kind[i], name, with);
            char *text = read_said("said");
            if (code != ERR_INPUT || count_lines(text, "equipoise: ") != 1 ||
                !strstr(text, "bad.png"))
                fail_msg("%s ends with %d: %s", kind[i], code, text);
            free(text);
        }
    }
}

/* Statistics of the batch over ranks: ops against one big batch; a classifier that has them trains,
 * to the same bits with shards, and to others than without. */
static void statistics_are_of_all_ranks(void **state)
{
    (void)state;
#define SYNC CLASSIFIER_SHORT " classifier.epochs=2 parallel.sync_batchnorm=1"
    for (int ranks = 1; ranks <= 4; ranks++) run(ranks, "statistics", "statistics", "");
    run(2, "classifier", "sync", SYNC);
    run(2, "classifier", "sync-zero", SYNC " parallel.zero=1");
    run(2, "classifier", "sync-not", SYNC " parallel.sync_batchnorm=0");
    same_run("sync", "sync-zero", classifier_files);
    assert_false(same("sync", "sync-not", classifier_files[0]));
}

/* Batches come slowly to one rank, which the others wait for: it is named, with all ranks' times.
 */
static void a_slow_rank_is_named(void **state)
{
    (void)state;
    run(3, "steps", "slow", "ldm.accumulate=3 slow=1");
    char *text = read_said("said"), *at = strstr(text, "steps: rank 1 on host ");
    char *works = at ? strstr(at, " is slow: it works ") : NULL,
         *others = at ? strstr(at, "by rank: ") : NULL;
    if (!works || !others) fail_msg("no rank is named: %s", text);
    double slow = strtod(works + strlen(" is slow: it works "), NULL);
    if (slow < 0.1 || strtod(others + strlen("by rank: "), NULL) > slow / 2)
        fail_msg("not the times of a rank that waits 0.1 s: %s", text);
    assert_int_equal(count_lines(text, " is slow"), 1);
    free(text);
    run(3, "steps", "none-slow", "ldm.accumulate=3");
    assert_true(same("slow", "none-slow", "steps"));
}

static void steps_are_the_same_on_any_number_of_ranks(void **state)
{
    (void)state;
    static const char *const setting[] = {"", "parallel.zero=1"};
    char with[128], name[32];
    run(1, "steps", "steps-1", "ldm.accumulate=4");
    for (int zero = 0; zero < 2; zero++)
        for (int ranks = 2; ranks <= 4; ranks += 2) {
            snprintf(with, sizeof with, "ldm.accumulate=4 %s", setting[zero]);
            snprintf(name, sizeof name, "steps-%d-%d", ranks, zero);
            run(ranks, "steps", name, with);
            assert_true(same("steps-1", name, "steps"));
        }
    run(1, "steps", "steps-8", "ldm.accumulate=8");
    assert_false(same("steps-1", "steps-8", "steps"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ldm_is_the_same_on_any_number_of_ranks),
        cmocka_unit_test(ldm_is_the_same_where_nothing_divides),
        cmocka_unit_test(classifier_is_the_same_on_any_number_of_ranks),
        cmocka_unit_test(autoencoder_is_the_same_on_any_number_of_ranks),
        cmocka_unit_test(fast_is_near),
        cmocka_unit_test(checkpoints_continue_on_other_ranks),
        cmocka_unit_test(one_bad_film_ends_all),
        cmocka_unit_test(statistics_are_of_all_ranks),
        cmocka_unit_test(a_slow_rank_is_named),
        cmocka_unit_test(steps_are_the_same_on_any_number_of_ranks),
    };
    if (!EQ_MPI || system("mpirun --version >/dev/null 2>&1")) {
        printf("SKIPPED: built without MPI, or no mpirun\n");
        return 77;
    }
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* MPI's own, in modules that are unloaded */
    if (argc == 2) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, open_folder, remove_folder);
}
