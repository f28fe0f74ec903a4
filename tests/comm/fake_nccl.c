/* fake_nccl.c - stands in for libnccl.so.2 in tests: ranks are processes of this machine, their
 * GPUs simulated (tests/hostcuda), the data goes through a file in shared memory. As NCCL does, it
 * enqueues on the given stream, behind what the communicator was last given on whichever stream,
 * waits for ever, and tells of faults only when asked.
 *
 * What it is strict about, where NCCL would hang or mix data: every rank of a communicator makes
 * the same call with the same sizes (a send meets its receive); the stream is not the null one.
 *
 * Environment, read at each call:
 *   FAKE_NCCL_LOG=FILE        a line per call: "rank 0 of 2: AllReduce 1000 7 0"
 *   FAKE_NCCL_FAIL=NAME:RANK  that function fails on that rank
 *   FAKE_NCCL_LOSE=N:RANK     from its Nth collective (from 0) on, that rank's GPU is not heard of:
 * it waits until it is aborted, the others' communicators report a remote error after a while
 */
#include "comm/nccl.h"
#include "hostcuda/hostcuda_runtime.h"
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
enum { MOST_RANKS = 16, SLOT = 1 << 16 };
enum { SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6 };

typedef struct {
    char name[16];
    uint64_t count;
    int type, number; /* number: operation */
} Call;

typedef struct {
    atomic_int arrived, round, aborted, joined;
    Call call[MOST_RANKS];
    int color[MOST_RANKS];
    char slot[MOST_RANKS][SLOT];
} Shared;

struct NcclComm {
    Shared *s;
    char path[100];
    int rank, size, calls, splits;
    atomic_int error;
    bool lost;
    cudaEvent_t newest; /* behind what was enqueued last; NULL: nothing yet */
    bool recorded;      /* that was to be recorded in a graph */
};

typedef struct {
    NcclHandle comm;
    Call call;
    const char *from[MOST_RANKS]; /* by peer; collectives use [0] */
    char *to[MOST_RANKS];
    uint64_t bytes_from[MOST_RANKS], bytes_to[MOST_RANKS];
} Job;

static _Thread_local int depth;     /* of groups */
static _Thread_local Job *together; /* sends and receives of the group */
static _Thread_local void *together_stream;

/* ------------------------------------------------------------------ failures on demand */

static bool ordered(const char *variable, const char *name, int rank)
{
    const char *order = getenv(variable), *colon = order ? strrchr(order, ':') : NULL;
    return colon && atoi(colon + 1) == rank && strlen(name) == (size_t)(colon - order) &&
           !strncmp(order, name, strlen(name));
}

static void note(NcclHandle c, const Call *call)
{
    const char *path = getenv("FAKE_NCCL_LOG");
    FILE *f = path ? fopen(path, "ae") : NULL;
    if (!f) return;
    fprintf(f, "rank %d of %d: %s %llu %d %d\n", c->rank, c->size, call->name,
            (unsigned long long)call->count, call->type, call->number);
    fclose(f);
}

static bool is_lost(const NcclHandle c)
{
    const char *order = getenv("FAKE_NCCL_LOSE"), *colon = order ? strchr(order, ':') : NULL;
    return colon && c->calls > atoi(order) && atoi(colon + 1) == c->rank;
}

/* ------------------------------------------------------------------ what ranks do together */

enum { LOST_S = 5 }; /* a rank that is waited for longer is lost, where FAKE_NCCL_LOSE says so */

static void nap(void) { nanosleep(&(struct timespec){0, 20000}, NULL); }

/* False once the communicator has been aborted here or anywhere. */
static bool barrier(NcclHandle c)
{
    Shared *s = c->s;
    int round = atomic_load(&s->round);
    struct timespec from, now;
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (atomic_fetch_add(&s->arrived, 1) + 1 == c->size) {
        atomic_store(&s->arrived, 0);
        atomic_store(&s->round, round + 1);
        return !atomic_load(&s->aborted);
    }
    while (atomic_load(&s->round) == round) {
        if (atomic_load(&s->aborted)) return false;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - from.tv_sec > LOST_S && getenv("FAKE_NCCL_LOSE"))
            atomic_store(&c->error, REMOTE_ERROR);
        nap();
    }
    return true;
}

static bool same(NcclHandle c, const Call *mine)
{
    c->s->call[c->rank] = *mine;
    if (!barrier(c)) return false;
    for (int r = 0; r < c->size; r++)
        if (memcmp(&c->s->call[r], mine, sizeof *mine)) atomic_store(&c->error, INVALID_USAGE);
    return barrier(c) && !atomic_load(&c->error);
}

/* Parts of all ranks meet piece by piece; take() uses them. */
typedef void Take(const Job *j, uint64_t at, uint64_t n);

static void pieces(const Job *j, const char *from, uint64_t bytes, Take *take)
{
    NcclHandle c = j->comm;
    for (uint64_t at = 0; at < bytes; at += SLOT) {
        uint64_t n = bytes - at < SLOT ? bytes - at : SLOT;
        memcpy(c->s->slot[c->rank], from + at, n);
        if (!barrier(c)) return;
        take(j, at, n);
        if (!barrier(c)) return;
    }
}

