/* test_parallel_gpu.c - training over two GPUs, both simulated, between which a stand-in of NCCL
 * moves the data (tests/comm/fake_nccl.c): the weights of one, to the bit where sums are fixed,
 * near where the library sums, with state in shards or whole; steps are recorded with their
 * exchange, and replayed; a rank that is killed, or whose GPU is lost, while steps are replayed
 * ends the other.
 *
 * With an argument: only the tests of that name, which may have * and ?.
 */
#include "base/text.h"
#include "train/runs.h"
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

enum { MOST = 2, LIMIT_S = 300 };

typedef struct {
    char name[32];
    int ranks;
    pid_t pid[MOST];
    int code[MOST]; /* exit code, or 128 + signal */
} Run;

/* In the child: rank k of the run. What it says goes to FOLDER/NAME.said.K. */
static void become(const Run *r, int k, int port, const char *kind, const char *settings)
{
    Text t = {0};
    const char *name[] = {"RANK", "WORLD_SIZE", "MASTER_PORT"};
    int value[] = {k, r->ranks, port};
    char text[32];
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "%d", value[i]);
        setenv(name[i], text, 1);
    }
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("EQ_LIBRARIES", NCCL_FOLDER, 1);
    setenv("HOSTCUDA_DEVICES", "2", 1);
    alarm(LIMIT_S); /* outlives exec */
    text_add(&t,
             "exec '%s' %s '%s/%s' study.device=cuda parallel.bucket_mb=1 %s >'%s/%s.said.%d' 2>&1",
             RANK_PROGRAM, kind, folder, r->name, settings, folder, r->name, k);
    execl("/bin/sh", "sh", "-c", t.s, (char *)NULL);
    _exit(99);
}

/* The stand-in writes its calls to FOLDER/NAME.calls. */
static Run start(int ranks, const char *kind, const char *name, const char *settings)
{
    static int started;
    Run r = {.ranks = ranks};
    int port = 20000 + ((int)getpid() * 16 + started++) % 10000;
    char path[128];
    snprintf(r.name, sizeof r.name, "%s", name);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(dir_make(path), OK);
    snprintf(path, sizeof path, "%s/%s.calls", folder, name);
    setenv("FAKE_NCCL_LOG", path, 1);
    for (int k = 0; k < ranks; k++) {
        r.pid[k] = fork();
        assert_true(r.pid[k] >= 0);
        if (!r.pid[k]) become(&r, k, port, kind, settings);
    }
    return r;
}

