/* backend_nccl.c - collectives between GPUs, by NCCL. They are enqueued on the device's stream, and
 * may be recorded there: a recorded step tells the store of its calls once, a replayed one does
 * not.
 *
 * NCCL waits for a lost rank for ever and reports faults only when asked. So one thread of the
 * process looks at all its communicators ten times a second: where NCCL tells of a fault it ends
 * the job, and where the job has ended it aborts them, so that what waits on the GPU comes back.
 */
#include "comm/backend.h"
#if EQ_CUDA
#include "comm/nccl.h"
#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_COMMS = 64, LOOK_MS = 100 };

/* The communicators of this process and the thread that watches them. */
static struct {
    const Nccl *nccl;
    Link *link;
    pthread_t thread;
    pthread_mutex_t lock; /* of comm[] */
    NcclHandle comm[MOST_COMMS];
    atomic_bool stops, aborted;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

static NcclHandle of(const Comm *c) { return c->own; }

/* ------------------------------------------------------------------ the watching thread */

static void abort_all(void)
{
    pthread_mutex_lock(&watch.lock);
    atomic_store(&watch.aborted, true);
    for (int i = 0; i < MOST_COMMS; i++) {
        if (watch.comm[i]) watch.nccl->CommAbort(watch.comm[i]);
        watch.comm[i] = NULL;
    }
    pthread_mutex_unlock(&watch.lock);
}

/* NCCL's own word for what has gone wrong; NULL: nothing. */
static const char *fault(void)
{
    const char *text = NULL;
    pthread_mutex_lock(&watch.lock);
    for (int i = 0; i < MOST_COMMS && !text; i++) {
        int code = NCCL_SUCCESS;
        if (!watch.comm[i]) continue;
        int asked = watch.nccl->CommGetAsyncError(watch.comm[i], &code);
        if (asked != NCCL_SUCCESS) code = asked;
        if (code != NCCL_SUCCESS && code != NCCL_IN_PROGRESS)
            text = watch.nccl->GetErrorString(code);
    }
    pthread_mutex_unlock(&watch.lock);
    return text;
}

static void *look(void *unused)
{
    (void)unused;
    char line[256];
    while (!atomic_load(&watch.stops)) {
        const char *text = fault();
        /* What the store has seen says more: ranks that call different things, a lost one. */
        if (text) link_verdict(watch.link, ERR_PEER);
        Status s = link_check(watch.link);
        if (text && !s) {
            snprintf(line, sizeof line, "NCCL: %s", text);
            link_fail(watch.link, ERR_PEER, line, "");
        }
        if (text || s) {
            abort_all();
            break;
        }
        nanosleep(&(struct timespec){0, LOOK_MS * 1000000L}, NULL);
    }
    return NULL;
}

/* ------------------------------------------------------------------ calls */

static Status said(const Comm *c, int code, const char *call)
{
    if (code == NCCL_SUCCESS) return OK;
    const char *last = c && of(c) ? watch.nccl->GetLastError(of(c)) : NULL;
    return FAIL(ERR_PEER, "NCCL, %s: %s%s%s", call, watch.nccl->GetErrorString(code),
                last && *last ? ": " : "", last ? last : "");
}

static void *stream_of(const Comm *c) { return cuda_stream_handle(device_stream(c->device)); }

static void keep(Comm *c, NcclHandle h)
{
    int i = 0;
    pthread_mutex_lock(&watch.lock);
    while (i < MOST_COMMS && watch.comm[i]) i++;
    if (i < MOST_COMMS) watch.comm[i] = h;
    pthread_mutex_unlock(&watch.lock);
    CHECK(i < MOST_COMMS);
    c->own = h;
}

/* Ranks on one GPU would wait for each other for ever. */
static Status check_devices(Comm *c)
{
    typedef struct {
        char host[HOST_TEXT], bus[32];
    } Place;
    Place mine = {.host = ""}, *all = calloc((size_t)c->size, sizeof *all);
    int device = 0;
    CHECK(all);
    gethostname(mine.host, sizeof mine.host - 1);
    cudaError_t e = cudaGetDevice(&device);
    if (!e) e = cudaDeviceGetPCIBusId(mine.bus, sizeof mine.bus, device);
    Status s = e ? FAIL(ERR_DEVICE, "CUDA, place of the GPU: %s", cudaGetErrorString(e)) : OK;
    s = comm_agree(c, "GPUs of the ranks", s);
    if (!s) s = comm_host_gather(c, "GPUs of the ranks", all, &mine, sizeof mine);
    for (int b = 1; !s && b < c->size; b++)
        for (int a = 0; !s && a < b; a++)
            if (!strcmp(all[a].host, all[b].host) && !strcmp(all[a].bus, all[b].bus))
                s = FAIL(ERR_USAGE,
                         "ranks %d and %d both have GPU %s of host %s, expected one rank "
                         "per GPU",
                         a, b, all[a].bus, all[a].host);
    free(all);
    return s;
}

static Status attach(Comm *c)
{
    NcclId id;
    NcclHandle h = NULL;
    TRY(comm_agree(c, "NCCL", nccl_load(&watch.nccl)));
    TRY(comm_agree(c, "GPUs of the ranks", check_devices(c)));
    Status s = c->rank ? OK : said(NULL, watch.nccl->GetUniqueId(&id), "identity");
    TRY(comm_agree(c, "identity for NCCL", s));
    TRY(comm_host_broadcast(c, "identity for NCCL", &id, sizeof id, 0));
    /* May wait for a rank that is lost: the link's thread then ends the process. */
    link_begin_untold(c->link, &(Frame){.op = OP_BARRIER, .what = "start of NCCL"});
    s = said(NULL, watch.nccl->CommInitRank(&h, c->size, id, c->rank), "start");
    s = link_verdict(c->link, s);
    link_end(c->link);
    TRY(s);
    keep(c, h);
    watch.link = c->link;
    return wire_thread(&watch.thread, look, NULL);
}

static Status split(Comm *part, const Comm *c, int color)
{
    NcclHandle h = NULL;
    int mine = part->size > 1 ? color & 0x7fffffff : NCCL_NO_COLOR;
    TRY(said(c, watch.nccl->CommSplit(of(c), mine, c->rank, &h, NULL), "split"));
    if (part->size > 1) keep(part, h);
    return OK;
}

static void detach(Comm *c)
{
    if (!of(c)) return;
    if (c->world) {
        atomic_store(&watch.stops, true);
        pthread_join(watch.thread, NULL);
    }
    if (link_check(c->link)) {
        abort_all(); /* to destroy one is to wait for the others */
        return;
    }
    pthread_mutex_lock(&watch.lock);
    for (int i = 0; i < MOST_COMMS; i++)
        if (watch.comm[i] == of(c)) {
            watch.nccl->CommDestroy(of(c));
            watch.comm[i] = NULL;
        }
    pthread_mutex_unlock(&watch.lock);
}

/* Nothing is enqueued on a communicator that has been aborted. */
#define NCCL(c, name, arguments)                                                                   \
    (atomic_load(&watch.aborted) ? link_check((c)->link)                                           \
                                 : said(c, watch.nccl->name arguments, #name))

static Status all_reduce(Comm *c, float *data, size_t count)
{
    return NCCL(c, AllReduce, (data, data, count, NCCL_FLOAT32, NCCL_SUM, of(c), stream_of(c)));
}

static Status all_gather(Comm *c, void *to, const void *from, size_t bytes)
{
    return NCCL(c, AllGather, (from, to, bytes, NCCL_INT8, of(c), stream_of(c)));
}

static Status reduce_scatter(Comm *c, float *to, const float *from, size_t count)
{
    return NCCL(c, ReduceScatter, (from, to, count, NCCL_FLOAT32, NCCL_SUM, of(c), stream_of(c)));
}

static Status all_to_all(Comm *c, void *to, const void *from, size_t bytes)
{
    TRY(NCCL(c, GroupStart, ()));
    Status s = OK;
    for (int r = 0; r < c->size && !s; r++) {
        size_t at = (size_t)r * bytes;
        s = NCCL(c, Send, ((const char *)from + at, bytes, NCCL_INT8, r, of(c), stream_of(c)));
        if (!s) s = NCCL(c, Recv, ((char *)to + at, bytes, NCCL_INT8, r, of(c), stream_of(c)));
    }
    Status ended = NCCL(c, GroupEnd, ());
    return s ? s : ended;
}

const CommBackend comm_nccl = {.name = "NCCL",
                               .attach = attach,
                               .split = split,
                               .detach = detach,
                               .all_reduce = all_reduce,
                               .all_gather = all_gather,
                               .reduce_scatter = reduce_scatter,
                               .all_to_all = all_to_all};
#endif
