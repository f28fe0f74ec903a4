/* status.h - how functions say that the outside world failed them.
 *
 * Three kinds of trouble, three answers:
 *   the caller broke the contract                   -> CHECK: print where, abort. Always there.
 *   the world failed (file, memory, device, config) -> return a Status.
 *   the numbers went wrong (NaN, divergence)        -> a value in a step's report; trainers decide.
 *
 * A failing function describes the failure once, in one line, where the most is known:
 * "file:place: what was found, what was expected". Callers only pass it up. The text and
 * the file:line of every TRY it went through are kept per thread.
 *
 * The codes are the classes of exit code that users see (docs/ARCHITECTURE.md, Commands).
 */
#ifndef STATUS_H
#define STATUS_H
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    OK          = 0,
    ERR_BUG     = 1,  /* a broken invariant of ours                        */
    ERR_USAGE   = 2,  /* command line or config                            */
    ERR_INPUT   = 3,  /* a data file: missing, damaged, of another kind    */
    ERR_DEVICE  = 4,  /* device or driver                                  */
    ERR_SPACE   = 5,  /* out of disk space or memory                       */
    ERR_PEER    = 6,  /* another rank or a collective failed               */
    ERR_NUMERIC = 7,  /* NaN, divergence                                   */
    ERR_STOPPED = 75  /* stopped by a signal after a clean checkpoint      */
} Status;

Status status_fail(Status code, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
Status status_trace(Status code, const char *file, int line);

const char *status_message(void);     /* the one-line text of this thread's last failure      */
const char *status_trace_text(void);  /* "  at file:line\n" for each TRY it passed            */

/* A failure, over what is done between it and its return (cleaning up may fail, too) or in another thread. */
typedef struct {
    Status code;
    bool said;
    char message[1024], trace[1024];
} Failure; /* starts as {0}: none */
void status_keep(Failure *f, Status code);
Status status_restore(const Failure *f); /* its code; OK leaves this thread's last failure alone */

/* The text needs no more saying: another process of the job says it, or this one has. */
void status_mark_said(void);
bool status_said(void);
void check_failed(const char *what, const char *file, int line) __attribute__((noreturn));

#define FAIL(code, ...) status_fail((code), __FILE__, __LINE__, __VA_ARGS__)
#define CHECK(cond)     ((cond) ? (void)0 : check_failed(#cond, __FILE__, __LINE__))

/* Pass a failure up: TRY for functions that own nothing yet, TRY_OR(label, result, call) for
 * those that do. Handles start empty and destroyers accept empty ones, so one label undoes
 * any prefix of the work. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        Status s_ = (call);                                                                        \
        if (s_) return status_trace(s_, __FILE__, __LINE__);                                       \
    } while (0)
#define TRY_OR(label, result, call)                                                                \
    do {                                                                                           \
        (result) = (call);                                                                         \
        if (result) {                                                                              \
            status_trace((result), __FILE__, __LINE__);                                            \
            goto label;                                                                            \
        }                                                                                          \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
