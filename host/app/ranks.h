/* ranks.h - the frame of commands that several ranks run together: who they are, each one's device,
 * and who speaks.
 *
 *   Ranks r = {0};
 *   Status s = ranks_open(&r, &config, app->log);
 *   if (!s) s = work(&r);
 *   return ranks_close(&r, s);
 *
 * Only rank 0 speaks: elsewhere app->log is mute, so that work may log and show progress as if it
 * were alone. Files are written by rank 0, or by what takes a Comm. Work fails on all ranks together,
 * by comm_agree(), wherever it can; of such a failure only rank 0 tells.
 */
#ifndef RANKS_H
#define RANKS_H
#include "comm/comm.h"
#include "config/config.h"

typedef struct {
    CommPlace place;
    Comm *comm;     /* owned: of all ranks, attached to device; not NULL, also of a lone process */
    Device *device; /* owned */
    Log *log;       /* borrowed */
} Ranks;            /* starts as {0} */

/* The ranks that the environment tells of, as comm_place() finds them. [study] device = auto or cuda
 * gives each rank of a machine a GPU of its own; threads = 0 shares the machine's processors out
 * where nothing has bound the ranks to some. */
Status ranks_open(Ranks *r, const Config *c, Log *log);

/* s: what this rank comes to. A failure that not all ranks agreed on is told by this rank, whichever
 * it is, and ends the others. Returns s, or ERR_PEER where another rank fails before its end. */
Status ranks_close(Ranks *r, Status s);

static inline bool ranks_first(const Ranks *r) { return r->place.rank == 0; }
#endif
