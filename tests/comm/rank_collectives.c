/* rank_collectives.c - every collective against its definition, in the world and in groups. */
#include "comm/rank.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers whose sums over ranks are exact in fp32, different for every rank, element and round. */
static float value(int rank, size_t i, int round)
{
    return (float)((int)((i * 2654435761u + (size_t)rank * 40503u + (size_t)round * 977u) % 2001u) -
                   1000);
}

static float sum(int n, size_t i, int round)
{
    float s = 0;
    for (int r = 0; r < n; r++) s += value(r, i, round);
    return s;
}

float *fill(size_t n, int rank, int round)
{
    float *x = malloc(n * sizeof *x + 1);
    CHECK(x);
    for (size_t i = 0; i < n; i++) x[i] = value(rank, i, round);
    return x;
}

static float *poison(size_t n)
{
    float *x = malloc(n * sizeof *x + 1);
    CHECK(x);
    for (size_t i = 0; i < n; i++) x[i] = NAN;
    return x;
}

/* The device's copy of an array, which collectives take; and back again, waiting for them. */
void *there(const void *host, size_t bytes)
{
    void *p;
    CHECK(!device_alloc(device, &p, bytes + 1, "an array") &&
          !device_write(device, p, host, bytes));
    return p;
}

static Status back(Comm *c, void *host, void *p, size_t bytes)
{
    Status s = device_read(device, host, p, bytes);
    device_release(device, p);
    if (!s && device_is_gpu(device)) s = comm_barrier(c, "reading"); /* the job may have failed */
    return s;
}

static Status all_reduce(Comm *c, size_t n)
{
    float *x = fill(n, comm_rank(c), 0), *d = there(x, n * sizeof *x);
    TRY(comm_all_reduce(c, "sums", d, n));
    TRY(back(c, x, d, n * sizeof *x));
    for (size_t i = 0; i < n; i++)
        EXPECT(x[i] == sum(comm_size(c), i, 0), "all-reduce of %zu: [%zu] is %g", n, i, x[i]);
    free(x);
    return OK;
}

/* In bytes, so that odd ones occur; in place where told. */
static Status all_gather(Comm *c, size_t n, bool in_place)
{
    int size = comm_size(c), me = comm_rank(c);
    char *to = (char *)poison(n * (size_t)size);
    float *x = fill(n, me, 1);
    if (in_place) memcpy(to + n * (size_t)me, x, n);
    char *dx = there(x, n), *dto = there(to, n * (size_t)size);
    TRY(comm_all_gather(c, "parts", dto, in_place ? dto + n * (size_t)me : dx, n));
    TRY(back(c, to, dto, n * (size_t)size));
    for (int r = 0; r < size; r++) {
        float *y = fill(n, r, 1);
        EXPECT(!memcmp(to + n * (size_t)r, y, n), "all-gather of %zu: part %d", n, r);
        free(y);
    }
    device_release(device, dx);
    free(to);
    free(x);
    return OK;
}

static Status reduce_scatter(Comm *c, size_t n)
{
    size_t size = (size_t)comm_size(c), me = (size_t)comm_rank(c);
    float *from = fill(n * size, (int)me, 2), *to = poison(n);
    float *dfrom = there(from, n * size * sizeof *from), *dto = there(to, n * sizeof *to);
    TRY(comm_reduce_scatter(c, "shards", dto, dfrom, n));
    TRY(back(c, to, dto, n * sizeof *to));
    for (size_t i = 0; i < n; i++)
        EXPECT(to[i] == sum((int)size, me * n + i, 2), "reduce-scatter of %zu: [%zu] is %g", n, i,
               to[i]);
    device_release(device, dfrom);
    free(from);
    free(to);
    return OK;
}

static Status all_to_all(Comm *c, size_t n)
{
    int size = comm_size(c), me = comm_rank(c);
    size_t all = n * (size_t)size;
    float *from = fill(all, me, 3), *to = poison(all);
    float *dfrom = there(from, all * sizeof *from), *dto = there(to, all * sizeof *to);
    TRY(comm_all_to_all(c, "exchange", dto, dfrom, n * sizeof *to));
    TRY(back(c, to, dto, all * sizeof *to));
    for (int r = 0; r < size; r++)
        for (size_t i = 0; i < n; i++)
            EXPECT(to[(size_t)r * n + i] == value(r, (size_t)me * n + i, 3),
                   "all-to-all of %zu: part %d [%zu]", n, r, i);
    device_release(device, dfrom);
    free(from);
    free(to);
    return OK;
}