static void put(void *to, const void *from, uint64_t n)
{
    memcpy(to, from, n);
    hostcuda_wrote(to, n);
}

static void take_sum(const Job *j, uint64_t at, uint64_t n)
{
    static _Thread_local float sum[SLOT / sizeof(float)];
    for (uint64_t i = 0; i < n / sizeof(float); i++) {
        sum[i] = 0;
        for (int r = 0; r < j->comm->size; r++) sum[i] += ((const float *)j->comm->s->slot[r])[i];
    }
    if (j->to[0]) put(j->to[0] + at, sum, n);
}

static void take_all(const Job *j, uint64_t at, uint64_t n)
{
    for (int r = 0; r < j->comm->size; r++)
        put(j->to[0] + (uint64_t)r * j->call.count + at, j->comm->s->slot[r], n);
}

static void run_all_reduce(const Job *j)
{
    pieces(j, j->from[0], j->call.count * sizeof(float), take_sum);
}

static void run_reduce_scatter(const Job *j)
{
    uint64_t bytes = j->call.count * sizeof(float);
    for (int r = 0; r < j->comm->size; r++) {
        Job part = *j;
        if (r != j->comm->rank) part.to[0] = NULL;
        pieces(&part, j->from[0] + (uint64_t)r * bytes, bytes, take_sum);
    }
}

static void run_all_gather(const Job *j) { pieces(j, j->from[0], j->call.count, take_all); }

/* Sends and receives: every pair in turn, sender by sender. */
static void run_pairs(const Job *j)
{
    NcclHandle c = j->comm;
    for (int from = 0; from < c->size; from++)
        for (int to = 0; to < c->size; to++) {
            uint64_t *told = (uint64_t *)c->s->slot[from];
            if (c->rank == from) told[0] = j->bytes_from[to];
            if (!barrier(c)) return;
            uint64_t bytes = told[0];
            if (c->rank == to && bytes != j->bytes_to[from]) atomic_store(&c->error, INVALID_USAGE);
            if (!barrier(c)) return;
            for (uint64_t at = 0; at < bytes; at += SLOT) {
                uint64_t n = bytes - at < SLOT ? bytes - at : SLOT;
                if (c->rank == from) memcpy(c->s->slot[from], j->from[to] + at, n);
                if (!barrier(c)) return;
                if (c->rank == to && j->to[from]) put(j->to[from] + at, c->s->slot[from], n);
                if (!barrier(c)) return;
            }
        }
}

static void run(void *data)
{
    static const struct {
        const char *name;
        void (*run)(const Job *j);
    } table[] = {{"AllReduce", run_all_reduce},
                 {"AllGather", run_all_gather},
                 {"ReduceScatter", run_reduce_scatter},
                 {"Group", run_pairs}};
    const Job *j = data; /* kept: a recorded graph runs it again */
    while (j->comm->lost && !atomic_load(&j->comm->s->aborted)) nap();
    if (!same(j->comm, &j->call)) return;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, j->call.name)) table[i].run(j);
}

/* What one communicator does is done in the order in which it was enqueued. */
static bool in_order(NcclHandle c, Job *j, cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status;
    if (cudaStreamIsCapturing(stream, &status)) return false;
    bool records = status == cudaStreamCaptureStatusActive;
    if (!c->newest && cudaEventCreateWithFlags(&c->newest, cudaEventDisableTiming)) return false;
    if (c->calls && c->recorded == records && cudaStreamWaitEvent(stream, c->newest, 0))
        return false;
    c->recorded = records;
    return !cudaLaunchHostFunc(stream, run, j) && !cudaEventRecord(c->newest, stream);
}

static int enqueue(Job *j, void *stream)
{
    NcclHandle c = j->comm;
    note(c, &j->call);
    if (ordered("FAKE_NCCL_FAIL", j->call.name, c->rank)) return SYSTEM_ERROR;
    if (!stream) return INVALID_USAGE;
    bool enqueued = in_order(c, j, stream);
    c->calls++;
    c->lost |= is_lost(c);
    return enqueued ? NCCL_SUCCESS : SYSTEM_ERROR;
}

static Job *job(NcclHandle c, const char *name, size_t count, int type, int number)
{
    Job *j = calloc(1, sizeof *j);
    j->comm = c;
    snprintf(j->call.name, sizeof j->call.name, "%s", name);
    j->call.count = count;
    j->call.type = type;
    j->call.number = number;
    return j;
}

static int collective(const char *name, const void *from, void *to, size_t count, int type,
                      int number, NcclHandle c, void *stream)
{
    Job *j = job(c, name, count, type, number);
    j->from[0] = from;
    j->to[0] = to;
    return enqueue(j, stream);
}

/* ------------------------------------------------------------------ NCCL's functions */

