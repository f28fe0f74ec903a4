/* run_folder.h - the folder of a study: what may be in it, its config.ini, its log. */
#ifndef RUN_FOLDER_H
#define RUN_FOLDER_H
#include "base/log.h"
#include "config/config.h"

/* Entries but for leftovers of a start that was killed before config.ini was written; 0 where run is
 * not there. */
Status run_folder_count(int *n, const char *run);

/* Under the folder's lock: writes config.ini, or compares it with `config` (ERR_USAGE, naming what
 * differs). log: lines go to RUN/<log_name> too. */
Status run_folder_open(const Config *config, const char *run, const char *log_name, Log *log);
#endif