static Status host_broadcast(Comm *c, size_t n)
{
    for (int root = 0; root < comm_size(c); root++) {
        float *x = comm_rank(c) == root ? fill(n, root, 4) : poison(n), *y = fill(n, root, 4);
        TRY(comm_host_broadcast(c, "weights", x, n, root));
        EXPECT(!memcmp(x, y, n), "broadcast of %zu from %d", n, root);
        free(x);
        free(y);
    }
    return OK;
}

static Status host_gather(Comm *c, size_t n)
{
    int size = comm_size(c);
    float *x = fill(n, comm_rank(c), 5);
    char *to = (char *)poison(n * (size_t)size);
    TRY(comm_host_gather(c, "names", to, x, n));
    for (int r = 0; r < size; r++) {
        float *y = fill(n, r, 5);
        EXPECT(!memcmp(to + n * (size_t)r, y, n), "host gather of %zu: part %d", n, r);
        free(y);
    }
    free(x);
    free(to);
    return OK;
}

/* Rank r fails with the class that fate[r] names; all see the worst, from the lowest rank that has
 * it. */
static Status agree(Comm *c)
{
    static const Status fate[] = {ERR_INPUT, OK, ERR_NUMERIC, ERR_NUMERIC};
    int worst = comm_size(c) > 2 ? 2 : 0, me = comm_rank(c);
    EXPECT(comm_agree(c, "nothing wrong", OK) == OK, "an agreement on OK fails");
    Status mine = me < 4 && fate[me] ? FAIL(fate[me], "trouble of %d", me) : OK;
    Status s = comm_agree(c, "films", mine);
    EXPECT(comm_agreed(c) == s, "%d is remembered as %d", (int)s, (int)comm_agreed(c));
    char text[32];
    snprintf(text, sizeof text, "trouble of %d", worst);
    const char *at = strstr(status_message(), text);
    bool named =
        !strncmp(status_message(), "rank ", 5); /* its number in the job is another in a group */
    EXPECT(s == fate[worst] && at && named == (worst > 0), "agreed on %d, \"%s\"", (int)s,
           status_message());
    return OK;
}

/* A wish of one rank is known to all. */
static Status any(Comm *c)
{
    bool yes = true;
    TRY(comm_any(c, "stop", false, &yes));
    EXPECT(!yes, "a question that all deny is answered yes");
    TRY(comm_any(c, "stop", comm_rank(c) == comm_size(c) - 1, &yes));
    EXPECT(yes, "a question that one affirms is answered no");
    return OK;
}

static Status on_hosts(Comm *c, size_t n)
{
    TRY(host_broadcast(c, n));
    TRY(host_gather(c, n));
    return any(c);
}

static const size_t size[] = {1, 3, 257, 0, 4099, 524288 + 5};
enum { N_SIZES = 6 };

static Status every(Comm *c)
{
    for (int i = 0; i < N_SIZES; i++) {
        size_t n = size[i];
        TRY(all_reduce(c, n));
        TRY(all_gather(c, 3 * n, false));
        TRY(all_gather(c, 3 * n, true));
        TRY(reduce_scatter(c, n));
        TRY(all_to_all(c, n));
        TRY(on_hosts(c, n));
    }
    TRY(agree(c));
    return comm_barrier(c, "end");
}

Status collectives(Job *j)
{
    TRY(comm_attach(j->comm, device));
    return every(j->comm);
}

/* Even and odd ranks apart, then each alone, then all again. */
Status split(Job *j)
{
    Comm *half, *alone;
    int me = comm_rank(j->comm), n = comm_size(j->comm);
    TRY(comm_attach(j->comm, device));
    TRY(comm_split(&half, j->comm, me % 2));
    EXPECT(comm_rank(half) == me / 2 && comm_size(half) == (n + 1 - me % 2) / 2, "half: %d of %d",
           comm_rank(half), comm_size(half));
    TRY(every(half));
    TRY(comm_split(&alone, half, comm_rank(half)));
    EXPECT(comm_rank(alone) == 0 && comm_size(alone) == 1, "alone: %d of %d", comm_rank(alone),
           comm_size(alone));
    TRY(every(alone));
    comm_close(alone);
    comm_close(half);
    return every(j->comm);
}

/* Without a device; in groups as well. */
Status hosts(Job *j)
{
    Comm *half;
    for (int i = 0; i < N_SIZES; i++) TRY(on_hosts(j->comm, size[i]));
    TRY(comm_split(&half, j->comm, comm_rank(j->comm) % 2));
    for (int i = 0; i < N_SIZES; i++) TRY(on_hosts(half, size[i]));
    TRY(agree(half));
    comm_close(half);
    TRY(agree(j->comm));
    return comm_barrier(j->comm, "end");
}
