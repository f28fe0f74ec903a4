/* device_cpu.c - the CPU: work runs at once, memory is the process's. */
#include "exec/device_table.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256 };

static const char *instruction_set(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return "AVX-512";
    if (__builtin_cpu_supports("avx2")) return "AVX2";
#endif
    return "baseline";
}

static Status open(Device *d, int threads)
{
    if (threads > 0) omp_set_num_threads(threads);
    snprintf(d->text, sizeof d->text, "CPU, %d threads, %s",
             threads > 0 ? threads : omp_get_max_threads(), instruction_set());
    return cpu_stream_new(&d->stream);
}

static void close(Device *d) { cpu_stream_free(d->stream); }

static Status alloc(void **p, size_t bytes)
{
    size_t room = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + ALIGNMENT;
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

static Status run(const Device *d, const Tensor *node) { return node->op->cpu(node, d->stream); }

static Status sync(Device *d)
{
    (void)d;
    return OK;
}

const DeviceTable device_cpu = {"cpu", open, close, alloc, release, copy_in, copy_out, run, sync};
