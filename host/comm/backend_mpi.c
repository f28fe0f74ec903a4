/* backend_mpi.c - collectives between CPU ranks, by MPI.
 *
 * Everything is started without waiting and then asked for, so that a job that fails ends the wait.
 * Data goes in pieces of at most PIECE bytes per rank, as MPI's counts are int. Before the first
 * piece the ranks compare what they are about to do: MPI would mix the data of different calls, or
 * fail within itself.
 */
#include "comm/backend.h"
#if EQ_MPI
#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PIECE = 1 << 20, FLOATS = PIECE / sizeof(float) };

typedef struct {
    MPI_Comm comm;
    float *stage; /* [size][FLOATS], owned; NULL until needed */
} Own;

static MPI_Comm of(const Comm *c) { return ((const Own *)c->own)->comm; }

static Status said(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (code == MPI_SUCCESS) return OK;
    MPI_Error_string(code, text, &n);
    return FAIL(ERR_PEER, "MPI, %s: %s", call, text);
}

/* Until the request is done or the job has failed. Spins a little, then lets others have the core.
 */
static Status wait_for(Comm *c, MPI_Request *r, int code, const char *call)
{
    enum { SPINS = 500, YIELDS = 5000 };
    TRY(said(code, call));
    for (int done = 0, i = 0;; i++) {
        TRY(said(MPI_Test(r, &done, MPI_STATUS_IGNORE), call));
        if (done) return OK;
        if (i < SPINS) continue;
        TRY(link_check(c->link));
        if (i < YIELDS) sched_yield();
        else nanosleep(&(struct timespec){0, 50000}, NULL);
    }
}

static Status keep(Comm *c, MPI_Comm m)
{
    Own *own = calloc(1, sizeof *own);
    CHECK(own);
    own->comm = m;
    c->own = own;
    return said(MPI_Comm_set_errhandler(m, MPI_ERRORS_RETURN), "error handler");
}

static Status attach(Comm *c) { return keep(c, MPI_COMM_WORLD); }

static Status split(Comm *part, const Comm *c, int color)
{
    MPI_Comm m;
    int mine = part->size > 1 ? color & INT_MAX : MPI_UNDEFINED;
    TRY(said(MPI_Comm_split(of(c), mine, c->rank, &m), "split"));
    return part->size > 1 ? keep(part, m) : OK;
}

static void detach(Comm *c)
{
    Own *own = c->own;
    if (own->comm != MPI_COMM_WORLD && !link_check(c->link)) MPI_Comm_free(&own->comm);
    free(own->stage);
    free(own);
}

/* FNV-1a of what must be the same everywhere: all of the frame, as it has no padding. */
static Status meet(Comm *c, const Frame *call)
{
    uint64_t hash = 14695981039346656037u, most[2];
    for (size_t i = 0; i < sizeof *call; i++)
        hash = (hash ^ ((const unsigned char *)call)[i]) * 1099511628211u;
    uint64_t mine[2] = {hash, ~hash};
    MPI_Request r;
    int code = MPI_Iallreduce(mine, most, 2, MPI_UINT64_T, MPI_MAX, of(c), &r);
    TRY(wait_for(c, &r, code, "comparison"));
    if (most[0] == hash && most[1] == ~hash) return OK;
    return FAIL(ERR_PEER, "ranks make different calls; this one %s", call->what);
}

static Status all_reduce(Comm *c, float *data, size_t count)
{
    for (size_t at = 0; at < count; at += FLOATS) {
        int n = count - at < FLOATS ? (int)(count - at) : FLOATS;
        MPI_Request r;
        int code = MPI_Iallreduce(MPI_IN_PLACE, data + at, n, MPI_FLOAT, MPI_SUM, of(c), &r);
        TRY(wait_for(c, &r, code, "all-reduce"));
    }
    return OK;
}

/* n bytes whose like for the next rank begins `apart` bytes further. */
static Status strided(MPI_Datatype *t, size_t n, size_t apart)
{
    MPI_Datatype bytes;
    TRY(said(MPI_Type_contiguous((int)n, MPI_BYTE, &bytes), "type"));
    Status s = said(MPI_Type_create_resized(bytes, 0, (MPI_Aint)apart, t), "type");
    MPI_Type_free(&bytes);
    TRY(s);
    return said(MPI_Type_commit(t), "type");
}

/* Pieces [at, at + n) of every rank's part. swap: part i of from goes to rank i, else from is one
 * part. */
static Status exchange(Comm *c, char *to, const char *from, size_t bytes, bool swap)
{
    for (size_t at = 0; at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        MPI_Request r;
        MPI_Datatype t;
        TRY(strided(&t, n, bytes));
        bool in_place = !swap && from == to + (size_t)c->rank * bytes;
        int code = swap ? MPI_Ialltoall(from + at, 1, t, to + at, 1, t, of(c), &r)
                        : MPI_Iallgather(in_place ? MPI_IN_PLACE : from + at, 1, t, to + at, 1, t,
                                         of(c), &r);
        Status s = wait_for(c, &r, code, swap ? "all-to-all" : "all-gather");
        MPI_Type_free(&t);
        TRY(s);
    }
    return OK;
}

static Status all_gather(Comm *c, void *to, const void *from, size_t bytes)
{
    return exchange(c, to, from, bytes, false);
}

static Status all_to_all(Comm *c, void *to, const void *from, size_t bytes)
{
    return exchange(c, to, from, bytes, true);
}

static Status reduce_scatter(Comm *c, float *to, const float *from, size_t count)
{
    Own *own = c->own;
    size_t size = (size_t)c->size;
    if (!own->stage) own->stage = malloc(size * PIECE);
    if (!own->stage) return FAIL(ERR_SPACE, "%zu bytes to exchange data with ranks", size * PIECE);
    for (size_t at = 0; at < count; at += FLOATS) {
        size_t n = count - at < FLOATS ? count - at : FLOATS;
        MPI_Request q;
        for (size_t r = 0; r < size; r++)
            memcpy(own->stage + r * n, from + r * count + at, n * sizeof *from);
        int code = MPI_Ireduce_scatter_block(own->stage, to + at, (int)n, MPI_FLOAT, MPI_SUM,
                                             own->comm, &q);
        TRY(wait_for(c, &q, code, "reduce-scatter"));
    }
    return OK;
}

const CommBackend comm_mpi = {.name = "MPI",
                              .attach = attach,
                              .split = split,
                              .detach = detach,
                              .meet = meet,
                              .all_reduce = all_reduce,
                              .all_gather = all_gather,
                              .reduce_scatter = reduce_scatter,
                              .all_to_all = all_to_all};
#endif
