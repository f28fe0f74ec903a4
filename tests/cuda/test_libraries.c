/* test_libraries.c - who computes a product, our kernels, cuBLASLt or cuDNN: choices by a clock of
 * the test's own; libraries that are missing, broken, failing or wrong. What they compute:
 * test_library_cases.c; what is remembered: test_library_files.c.
 */
#include "cuda/library_net.h"

static void the_faster_is_taken_and_remembered(void)
{
    scripted(.25);
    run_and_check("on");
    NEED(count_in(RECORD, "\"cublaslt/0\"") == 3); /* of the linear layer, and its gradients */
    NEED(count_in(RECORD, "\"cudnn/0\"") == 3 * HAVE_CUDNN);
    NEED(count_in(CACHE, "\"cublaslt/0\"") == 3 && count_in(CACHE, "rows 16-8 +r\"") == 1);
    scripted(9); /* the other way round, but it is known already */
    const char *const how[] = {"on", "read"};
    for (int i = 0; i < 2; i++) {
        int before = cublaslt_calls();
        forget(RECORD);
        run_and_check(how[i]);
        NEED(cublaslt_calls() == before + 6); /* by itself and recorded; none to measure */
        NEED(count_in(RECORD, "\"cublaslt/0\"") == 3);
    }
    forget(CACHE);
    forget(RECORD);
    run_and_check("on");
    NEED(count_in(RECORD, "\"cublaslt/") == 0 && count_in(RECORD, "\"64x64/1\"") == 6);
}

/* Only "on" measures; what is not known is ours, and stays so in the run. */
static void reading_measures_nothing(void)
{
    scripted(.25);
    run_and_check("read");
    NEED(cublaslt_calls() == 0 && cudnn_calls() == 0);
    NEED(count_in(RECORD, "\"ours\"") == 6);
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, CACHE);
    NEED(!file_exists(path));
    run_and_check("on"); /* the same run, continued */
    NEED(cublaslt_calls() == 0 && count_in(RECORD, "\"ours\"") == 6);
}

/* The last call holds; before it device_open() heard $EQ_AUTOTUNE. */
static void off_is_off(void)
{
    scripted(.25);
    setenv("EQ_AUTOTUNE", "on", 1);
    run_and_check("off");
    NEED(cublaslt_calls() == 0 && cudnn_calls() == 0);
}

static void results_without_gradients_see_no_images(void)
{
    Net n;
    float *first = NULL;
    scripted(.01);
    for (int images = 1; images <= MOST; images++) {
        net_open(&n, "cuda", "bf16", "on", images, false);
        size_t size = tensor_bytes(n.x), each = size / (size_t)images;
        uint16_t *x = malloc(size), *w = malloc(tensor_bytes(n.w)), *v = malloc(tensor_bytes(n.v));
        for (size_t i = 0; i < each / 2; i++) x[i] = (uint16_t)(0x3f00 + i * 37 % 251);
        for (size_t i = each / 2; i < size / 2; i++) x[i] = x[i - each / 2];
        for (size_t i = 0; i < tensor_count(n.w); i++) w[i] = (uint16_t)(0xbd00 + i * 91 % 509);
        for (size_t i = 0; i < tensor_count(n.v); i++) v[i] = (uint16_t)(0x3e00 + i * 17 % 127);
        OKAY(exec_write(n.e, n.x, x));
        OKAY(exec_write(n.e, n.w, w));
        OKAY(exec_write(n.e, n.v, v));
        uint16_t *y = malloc(tensor_bytes(n.keep[0]));
        OKAY(exec_run(n.e));
        OKAY(exec_read(n.e, n.keep[0], y));
        if (!first) first = (float *)y;
        NEED(!memcmp(first, y, tensor_bytes(n.keep[0]) / (size_t)images));
        net_close(&n);
    }
    NEED(cublaslt_calls() == 0 && cudnn_calls() == 0); /* however fast */
    NEED(count_in(RECORD, "fwd bf16 one ") == 2 && count_in(RECORD, "fwd") == 2);
}

