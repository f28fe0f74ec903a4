/* comm.c - ranks and their collectives. A world of one rank copies; others tell the store of each
 * call and leave device memory to their backend, host memory to the store.
 */
#include "comm/comm.h"
#include "comm/backend.h"
#include "comm/wire.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_SECONDS = 300 };

int comm_rank(const Comm *c) { return c ? c->rank : 0; }
int comm_size(const Comm *c) { return c ? c->size : 1; }

double comm_spent(const Comm *c) { return c ? c->spent : 0; }

_Static_assert((int)COMM_NAME == (int)PEER_TEXT, "names have one length");
const char *comm_name(const Comm *c, char out[COMM_NAME])
{
    if (c && c->link) return link_name(c->link, out);
    snprintf(out, COMM_NAME, "rank 0");
    return out;
}

/* ------------------------------------------------------------------ calls */

static Frame next_call(Comm *c, CommOp op, const char *what, size_t size, int root)
{
    Frame f = {.op = op, .group = c->group, .root = root, .seq = c->seq++, .size = size};
    snprintf(f.what, sizeof f.what, "%s", what);
    return f;
}

/* Around what the backend does: the store knows of it, and it has a limit of time. */
static Status begin(Comm *c, CommOp op, const char *what, size_t size, int root)
{
    c->began = wire_now();
    TRY(link_check(c->link));
    Frame f = next_call(c, op, what, size, root);
    link_begin(c->link, &f);
    return c->kind->meet ? c->kind->meet(c, &f) : OK;
}

static Status end(Comm *c, Status s)
{
    s = link_verdict(c->link, s);
    link_end(c->link);
    c->spent += wire_now() - c->began;
    return s;
}

#define COLLECTIVE(c, op, what, size, root, call)                                                  \
    do {                                                                                           \
        Status s_ = begin(c, op, what, size, root);                                                \
        return end(c, s_ ? s_ : (call));                                                           \
    } while (0)

/* One that the store answers: mine bytes of this rank's, all bytes of the answer. */
static Status ask(Comm *c, Frame *f, const void *from, size_t mine, void *to, size_t all)
{
    TRY(link_check(c->link));
    if (f->size > FRAME_MOST || all > FRAME_MOST)
        return FAIL(ERR_USAGE, "%s: %zu bytes between hosts at once, at most %d", f->what, all,
                    FRAME_MOST);
    f->bytes = mine;
    double began = wire_now();
    Status s = link_call(c->link, f, from, to, all);
    c->spent += wire_now() - began;
    return s;
}

/* Of every rank the same number of bytes, to all. */
static Status gather(Comm *c, CommOp op, const char *what, void *to, const void *from, size_t bytes)
{
    if (comm_size(c) == 1) {
        if (bytes && to != from) memcpy(to, from, bytes);
        return OK;
    }
    Frame f = next_call(c, op, what, bytes, 0);
    return ask(c, &f, from, bytes, to, bytes * (size_t)c->size);
}

/* ------------------------------------------------------------------ coming and going */

static Comm *comm_new(int rank, int size)
{
    Comm *c = calloc(1, sizeof *c);
    CHECK(c);
    c->rank = rank;
    c->size = size;
    return c;
}

Comm *comm_imagined(int ranks) { return comm_new(0, ranks); }

/* Rank 0 opens the store and all learn where it is: from MPI where it started them, else from the
 * environment. own_fd: of rank 0. */
static Status find_store(Comm *c, const CommPlace *p, int seconds, Log *log, Address *a,
                         int *own_fd)
{
#if EQ_MPI
    if (mpi_started(p)) {
        TRY(mpi_join(p, seconds, log));
        c->mpi = true;
        Status s = c->rank == 0 ? address_of_this_host(a) : OK;
        if (!s && c->rank == 0)
            s = store_open(&c->store, c->size, seconds, &a->port, a->token, own_fd);
        if (s) a->port = 0;
        Status told = mpi_tell(a, sizeof *a, seconds, log);
        if (!s && !told && !a->port) {
            told = FAIL(ERR_PEER, "rank 0 could not open its store");
            status_mark_said();
        }
        return s ? s : told;
    }
#endif
    (void)log;
    TRY(address_of_job(a, p));
    if (c->rank > 0) return OK;
    return store_open(&c->store, c->size, seconds, &a->port, a->token, own_fd);
}

