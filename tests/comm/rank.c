/* rank.c - one rank of a job that test_comm*.sh start: `comm_rank SCENARIO [NUMBER]`. Prints "ok"
 * from rank 0 and exits with 0 where everything was as defined; else says what was not. */
#include "base/signal.h"
#include "comm/comm.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    Comm *comm;
    CommPlace place;
    int number; /* of the command line */
    Log *log;
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

/* The device's copy of an array, which collectives take; and back again, waiting for them. */
static Device *device;

static void *there(const void *host, size_t bytes)
{
    void *p;
    CHECK(!device_alloc(device, &p, bytes + 1, "an array") && !device_write(device, p, host, bytes));
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

static Status broadcast(Comm *c, size_t n, bool host)
{
    for (int root = 0; root < comm_size(c); root++) {
        float *x = comm_rank(c) == root ? fill(n, root, 4) : poison(n), *y = fill(n, root, 4);
        if (host) {
            TRY(comm_host_broadcast(c, "weights", x, n, root));
        } else {
            void *d = there(x, n);
            TRY(comm_broadcast(c, "weights", d, n, root));
            TRY(back(c, x, d, n));
        }
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
    TRY(broadcast(c, n, true));
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
        TRY(broadcast(c, 3 * n, false));
        TRY(on_hosts(c, n));
    }
    TRY(agree(c));
    return comm_barrier(c, "end");
}

static Status collectives(Job *j)
{
    TRY(comm_attach(j->comm, device));
    return every(j->comm);
}

/* Even and odd ranks apart, then each alone, then all again. */
static Status split(Job *j)
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
static Status hosts(Job *j)
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

static bool wrong(const Job *j) { return comm_rank(j->comm) == j->number; }

/* Ranks wait for the wrong one, which does `what`; by MPI where it started us, else in a barrier.
 */
static Status wait_in_vain(Job *j, void (*what)(void))
{
    float x[5] = {0};
    TRY(comm_barrier(j->comm, "start"));
    bool moves = device_is_gpu(device) || getenv("OMPI_COMM_WORLD_SIZE");
    float *d = there(x, sizeof x);
    if (moves) {
        TRY(comm_attach(j->comm, device));
        TRY(comm_all_reduce(j->comm, "gradients", d, 5));
    }
    if (wrong(j)) what();
    if (moves) TRY(comm_all_reduce(j->comm, "gradients", d, 5));
    else TRY(comm_barrier(j->comm, "gradients"));
    TRY(device_sync(device));
    TRY(comm_barrier(j->comm, "gradients"));
    return FAIL(ERR_BUG, "not reached");
}

/* The others wait by then. */
static void pause_first(void) { usleep(500000); }

static void die(void)
{
    struct timespec t;
    pause_first();
    clock_gettime(CLOCK_REALTIME, &t);
    printf("died at %lld\n", (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000);
    fflush(stdout);
    raise(SIGKILL);
}

static void stop(void)
{
    pause_first();
    printf("%d\n", (int)getpid());
    fflush(stdout);
    raise(SIGSTOP);
}

static void leave(void)
{
    pause_first();
    exit(0);
}

static Status dies(Job *j) { return wait_in_vain(j, die); }
static Status stalls(Job *j) { return wait_in_vain(j, stop); }
static Status exits(Job *j) { return wait_in_vain(j, leave); }

/* Signals do not end it. */
static void sleep_through(void)
{
    for (int i = 0; i < 300; i++) usleep(100000);
}

/* Nothing goes wrong but on the GPUs. */
static void go_on(void) {}
static Status gpu_lost(Job *j) { return wait_in_vain(j, go_on); }

/* A rank dies while the others make no call. */
static Status dies_alone(Job *j)
{
    TRY(comm_barrier(j->comm, "start"));
    if (wrong(j)) die();
    sleep_through();
    return FAIL(ERR_BUG, "not reached");
}

static Status fails(Job *j)
{
    TRY(comm_barrier(j->comm, "start"));
    if (wrong(j)) return FAIL(ERR_INPUT, "film.png:3: damaged");
    TRY(comm_barrier(j->comm, "gradients"));
    return FAIL(ERR_BUG, "not reached");
}

/* All leave together where one meets a bad file. */
static Status agrees(Job *j)
{
    Status s = wrong(j) ? FAIL(ERR_INPUT, "film.png:3: damaged") : OK;
    TRY(comm_agree(j->comm, "films", s));
    return FAIL(ERR_BUG, "not reached");
}

/* Under another name, of another size, from another root, another kind. */
static Status name(Job *j)
{
    TRY(comm_barrier(j->comm, "start"));
    TRY(comm_barrier(j->comm, wrong(j) ? "norm" : "gradients"));
    return FAIL(ERR_BUG, "not reached");
}

/* Data must not be touched: ranks compare before they move any. */
static Status length(Job *j)
{
    float x[5] = {1, 2, 3, 4, 5}, *d = there(x, sizeof x);
    TRY(comm_attach(j->comm, device));
    Status s = comm_all_reduce(j->comm, "gradients", d, wrong(j) ? 4 : 5);
    if (device_is_gpu(device)) { /* it was only enqueued, and the memory may hold anything */
        TRY(device_sync(device));
        return comm_barrier(j->comm, "gradients");
    }
    for (int i = 0; i < 5; i++) EXPECT(d[i] == (float)(i + 1), "d[%d] became %g", i, d[i]);
    TRY(s);
    return FAIL(ERR_BUG, "not reached");
}

static void stop_self(int number)
{
    (void)number;
    raise(SIGSTOP);
}

/* A rank is stopped within a collective that it has reached: in long ones, one after the other. */
static Status midway(Job *j)
{
    size_t n = 1 << 23;
    float *x = fill(n, comm_rank(j->comm), 0);
    struct itimerval soon = {.it_value = {.tv_usec = 300000}};
    signal(SIGALRM, stop_self);
    TRY(comm_attach(j->comm, device));
    TRY(comm_barrier(j->comm, "start"));
    if (wrong(j)) setitimer(ITIMER_REAL, &soon, NULL);
    Status s = OK;
    while (!s) s = comm_all_reduce(j->comm, "gradients", x, n);
    free(x);
    return s;
}

static Status root(Job *j)
{
    char x[5] = {0};
    TRY(comm_host_broadcast(j->comm, "weights", x, 5, wrong(j) ? 1 : 0));
    return FAIL(ERR_BUG, "not reached");
}

static Status kind(Job *j)
{
    char x[40] = {0};
    if (wrong(j)) TRY(comm_host_broadcast(j->comm, "weights", x, 5, 0));
    else TRY(comm_host_gather(j->comm, "weights", x, "four", 5));
    return FAIL(ERR_BUG, "not reached");
}

/* One ends where others go on. */
static Status ends_early(Job *j)
{
    if (wrong(j)) return OK;
    TRY(comm_barrier(j->comm, "gradients"));
    return FAIL(ERR_BUG, "not reached");
}

/* Signals are the program's: one rank gets them, all stop at the same step. */
static Status stops(Job *j)
{
    bool any = false;
    int step = 0;
    if (wrong(j)) {
        raise(SIGUSR1);
        raise(SIGTERM);
    }
    while (!any && step++ < 3) TRY(comm_any(j->comm, "stop", signal_stop_requested(), &any));
    EXPECT(any && step == 1, "stopped at step %d", step);
    return comm_agree(j->comm, "stop", signal_check());
}

/* Steps, as long as the file HOLD is there. */
static Status holds(Job *j)
{
    const char *file = getenv("HOLD");
    TRY(comm_barrier(j->comm, "start"));
    puts("steps");
    fflush(stdout);
    for (bool any = true; any; usleep(20000))
        TRY(comm_any(j->comm, "step", file && access(file, F_OK) == 0, &any));
    return OK;
}

/* A rank that is there and never joins. */
static Status absent(Job *j)
{
    if (j->place.rank == j->number) sleep_through();
    else TRY(comm_open(&j->comm, &j->place, 1, j->log));
    return FAIL(ERR_BUG, "not reached");
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
    {"hosts", true, hosts},
    {"dies", true, dies},
    {"dies_alone", true, dies_alone},
    {"stalls", true, stalls},
    {"exits", true, exits},
    {"gpu_lost", true, gpu_lost},
    {"fails", true, fails},
    {"agrees", true, agrees},
    {"name", true, name},
    {"length", true, length},
    {"root", true, root},
    {"kind", true, kind},
    {"ends_early", true, ends_early},
    {"stops", true, stops},
    {"holds", true, holds},
    {"midway", true, midway},
    {"absent", false, absent},
};

/* GPU="cuda:": the one of the rank's number on this host; "cuda:0" is that. */
static Status open_device(const Job *j)
{
    const char *gpu = getenv("GPU");
    char which[16] = "cpu";
    if (gpu && strlen(gpu) == 5) snprintf(which, sizeof which, "%s%d", gpu, j->place.local);
    else if (gpu) snprintf(which, sizeof which, "%s", gpu);
    return device_open(&device, which, "fp32", 1, j->log);
}

static Status run(Job *j, const char *name)
{
    TRY(comm_place(&j->place));
    log_mute(j->log, j->place.rank > 0);
    for (size_t i = 0; i < sizeof scenario / sizeof *scenario; i++) {
        if (strcmp(scenario[i].name, name)) continue;
        if (!scenario[i].joins) return scenario[i].run(j);
        const char *limit = getenv("LIMIT");
        TRY(comm_open(&j->comm, &j->place, limit ? atoi(limit) : 30, j->log));
        TRY(open_device(j));
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
    Job j = {.number = argc > 2 ? atoi(argv[2]) : 0, .log = log};
    Status s = run(&j, argv[1]);
    comm_abort(j.comm, s);
    if (!j.comm) log_mute(log, false);
    Status closed = comm_close(j.comm);
    if (!s) s = closed;
    if (s && !status_said()) log_failure(log, status_message(), status_trace_text());
    device_close(device);
    log_free(log);
    return (int)s;
}