/* Nor do those of what is held, computed again after another graph has taken gradients. */
static void what_is_held_sees_no_gradients(void)
{
    Net trains, samples;
    scripted(.01);
    net_open(&trains, "cuda", "fp32", "on", MOST, true);
    samples = (Net){.d = trains.d, .held = true};
    net_build(&samples, 2, false);
    for (uint32_t seed = 1; seed <= 3; seed++) {
        net_write(&samples, seed);
        int before = cublaslt_calls() + cudnn_calls();
        free(net_run(&samples));
        NEED(cublaslt_calls() + cudnn_calls() == before);
        net_write(&trains, seed);
        free(net_run(&trains));
    }
    NEED(count_in(RECORD, "fwd fp32 one ") == 2 && count_in(RECORD, "fwd fp32") == 4);
    net_unbuild(&samples);
    net_close(&trains);
}

/* Each plan by its number: with workspace, and beyond the last, where ours has to do. */
static void every_plan_of_a_library(void)
{
    char name[24];
    scripted(9);
    run_and_check("on");
    char *was = text_of(RECORD);
    for (int i = 0; i < 8; i++) {
        bool dnn = i >= 4;
        if (dnn && !HAVE_CUDNN) break;
        int which = i % 4, before = dnn ? cudnn_calls() : cublaslt_calls();
        snprintf(name, sizeof name, "%s/%d", dnn ? "cudnn" : "cublaslt", which);
        put_text(RECORD, was);
        for (int k = 0; k < 3; k++) record_kernel(2 * k + dnn, name); /* linear, conv, linear ... */
        forget("log");
        run_and_check("read");
        bool there = which < 2; /* both libraries have two that are right for fp32 */
        NEED(((dnn ? cudnn_calls() : cublaslt_calls()) > before) == there);
        NEED(count_in("log", "ours is used") == !there);
        NEED(count_in(RECORD, "\"ours\"") == (there ? 0 : 3));
    }
    free(was);
}

/* ---- trouble --------------------------------------------------------------------------------- */

static void without_libraries(void)
{
    setenv("EQ_LIBRARIES", "/nowhere", 1);
    scripted(.25);
    run_and_check("on");
    NEED(count_in("log", "our kernels instead: no cu") == 1 && count_in(RECORD, "64x64/1") == 6);
}

static void with_a_library_that_lacks_a_function(void)
{
    setenv("EQ_LIBRARIES", FAKES "/broken", 1);
    setenv("EQ_KERNELS", "cublaslt", 1);
    run_and_check("off");
    NEED(count_in("log", "has no cublasLtMatmul; ours is used") == 1);
}

/* One line for each graph in which something was done by ours instead. */
static void more_than_one_trouble_is_told(const char *library, const char *function)
{
    Net one, two;
    forget("log");
    setenv("EQ_KERNELS", library, 1);
    setenv("FAKE_FAIL", function, 1);
    net_open(&one, "cuda", "fp32", "off", MOST, true);
    two = (Net){.d = one.d};
    net_build(&two, 2, true);
    net_write(&one, 1);
    net_write(&two, 1);
    free(net_run(&one));
    NEED(count_in("log", "ours is used") == 1);
    free(net_run(&two));
    NEED(count_in("log", "ours is used") == 2);
    net_unbuild(&two);
    net_close(&one);
}

static void with_a_library_that_fails(void)
{
    static const char *const function[] = {"cublasLtCreate",       "cublasLtMatmulAlgoGetHeuristic",
                                           "cublasLtMatmul",       "cudnnCreate",
                                           "cudnnBackendFinalize", "cudnnBackendExecute"};
    for (int i = 0; i < (HAVE_CUDNN ? 6 : 3); i++) {
        forget("log");
        setenv("FAKE_FAIL", function[i], 1);
        setenv("EQ_KERNELS", i < 3 ? "cublaslt" : "cudnn", 1);
        run_and_check("off");
        NEED(count_in("log", "ours is used") == 1);
        NEED(cublaslt_calls() == 0 && cudnn_calls() == 0);
    }
    more_than_one_trouble_is_told("cublaslt", "cublasLtMatmul");
    unsetenv("EQ_KERNELS"); /* measured: what fails is no candidate */
    setenv("FAKE_FAIL", "cublasLtMatmul", 1);
    scripted(.25);
    run_and_check("on");
    NEED(cublaslt_calls() == 0 && count_in(RECORD, "cublaslt") == 0);
}