static Status join(Comm *c, const CommPlace *p, int seconds, Log *log)
{
    Address a = {.port = 0};
    int own_fd = -1;
    TRY(find_store(c, p, seconds, log, &a, &own_fd));
    return link_open(&c->link, p, &a, own_fd, seconds, log);
}

Status comm_open(Comm **out, const CommPlace *p, int seconds, Log *log)
{
    Comm *c = comm_new(p->rank, p->world);
    c->world = true;
    Status s = c->size > 1 ? join(c, p, seconds ? seconds : DEFAULT_SECONDS, log) : OK;
    if (s) {
        store_close(c->store);
        free(c);
        return s;
    }
    *out = c;
    return OK;
}

/* All ranks reach their end together, so that none is missed as if it had died. */
static Status take_leave(Comm *c)
{
    Status s = gather(c, OP_CLOSE, "of the job", NULL, NULL, 0);
    link_begin_untold(c->link, &(Frame){.op = OP_CLOSE, .what = "of the job"});
    if (c->kind) c->kind->detach(c);
#if EQ_MPI
    if (!s && c->mpi) mpi_leave();
#endif
    link_end(c->link);
    if (!s) s = link_check(c->link);
    link_close(c->link);
    store_close(c->store);
    return s;
}

Status comm_close(Comm *c)
{
    if (!c) return OK;
    Status s = OK;
    if (c->world && c->link) {
        s = take_leave(c);
    } else {
        if (c->kind) c->kind->detach(c);
        if (c->link) link_leave(c->link, c->group);
    }
    free(c);
    return s;
}

/* Of what all have agreed on rank 0 tells; before it closes, as launchers end the others after the
 * first. A failure of the agreement itself has been told where it was seen. */
void comm_abort(Comm *c, Status why)
{
    if (!why || !c || !c->link || status_said()) return;
    bool known = why == c->agreed && c->seq == c->agreed_at;
    if (!known) link_fail(c->link, why, status_message(), status_trace_text());
    else if (c->rank == 0 && !status_said())
        link_say(c->link, status_message(), status_trace_text());
}

static Status choose_backend(Comm *c, const Device *d)
{
#if EQ_CUDA
    if (device_is_gpu(d)) {
        c->kind = &comm_nccl;
        return OK;
    }
#else
    (void)d;
#endif
#if EQ_MPI
    if (!c->mpi)
        return FAIL(ERR_USAGE,
                    "%d CPU ranks that MPI did not start: expected mpirun, or srun --mpi=pmix",
                    c->size);
    c->kind = &comm_mpi;
    return OK;
#else
    return FAIL(ERR_USAGE, "%d CPU ranks, but this build is without MPI: expected one", c->size);
#endif
}

Status comm_attach(Comm *c, Device *d)
{
    CHECK(c->world && !c->device);
    c->device = d;
    if (c->size == 1) return OK;
    TRY(comm_agree(c, "device of the ranks", choose_backend(c, d)));
    return c->kind->attach(c);
}

Status comm_split(Comm **out, Comm *c, int color)
{
    Comm *part = comm_new(0, 1);
    int *colors = calloc((size_t)c->size, sizeof *colors);
    CHECK(colors);
    part->device = c->device;
    part->link = c->link;
    Status s = OK;
    if (c->size > 1) {
        Frame f = next_call(c, OP_SPLIT, "into groups", sizeof color, 0);
        s = ask(c, &f, &color, sizeof color, colors, (size_t)c->size * sizeof *colors);
        part->group = f.group;
        part->size = 0;
        for (int r = 0; !s && r < c->size; r++) {
            part->rank += r < c->rank && colors[r] == color;
            part->size += colors[r] == color;
        }
        if (!s && c->kind) {
            link_begin_untold(c->link, &f);
            s = end(c, c->kind->split(part, c, color));
        }
        if (!s && part->own) part->kind = c->kind;
    } else {
        part->link = NULL;
    }
    free(colors);
    if (s) free(part);
    else *out = part;
    return s;
}

/* ------------------------------------------------------------------ device memory */

