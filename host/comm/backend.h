/* backend.h - what moves the bytes of device memory between ranks; comm.c calls it. Meanings are comm.h's.
 *
 * Whatever waits for other ranks asks link_check() meanwhile and gives up with its ERR_PEER. What cannot ask,
 * because it hangs in a library, is ended with the process by the link's thread. The limit of time holds while
 * a function here runs: a kind that only enqueues watches its work itself (link_begin_untold()).
 */
#ifndef BACKEND_H
#define BACKEND_H
#include "comm/comm.h"
#include "comm/link.h"
#include "comm/store.h"

typedef struct {
    const char *name;                                       /* "MPI" */
    Status (*attach)(Comm *c);                              /* of the world: fills own; collective */
    Status (*split)(Comm *part, const Comm *c, int color);  /* fills own, unless part is one rank; collective over c */
    void (*detach)(Comm *c);                                /* frees own; waits for nobody where the job has failed */
    /* Before a collective: do all ranks make this call? For a kind that must not begin else; NULL: not needed. */
    Status (*meet)(Comm *c, const Frame *call);
    Status (*all_reduce)(Comm *c, float *data, size_t count);
    Status (*all_gather)(Comm *c, void *to, const void *from, size_t bytes);
    Status (*reduce_scatter)(Comm *c, float *to, const float *from, size_t count);
    Status (*all_to_all)(Comm *c, void *to, const void *from, size_t bytes);
} CommBackend;

struct Comm {
    int rank, size;
    bool world;              /* not a part of another */
    bool mpi;                /* MPI started the job and has been joined */
    Device *device;          /* borrowed; NULL until attached */
    const CommBackend *kind; /* NULL until attached, and where size is 1 */
    void *own;               /* the kind's */
    Link *link;              /* NULL where the world is one rank; the world owns it */
    Store *store;            /* of the world on rank 0, owned */
    uint32_t group;          /* the store's number of it */
    uint64_t seq;            /* calls made */
    Status agreed;           /* of the last comm_agree() */
    uint64_t agreed_at;      /* seq after it */
    double began, spent;     /* seconds: when the call that runs began, in all calls */
};

#if EQ_CUDA
extern const CommBackend comm_nccl;
#endif
#if EQ_MPI
extern const CommBackend comm_mpi;
bool mpi_started(const CommPlace *p);        /* by Open MPI's mpirun, or by srun with PMIx */
/* Joins MPI's ranks, within so many seconds or the process ends. ERR_USAGE where MPI counts otherwise. */
Status mpi_join(const CommPlace *p, int seconds, Log *log);
Status mpi_tell(void *data, int bytes, int seconds, Log *log); /* rank 0's to all, in the same way */
void mpi_leave(void);
#endif
#endif
