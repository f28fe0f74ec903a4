/* backend.h - what moves the bytes of device memory between ranks; comm.c calls it. Meanings are comm.h's. */
#ifndef BACKEND_H
#define BACKEND_H
#include "comm/comm.h"

typedef struct {
    const char *name;                                    /* "MPI" */
    Status (*attach)(Comm *c);                           /* fills own; collective */
    Status (*split)(Comm *part, const Comm *c, int color); /* fills part's own; collective over c */
    void (*detach)(Comm *c);                             /* of attach and of split */
    Status (*all_reduce)(Comm *c, float *data, size_t count);
    Status (*all_gather)(Comm *c, void *to, const void *from, size_t bytes);
    Status (*reduce_scatter)(Comm *c, float *to, const float *from, size_t count);
    Status (*all_to_all)(Comm *c, void *to, const void *from, size_t bytes);
    Status (*broadcast)(Comm *c, void *data, size_t bytes, int root);
} CommBackend;

struct Comm {
    int rank, size;
    bool world;              /* not a part of another */
    Status agreed;           /* of the last comm_agree() */
    Device *device;          /* borrowed; NULL until attached */
    const CommBackend *kind; /* NULL until attached, and where size is 1 */
    void *own;               /* the kind's */
};

#if EQ_MPI
extern const CommBackend comm_mpi;
bool mpi_started_us(void);                   /* Open MPI's mpirun, or srun with PMIx */
Status mpi_join(int rank, int world);        /* ERR_USAGE where MPI counts otherwise */
void mpi_leave(void);
#endif
#endif
