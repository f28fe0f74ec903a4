/* rank.c - one rank of a job that test_comm*.sh start: `comm_rank SCENARIO [NUMBER]`. Prints "ok"
 * from rank 0 and exits with 0 where everything was as defined; else says what was not. */
#include "comm/rank.h"
#include "base/signal.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

Device *device;

static bool wrong(const Job *j) { return comm_rank(j->comm) == j->number; }

/* Ranks wait for the wrong one, which does `what`; by MPI where it started us, else in a barrier.
 */
static Status wait_in_vain(Job *j, void (*what)(void))
{
    float x[5] = {0};
    TRY(comm_barrier(j->comm, "start"));
    bool moves = device_is_gpu(device) || getenv("OMPI_COMM_WORLD_SIZE");
    static float *d; /* which most ways out leave behind */
    d = there(x, sizeof x);
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
static void pause_first(void) { sleep(2); }

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
    usleep(200000); /* it has been heard of */
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

/* The other is on its way out when cleaning up fails, too. */
static Status dies_agreeing(Job *j)
{
    Failure failure;
    TRY(comm_barrier(j->comm, "start"));
    if (wrong(j)) die();
    status_keep(&failure, comm_agree(j->comm, "the classifier", OK));
    FAIL(ERR_INPUT, "a leftover cannot be removed");
    return status_restore(&failure);
}

static Status fails(Job *j)
{
    TRY(comm_barrier(j->comm, "start"));
    if (wrong(j)) return FAIL(ERR_INPUT, "film.png:3: damaged");
    TRY(comm_barrier(j->comm, "gradients"));
    return FAIL(ERR_BUG, "not reached");
}

/* As a trainer within a step: the others hear of it before it returns, and once. */
static Status fails_at_once(Job *j)
{
    TRY(comm_barrier(j->comm, "start"));
    if (wrong(j)) {
        Status s = FAIL(ERR_SPACE, "no memory");
        comm_abort(j->comm, s);
        return s;
    }
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
    float x[5] = {1, 2, 3, 4, 5};
    static float *d;
    d = there(x, sizeof x);
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

/* Steps until one is asked to stop. */
static Status goes_on(Job *j)
{
    TRY(comm_barrier(j->comm, "start"));
    puts("steps");
    fflush(stdout);
    for (bool any = false; !any; usleep(20000))
        TRY(comm_any(j->comm, "stop", signal_stop_requested(), &any));
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
    {"place", false, place},      {"collectives", true, collectives},
    {"split", true, split},       {"hosts", true, hosts},
    {"dies", true, dies},         {"dies_alone", true, dies_alone},
    {"stalls", true, stalls},     {"exits", true, exits},
    {"gpu_lost", true, gpu_lost}, {"fails", true, fails},
    {"agrees", true, agrees},     {"name", true, name},
    {"dies_agreeing", true, dies_agreeing},
    {"fails_at_once", true, fails_at_once},
    {"length", true, length},     {"root", true, root},
    {"kind", true, kind},         {"ends_early", true, ends_early},
    {"stops", true, stops},       {"holds", true, holds},
    {"goes_on", true, goes_on},   {"midway", true, midway},
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
