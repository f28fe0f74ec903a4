/* rank.h - what the parts of comm_rank share. */
#ifndef RANK_H
#define RANK_H
#include "comm/comm.h"

typedef struct {
    Comm *comm;
    CommPlace place;
    int number; /* of the command line */
    Log *log;
} Job;
extern Device *device; /* of this rank */

#define EXPECT(cond, ...)                                                                          \
    do {                                                                                           \
        if (!(cond)) return FAIL(ERR_BUG, __VA_ARGS__);                                            \
    } while (0)

/* Numbers whose sums over ranks are exact in fp32, different for every rank, element and round; heap. */
float *fill(size_t n, int rank, int round);
/* The device's copy of an array, which collectives take; released with device_release(). */
void *there(const void *host, size_t bytes);

/* Scenarios in which nothing goes wrong. hosts: without a device. */
Status collectives(Job *j);
Status split(Job *j);
Status hosts(Job *j);
#endif
