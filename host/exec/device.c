/* device.c - the device interface and its CPU implementation. */
#include "exec/device.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256 };

struct Device {
    Stream *stream;
    int threads;
    char text[96];
};

static const char *instruction_set(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return "AVX-512";
    if (__builtin_cpu_supports("avx2")) return "AVX2";
#endif
    return "baseline";
}

Status device_open(Device **d, const char *which, int threads, Log *log)
{
    *d = NULL;
    if (!strcmp(which, "cuda"))
        return FAIL(ERR_DEVICE,
                    "device = cuda: this program was built without CUDA, expected auto or cpu");
    if (strcmp(which, "auto") && strcmp(which, "cpu"))
        return FAIL(ERR_USAGE, "device = %s: expected auto, cpu or cuda", which);
    if (!strcmp(which, "auto") && log) log_info(log, "device: CPU (built without CUDA)");
    Device *r = calloc(1, sizeof *r);
    CHECK(r);
    if (threads > 0) omp_set_num_threads(threads);
    r->threads = threads > 0 ? threads : omp_get_max_threads();
    snprintf(r->text, sizeof r->text, "CPU, %d threads, %s", r->threads, instruction_set());
    Status s = cpu_stream_new(&r->stream);
    if (s) device_close(r);
    else *d = r;
    return s;
}

void device_close(Device *d)
{
    if (!d) return;
    cpu_stream_free(d->stream);
    free(d);
}

Status device_alloc(Device *d, void **p, size_t bytes, const char *what)
{
    (void)d;
    size_t room = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + ALIGNMENT;
    *p = aligned_alloc(ALIGNMENT, room);
    if (!*p)
        return FAIL(ERR_SPACE, "no memory for %s: %.1f MiB needed", what, (double)bytes / 1048576);
    memset(*p, 0, room);
    return OK;
}

void device_release(Device *d, void *p)
{
    (void)d;
    free(p);
}

Status device_write(Device *d, void *to, const void *host, size_t bytes)
{
    (void)d;
    memcpy(to, host, bytes);
    return OK;
}

Status device_read(Device *d, void *host, const void *from, size_t bytes)
{
    (void)d;
    memcpy(host, from, bytes);
    return OK;
}

Status device_run(Device *d, const Tensor *node) { return node->op->cpu(node, d->stream); }

Status device_sync(Device *d)
{
    (void)d;
    return OK;
}

Stream *device_stream(Device *d) { return d->stream; }
const char *device_text(const Device *d) { return d->text; }