static Status copy(Comm *c, void *to, const void *from, size_t bytes)
{
    CHECK(c->size == 1 && c->device); /* attached */
    return to == from || !bytes ? OK : device_copy(c->device, to, from, bytes);
}

Status comm_all_reduce(Comm *c, const char *what, float *data, size_t count)
{
    if (!c->kind) return copy(c, data, data, 0);
    COLLECTIVE(c, OP_ALL_REDUCE, what, count * sizeof *data, 0,
               c->kind->all_reduce(c, data, count));
}

Status comm_all_gather(Comm *c, const char *what, void *to, const void *from, size_t bytes)
{
    if (!c->kind) return copy(c, to, from, bytes);
    COLLECTIVE(c, OP_ALL_GATHER, what, bytes, 0, c->kind->all_gather(c, to, from, bytes));
}

Status comm_reduce_scatter(Comm *c, const char *what, float *to, const float *from, size_t count)
{
    if (!c->kind) return copy(c, to, from, count * sizeof *to);
    COLLECTIVE(c, OP_REDUCE_SCATTER, what, count * sizeof *to, 0,
               c->kind->reduce_scatter(c, to, from, count));
}

Status comm_all_to_all(Comm *c, const char *what, void *to, const void *from, size_t bytes)
{
    if (!c->kind) return copy(c, to, from, bytes);
    COLLECTIVE(c, OP_ALL_TO_ALL, what, bytes, 0, c->kind->all_to_all(c, to, from, bytes));
}

/* ------------------------------------------------------------------ host memory */

Status comm_host_gather(Comm *c, const char *what, void *to, const void *from, size_t bytes)
{
    return gather(c, OP_HOST_GATHER, what, to, from, bytes);
}

Status comm_host_broadcast(Comm *c, const char *what, void *data, size_t bytes, int root)
{
    CHECK(root >= 0 && root < comm_size(c));
    if (comm_size(c) == 1) return OK;
    Frame f = next_call(c, OP_HOST_BROADCAST, what, bytes, root);
    return ask(c, &f, data, c->rank == root ? bytes : 0, data, bytes);
}

Status comm_barrier(Comm *c, const char *what)
{
    return gather(c, OP_BARRIER, what, NULL, NULL, 0);
}

Status comm_any(Comm *c, const char *what, bool mine, bool *any)
{
    size_t size = (size_t)comm_size(c);
    char own = mine, *all = calloc(size, 1);
    CHECK(all);
    Status s = gather(c, OP_ANY, what, all, &own, 1);
    if (!s) *any = memchr(all, 1, size) != NULL;
    free(all);
    return s;
}

/* Which of two failures is told: a bug before all, a wish to stop after all, else the higher class.
 */
static int badness(Status s) { return s == ERR_BUG ? 1000 : s == ERR_STOPPED ? 1 : 2 * (int)s; }

/* The message of rank `from`, as all tell it: with its name, unless that is rank 0 or it has a
 * name. */
static Status share_message(Comm *c, const char *what, Status s, int from)
{
    char text[1024] = "", peer[PEER_TEXT];
    bool mine = c->rank == from, named = !strncmp(status_message(), "rank ", 5) || from == 0;
    if (mine && named) snprintf(text, sizeof text, "%s", status_message());
    else if (mine)
        snprintf(text, sizeof text, "%s: %.800s", link_name(c->link, peer), status_message());
    TRY(comm_host_broadcast(c, what, text, sizeof text, from));
    text[sizeof text - 1] = 0;
    return mine && named ? s : FAIL(s, "%s", text);
}

Status comm_agree(Comm *c, const char *what, Status mine)
{
    if (!c) return mine;
    if (c->size == 1) return c->agreed = mine;
    Status *all = calloc((size_t)c->size, sizeof *all);
    CHECK(all);
    Status s = gather(c, OP_AGREE, what, all, &mine, sizeof mine);
    int worst = 0;
    for (int r = 1; !s && r < c->size; r++)
        if (badness(all[r]) > badness(all[worst])) worst = r;
    if (!s && all[worst]) s = share_message(c, what, all[worst], worst);
    free(all);
    c->agreed = s;
    c->agreed_at = c->seq;
    return s;
}

Status comm_agreed(const Comm *c) { return c ? c->agreed : OK; }