static int join(NcclHandle *out, const char *path, int size, int rank)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || size > MOST_RANKS || ftruncate(fd, sizeof(Shared))) return SYSTEM_ERROR;
    NcclHandle c = calloc(1, sizeof *c);
    c->s = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (c->s == MAP_FAILED) return SYSTEM_ERROR;
    c->rank = rank;
    c->size = size;
    snprintf(c->path, sizeof c->path, "%s", path);
    *out = c;
    atomic_fetch_add(&c->s->joined, 1);
    while (atomic_load(&c->s->joined) < size) nap();
    if (rank == 0) unlink(path);
    return NCCL_SUCCESS;
}

EXPORTED int ncclGetUniqueId(NcclId *id)
{
    struct timespec now;
    if (ordered("FAKE_NCCL_FAIL", "GetUniqueId", 0)) return SYSTEM_ERROR;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/dev/shm/fake-nccl-%d-%ld", getpid(), now.tv_nsec);
    return NCCL_SUCCESS;
}

EXPORTED int ncclCommInitRank(NcclHandle *c, int size, NcclId id, int rank)
{
    if (ordered("FAKE_NCCL_FAIL", "CommInitRank", rank)) return SYSTEM_ERROR;
    return join(c, id.internal, size, rank);
}

EXPORTED int ncclCommSplit(NcclHandle c, int color, int key, NcclHandle *out, void *config)
{
    if (config || key != c->rank) return INVALID_ARGUMENT;
    c->s->color[c->rank] = color;
    if (!barrier(c)) return REMOTE_ERROR;
    int rank = 0, size = 0;
    char path[160];
    for (int r = 0; r < c->size; r++) {
        rank += c->s->color[r] == color && r < c->rank;
        size += c->s->color[r] == color;
    }
    snprintf(path, sizeof path, "%s-%d-%d", c->path, c->splits++, color);
    if (!barrier(c)) return REMOTE_ERROR;
    *out = NULL;
    return color == NCCL_NO_COLOR ? NCCL_SUCCESS : join(out, path, size, rank);
}

EXPORTED int ncclCommDestroy(NcclHandle c)
{
    munmap(c->s, sizeof(Shared));
    free(c);
    return NCCL_SUCCESS;
}

EXPORTED int ncclCommAbort(NcclHandle c)
{
    note(c, &(Call){.name = "CommAbort"});
    atomic_store(&c->s->aborted, 1);
    return NCCL_SUCCESS; /* what is enqueued still looks at c */
}

EXPORTED int ncclCommGetAsyncError(NcclHandle c, int *error)
{
    *error = atomic_load(&c->error);
    return NCCL_SUCCESS;
}

EXPORTED const char *ncclGetErrorString(int code)
{
    static const char *const text[] = {"no error",
                                       "unhandled cuda error",
                                       "unhandled system error",
                                       "internal error",
                                       "invalid argument",
                                       "invalid usage",
                                       "remote process exited or there was a network error"};
    return code >= 0 && code <= REMOTE_ERROR ? text[code] : "unknown";
}

EXPORTED const char *ncclGetLastError(NcclHandle c)
{
    (void)c;
    return "";
}

EXPORTED int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, NcclHandle c,
                           void *stream)
{
    return type != NCCL_FLOAT32 ? INVALID_ARGUMENT
                                : collective("AllReduce", from, to, n, type, op, c, stream);
}

EXPORTED int ncclAllGather(const void *from, void *to, size_t n, int type, NcclHandle c,
                           void *stream)
{
    return type != NCCL_INT8 ? INVALID_ARGUMENT
                             : collective("AllGather", from, to, n, type, 0, c, stream);
}

EXPORTED int ncclReduceScatter(const void *from, void *to, size_t n, int type, int op, NcclHandle c,
                               void *stream)
{
    return type != NCCL_FLOAT32 ? INVALID_ARGUMENT
                                : collective("ReduceScatter", from, to, n, type, op, c, stream);
}

static int pair(NcclHandle c, void *stream)
{
    if (!depth) return INVALID_USAGE; /* alone it would wait for its other half */
    if (!together) together = job(c, "Group", 0, NCCL_INT8, 0);
    together_stream = stream;
    return together->comm == c ? NCCL_SUCCESS : INVALID_USAGE;
}

EXPORTED int ncclSend(const void *from, size_t n, int type, int peer, NcclHandle c, void *stream)
{
    int code = type == NCCL_INT8 ? pair(c, stream) : INVALID_ARGUMENT;
    if (code) return code;
    together->from[peer] = from;
    together->bytes_from[peer] = n;
    return NCCL_SUCCESS;
}

EXPORTED int ncclRecv(void *to, size_t n, int type, int peer, NcclHandle c, void *stream)
{
    int code = type == NCCL_INT8 ? pair(c, stream) : INVALID_ARGUMENT;
    if (code) return code;
    together->to[peer] = to;
    together->bytes_to[peer] = n;
    return NCCL_SUCCESS;
}

EXPORTED int ncclGroupStart(void)
{
    depth++;
    return NCCL_SUCCESS;
}

EXPORTED int ncclGroupEnd(void)
{
    Job *j = together;
    if (--depth || !j) return NCCL_SUCCESS;
    together = NULL;
    return enqueue(j, together_stream);
}
