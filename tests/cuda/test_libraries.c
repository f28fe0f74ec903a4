/* test_libraries.c - who computes a product, our kernels, cuBLASLt or cuDNN: choices by a clock of
 * the test's own; what is remembered, and what is not believed; libraries that are missing, broken,
 * failing or wrong. What they compute: test_library_cases.c.
 */
#include "cuda/library_tests.h"
#include "base/random.h"
#include "exec/choices.h"
#include "exec/exec.h"
#include "hostcuda/hostcuda_runtime.h"
#include "ops/ops.h"
#include "study/run_folder.h"
#include <math.h>

/* ---- a net: y = linear(conv(x)) + x, fused, with or without gradients ------------------------ */

enum { SIDE = 3, IN = 8, MIDDLE = 16, OUT = 8, MOST = 3, VALUES = 4 };
typedef struct {
    Device *d;
    Log *log;
    Graph *g;
    Tensor *x, *w, *v, *keep[VALUES];
    Exec *e;
    bool held; /* x, w and v are: all is computed when they are written */
} Net;

static Tensor *variable(Net *n, const char *name, int ndim, const int *dim, bool trains)
{
    Tensor *t = graph_leaf(n->g, KIND_INPUT, n->g->act, name, ndim, dim);
    t->trainable = trains;
    return t;
}

static void net_build(Net *n, int images, bool gradients)
{
    n->g = device_graph(n->d);
    n->x = variable(n, "x", 4, (int[]){images, SIDE, SIDE, IN}, gradients);
    n->w = variable(n, "w", 4, (int[]){MIDDLE, 3, 3, IN}, gradients);
    n->v = variable(n, "v", 2, (int[]){OUT, MIDDLE}, gradients);
    if (n->held) graph_hold(n->x), graph_hold(n->w), graph_hold(n->v);
    Tensor *y = conv2d(n->g, n->x, n->w, NULL, (ConvArgs){1, 1, 1, 1, 1});
    y = add(n->g, linear(n->g, y, n->v, NULL), n->x);
    n->keep[0] = y;
    if (gradients) graph_backward(n->g, 1, &y, NULL);
    if (gradients) n->keep[1] = n->x->grad, n->keep[2] = n->w->grad, n->keep[3] = n->v->grad;
    OKAY(graph_status(n->g));
    graph_finish(n->g, n->keep, gradients ? VALUES : 1);
    OKAY(exec_new(&n->e, n->d, n->g, n->keep, gradients ? VALUES : 1));
}

static void net_open(Net *n, const char *which, const char *precision, const char *how, int images,
                     bool gradients)
{
    char log[600];
    *n = (Net){.log = log_new(true)};
    snprintf(log, sizeof log, "%s/log", folder);
    log_file(n->log, log);
    OKAY(device_open(&n->d, which, precision, 2, n->log));
    Config c;
    config_default(&c);
    snprintf(c.study.autotune, sizeof c.study.autotune, "%s", how);
    OKAY(run_folder_autotune(folder, NULL, &c, n->d, NULL, n->log));
    net_build(n, images, gradients);
}

static void net_unbuild(Net *n)
{
    exec_free(n->e);
    graph_free(n->g);
}

static void net_close(Net *n)
{
    net_unbuild(n);
    device_close(n->d);
    log_free(n->log);
}

static void net_write(const Net *n, uint32_t seed)
{
    Tensor *const t[] = {n->x, n->w, n->v};
    for (uint32_t i = 0; i < 3; i++) {
        float *value = malloc(tensor_count(t[i]) * sizeof *value);
        random_normals(value, tensor_count(t[i]), (RandomKey){seed, STREAM_TEST, 0, i});
        OKAY(exec_write(n->e, t[i], value));
        free(value);
    }
}

static size_t net_count(const Net *n)
{
    size_t count = 0;
    for (int i = 0; i < VALUES; i++) count += n->keep[i] ? tensor_count(n->keep[i]) : 0;
    return count;
}

/* heap: all that is kept, one behind the other */
static float *net_run(const Net *n)
{
    size_t at = 0;
    float *out = malloc(net_count(n) * sizeof *out);
    OKAY(exec_run(n->e));
    for (int i = 0; i < VALUES && n->keep[i]; at += tensor_count(n->keep[i]), i++)
        OKAY(exec_read(n->e, n->keep[i], out + at));
    return out;
}

/* Runs with gradients, fp32: right, whoever computed it. Recorded runs too. Returns a sum over the
 * bits of all results. */
