/* log.h - what the program tells its user while it works.
 *
 * One Log per run, passed down. Lines go to stderr and, as JSON, to log.jsonl in the run
 * directory once log_file() was called. A failure to write the log never stops the run.
 * Progress: one rewritten line with rate and time left on a terminal, else a plain line at
 * most every ten seconds. Thread-safe.
 */
#ifndef LOG_H
#define LOG_H
#include "base/status.h"

typedef struct Log Log;

Log *log_new(bool quiet);                 /* quiet: warnings only on stderr; never NULL */
void log_free(Log *l);                    /* accepts NULL */
bool log_mute(Log *l, bool mute);         /* says and records nothing at all, failures neither; as it was */
void log_file(Log *l, const char *path);  /* appends JSON lines; a failure is only warned about */

void log_info(Log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_warn(Log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* How the program ends when it fails: "equipoise: message" on stderr, also when quiet, with the
 * trace under it if EQ_TRACE=1; both in log.jsonl. */
void log_failure(Log *l, const char *message, const char *trace);

/* done of total units of `what` ("baseline A: epoch 3", "images"); note may be NULL. */
void log_progress(Log *l, const char *what, double done, double total, const char *note);
void log_progress_end(Log *l);            /* leaves the line standing */

/* One machine-readable record in log.jsonl only: fields is the inside of a JSON object,
 * for example "\"step\":3,\"loss\":0.5". */
void log_record(Log *l, const char *event, const char *fields, ...)
    __attribute__((format(printf, 3, 4)));
#endif
