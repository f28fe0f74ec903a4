/* test_library_files.c - which kernels computed a run, in files: what a record keeps, what is not
 * believed. The net and the files' names: library_net.h.
 */
#include "cuda/library_net.h"

/* A continued run computes the same bits, whatever is faster now; without record and cache it would
 * not. */
static void a_record_keeps_a_run_to_its_kernels(void)
{
    scripted(9);
    uint64_t first = run_and_check("on");
    scripted(.25);
    forget(CACHE);
    NEED(run_and_check("on") == first && count_in(RECORD, "cublaslt") == 0);
    forget(CACHE);
    forget(RECORD);
    NEED(run_and_check("on") != first && count_in(RECORD, "cublaslt") == 3);
    forget(RECORD);
    put_text("kernels-other.json", "{}"); /* another process's, of no use */
    NEED(run_and_check("on") != first);
    replace_in(RECORD, "cublaslt/0", "64x64/1");
    char *text = text_of(RECORD);
    put_text("kernels-other.json", text); /* of use: it goes before the cache, behind an own one */
    forget(RECORD);
    run_and_check("on");
    NEED(count_in(CACHE, "cublaslt/0") == 3 && count_in(RECORD, "cublaslt/0") == 2);
    free(text);
}

/* Cut off, of another kind, of another GPU, with a kernel that there is not: one line, then new. */
static void files_that_are_no_use_are_passed_over(void)
{
    static const char *const wrong[][2] = {
        {"measured_on", "measured_in"}, {"hostcuda sm_90", "NVIDIA X"}, {"64x64/1", "65x64/1"},
        {"64x64/1", "64x64/-1"},        {"64x64/1", "64x64/33"},        {"{\n", "[{\n"}};
    scripted(9);
    run_and_check("on");
    enum { WRONG = sizeof wrong / sizeof *wrong };
    for (int i = 0; i <= WRONG; i++) {
        const char *const file = i % 2 ? CACHE : RECORD, *const other = i % 2 ? RECORD : CACHE;
        if (i < WRONG) replace_in(file, wrong[i][0], wrong[i][1]);
        else put_text(file, "");
        forget(other);
        forget("log");
        run_and_check("on");
        NEED(count_in("log", "passed over") == 1 && count_in("log", "warn") == 1);
        NEED(count_in(file, "\"64x64/1\"") >= 6);
    }
    for (int i = 0; i < 6; i++) /* of a file whose last is none the others are not taken */
        record_kernel(i, i < 5 ? "64x64/2" : "65x64/1");
    forget(CACHE);
    run_and_check("read");
    NEED(count_in(RECORD, "\"ours\"") == 6);
}

static void run_once(Net *n, int images)
{
    net_open(n, "cuda", "bf16", "on", images, true);
    for (int i = 0; i < 3; i++) {
        Tensor *const t[] = {n->x, n->w, n->v};
        uint16_t *value = calloc(tensor_count(t[i]), sizeof *value);
        for (size_t k = 0; k < tensor_count(t[i]); k++) value[k] = (uint16_t)(0x3e00 + k * 37 % 91);
        OKAY(exec_write(n->e, t[i], value));
        free(value);
    }
    OKAY(exec_run(n->e));
}

/* What another graph, in a process before, was computed with stays in the record. */
static void a_record_keeps_what_is_not_run_again(void)
{
    Net n;
    for (int i = 0; i < 3; i++) { /* the last: the first graph again, libraries being faster now */
        scripted(i < 2 ? 9 : .01);
        forget(CACHE);
        run_once(&n, i == 1 ? 2 : MOST);
        net_close(&n);
        NEED(count_in(RECORD, "\"kernel\"") == (i ? 12 : 6));
    }
    NEED(count_in(RECORD, "cublaslt") + count_in(RECORD, "cudnn") == 0);
}

/* Tiles that are not built for the pass, from a file: our own cuts instead, and so recorded. */
static void cuts_that_are_not_built(void)
{
    Net n;
    uint16_t y[2][MOST * SIDE * SIDE * OUT];
    scripted(9);
    run_once(&n, MOST);
    net_close(&n);
    for (int i = 0; i < 2; i++) {
        for (int k = 4; k < 6; k++) record_kernel(k, i ? "160x128/1" : "ours"); /* fwd */
        run_once(&n, MOST);
        OKAY(exec_read(n.e, n.keep[0], y[i]));
        net_close(&n);
        NEED(count_in(RECORD, "ours") == 2 && count_in("log", "not built for pass 0; ours") == i);
    }
    NEED(!memcmp(y[0], y[1], sizeof y[0]));
}

static void words_of_what_was_used(void)
{
    Net n;
    Text used = {0};
    scripted(9);
    run_and_check("on");
    for (int i = 0; i < 5; i++) record_kernel(i, "64x64/12");
    net_open(&n, "cuda", "fp32", "on", MOST, true);
    net_write(&n, 1);
    free(net_run(&n));
    device_kernels_used(n.d, &used);
    NEED(!strcmp(used.s, "64x64/12 64x64/1") || !strcmp(used.s, "64x64/1 64x64/12"));
    free(used.s);
    net_close(&n);
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : NULL;
    int failed = 0;
    clean_environment();
#define RUN(test) failed += run_alone(#test, test, only);
    RUN(a_record_keeps_a_run_to_its_kernels)
    RUN(a_record_keeps_what_is_not_run_again)
    RUN(files_that_are_no_use_are_passed_over)
    RUN(cuts_that_are_not_built)
    RUN(words_of_what_was_used)
    return failed != 0;
}
