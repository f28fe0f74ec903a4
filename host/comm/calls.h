/* calls.h - who has come to which call, kept by the store of rank 0: compares what ranks call, answers the
 * calls that it carries, knows who is waited for. Sends through a function of the store's. */
#ifndef CALLS_H
#define CALLS_H
#include "base/text.h"
#include "comm/wire.h"

typedef struct Calls Calls;
typedef void CallsSend(void *arg, int rank, const Frame *f, const void *data);

/* peers: of all ranks, borrowed, for names in texts. Group 0 holds all. */
Calls *calls_new(int world, const Hello *peers, CallsSend *send, void *arg);
void   calls_free(Calls *c);                               /* accepts NULL */

/* A rank has reached a call at the time now; false, with why: it is not the call that others of its group
 * reached. */
bool   calls_enter(Calls *c, double now, int rank, const Frame *f, const char *data, Text *why);
void   calls_leave(Calls *c, int rank, uint32_t group);

/* The call that ranks have waited in longest, for this rank if they wait for it, else for whomever;
 * NULL: none. */
const Frame *calls_waiting(const Calls *c, int rank);
/* Has a call been waited in since before `then`? Then who[] are the n ranks that have not come. */
const Frame *calls_late(const Calls *c, double then, int *who, int *n);
#endif
