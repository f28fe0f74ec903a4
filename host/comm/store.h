/* store.h - the thread of rank 0 through which ranks meet, and which watches them.
 *
 * It ends the job by a line to all where a rank does not come, dies (its connection closes without a
 * goodbye), is late for a call, calls another thing than others, or says that it fails. After that it only
 * waits to be closed. Connections that do not know the job's token are closed and forgotten.
 */
#ifndef STORE_H
#define STORE_H
#include "comm/wire.h"

typedef struct Store Store;

/* Listens on *port (0: any, and *port is the one). *own_fd: rank 0's connection, its owner the caller. */
Status store_open(Store **s, int world, int seconds, int *port, const char *token, int *own_fd);
/* Waits until all ranks have said goodbye or the job has failed; accepts NULL. */
void   store_close(Store *s);
#endif