static uint64_t run_and_check(const char *how)
{
    Net cpu, gpu;
    uint64_t sum = 0;
    net_open(&cpu, "cpu", "fp32", "off", MOST, true);
    net_open(&gpu, "cuda", "fp32", how, MOST, true);
    for (uint32_t seed = 1; seed <= 3; seed++) { /* by itself, recorded, replayed */
        net_write(&cpu, seed);
        net_write(&gpu, seed);
        float *want = net_run(&cpu), *got = net_run(&gpu);
        for (size_t i = 0; i < net_count(&gpu); i++) {
            uint32_t bits;
            memcpy(&bits, &got[i], sizeof bits);
            NEED(fabsf(want[i] - got[i]) <= 1e-3f);
            sum = 31 * sum + bits;
        }
        free(want);
        free(got);
    }
    net_close(&cpu);
    net_close(&gpu);
    return sum;
}

/* ---- files ----------------------------------------------------------------------------------- */

static char *text_of(const char *name)
{
    char path[600], *text;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    OKAY(file_read(&text, &size, path, 1 << 20));
    return text;
}

static void put_text(const char *name, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    OKAY(file_write(path, text, strlen(text)));
}

static int count_in(const char *name, const char *what)
{
    char *text = text_of(name);
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) n++;
    free(text);
    return n;
}

static const char *const CACHE = "cache/kernels-hostcuda-sm-90.json";
static const char *const RECORD = "kernels.json";

/* A new file with one text in the place of another. */
static void replace_in(const char *name, const char *from, const char *to)
{
    char *text = text_of(name), *at = strstr(text, from);
    NEED(at);
    Text changed = {0};
    text_add(&changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    put_text(name, changed.s);
    free(changed.s);
    free(text);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static double library_ms;
static double script(const char *work)
{
    if (!strncmp(work, "a host function", 15)) return library_ms;
    return strncmp(work, "kernel", 6) ? 0 : 1;
}

static void scripted(double ms)
{
    library_ms = ms;
    hostcuda_set_clock(script);
}

static void forget(const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

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
    static const char *const wrong[][2] = {{"measured_on", "measured_in"},
                                           {"hostcuda sm_90", "NVIDIA X"},
                                           {"64x64/1", "65x64/1"},
                                           {"64x64/1", "64x64/-1"},
                                           {"{\n", "[{\n"}};
    scripted(9);
    run_and_check("on");
    for (int i = 0; i < 6; i++) {
        const char *const file = i % 2 ? CACHE : RECORD, *const other = i % 2 ? RECORD : CACHE;
        if (i < 5) replace_in(file, wrong[i][0], wrong[i][1]);
        else put_text(file, "");
        forget(other);
        forget("log");
        run_and_check("on");
        NEED(count_in("log", "passed over") == 1 && count_in("log", "warn") == 1);
        NEED(count_in(file, "\"64x64/1\"") >= 6);
    }
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
        for (int k = 0; k < 3; k++) { /* keys are sorted: dw linear, dw conv, dx ... */
            char *text = text_of(RECORD), *at = text;
            for (int skip = 2 * k + dnn; skip >= 0; skip--) at = strstr(at + 1, "\"kernel\"");
            Text changed = {0};
            text_add(&changed, "%.*s\"kernel\": \"%s\"%s", (int)(at - text), text, name,
                     strchr(strchr(strchr(at, ':'), '"') + 1, '"') + 1);
            put_text(RECORD, changed.s);
            free(changed.s);
            free(text);
        }
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
    unsetenv("EQ_KERNELS"); /* measured: what fails is no candidate */
    setenv("FAKE_FAIL", "cublasLtMatmul", 1);
    scripted(.25);
    run_and_check("on");
    NEED(cublaslt_calls() == 0 && count_in(RECORD, "cublaslt") == 0);
}

static void with_a_library_that_computes_something_else(void)
{
    setenv("FAKE_WRONG", "1", 1);
    scripted(.25);
    run_and_check("on");
    NEED(cublaslt_calls() > 0 && count_in(RECORD, "\"64x64/1\"") == 6);
    NEED(count_in("log", "another result than ours; ours is used") == 1);
}

static void settings_that_are_none(void)
{
    Device *d;
    NEED(!device_open(&d, "cuda", "fp32", 1, NULL));
    NEED(device_autotune(d, "fast", NULL, NULL, NULL) == ERR_USAGE);
    device_close(d);
    setenv("EQ_AUTOTUNE", "yes", 1);
    NEED(device_open(&d, "cuda", "fp32", 1, NULL) == ERR_USAGE);
    NEED(device_open(&d, "cpu", "fp32", 1, NULL) == ERR_USAGE);
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
    RUN(a_record_keeps_a_run_to_its_kernels)
    RUN(files_that_are_no_use_are_passed_over)
    RUN(results_without_gradients_see_no_images)
    RUN(what_is_held_sees_no_gradients)
    RUN(every_plan_of_a_library)
    RUN(without_libraries)
    RUN(with_a_library_that_lacks_a_function)
    RUN(with_a_library_that_fails)
    RUN(with_a_library_that_computes_something_else)
    RUN(settings_that_are_none)
    return failed != 0;
}
