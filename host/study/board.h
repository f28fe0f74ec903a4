/* board.h - what one rank of a study wants all its ranks to know: that the run stops.
 *
 * Groups of ranks run their stages side by side and exchange nothing; a signal may reach one rank only.
 * So each rank watches a file of the run folder, once a fifth of a second, beside its work. Where its
 * process was asked to stop it makes the file; where the file is there, it asks its own process to
 * stop (signal.h). All then save at their next step. A lone rank needs none.
 */
#ifndef BOARD_H
#define BOARD_H
#include "comm/comm.h"

typedef struct Board Board;

/* By all ranks; removes what an earlier run has left. NULL in *b where there is one rank. */
Status board_open(Board **b, const char *run, Comm *world);
/* This rank's group has failed: the others stop, and know why. */
void board_fail(Board *b);
bool board_failed(const Board *b); /* some rank has */
/* By all ranks, when all have stopped. Accepts NULL, as the others do. */
void board_close(Board *b, bool first);
#endif
