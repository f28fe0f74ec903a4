/* nccl_alone.c - one rank alone with NCCL, as on a machine with one GPU: whether every function
 * that comm uses is there with the types that nccl.h declares, moves what it should, and can be
 * recorded in a graph beside other work, on the stream of work aside as well. With a real GPU:
 * bench/gpu.sh; with a simulated one and the stand-in: test_comm_nccl.sh. Exit code 77: no NCCL
 * here.
 *
 *   nccl_alone [DEVICE]
 */
#include "base/random.h"
#include "comm/nccl.h"
#include "exec/device.h"
#include "kernels_base.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 100003 }; /* floats */

typedef struct {
    const Nccl *nccl;
    NcclHandle comm;
    Device *device;
    float *from, *to; /* device memory, N each */
} Alone;

static Status said(const Alone *a, int code, const char *name)
{
    return code ? FAIL(ERR_DEVICE, "NCCL, %s: %s", name, a->nccl->GetErrorString(code)) : OK;
}

#define NCCL(a, name, arguments) TRY(said(a, (a)->nccl->name arguments, #name))

static void *stream_of(const Alone *a) { return cuda_stream_handle(device_stream(a->device)); }

static Status all_reduce(const Alone *a)
{
    NCCL(a, AllReduce, (a->from, a->to, N, NCCL_FLOAT32, NCCL_SUM, a->comm, stream_of(a)));
    return OK;
}

static Status all_gather(const Alone *a)
{
    NCCL(a, AllGather, (a->from, a->to, N * sizeof(float), NCCL_INT8, a->comm, stream_of(a)));
    return OK;
}

static Status reduce_scatter(const Alone *a)
{
    NCCL(a, ReduceScatter, (a->from, a->to, N, NCCL_FLOAT32, NCCL_SUM, a->comm, stream_of(a)));
    return OK;
}

static Status exchange(const Alone *a)
{
    NCCL(a, GroupStart, ());
    NCCL(a, Send, (a->from, N * sizeof(float), NCCL_INT8, 0, a->comm, stream_of(a)));
    NCCL(a, Recv, (a->to, N * sizeof(float), NCCL_INT8, 0, a->comm, stream_of(a)));
    NCCL(a, GroupEnd, ());
    return OK;
}

static Status aside(const Alone *a)
{
    TRY(device_aside_begin(a->device));
    Status s = all_reduce(a);
    TRY(device_aside_end(a->device));
    TRY(s);
    return device_aside_wait(a->device);
}

static const struct {
    const char *name;
    Status (*run)(const Alone *a);
} call[] = {{"all-reduce", all_reduce},
            {"all-gather", all_gather},
            {"reduce-scatter", reduce_scatter},
            {"send and receive", exchange},
            {"all-reduce aside", aside}};

/* Of one rank every call is a copy. */
static Status check(const Alone *a, const char *name, const float *want)
{
    float *got = malloc(N * sizeof *got);
    int code = 0;
    CHECK(got);
    Status s = device_read(a->device, got, a->to, N * sizeof *got);
    if (!s && memcmp(got, want, N * sizeof *got))
        s = FAIL(ERR_NUMERIC, "%s: other numbers than were given", name);
    free(got);
    TRY(s);
    NCCL(a, CommGetAsyncError, (a->comm, &code));
    return said(a, code, name);
}

static Status fill(const Alone *a, float *x, int round)
{
    memset(x, 0xff, N * sizeof *x);
    TRY(device_write(a->device, a->to, x, N * sizeof *x));
    random_normals(x, N, (RandomKey){1, STREAM_TEST, (uint32_t)round, 0});
    return device_write(a->device, a->from, x, N * sizeof *x);
}

/* As it goes, and then recorded and replayed with other numbers. */
static Status run(const Alone *a, int i, float *x)
{
    Recording *r = NULL;
    TRY(fill(a, x, 2 * i));
    TRY(call[i].run(a));
    TRY(check(a, call[i].name, x));
    TRY(device_record_begin(a->device));
    Status s = call[i].run(a);
    Status ended = device_record_end(a->device, &r);
    TRY(s ? s : ended);
    s = fill(a, x, 2 * i + 1);
    if (!s) s = device_replay(a->device, r);
    if (!s) s = check(a, call[i].name, x);
    device_recording_free(a->device, r);
    return s;
}

static Status all(Alone *a)
{
    NcclId id;
    NcclHandle part;
    float *x = malloc(N * sizeof *x);
    CHECK(x);
    TRY(device_alloc(a->device, (void **)&a->from, N * sizeof *x, "numbers"));
    TRY(device_alloc(a->device, (void **)&a->to, N * sizeof *x, "numbers"));
    NCCL(a, GetUniqueId, (&id));
    NCCL(a, CommInitRank, (&a->comm, 1, id, 0));
    for (size_t i = 0; i < sizeof call / sizeof *call; i++) {
        TRY(run(a, (int)i, x));
        printf("%s: as it goes and replayed\n", call[i].name);
    }
    free(x);
    NCCL(a, CommSplit, (a->comm, 7, 0, &part, NULL));
    NCCL(a, CommAbort, (part));
    NCCL(a, CommDestroy, (a->comm));
    device_release(a->device, a->from);
    device_release(a->device, a->to);
    return OK;
}

int main(int argc, char **argv)
{
    Alone a = {0};
    Log *log = log_new(true);
    if (nccl_load(&a.nccl)) {
        printf("not run: %s\n", status_message());
        return 77;
    }
    Status s = device_open(&a.device, argc > 1 ? argv[1] : "cuda", "bf16", 1, log);
    if (!s) s = all(&a);
    if (s) log_failure(log, status_message(), status_trace_text());
    device_close(a.device);
    log_free(log);
    if (!s) puts("NCCL alone: every call");
    return (int)s;
}
