/* device_count.c - a device that only counts: the bytes that are asked for (device_bytes) and the
 * arithmetic of the nodes that are run (device_flops). Its addresses are not memory: nothing is
 * stored, nothing is computed, what is read are zeros. For plans of runs that this machine could
 * not hold. */
#include "exec/device_table.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256 };

double device_flops(const Device *d)
{
    CHECK(d->kind == &device_count);
    return *(const double *)d->own;
}

static Status open(Device *d, int index, int threads)
{
    (void)index;
    (void)threads;
    snprintf(d->text, sizeof d->text, "a plan");
    d->own = calloc(1, sizeof(double)); /* the arithmetic so far */
    CHECK(d->own);
    return OK;
}

static void close(Device *d) { free(d->own); }

/* An address that no other allocation has. */
static Status alloc(void **p, size_t bytes)
{
    (void)bytes;
    *p = aligned_alloc(ALIGNMENT, ALIGNMENT);
    return *p ? OK : ERR_SPACE;
}

static void release(void *p) { free(p); }

static Status ignore(Device *d, void *to, const void *from, size_t bytes)
{
    (void)d;
    (void)to;
    (void)from;
    (void)bytes;
    return OK;
}

static Status zeros(Device *d, void *host, const void *from, size_t bytes)
{
    (void)d;
    (void)from;
    memset(host, 0, bytes);
    return OK;
}

static Status run(const Device *d, const Tensor *node)
{
    double *sum = d->own;
    if (node->op->flops) *sum += node->op->flops(node);
    return OK;
}

static Status sync(Device *d)
{
    (void)d;
    return OK;
}

static Status mark(Device *d, int number)
{
    (void)d;
    (void)number;
    return OK;
}

static Status marks_ms(Device *d, float *ms, int n)
{
    return zeros(d, ms, NULL, (size_t)n * sizeof *ms);
}

const DeviceTable device_count = {.name = "count",
                                  .open = open,
                                  .close = close,
                                  .alloc = alloc,
                                  .release = release,
                                  .write = ignore,
                                  .read = zeros,
                                  .copy = ignore,
                                  .run = run,
                                  .sync = sync,
                                  .mark = mark,
                                  .marks_ms = marks_ms};
