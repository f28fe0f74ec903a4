/* device_cpu.c - the CPU: work runs at once, memory is the process's. */
#include "exec/device_table.h"
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ALIGNMENT = 256, LARGE = 1 << 28 };

/* own: the times of the marks, growing */
typedef struct {
    double *at;
    int cap;
} Marks;

static const char *instruction_set(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return "AVX-512";
    if (__builtin_cpu_supports("avx2")) return "AVX2";
#endif
    return "baseline";
}

static Status open(Device *d, int index, int threads)
{
    (void)index;
    if (threads > 0) omp_set_num_threads(threads);
    snprintf(d->text, sizeof d->text, "CPU, %d threads, %s",
             threads > 0 ? threads : omp_get_max_threads(), instruction_set());
    d->own = calloc(1, sizeof(Marks));
    CHECK(d->own);
    return cpu_stream_new(&d->stream);
}

static void close(Device *d)
{
    Marks *m = d->own;
    if (m) free(m->at);
    free(m);
    cpu_stream_free(d->stream);
}

/* What this machine could still give, swap included; SIZE_MAX where it does not say. The system
 * itself promises more than it has, and then ends the process that takes it. */
static size_t available(void)
{
    char line[128];
    size_t kib, sum = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %zu", &kib) == 1 ||
            sscanf(line, "SwapFree: %zu", &kib) == 1)
            sum += 1024 * kib;
    if (f) fclose(f);
    return sum ? sum : SIZE_MAX;
}

static Status alloc(void **p, size_t bytes)
{
    size_t room = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + ALIGNMENT;
    if (room >= LARGE && room > available()) return ERR_SPACE;
    *p = aligned_alloc(ALIGNMENT, room);
    if (!*p) return ERR_SPACE;
    memset(*p, 0, room);
    return OK;
}

static void release(void *p) { free(p); }

static Status copy_in(Device *d, void *to, const void *host, size_t bytes)
{
    (void)d;
    memcpy(to, host, bytes);
    return OK;
}

static Status copy_out(Device *d, void *host, const void *from, size_t bytes)
{
    (void)d;
    memcpy(host, from, bytes);
    return OK;
}

static Status copy(Device *d, void *to, const void *from, size_t bytes)
{
    (void)d;
    memcpy(to, from, bytes);
    return OK;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static Status mark(Device *d, int number)
{
    Marks *m = d->own;
    if (number >= m->cap) {
        m->cap = 2 * number + 64;
        m->at = realloc(m->at, (size_t)m->cap * sizeof *m->at);
        CHECK(m->at);
    }
    m->at[number] = now_ms();
    return OK;
}

static Status marks_ms(Device *d, float *ms, int n)
{
    const Marks *m = d->own;
    for (int i = 0; i < n; i++) ms[i] = (float)(m->at[i + 1] - m->at[i]);
    return OK;
}

static Status run(const Device *d, const Tensor *node) { return node->op->cpu(node, d->stream); }

static Status sync(Device *d)
{
    (void)d;
    return OK;
}

const DeviceTable device_cpu = {.name = "cpu",
                                .open = open,
                                .close = close,
                                .alloc = alloc,
                                .release = release,
                                .write = copy_in,
                                .read = copy_out,
                                .copy = copy,
                                .run = run,
                                .sync = sync,
                                .mark = mark,
                                .marks_ms = marks_ms};
