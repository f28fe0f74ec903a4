/* address.h - where rank 0 is, as all ranks know it before they have met. */
#ifndef ADDRESS_H
#define ADDRESS_H
#include "base/file.h"
#include "comm/comm.h"

/* Broadcast as it is where MPI tells the ranks. */
typedef struct {
    char hosts[8][64];       /* to be tried in turn; empty ones end the list */
    int port;
    char token[HASH_TEXT];   /* of the job */
} Address;

/* MASTER_ADDR and MASTER_PORT; without them the first host of srun's step, or this host where all ranks
 * are here, and a port made of the job's number. ERR_USAGE where that leaves rank 0's host unknown. */
Status address_of_job(Address *a, const CommPlace *p);
/* This host's: every address that others may reach it at, port 0. The token is drawn at random. */
Status address_of_this_host(Address *a);

/* The variable of the environment, NULL where it is not set or empty; of no name NULL. */
const char *address_variable(const char *name);
/* The first name of a Slurm host list: "n001" of "n[001-004,7]-ib,m2". */
void address_first_host(char *out, size_t room, const char *list);
#endif
