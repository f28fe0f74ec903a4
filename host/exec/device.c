/* device.c - the device interface: picks a kind and hands over to it. */
#include "exec/device_table.h"
#include <stdlib.h>
#include <string.h>

/* The kind that `which` asks for. */
static Status choose(const DeviceTable **kind, const char *which, Log *log)
{
    bool any = !strcmp(which, "auto");
    *kind = &device_cpu;
    if (!strcmp(which, "cpu")) return OK;
    if (!any && strcmp(which, "cuda"))
        return FAIL(ERR_USAGE, "device = %s: expected auto, cpu or cuda", which);
    const char *why = "this program was built without CUDA";
#if EQ_CUDA
    if (cuda_device_count(&why) > 0) {
        *kind = &device_cuda;
        return OK;
    }
#endif
    if (!any) return FAIL(ERR_DEVICE, "device = cuda: %s, expected auto or cpu", why);
    if (log) log_info(log, "device: CPU (%s)", why);
    return OK;
}

Status device_open(Device **d, const char *which, int threads, Log *log)
{
    const DeviceTable *kind;
    *d = NULL;
    TRY(choose(&kind, which, log));
    Device *r = calloc(1, sizeof *r);
    CHECK(r);
    r->kind = kind;
    Status s = kind->open(r, threads);
    if (s) device_close(r);
    else *d = r;
    return s;
}

void device_close(Device *d)
{
    if (!d) return;
    d->kind->close(d);
    free(d);
}

Status device_alloc(Device *d, void **p, size_t bytes, const char *what)
{
    Status s = d->kind->alloc(p, bytes);
    if (s == ERR_SPACE)
        return FAIL(s, "no memory for %s: %.1f MiB needed", what, (double)bytes / 1048576);
    return s;
}

void device_release(Device *d, void *p)
{
    if (p) d->kind->release(p);
}

Status device_write(Device *d, void *to, const void *host, size_t bytes)
{
    return d->kind->write(d, to, host, bytes);
}

Status device_read(Device *d, void *host, const void *from, size_t bytes)
{
    return d->kind->read(d, host, from, bytes);
}

Status device_run(Device *d, const Tensor *node) { return d->kind->run(d, node); }
Status device_sync(Device *d) { return d->kind->sync(d); }
Stream *device_stream(Device *d) { return d->stream; }
bool device_is_gpu(const Device *d) { return d->kind != &device_cpu; }
const char *device_text(const Device *d) { return d->text; }
