/* test_stop.c - commands that were asked to stop end with the class for it and leave nothing under
 * a final name. The flag is set before they start, so nothing hangs on timing. */
#include "app/commands.h"
#include "base/file.h"
#include "base/signal.h"
#include "base/text.h"
#include "ref/example_run.h"
#include "weights/safetensors.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/eq-stop-XXXXXX";

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

/* Status of the words' command, run in a child that a signal has asked to stop, or not. */
static Status command(bool stop, char *words)
{
    char *argv[32] = {"equipoise"}, *rest = NULL;
    int argc = 1, status = 0;
    for (char *w = strtok_r(words, " ", &rest); w; w = strtok_r(NULL, " ", &rest)) argv[argc++] = w;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        App app = {.log = log_new(true)};
        signal_install();
        if (stop) raise(SIGTERM);
        if (!freopen("/dev/null", "w", stdout)) _exit(99);
        Status s = commands_run(&app, argc, argv);
        if (s) fprintf(stderr, "%s\n", status_message());
        _exit((int)s);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return (Status)WEXITSTATUS(status);
}

static int entries(void)
{
    DirList l;
    require(dir_list(&l, folder));
    int n = l.n;
    dir_list_free(&l);
    return n;
}

/* @ in the words stands for the folder, @/out is what the command makes. */
static void test_command(void **state)
{
    char text[2][1024], out[256];
    snprintf(out, sizeof out, "%s/out%s", folder, strstr(*state, "@/out.png") ? ".png" : "");
    for (int i = 0; i < 2; i++) {
        Text t = {0};
        for (const char *c = *state; *c; c++)
            if (*c == '@') text_add(&t, "%s", folder);
            else text_add(&t, "%c", *c);
        snprintf(text[i], sizeof text[i], "%s", t.s);
        free(t.s);
    }
    int before = entries();
    assert_int_equal(command(true, text[0]), ERR_STOPPED);
    assert_false(file_exists(out));
    assert_int_equal(entries(), before);
    assert_int_equal(command(false, text[1]), OK); /* it was the signal, nothing else */
    assert_true(file_exists(out));
    require(dir_exists(out) ? dir_remove(out) : unlink(out) ? ERR_BUG : OK);
}

/* The report stands at its final name already: it must stay as it is. */
static void test_report(void **state)
{
    (void)state;
    char words[256], page[256], hash[2][HASH_TEXT];
    snprintf(page, sizeof page, "%s/run/report.html", folder);
    require(file_write(page, "old", 3));
    snprintf(words, sizeof words, "report %s/run", folder);
    require(hash_file(hash[0], page));
    assert_int_equal(command(true, words), ERR_STOPPED);
    require(hash_file(hash[1], page));
    assert_string_equal(hash[0], hash[1]);
    snprintf(words, sizeof words, "report %s/run", folder);
    assert_int_equal(command(false, words), OK);
    require(hash_file(hash[1], page));
    assert_string_not_equal(hash[0], hash[1]);
}

static int make_inputs(void **state)
{
    (void)state;
    static const float latent[32 * 2 * 2];
    char path[256];
    SafeWriter w = {0};
    const SafeSpec spec = {"latent", SAFE_F32, 4, {1, 32, 2, 2}};
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/in.safetensors", folder);
    require(st_write_begin(&w, path, 1, &spec, 0, NULL));
    require(st_write_f32(&w, latent, sizeof latent / sizeof *latent));
    require(st_write_commit(&w));
    snprintf(path, sizeof path, "%s/run", folder);
    int status = 1;
    pid_t pid = fork(); /* OpenMP, once it has run here, would not run in the children */
    if (pid == 0) {
        example_run(path, (uint32_t)time(NULL));
        _exit(0);
    }
    return pid < 0 || waitpid(pid, &status, 0) != pid || status;
}

static int remove_folder(void **state)
{
    (void)state;
    return dir_remove(folder) != OK;
}

#define VAE SOURCE_DIR "/samples/base/vae"
#define STOPPED(words)                                                                             \
    {                                                                                              \
        words, test_command, NULL, NULL, words                                                     \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOPPED("evaluate --predictions @/run/stages/baseline-a/predictions_test.csv --out @/out"),
        STOPPED("weights convert @/in.safetensors @/out --dtype f16"),
        STOPPED("weights convert " VAE " @/out --dtype f16"),
        STOPPED("forward taesd-decode --weights " VAE " --in @/in.safetensors --out @/out"),
        STOPPED("report @/run --grid @/out.png"),
        cmocka_unit_test(test_report),
    };
    return cmocka_run_group_tests(tests, make_inputs, remove_folder);
}