static void wait_for(Run *r, int k)
{
    int status;
    assert_int_equal(waitpid(r->pid[k], &status, 0), r->pid[k]);
    r->code[k] = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static char *said_by(const Run *r, int k)
{
    char name[64];
    snprintf(name, sizeof name, "%s.said.%d", r->name, k);
    return read_said(name);
}

static void run(int ranks, const char *kind, const char *name, const char *settings)
{
    Run r = start(ranks, kind, name, settings);
    for (int k = 0; k < ranks; k++) wait_for(&r, k);
    for (int k = 0; k < ranks; k++)
        if (r.code[k]) fail_msg("%s, rank %d ends with %d: %s", name, k, r.code[k], said_by(&r, k));
}

/* How often rank 1 of two has enqueued such a call: as it goes, or to be recorded. */
static int calls(const char *name, const char *call)
{
    char path[128], *text, pattern[64];
    size_t size;
    int n = 0;
    snprintf(path, sizeof path, "%s/%s.calls", folder, name);
    if (!file_exists(path)) return 0;
    assert_int_equal(file_read(&text, &size, path, 1 << 20), OK);
    snprintf(pattern, sizeof pattern, "rank 1 of 2: %s ", call);
    for (const char *at = text; (at = strstr(at, pattern)); at++) n++;
    free(text);
    return n;
}

/* ---- the tests ------------------------------------------------------------------------------- */

/* A network of three buckets, four steps of four micro-batches, under the checker of the simulated
 * GPU. Of the steps one runs as it goes and one is recorded, so that each bucket is exchanged twice
 * as far as NCCL is told. */
static void steps_are_those_of_one_gpu(void **state)
{
    (void)state;
    static const char *const streams[] = {"0", "2"}; /* which stream goes on first */
    const char *settings = "ldm.accumulate=4";
    run(1, "steps", "steps-1", settings);
    for (int order = 0; order < 2; order++) {
        char name[32], with[96];
        snprintf(name, sizeof name, "steps-2-%d", order);
        snprintf(with, sizeof with, "%s parallel.zero=%d", settings, order == 1);
        setenv("HOSTCUDA_STREAMS", streams[order], 1);
        run(2, "steps", name, with);
        assert_true(same("steps-1", name, "steps"));
        assert_int_equal(calls(name, "Group"), 2 * 3);
    }
    unsetenv("HOSTCUDA_STREAMS");
}

static void statistics_are_of_both_gpus(void **state)
{
    (void)state;
    run(2, "statistics", "statistics", "study.precision=fp32");
    run(2, "statistics", "statistics-bf16", "study.precision=bf16");
    assert_int_equal(calls("statistics", "AllGather"), 2);
}

/* Kernels are checked elsewhere; without that the simulated GPU is faster. */
static void models(int ranks, const char *kind, const char *name, const char *settings)
{
    setenv("HOSTCUDA_CHECK", "0", 1);
    run(ranks, kind, name, settings);
    unsetenv("HOSTCUDA_CHECK");
}

#define LDM                                                                                        \
    "films=2 ldm.steps=3 ldm.batch=1 ldm.prior_share=0 ldm.accumulate=2 ldm.validate_every=3 "     \
    "ldm.checkpoint_every=100 "
/* Few steps that all count, not so long that rounding decides. */
#define CLASSIFIER                                                                                 \
    "films=12 classifier.epochs=1 classifier.batch=2 classifier.accumulate=2 "                     \
    "classifier.learning_rate=1e-5 data.size=75 "

static void ldm_is_that_of_one_gpu(void **state)
{
    (void)state;
    models(1, "ldm", "ldm-1", LDM);
    models(2, "ldm", "ldm-zero", LDM "parallel.zero=1");
    models(2, "ldm", "ldm-fast", LDM "parallel.reduction=fast");
    same_run("ldm-1", "ldm-zero", ldm_files);
    assert_int_equal(calls("ldm-zero", "Group"), 2);
    assert_int_equal(calls("ldm-fast", "AllReduce"), 2);
    double fast = apart("ldm-1", "ldm-fast", ldm_files[0]);
    print_message("LDM: fast is %.2g from fixed\n", fast);
    assert_true(fast < 1e-5);
}

static void classifier_is_that_of_one_gpu(void **state)
{
    (void)state;
    models(1, "classifier", "classifier-1", CLASSIFIER);
    models(2, "classifier", "classifier-2", CLASSIFIER);
    models(2, "classifier", "classifier-fast",
           CLASSIFIER "parallel.zero=1 parallel.reduction=fast");
    models(2, "classifier", "classifier-sync", CLASSIFIER "parallel.sync_batchnorm=1");
    same_run("classifier-1", "classifier-2", classifier_files);
    double fast = apart("classifier-1", "classifier-fast", classifier_files[0]),
           sync = apart("classifier-1", "classifier-sync", classifier_files[0]);
    print_message("classifier: fast is %.2g from fixed, statistics of both GPUs %.2g\n", fast,
                  sync);
    assert_true(fast < 1e-5 && sync > 1e-3);
}

/* Until steps are replayed: the second of each call has been recorded, and then some time. */
static Run in_replays(const char *name)
{
    setenv("HOSTCUDA_CHECK", "0", 1);
    Run r = start(2, "ldm", name,
                  LDM "ldm.steps=100000 ldm.validate_every=100000 parallel.timeout_s=20");
    unsetenv("HOSTCUDA_CHECK");
    for (int i = 0; i < 20 * LIMIT_S && calls(name, "Group") < 2; i++) usleep(50000);
    return r;
}

static void a_killed_rank_ends_the_other(void **state)
{
    (void)state;
    Run r = in_replays("killed");
    sleep(5);
    kill(r.pid[1], SIGKILL);
    time_t began = time(NULL);
    for (int k = 0; k < 2; k++) wait_for(&r, k);
    char *text = said_by(&r, 0);
    print_message("%ld s: %s\n", (long)(time(NULL) - began), text);
    assert_true(time(NULL) - began < 30);
    /* a replayed step tells the store nothing: known is the call of the step that was recorded */
    bool named = strstr(text, ") died; the last call that it reached is ") ||
                 strstr(text, ") died while ranks wait in ");
    if (r.code[0] != ERR_PEER || r.code[1] != 128 + SIGKILL || !named ||
        !strstr(text, "equipoise: rank 1 on host "))
        fail_msg("ends with %d and %d: %s", r.code[0], r.code[1], text);
    free(text);
}

/* Rank 1's GPU is not heard of from a replay on: the call that loses it is recorded. */
static void a_lost_gpu_ends_both(void **state)
{
    (void)state;
    setenv("FAKE_NCCL_LOSE", "5:1", 1);
    Run r = in_replays("lost");
    unsetenv("FAKE_NCCL_LOSE");
    time_t began = time(NULL);
    for (int k = 0; k < 2; k++) wait_for(&r, k);
    char *text[2] = {said_by(&r, 0), said_by(&r, 1)};
    print_message("%ld s: %s%s\n", (long)(time(NULL) - began), text[0], text[1]);
    assert_true(time(NULL) - began < 100); /* LIMIT_S if nobody heeds it */
    assert_int_equal(r.code[0], ERR_PEER);
    assert_int_equal(r.code[1], ERR_PEER);
    assert_true(strstr(text[0], "NCCL: remote process exited") ||
                strstr(text[1], "NCCL: remote process exited"));
    free(text[0]);
    free(text[1]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_those_of_one_gpu),
        cmocka_unit_test(statistics_are_of_both_gpus),
        cmocka_unit_test(ldm_is_that_of_one_gpu),
        cmocka_unit_test(classifier_is_that_of_one_gpu),
        cmocka_unit_test(a_killed_rank_ends_the_other),
        cmocka_unit_test(a_lost_gpu_ends_both),
    };
    if (!*RANK_PROGRAM) {
        printf("SKIPPED: built without CUDA\n");
        return 77;
    }
    if (argc == 2) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, open_folder, remove_folder);
}
