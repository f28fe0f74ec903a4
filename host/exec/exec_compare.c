/* exec_compare.c - EQ_COMPARE: a node's inputs are read from the device, the CPU's kernel computes
 * from them in fp32, and the outputs are compared: |device - CPU| / |CPU|, Euclidean norms.
 *
 * Limits: 1e-4 for fp32, which kernels with long sums need in another order; 2^-7 for bf16: one
 * rounding is 2^-9 at most, and some kernels round a factor too.
 */
#include "exec/exec_compare.h"
#include "weights/half.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct Compare {
    Device *device; /* borrowed */
    Stream *cpu;    /* owned */
};

Status compare_new(Compare **c, Device *d)
{
    *c = calloc(1, sizeof **c);
    CHECK(*c);
    (*c)->device = d;
    Status s = cpu_stream_new(&(*c)->cpu);
    if (s) compare_free(*c), *c = NULL;
    return s;
}

void compare_free(Compare *c)
{
    if (!c) return;
    cpu_stream_free(c->cpu);
    free(c);
}

/* A copy of t on the host, floats as fp32; its values from the device if `filled`. */
static Status twin_of(Tensor *twin, Device *d, const Tensor *t, bool filled)
{
    size_t n = tensor_count(t);
    *twin = *t;
    twin->data = aligned_alloc(256, (n * 4 + 511) / 256 * 256);
    if (!twin->data) return FAIL(ERR_SPACE, "no memory to compare %s", t->name);
    if (!filled) return OK;
    if (t->dtype != DTYPE_BF16) return device_read(d, twin->data, t->data, n * 4);
    uint16_t *half = malloc(n * sizeof *half);
    CHECK(half);
    Status s = device_read(d, half, t->data, n * sizeof *half);
    if (!s) bf16_to_float(twin->data, half, n);
    twin->dtype = DTYPE_F32;
    free(half);
    return s;
}

static Status differs(const Tensor *t, const Tensor *got, const Tensor *want)
{
    double apart = 0, size = 0, limit = t->dtype == DTYPE_BF16 ? 0x1p-7 : 1e-4;
    size_t n = tensor_count(t), wrong = 0;
    const float *a = got->data, *b = want->data;
    const int32_t *ia = got->data, *ib = want->data;
    for (size_t i = 0; i < n; i++) {
        if (t->dtype == DTYPE_I32) {
            wrong += ia[i] != ib[i];
            continue;
        }
        apart += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    if (wrong) return FAIL(ERR_NUMERIC, "%zu of %zu integers differ from the CPU's", wrong, n);
    double error = sqrt(apart) / fmax(sqrt(size), 1e-30);
    if (error <= limit || apart == 0) return OK;
    return FAIL(ERR_NUMERIC, "differs from the CPU's by %.3g of its norm, expected %.1g at most",
                error, limit);
}

typedef struct {
    Tensor node, src[MAX_SRC], side[MAX_SIDE];
} Host;

static Status copy_sources(Host *h, Device *d, const Tensor *node)
{
    for (int k = 0; k < MAX_SRC; k++) {
        if (!node->src[k]) continue;
        TRY(twin_of(&h->src[k], d, node->src[k], true));
        h->node.src[k] = &h->src[k];
    }
    for (int k = 0; k < MAX_SIDE; k++) {
        if (!node->side[k]) continue;
        TRY(twin_of(&h->side[k], d, node->side[k], false));
        h->node.side[k] = &h->side[k];
    }
    return OK;
}

static Status check(Device *d, const Tensor *t, const Tensor *want)
{
    Tensor got = {.data = NULL};
    Status s = twin_of(&got, d, t, true);
    if (!s) s = differs(t, &got, want);
    free(got.data);
    return s;
}

Status compare_run(Compare *c, const Tensor *node)
{
    Host h = {.node.data = NULL};
    Device *d = c->device;
    Status s;
    if (node->op->joint) return device_run(d, node); /* other ranks' part has no twin here */
    TRY_OR(done, s, device_sync(d));
    TRY_OR(done, s, twin_of(&h.node, d, node, false));
    h.node.dtype = node->dtype == DTYPE_I32 ? DTYPE_I32 : DTYPE_F32;
    TRY_OR(done, s, copy_sources(&h, d, node));
    TRY_OR(done, s, device_run(d, node));
    TRY_OR(done, s, device_sync(d));
    TRY_OR(done, s, node->op->cpu(&h.node, c->cpu));
    TRY_OR(done, s, check(d, node, &h.node));
    for (int k = 0; k < MAX_SIDE; k++)
        if (node->side[k]) TRY_OR(done, s, check(d, node->side[k], &h.side[k]));
done:
    free(h.node.data);
    for (int k = 0; k < MAX_SRC; k++) free(h.src[k].data);
    for (int k = 0; k < MAX_SIDE; k++) free(h.side[k].data);
    return s;
}
