/* wire.h - what ranks and the store of rank 0 say to each other over TCP, and the sockets they say it on.
 *
 * Both ends first send a Hello; a rank's is answered by the store's. After that come frames. Sockets never
 * block: bytes wait in memory until poll() says so. All machines of a job store numbers alike.
 */
#ifndef WIRE_H
#define WIRE_H
#include "base/file.h"
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Calls of a group: name, words. Up to OP_ALL_TO_ALL backends move the data and the store only counts who
 * has come; the others are answered by the store once all have come. */
#define COMM_OPS(X)                                                                                \
    X(ALL_REDUCE, "all-reduce")                                                                    \
    X(ALL_GATHER, "all-gather")                                                                    \
    X(REDUCE_SCATTER, "reduce-scatter")                                                            \
    X(ALL_TO_ALL, "all-to-all")                                                                    \
    X(HOST_GATHER, "gather on hosts")                                                              \
    X(HOST_BROADCAST, "broadcast on hosts")                                                        \
    X(AGREE, "agreement")                                                                          \
    X(ANY, "question")                                                                             \
    X(BARRIER, "barrier")                                                                          \
    X(SPLIT, "split")                                                                              \
    X(CLOSE, "end")
typedef enum {
#define OP_NAME(name, words) OP_##name,
    COMM_OPS(OP_NAME)
#undef OP_NAME
    N_OPS
} CommOp;

typedef enum {
    FRAME_BEAT,    /* both ways: alive */
    FRAME_WELCOME, /* store: all ranks have come */
    FRAME_CALL,    /* rank: has reached a call; with its part of the data where the store answers */
    FRAME_REPLY,   /* store: the data of all, or of the root. Of a split also the new group */
    FRAME_LEAVE,   /* rank: needs the group no more */
    FRAME_FAIL,    /* rank: ends the job, with a text, and says so itself */
    FRAME_LATE,    /* rank: a call has taken longer than allowed; with a text */
    FRAME_FAILED,  /* store: the job ends, with a text; root = rank that says it, -1 = it has been said */
    FRAME_BYE,     /* rank: leaves in order */
    N_FRAMES
} FrameKind;

typedef struct {
    uint32_t kind, op, group;
    int32_t root;           /* of a broadcast */
    uint64_t seq;           /* number of the call in its group */
    uint64_t size;          /* of the call: must be the same on all ranks, as are op, root and what */
    uint64_t bytes;         /* that follow the frame */
    char what[48];
} Frame;

/* "all-reduce \"gradients\"" */
enum { CALL_TEXT = 96, PEER_TEXT = 160, HOST_TEXT = 64 };
const char *call_text(char out[CALL_TEXT], const Frame *call);

enum { FRAME_MOST = 1 << 28 }; /* bytes that may follow a frame */

typedef struct {
    char magic[8];
    char token[HASH_TEXT + 7]; /* of the job: a stranger does not know it */
    char version[32];
    char host[HOST_TEXT];
    int32_t pid, rank, world;
    int32_t reserved;
} Hello;
Hello hello_of(const char *token, int rank, int world);
bool hello_fits(const Hello *h, const char *token);        /* magic and token; texts end within it */
/* "rank 3 on host n2 (process 77)" */
const char *peer_text(char out[PEER_TEXT], const Hello *h);

typedef struct { char *at; size_t begin, end, cap; } Bytes; /* heap; what is between begin and end waits */
typedef struct { int fd; Bytes in, out; } Wire;             /* fd -1: closed */

void wire_close(Wire *w);
bool wire_read(Wire *w);                                    /* what has come; false: the other end is gone */
bool wire_flush(Wire *w);                                   /* what can go; false: the other end is gone */
void wire_put_hello(Wire *w, const Hello *h);
void wire_put(Wire *w, const Frame *f, const void *data);   /* f->bytes of data, copied */
/* 1: taken, 0: not whole yet, -1: no such thing. data is valid until the next wire_read(). */
int  wire_take_hello(Wire *w, Hello *h);
int  wire_take(Wire *w, Frame *f, const char **data);

/* port 0: any, and *port is the one. ERR_USAGE where it is taken. */
Status wire_listen(int *fd, int *port);
int    wire_dial(const char *host, int port, double seconds); /* -1 and errno where it fails */
/* True in the first process of this host that asks: the one that speaks for all where rank 0 cannot. */
bool   wire_first_here(const char *token);
Status wire_thread(pthread_t *t, void *(*run)(void *), void *arg); /* one that takes no signals */
double wire_now(void);                                      /* seconds of the monotonic clock */
/* Seconds that this process has not stood still (stopped and continued with its job, as batch systems do),
 * asked for at least twice a second by one thread; begins as {0}. */
typedef struct { double seen, own; } Clock;
double wire_clock(Clock *c);
#endif
