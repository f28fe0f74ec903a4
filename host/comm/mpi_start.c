/* mpi_start.c - joining and leaving the ranks that MPI started. MPI waits for a rank that does not
 * come as long as it takes; a thread ends the process when the time is up. */
#include "comm/backend.h"
#if EQ_MPI
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TICK_NS = 100000000 };

typedef struct {
    int seconds;
    Log *log;
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool done;
    pthread_t thread;
} Deadline;

static void *watch(void *arg)
{
    Deadline *d = arg;
    Clock clock = {0};
    pthread_mutex_lock(&d->lock);
    while (!d->done && wire_clock(&clock) < d->seconds) {
        struct timespec tick;
        clock_gettime(CLOCK_MONOTONIC, &tick);
        tick.tv_nsec += TICK_NS;
        tick.tv_sec += tick.tv_nsec / 1000000000;
        tick.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&d->change, &d->lock, &tick);
    }
    bool done = d->done;
    pthread_mutex_unlock(&d->lock);
    if (done) return NULL;
    char text[128];
    const char *job = getenv("PMIX_NAMESPACE");
    snprintf(text, sizeof text, "MPI: not all ranks came within %d s", d->seconds);
    if (wire_first_here(job ? job : "MPI")) log_failure(d->log, text, "");
    _exit(ERR_PEER);
}

static Status deadline_begin(Deadline *d, int seconds, Log *log)
{
    pthread_condattr_t monotonic;
    *d = (Deadline){.seconds = seconds, .log = log};
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->change, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return wire_thread(&d->thread, watch, d);
}

static void deadline_end(Deadline *d)
{
    pthread_mutex_lock(&d->lock);
    d->done = true;
    pthread_cond_signal(&d->change);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->change);
}

/* Ranks that torchrun starts inherit the variables of an srun around it. */
bool mpi_started(const CommPlace *p)
{
    return strcmp(p->found_by, "environment") &&
           (getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK"));
}

Status mpi_join(const CommPlace *p, int seconds, Log *log)
{
    Deadline d;
    int provided, rank = -1, world = 0;
    TRY(deadline_begin(&d, seconds, log));
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (code == MPI_SUCCESS) {
        MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &world);
    }
    deadline_end(&d);
    if (code != MPI_SUCCESS) return FAIL(ERR_PEER, "MPI does not start: error %d", code);
    if (rank == p->rank && world == p->world) return OK;
    MPI_Finalize();
    return FAIL(ERR_USAGE,
                "MPI says rank %d of %d where %s says %d of %d: expected the mpirun, or with srun "
                "the --mpi, of the MPI that this program is built with",
                rank, world, p->found_by, p->rank, p->world);
}

Status mpi_tell(void *data, int bytes, int seconds, Log *log)
{
    Deadline d;
    TRY(deadline_begin(&d, seconds, log));
    int code = MPI_Bcast(data, bytes, MPI_BYTE, 0, MPI_COMM_WORLD);
    deadline_end(&d);
    return code == MPI_SUCCESS ? OK : FAIL(ERR_PEER, "MPI: rank 0's address did not arrive");
}

void mpi_leave(void) { MPI_Finalize(); }
#endif
