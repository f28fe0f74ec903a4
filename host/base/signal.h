/* signal.h - a wish to stop, from Ctrl-C, kill or a batch system.
 *
 * The first SIGINT, SIGTERM or SIGUSR1 only sets a flag; whoever works asks for it between two
 * steps, saves and returns ERR_STOPPED. A second SIGINT or SIGTERM ends the process at once, as
 * if there were no handler; files are whole or absent even then. SIGUSR1, which batch systems
 * send ahead of the end and sometimes to every process twice, never ends it.
 */
#ifndef SIGNAL_H
#define SIGNAL_H
#include "base/status.h"

/* Once, before threads start. A closed pipe and a file-size limit become errors of write(), and
 * abort() ends with exit code ERR_BUG. */
void signal_install(void);
bool signal_stop_requested(void); /* from any thread */
void signal_request_stop(void);   /* as if a signal had come */
void signal_stop_after(unsigned seconds); /* the same, that much later */
Status signal_check(void);        /* ERR_STOPPED once a stop was requested */
#endif
