/* run_folder.h - the folder of a study: what may be in it, its config.ini, its log. */
#ifndef RUN_FOLDER_H
#define RUN_FOLDER_H
#include "base/log.h"
#include "comm/comm.h"
#include "config/config.h"

/* Entries but for leftovers of a start that was killed before config.ini was written; 0 where run is
 * not there. */
Status run_folder_count(int *n, const char *run);

/* Under the folder's lock: writes config.ini, or compares it with `config` (ERR_USAGE, naming what
 * differs). *there: it stood already. */
Status run_folder_open(bool *there, const Config *config, const char *run);
/* Lines of log go to FOLDER/name too. */
void run_folder_log(const char *folder, const char *name, Log *log);

/* [study] autotune, with a record of this rank in the folder. stage: of a process that runs one
 * stage of it alone, else NULL. Several ranks measure nothing, so that all compute alike: they use
 * what is known. */
Status run_folder_autotune(const char *folder, const char *stage, const Config *c, Device *d,
                           const Comm *ranks, Log *log);
#endif
