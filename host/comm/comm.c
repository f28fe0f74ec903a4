/* comm.c - ranks and their collectives. A world of one rank copies; others call their backend. */
#include "comm/comm.h"
#include "comm/backend.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int comm_rank(const Comm *c) { return c ? c->rank : 0; }
int comm_size(const Comm *c) { return c ? c->size : 1; }

static Comm *comm_new(int rank, int size)
{
    Comm *c = calloc(1, sizeof *c);
    CHECK(c);
    c->rank = rank;
    c->size = size;
    return c;
}

/* Until ranks have a way of their own to meet, MPI must have started them. */
static Status join(Comm *c)
{
#if EQ_MPI
    if (mpi_started_us()) {
        TRY(mpi_join(c->rank, c->size));
        c->kind = &comm_mpi;
        return c->kind->attach(c);
    }
    return FAIL(ERR_USAGE, "%d ranks, which MPI did not start: expected mpirun, or srun --mpi=pmix",
                c->size);
#else
    return FAIL(ERR_USAGE, "%d ranks: this build is without MPI, so CPU runs have one rank",
                c->size);
#endif
}

Status comm_open(Comm **out, const CommPlace *p, int seconds, Log *log)
{
    (void)seconds;
    (void)log;
    Comm *c = comm_new(p->rank, p->world);
    c->world = true;
    Status s = c->size > 1 ? join(c) : OK;
    if (s) free(c);
    else *out = c;
    return s;
}

void comm_close(Comm *c)
{
    if (!c) return;
    if (c->kind) c->kind->detach(c);
#if EQ_MPI
    if (c->world && c->size > 1) mpi_leave();
#endif
    free(c);
}

Status comm_attach(Comm *c, Device *d)
{
    if (c->size > 1 && device_is_gpu(d))
        return FAIL(ERR_USAGE, "%d ranks on GPUs: collectives between GPUs are not built in",
                    c->size);
    c->device = d;
    return OK;
}

Status comm_split(Comm **out, Comm *c, int color)
{
    int *colors = calloc((size_t)c->size, sizeof *colors);
    CHECK(colors);
    Comm *part = comm_new(0, 0);
    Status s = comm_host_gather(c, "colors of a split", colors, &color, sizeof color);
    for (int r = 0; r < c->size; r++) {
        part->rank += r < c->rank && colors[r] == color;
        part->size += colors[r] == color;
    }
    free(colors);
    part->device = c->device;
    if (!s && c->kind) s = c->kind->split(part, c, color);
    if (!s && c->kind) part->kind = c->kind;
    if (s) comm_close(part);
    else *out = part;
    return s;
}

static Status copy(Comm *c, void *to, const void *from, size_t bytes)
{
    if (to == from) return OK;
    CHECK(c->device);
    return device_copy(c->device, to, from, bytes);
}

Status comm_all_reduce(Comm *c, const char *what, float *data, size_t count)
{
    (void)what;
    return c->kind ? c->kind->all_reduce(c, data, count) : OK;
}

Status comm_all_gather(Comm *c, const char *what, void *to, const void *from, size_t bytes)
{
    (void)what;
    return c->kind ? c->kind->all_gather(c, to, from, bytes) : copy(c, to, from, bytes);
}

Status comm_reduce_scatter(Comm *c, const char *what, float *to, const float *from, size_t count)
{
    (void)what;
    return c->kind ? c->kind->reduce_scatter(c, to, from, count)
                   : copy(c, to, from, count * sizeof *to);
}

Status comm_all_to_all(Comm *c, const char *what, void *to, const void *from, size_t bytes)
{
    (void)what;
    return c->kind ? c->kind->all_to_all(c, to, from, bytes) : copy(c, to, from, bytes);
}

Status comm_broadcast(Comm *c, const char *what, void *data, size_t bytes, int root)
{
    (void)what;
    CHECK(root >= 0 && root < c->size);
    return c->kind ? c->kind->broadcast(c, data, bytes, root) : OK;
}

Status comm_host_gather(Comm *c, const char *what, void *to, const void *from, size_t bytes)
{
    (void)what;
    if (c && c->kind) return c->kind->all_gather(c, to, from, bytes);
    if (to != from) memcpy(to, from, bytes);
    return OK;
}

Status comm_host_broadcast(Comm *c, const char *what, void *data, size_t bytes, int root)
{
    return comm_size(c) > 1 ? comm_broadcast(c, what, data, bytes, root) : OK;
}

/* Which of two failures is told: a bug before all, else the class with the higher number. */
static int badness(Status s) { return s == ERR_BUG ? 1000 : (int)s; }

Status comm_agree(Comm *c, const char *what, Status mine)
{
    if (comm_size(c) == 1) return mine;
    struct {
        Status s;
        char message[1024];
    } own = {mine, ""}, *all = calloc((size_t)c->size, sizeof own);
    CHECK(all);
    if (mine) snprintf(own.message, sizeof own.message, "%s", status_message());
    Status s = comm_host_gather(c, what, all, &own, sizeof own);
    int worst = 0;
    for (int r = 1; !s && r < c->size; r++)
        if (badness(all[r].s) > badness(all[worst].s)) worst = r;
    if (!s && all[worst].s) {
        s = all[worst].s;
        status_set(s, all[worst].message);
    }
    free(all);
    return c->agreed = s;
}

Status comm_agreed(const Comm *c) { return c ? c->agreed : OK; }

Status comm_barrier(Comm *c, const char *what)
{
    char none = 0, *all = calloc((size_t)comm_size(c), 1);
    CHECK(all);
    Status s = comm_host_gather(c, what, all, &none, 1);
    free(all);
    return s;
}

void comm_abort(Comm *c, Status why)
{
    (void)c;
    (void)why;
}
