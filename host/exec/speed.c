/* speed.c - runs one convolution again and again; see speed.h. */
#include "exec/speed.h"
#include "exec/exec.h"
#include "ops/ops.h"
#include <time.h>

enum { CHANNELS = 64, SIDE = 64, IMAGES_CPU = 2, IMAGES_GPU = 64, WARM_UP = 3 };
static const double LEAST_S = .15;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static Status time_runs(double *flops_per_s, Exec *e, Device *d)
{
    double flops = 0, start;
    for (int i = 0; i < WARM_UP; i++) TRY(exec_run(e));
    TRY(device_sync(d));
    start = now_s();
    do {
        TRY(exec_run(e));
        TRY(device_sync(d));
        flops += exec_flops(e);
    } while (now_s() - start < LEAST_S);
    *flops_per_s = flops / (now_s() - start);
    return OK;
}

Status device_speed(double *flops_per_s, Device *d)
{
    int n = device_is_gpu(d) ? IMAGES_GPU : IMAGES_CPU;
    Graph *g = device_graph(d);
    Exec *e = NULL;
    Tensor *x = graph_leaf(g, KIND_INPUT, g->act, "x", 4, (int[]){n, SIDE, SIDE, CHANNELS});
    Tensor *w = graph_leaf(g, KIND_INPUT, g->act, "w", 4, (int[]){CHANNELS, 3, 3, CHANNELS});
    Tensor *y = conv2d(g, x, w, NULL, (ConvArgs){1, 1, 1, 1, 1});
    graph_finish(g, &y, 1);
    Status s = exec_new(&e, d, g, &y, 1);
    if (!s) s = time_runs(flops_per_s, e, d);
    exec_free(e);
    graph_free(g);
    return s;
}