/* The first plan for fp32 cannot be made, or wants 64 MiB: the next is taken. */
static void with_a_plan_that_is_no_use(void)
{
    for (int i = 0; i < 2 * HAVE_CUDNN; i++) {
        setenv("FAKE_FAIL", i ? "the workspace" : "the third plan", 1);
        setenv("EQ_KERNELS", "cudnn", 1);
        int before = cudnn_calls();
        run_and_check("off");
        NEED(cudnn_calls() == before + 12); /* six products, by itself and recorded */
        NEED(count_in("log", "ours is used") == 0);
    }
}

static void with_a_library_that_computes_something_else(void)
{
    setenv("FAKE_WRONG", "1", 1);
    scripted(.25);
    run_and_check("on");
    NEED(cublaslt_calls() > 0 && count_in(RECORD, "\"64x64/1\"") == 6);
    NEED(count_in("log", "another result than ours; ours is used") == 1);
}

/* Forced, a library computes without gradients too, each number of images by a plan of its own; nothing
 * of it is remembered. */
static void forced_without_gradients(void)
{
    for (int dnn = 0; dnn <= HAVE_CUDNN; dnn++) {
        Net gpu, cpu;
        setenv("EQ_KERNELS", dnn ? "cudnn" : "cublaslt", 1);
        scripted(.25);
        net_open(&gpu, "cuda", "fp32", "on", 2, false);
        net_open(&cpu, "cpu", "fp32", "off", 2, false);
        int before = cublaslt_calls() + cudnn_calls();
        for (int images = 2; images <= MOST + 1; images++) {
            Net few = {.d = gpu.d}, want = {.d = cpu.d};
            net_build(&few, images, false);
            net_build(&want, images, false);
            net_write(&few, 7);
            net_write(&want, 7);
            float *got = net_run(&few), *y = net_run(&want);
            for (size_t i = 0; i < net_count(&few); i++) NEED(fabsf(y[i] - got[i]) <= 1e-3f);
            free(got);
            free(y);
            net_unbuild(&few);
            net_unbuild(&want);
        }
        NEED(cublaslt_calls() + cudnn_calls() == before + (dnn ? 6 : 3));
        net_close(&gpu);
        net_close(&cpu);
        char path[600];
        snprintf(path, sizeof path, "%s/%s", folder, RECORD);
        NEED(!file_exists(path));
    }
}

static void settings_that_are_none(void)
{
    Device *d;
    NEED(!device_open(&d, "cuda", "fp32", 1, NULL));
    NEED(device_autotune(d, "fast", NULL, NULL, NULL) == ERR_USAGE);
    device_close(d);
    for (int i = 0; i < 2; i++) {
        setenv("EQ_AUTOTUNE", i ? "on" : "yes", 1);
        if (i) setenv("EQ_KERNELS", "cublas", 1);
        NEED(device_open(&d, "cuda", "fp32", 1, NULL) == ERR_USAGE);
        NEED(device_open(&d, "cpu", "fp32", 1, NULL) == ERR_USAGE);
    }
    NEED(!strcmp(status_message(), "EQ_KERNELS = cublas: expected cublaslt or cudnn"));
}

/* ---- */

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : NULL;
    int failed = 0;
    clean_environment();
#define RUN(test) failed += run_alone(#test, test, only);
    RUN(the_faster_is_taken_and_remembered)
    RUN(reading_measures_nothing)
    RUN(off_is_off)
    RUN(results_without_gradients_see_no_images)
    RUN(what_is_held_sees_no_gradients)
    RUN(every_plan_of_a_library)
    RUN(without_libraries)
    RUN(with_a_library_that_lacks_a_function)
    RUN(with_a_library_that_fails)
    RUN(with_a_plan_that_is_no_use)
    RUN(with_a_library_that_computes_something_else)
    RUN(forced_without_gradients)
    RUN(settings_that_are_none)
    return failed != 0;
}
