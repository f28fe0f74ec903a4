/* lock.h - one process at a time works in a run folder.
 *
 * DIR/lock is held by flock(), which ends with the process, however it ends; its text (host,
 * process, boot) tells others who holds it. A lock left by a process that is gone is taken over.
 */
#ifndef LOCK_H
#define LOCK_H
#include "base/log.h"

typedef struct {
    int fd;     /* valid while path is set */
    char *path; /* owned */
} RunLock;      /* starts as {0} */

/* Makes dir. ERR_USAGE, naming the holder, where another process holds it, still so after wait_s. */
Status run_lock(RunLock *l, const char *dir, int wait_s, Log *log);
void run_unlock(RunLock *l); /* accepts {0} */

/* For commands that run one stage alone: dir must be new, empty or such a stage's (it then
 * continues). Locks it, removes what a killed process left half-written and starts log.jsonl. */
Status lone_run_open(RunLock *l, const char *dir, Log *log);
#endif
