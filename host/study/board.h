/* board.h - what one rank of a job wants all its ranks to know: that they stop.
 *
 * Groups of ranks run their stages side by side and exchange nothing; a signal may reach one rank only.
 * So each rank watches FOLDER/stopping, once a fifth of a second, beside its work. Where its process was
 * asked to stop it makes the file; where the file is there, it asks its own process to stop (signal.h).
 * All then save at their next step, and agree on why: a failure is told before a wish to stop. A lone
 * rank needs none.
 */
#ifndef BOARD_H
#define BOARD_H
#include "comm/comm.h"

typedef struct Board Board;

/* By all ranks, in a folder that is this job's alone; removes what an earlier one has left. NULL in *b
 * where there is one rank. */
Status board_open(Board **b, const char *folder, Comm *world);
/* This rank has failed: the others stop. Returns why, with its message. */
Status board_stop(Board *b, Status why);
/* By all ranks. stopped: all have, and the file goes; each rank removes it, as each may be the last to have
 * made it. Accepts NULL, as board_stop() does. */
void board_close(Board *b, bool stopped);
#endif
