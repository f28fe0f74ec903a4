/* backend_mpi.c - collectives between CPU ranks, by MPI. */
#include "comm/backend.h"
#if EQ_MPI
#include <limits.h>
#include <mpi.h>
#include <stdlib.h>

static Status said(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (code == MPI_SUCCESS) return OK;
    MPI_Error_string(code, text, &n);
    return FAIL(ERR_PEER, "MPI, %s: %s", call, text);
}

bool mpi_started_us(void) { return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK"); }

Status mpi_join(int rank, int world)
{
    int provided, r, n;
    TRY(said(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "start"));
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &r);
    MPI_Comm_size(MPI_COMM_WORLD, &n);
    if (r == rank && n == world) return OK;
    MPI_Finalize();
    return FAIL(ERR_USAGE, "MPI says rank %d of %d, the environment rank %d of %d", r, n, rank,
                world);
}

void mpi_leave(void) { MPI_Finalize(); }

static MPI_Comm of(const Comm *c) { return *(MPI_Comm *)c->own; }

static Status keep(Comm *c, MPI_Comm m)
{
    c->own = malloc(sizeof m);
    CHECK(c->own);
    *(MPI_Comm *)c->own = m;
    return said(MPI_Comm_set_errhandler(m, MPI_ERRORS_RETURN), "error handler");
}

static Status attach(Comm *c) { return keep(c, MPI_COMM_WORLD); }

static Status split(Comm *part, const Comm *c, int color)
{
    MPI_Comm m;
    TRY(said(MPI_Comm_split(of(c), color, c->rank, &m), "split"));
    return keep(part, m);
}

static void detach(Comm *c)
{
    MPI_Comm m = of(c);
    if (m != MPI_COMM_WORLD) MPI_Comm_free(&m);
    free(c->own);
}

/* A type of n bytes, so that a count never passes INT_MAX. */
static Status block(MPI_Datatype *t, size_t bytes)
{
    if (bytes > INT_MAX)
        return FAIL(ERR_USAGE, "MPI: %zu bytes at once, at most %d", bytes, INT_MAX);
    MPI_Type_contiguous((int)bytes, MPI_BYTE, t);
    return said(MPI_Type_commit(t), "type");
}

static Status all_reduce(Comm *c, float *data, size_t count)
{
    enum { PIECE = 1 << 20 };
    for (size_t at = 0; at < count; at += PIECE) {
        int n = count - at < PIECE ? (int)(count - at) : PIECE;
        TRY(said(MPI_Allreduce(MPI_IN_PLACE, data + at, n, MPI_FLOAT, MPI_SUM, of(c)),
                 "all-reduce"));
    }
    return OK;
}

static Status all_gather(Comm *c, void *to, const void *from, size_t bytes)
{
    MPI_Datatype t;
    TRY(block(&t, bytes));
    bool in_place = from == (char *)to + (size_t)c->rank * bytes;
    Status s =
        said(MPI_Allgather(in_place ? MPI_IN_PLACE : from, 1, t, to, 1, t, of(c)), "all-gather");
    MPI_Type_free(&t);
    return s;
}

static Status reduce_scatter(Comm *c, float *to, const float *from, size_t count)
{
    if (count > INT_MAX) return FAIL(ERR_USAGE, "MPI: %zu numbers at once", count);
    return said(MPI_Reduce_scatter_block(from, to, (int)count, MPI_FLOAT, MPI_SUM, of(c)),
                "reduce-scatter");
}

static Status all_to_all(Comm *c, void *to, const void *from, size_t bytes)
{
    MPI_Datatype t;
    TRY(block(&t, bytes));
    Status s = said(MPI_Alltoall(from, 1, t, to, 1, t, of(c)), "all-to-all");
    MPI_Type_free(&t);
    return s;
}

static Status broadcast(Comm *c, void *data, size_t bytes, int root)
{
    MPI_Datatype t;
    TRY(block(&t, bytes));
    Status s = said(MPI_Bcast(data, 1, t, root, of(c)), "broadcast");
    MPI_Type_free(&t);
    return s;
}

const CommBackend comm_mpi = {.name = "MPI",
                              .attach = attach,
                              .split = split,
                              .detach = detach,
                              .all_reduce = all_reduce,
                              .all_gather = all_gather,
                              .reduce_scatter = reduce_scatter,
                              .all_to_all = all_to_all,
                              .broadcast = broadcast};
#endif
