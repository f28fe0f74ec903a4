/* rank.c - one rank of a job that test_comm*.sh start: `comm_rank SCENARIO [NUMBER]`. Prints "ok"
 * from rank 0 and exits with 0 where everything was as defined; else says what was not. */
#include "base/signal.h"
#include "comm/comm.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    Comm *comm;
    Device *device;
    CommPlace place;
    int number; /* of the command line */
} Job;

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

static float *fill(size_t n, int rank, int round)
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

#define EXPECT(cond, ...)                                                                          \
    do {                                                                                           \
        if (!(cond)) return FAIL(ERR_BUG, __VA_ARGS__);                                            \
    } while (0)

static Status all_reduce(Comm *c, size_t n)
{
    float *x = fill(n, comm_rank(c), 0);
    TRY(comm_all_reduce(c, "sums", x, n));
    for (size_t i = 0; i < n; i++)
        EXPECT(x[i] == sum(comm_size(c), i, 0), "all-reduce of %zu: [%zu] is %g", n, i, x[i]);
    free(x);
    return OK;
}

/* In bytes, so that odd ones occur; in place where told. */
static Status all_gather(Comm *c, size_t n, bool in_place)
{
    int size = comm_size(c), me = comm_rank(c);
    char *to = (char *)poison(n * (size_t)size), *own = to + n * (size_t)me;
    float *x = fill(n, me, 1);
    if (in_place) memcpy(own, x, n);
    TRY(comm_all_gather(c, "parts", to, in_place ? own : (char *)x, n));
    for (int r = 0; r < size; r++) {
        float *y = fill(n, r, 1);
        EXPECT(!memcmp(to + n * (size_t)r, y, n), "all-gather of %zu: part %d", n, r);
        free(y);
    }
    free(to);
    free(x);
    return OK;
}

static Status reduce_scatter(Comm *c, size_t n)
{
    size_t size = (size_t)comm_size(c), me = (size_t)comm_rank(c);
    float *from = fill(n * size, (int)me, 2), *to = poison(n);
    TRY(comm_reduce_scatter(c, "shards", to, from, n));
    for (size_t i = 0; i < n; i++)
        EXPECT(to[i] == sum((int)size, me * n + i, 2), "reduce-scatter of %zu: [%zu] is %g", n, i,
               to[i]);
    free(from);
    free(to);
    return OK;
}

static Status all_to_all(Comm *c, size_t n)
{
    int size = comm_size(c), me = comm_rank(c);
    float *from = fill(n * (size_t)size, me, 3), *to = poison(n * (size_t)size);
    TRY(comm_all_to_all(c, "exchange", to, from, n * sizeof *to));
    for (int r = 0; r < size; r++)
        for (size_t i = 0; i < n; i++)
            EXPECT(to[(size_t)r * n + i] == value(r, (size_t)me * n + i, 3),
                   "all-to-all of %zu: part %d [%zu]", n, r, i);
    free(from);
    free(to);
    return OK;
}

static Status broadcast(Comm *c, size_t n, bool host)
{
    for (int root = 0; root < comm_size(c); root++) {
        float *x = comm_rank(c) == root ? fill(n, root, 4) : poison(n), *y = fill(n, root, 4);
        TRY(host ? comm_host_broadcast(c, "weights", x, n, root)
                 : comm_broadcast(c, "weights", x, n, root));
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
    char text[32];
    snprintf(text, sizeof text, "trouble of %d", worst);
    EXPECT(s == fate[worst] && !strcmp(status_message(), text), "agreed on %d, \"%s\"", (int)s,
           status_message());
    return OK;
}

static Status every(Comm *c)
{
    static const size_t size[] = {1, 3, 257, 0, 4099, 1048576 + 5};
    for (int i = 0; i < 6; i++) {
        size_t n = size[i];
        TRY(all_reduce(c, n));
        TRY(all_gather(c, n, false));
        TRY(all_gather(c, n, true));
        TRY(reduce_scatter(c, n));
        TRY(all_to_all(c, n));
        TRY(broadcast(c, n, false));
        TRY(broadcast(c, n, true));
        TRY(host_gather(c, n));
    }
    TRY(agree(c));
    return comm_barrier(c, "end");
}

static Status collectives(Job *j)
{
    TRY(comm_attach(j->comm, j->device));
    return every(j->comm);
}

/* Even and odd ranks apart, then each alone, then all again. */
static Status split(Job *j)
{
    Comm *half, *alone;
    int me = comm_rank(j->comm), n = comm_size(j->comm);
    TRY(comm_attach(j->comm, j->device));
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

/* For the tests of comm_place(): what it found. */
static Status place(Job *j)
{
    const CommPlace *p = &j->place;
    printf("%d of %d, %d of %d, %s\n", p->rank, p->world, p->local, p->n_local, p->found_by);
    return OK;
}

static const struct {
    const char *name;
    bool joins;
    Status (*run)(Job *j);
} scenario[] = {
    {"place", false, place},
    {"collectives", true, collectives},
    {"split", true, split},
};

static Status run(Job *j, const char *name, Log *log)
{
    TRY(comm_place(&j->place));
    for (size_t i = 0; i < sizeof scenario / sizeof *scenario; i++) {
        if (strcmp(scenario[i].name, name)) continue;
        if (!scenario[i].joins) return scenario[i].run(j);
        TRY(comm_open(&j->comm, &j->place, 3, log));
        TRY(device_open(&j->device, "cpu", "fp32", 1, log));
        TRY(scenario[i].run(j));
        if (j->place.rank == 0) puts("ok");
        return OK;
    }
    return FAIL(ERR_USAGE, "no scenario %s", name);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    signal_install();
    Log *log = log_new(true);
    Job j = {.number = argc > 2 ? atoi(argv[2]) : 0};
    Status s = run(&j, argv[1], log);
    if (s) log_failure(log, status_message(), status_trace_text());
    comm_abort(j.comm, s);
    comm_close(j.comm);
    device_close(j.device);
    log_free(log);
    return (int)s;
}
