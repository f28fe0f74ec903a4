/* link.h - one rank's connection to the store, with the thread that keeps it: it says that the rank lives,
 * hears the store's answers, and ends the rank when the job fails.
 *
 * When the job fails, calls return ERR_PEER with the line that was said; if link_close() does not come within
 * two seconds, because the program computes or hangs in a library, the thread ends the process with ERR_PEER.
 */
#ifndef LINK_H
#define LINK_H
#include "base/log.h"
#include "comm/address.h"
#include "comm/wire.h"

typedef struct Link Link;

/* own_fd: rank 0's connection to the store that it opened; -1: dials a. Returns when all ranks have come. */
Status link_open(Link **l, const CommPlace *p, const Address *a, int own_fd, int seconds, Log *log);
/* After a goodbye where the job has not failed; accepts NULL. */
void   link_close(Link *l);
const char *link_name(const Link *l, char out[PEER_TEXT]); /* "rank 1 on host a (process 7)" */

/* A call that the store only counts: begin tells it, and sets the time limit until end. call->kind is set.
 * untold: for what comes without a call of its own, like taking leave. */
void   link_begin(Link *l, Frame *call);
void   link_begin_untold(Link *l, const Frame *call);
void   link_end(Link *l);
/* A call that the store answers: to[room] gets the answer, which must be as long; call: the answer's frame. */
Status link_call(Link *l, Frame *call, const void *data, void *to, size_t room);
void   link_leave(Link *l, uint32_t group);

Status link_check(Link *l);                     /* ERR_PEER once the job has failed; cheap */
Status link_verdict(Link *l, Status s);         /* s, or ERR_PEER if the job fails within a second */
void   link_say(Link *l, const char *message, const char *trace);         /* as it is, and marks it as said */
/* Ends the job: says "rank 1 on host a (process 7): message" and tells the store. Where the job has failed
 * already, ERR_PEER is its failure and has been said; anything else is said as well. */
void   link_fail(Link *l, Status why, const char *message, const char *trace);
#endif
