/* library_net.h - a small net whose products the stand-ins of library_tests.h compute, too: its runs against the
 * CPU, the files that they leave in `folder`, and a clock of the test's own.
 */
#ifndef LIBRARY_NET_H
#define LIBRARY_NET_H
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

static inline Tensor *variable(Net *n, const char *name, int ndim, const int *dim, bool trains)
{
    Tensor *t = graph_leaf(n->g, KIND_INPUT, n->g->act, name, ndim, dim);
    t->trainable = trains;
    return t;
}

static inline void net_build(Net *n, int images, bool gradients)
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

static inline void net_open(Net *n, const char *which, const char *precision, const char *how, int images,
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

static inline void net_unbuild(Net *n)
{
    exec_free(n->e);
    graph_free(n->g);
}

static inline void net_close(Net *n)
{
    net_unbuild(n);
    device_close(n->d);
    log_free(n->log);
}

static inline void net_write(const Net *n, uint32_t seed)
{
    Tensor *const t[] = {n->x, n->w, n->v};
    for (uint32_t i = 0; i < 3; i++) {
        float *value = malloc(tensor_count(t[i]) * sizeof *value);
        random_normals(value, tensor_count(t[i]), (RandomKey){seed, STREAM_TEST, 0, i});
        OKAY(exec_write(n->e, t[i], value));
        free(value);
    }
}

static inline size_t net_count(const Net *n)
{
    size_t count = 0;
    for (int i = 0; i < VALUES; i++) count += n->keep[i] ? tensor_count(n->keep[i]) : 0;
    return count;
}

/* heap: all that is kept, one behind the other */
static inline float *net_run(const Net *n)
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
static inline uint64_t run_and_check(const char *how)
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

static inline char *text_of(const char *name)
{
    char path[600], *text;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    OKAY(file_read(&text, &size, path, 1 << 20));
    return text;
}

static inline void put_text(const char *name, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    OKAY(file_write(path, text, strlen(text)));
}

static inline int count_in(const char *name, const char *what)
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
static inline void replace_in(const char *name, const char *from, const char *to)
{
    char *text = text_of(name), *at = strstr(text, from);
    NEED(at);
    Text changed = {0};
    text_add(&changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    put_text(name, changed.s);
    free(changed.s);
    free(text);
}

/* Of the i-th choice in the record, sorted by key: dw of the linear layer, of the conv, dx ... fwd ... */
static inline void record_kernel(int i, const char *name)
{
    char *text = text_of(RECORD), *at = text;
    for (; i >= 0; i--) NEED(at = strstr(at + 1, "\"kernel\""));
    Text changed = {0};
    text_add(&changed, "%.*s\"kernel\": \"%s\"%s", (int)(at - text), text, name,
             strchr(strchr(strchr(at, ':'), '"') + 1, '"') + 1);
    put_text(RECORD, changed.s);
    free(changed.s);
    free(text);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static double library_ms;
static inline double script(const char *work)
{
    if (!strncmp(work, "a host function", 15)) return library_ms;
    return strncmp(work, "kernel", 6) ? 0 : 1;
}

static inline void scripted(double ms)
{
    library_ms = ms;
    hostcuda_set_clock(script);
}

static inline void forget(const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}
#endif
