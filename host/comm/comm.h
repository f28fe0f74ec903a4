/* comm.h - the ranks of a run: who they are, and what they do together.
 *
 * One process per GPU, or per CPU rank. Ranks meet through MPI where it started them and is built in
 * (EQ_MPI), else through a TCP store at MASTER_ADDR:MASTER_PORT. Collectives are NCCL's on a GPU and
 * MPI's on CPUs; built without MPI a CPU run has one rank. A lone process is a world of one rank, for
 * which every call is a no-op or a copy.
 *
 * All ranks of a Comm make the same calls in the same order. Collectives on device memory are enqueued
 * in the order of the Device's work (on a GPU they may be recorded in a graph), those on host memory are
 * done when the call returns. `what` names the work in errors and for the watchdog: "gradients".
 *
 * Failure: a rank that dies, reaches no collective within the time limit that others wait in, or reaches
 * another one than they, ends the job: every other rank returns ERR_PEER, or exits with it (6) if it makes
 * no call of comm within two seconds. One line, printed by one rank even if its log is mute, names the
 * rank, its host and the collective; such an ERR_PEER is marked as said (base/status.h). Nothing waits for
 * ever. The end of a command is therefore, whatever s is:
 *     comm_abort(c, s);
 *     Status closed = comm_close(c);
 *     return s ? s : closed;
 */
#ifndef COMM_H
#define COMM_H
#include "exec/device.h"

typedef struct Comm Comm;

typedef struct {
    int rank, world;        /* of the job */
    int local, n_local;     /* among the ranks of this host: the GPU to take is local % visible GPUs */
    const char *found_by;   /* "srun", "mpirun", "environment" or "alone" */
} CommPlace;

/* Reads the environment only: Slurm's (of a step, not of a batch shell), Open MPI's, torchrun's. ERR_USAGE
 * where it contradicts itself. */
Status comm_place(CommPlace *p);

/* Joins the job's ranks. seconds: how long a collective, and this, may wait for a rank, 0 = 300. The line of
 * a failure is said in log, which is borrowed until the end. */
Status comm_open(Comm **c, const CommPlace *p, int seconds, Log *log);
/* Accepts NULL; of the world last, and there waits for the others: ERR_PEER where one fails before its end.
 * Does not wait where the job has failed. */
Status comm_close(Comm *c);
/* Binds the world, before it is split, to the device whose memory its collectives take; on a GPU makes the
 * NCCL communicator. ERR_USAGE on all ranks where one has nothing that moves such memory. */
Status comm_attach(Comm *c, Device *d);
/* The ranks that give the same color, in the order of their ranks in c: a new Comm, attached where c is. */
Status comm_split(Comm **part, Comm *c, int color);

/* For plans: rank 0 of so many that are not there, to be asked who it is and nothing else. */
Comm  *comm_imagined(int ranks);

int    comm_rank(const Comm *c);                     /* 0 where c is NULL */
int    comm_size(const Comm *c);                     /* 1 where c is NULL */
/* Seconds that this rank has spent in calls of c. On a GPU those on device memory, which only enqueue, take none. */
double comm_spent(const Comm *c);
enum { COMM_NAME = 160 };
const char *comm_name(const Comm *c, char out[COMM_NAME]); /* "rank 1 on host a (process 7)"; a lone one is rank 0 */

/* Device memory. sum: in an order that the library chooses. On a GPU only enqueued: where the job fails meanwhile
 * the memory holds anything, and the next call says so. */
Status comm_all_reduce(Comm *c, const char *what, float *data, size_t count);
/* to: [size][bytes], from: [bytes], of every rank in its order; in place where from is its own part of to. */
Status comm_all_gather(Comm *c, const char *what, void *to, const void *from, size_t bytes);
/* to[count] = sum over ranks of their from[rank * count ...]. */
Status comm_reduce_scatter(Comm *c, const char *what, float *to, const float *from, size_t count);
/* Part i of from (bytes each) goes to rank i, whose to[] holds the parts it was sent in the order of ranks. */
Status comm_all_to_all(Comm *c, const char *what, void *to, const void *from, size_t bytes);

/* Host memory; passes through rank 0, so meant for results and words, not for tensors. At most 256 MiB over
 * all ranks. All of these take NULL as a lone rank. */
Status comm_host_gather(Comm *c, const char *what, void *to, const void *from, size_t bytes); /* all get all */
Status comm_host_broadcast(Comm *c, const char *what, void *data, size_t bytes, int root);
/* The worst Status of all ranks, with the message of the lowest rank that has it (named in it unless it is
 * rank 0): so that all ranks leave together where one meets a bad file. ERR_BUG is the worst, ERR_STOPPED the
 * least. */
Status comm_agree(Comm *c, const char *what, Status mine);
/* What the last comm_agree() of this rank came to; OK before. A failure that is not this one is this
 * rank's own, and the others do not know of it. */
Status comm_agreed(const Comm *c);
/* *any: is mine true on some rank? So that ranks that a signal asked to stop stop at the same step. */
Status comm_any(Comm *c, const char *what, bool mine, bool *any);
Status comm_barrier(Comm *c, const char *what);

/* Tells all ranks that this one fails: says "rank 1 on host n2 (process 77): " and its message, and the
 * others end with ERR_PEER. Where the ranks of c have just agreed on why, rank 0 says the message and that is
 * all. Does nothing where why is OK or has been said, or c NULL or one rank. Waits at most a second. */
void   comm_abort(Comm *c, Status why);
#endif
