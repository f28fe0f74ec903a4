/* test_program.c - the whole program on a GPU that tests/hostcuda plays: training, sampling and
 * their failures, against the same commands on the CPU.
 *
 * Training in fp32 takes the same losses and gradient norms within 1e-4; a film made from them is
 * the CPU's within a grey level of 255, for rounding to bytes may fall either way. In bf16 losses
 * and norms are within 2 %: rounding of 2^-9 at some dozen nodes in a row.
 * The checker of hostcuda rests, for time: the tests of ops have it on.
 */
#include "base/file.h"
#include "data/image.h"
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { STEPS = 3 };
static char folder[] = "/tmp/eq-gpu-XXXXXX";
static char said[4096]; /* what the last command wrote to stderr */

/* Exit code of the program with these arguments, in the test's folder; before: VARIABLE=value. */
__attribute__((format(printf, 2, 3))) static int run(const char *before, const char *fmt, ...)
{
    char arguments[2048], line[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(arguments, sizeof arguments, fmt, ap);
    va_end(ap);
    snprintf(line, sizeof line, "cd '%s' && HOSTCUDA_CHECK=0 %s '%s_hostcuda' %s 2>&1 >/dev/null",
             folder, before, PROGRAM, arguments);
    FILE *p = popen(line, "r");
    assert_non_null(p);
    size_t n = fread(said, 1, sizeof said - 1, p);
    said[n] = 0;
    while (fgetc(p) != EOF) {}
    int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void expect(int want, int got)
{
    if (got != want) fail_msg("exit code %d, expected %d: %s", got, want, said);
}

static int train(const char *before, const char *out, const char *device, const char *precision,
                 int batch)
{
    return run(
        before,
        "train-ldm %s/configs/tiny.ini --set data.source=%s/films.csv --class bacteria --out %s "
        "--set study.device=%s --set study.precision=%s --set ldm.steps=%d --set ldm.batch=%d "
        "--set ldm.warmup=0 --set ldm.accumulate=1 --set ldm.prior_share=0",
        SOURCE_DIR, folder, out, device, precision, STEPS, batch);
}

/* The only row of a run's history: mean loss, validation loss, norm of the last gradient. */
static void last_row(double v[3], const char *out)
{
    static const int at[] = {1, 2, 4};
    char path[256];
    snprintf(path, sizeof path, "%s/%s/history.json", folder, out);
    json_t *j = json_load_file(path, 0, NULL), *row = json_array_get(json_object_get(j, "rows"), 0);
    if (!row) fail_msg("%s: no rows", path);
    for (int i = 0; i < 3; i++) v[i] = json_number_value(json_array_get(row, (size_t)at[i]));
    json_decref(j);
}

static void same_training(const char *out, double limit)
{
    double cpu[3], gpu[3];
    last_row(cpu, "cpu");
    last_row(gpu, out);
    for (int i = 0; i < 3; i++)
        if (!(fabs(cpu[i] - gpu[i]) <= limit * fabs(cpu[i])))
            fail_msg("%s: number %d of the history is %.9g, on the CPU %.9g", out, i, gpu[i],
                     cpu[i]);
}

/* Lines of a file that hold `what`. */
static int count_lines(const char *name, const char *what)
{
    char path[256], line[1024];
    int n = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) n += strstr(line, what) != NULL;
    if (f) fclose(f);
    return n;
}

static void trains_as_the_cpu(void **state)
{
    (void)state;
    expect(0, train("", "cpu", "cpu", "auto", 2));
    expect(0, train("", "gpu", "cuda", "fp32", 2));
    same_training("gpu", 1e-4);
    expect(0, train("", "half", "cuda", "auto", 2));
    same_training("half", .02);
}

static void film(Image *im, const char *name, const char *device, const char *precision)
{
    char path[256];
    expect(0, run("", "txt2img --model cpu/model --prompt x --size 40 --steps 3 --eta 0.5 --out %s "
                      "--device %s --precision %s",
                  name, device, precision));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (image_read(im, path)) fail_msg("%s", status_message());
}

static void samples_as_the_cpu(void **state)
{
    (void)state;
    Image cpu = {0}, gpu = {0};
    film(&cpu, "cpu.png", "cpu", "auto");
    film(&gpu, "gpu.png", "cuda:0", "fp32");
    assert_true(cpu.h == gpu.h && cpu.w == gpu.w);
    for (int i = 0; i < cpu.h * cpu.w; i++)
        assert_true(fabsf(cpu.pixel[i] - gpu.pixel[i]) <= 1.01f / 255);
    image_free(&gpu);
    film(&gpu, "half.png", "cuda", "bf16");
    double apart = 0;
    for (int i = 0; i < cpu.h * cpu.w; i++) apart += fabs((double)cpu.pixel[i] - gpu.pixel[i]);
    assert_true(apart / (cpu.h * cpu.w) <= .02); /* the same film */
    image_free(&cpu);
    image_free(&gpu);
}

/* EQ_COMPARE finds nothing where all is well, and a tool sees each node as a range with its name.
 */
static void nodes_can_be_watched(void **state)
{
    (void)state;
    expect(0, run("EQ_COMPARE=1 NVTX_INJECTION64_PATH=" FAKES "/tool.so NVTX_NAMES=names",
                  "txt2img --model cpu/model --prompt x --size 40 --steps 1 --out compared.png "
                  "--device cuda"));
    assert_true(count_lines("names", "down_blocks.0.resnets.0.conv1") > 0);
    int ends = count_lines("names", "-\n"), all = count_lines("names", "\n");
    assert_true(ends > 100 && all == 2 * ends);
}

/* A GPU that fails is named, a GPU without memory says what would fit. */
static void says_what_is_wrong(void **state)
{
    (void)state;
    static const char *const fails[] = {"cudaMemset:1", "cudaMemset:4", "cudaStreamSynchronize:1"};
    for (int i = 0; i < 3; i++) {
        char before[64];
        snprintf(before, sizeof before, "HOSTCUDA_FAIL=%s", fails[i]);
        expect(4, run(before, "bench inception --device cuda --size 75 --batch 1"));
        if (!strstr(said, "CUDA memory: ")) fail_msg("%s: %s", fails[i], said);
    }
    expect(5, train("HOSTCUDA_MEMORY=9000000", "small", "cuda", "fp32", 16));
    if (!strstr(said, "MiB needed") || !strstr(said, "MiB free on cuda:0") ||
        !strstr(said, "or ldm.recompute = 1 would fit"))
        fail_msg("no advice in: %s", said);
}

/* films.csv: of the films of configs/tiny.ini two to train on and one to validate, for time, and
 * one of another class, which there must be. */
static int make_folder(void **state)
{
    char line[256], path[64];
    struct {
        const char *class, *split;
        int left;
    } want[] = {
        {",bacteria,", ",train", 2}, {",bacteria,", ",val", 1}, {",normal,", ",test", 1}};
    (void)state;
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/films.csv", folder);
    FILE *from = fopen(SOURCE_DIR "/samples/tiny/films.csv", "r"), *to = fopen(path, "w");
    if (!from || !to) return 1;
    for (bool header = true; fgets(line, sizeof line, from); header = false) {
        if (header) fputs(line, to);
        for (int i = 0; i < 3; i++)
            if (strstr(line, want[i].class) && strstr(line, want[i].split) && want[i].left-- > 0)
                fputs(line, to);
    }
    fclose(from);
    return fclose(to);
}

static int remove_folder(void **state)
{
    (void)state;
    return (int)dir_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trains_as_the_cpu),
        cmocka_unit_test(samples_as_the_cpu), cmocka_unit_test(nodes_can_be_watched),
        cmocka_unit_test(says_what_is_wrong)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
