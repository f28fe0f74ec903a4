/* status.c - the text of the last failure, one per thread. */
#include "base/status.h"
#include "base/text.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE = sizeof((Failure *)0)->message, TRACE = sizeof((Failure *)0)->trace };

/* The one exception to "no mutable globals": where errno lives, so does its text. */
static _Thread_local char message[MESSAGE];
static _Thread_local char trace[TRACE];
static _Thread_local bool said;

Status status_trace(Status code, const char *file, int line)
{
    size_t at = strlen(trace);
    snprintf(trace + at, sizeof trace - at, "  at %s:%d\n", file, line);
    return code;
}

/* A message that was too long ends with "..." behind its last whole word, or near the end. */
static void end_at_a_word(void)
{
    size_t last = sizeof message - 5, at = last;
    while (at > last - 100 && message[at] != ' ') at--;
    strcpy(message + (message[at] == ' ' ? at + 1 : last), "...");
}

Status status_fail(Status code, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof message) end_at_a_word();
    text_tame(message);
    trace[0] = 0;
    said = false;
    return status_trace(code, file, line);
}

void status_keep(Failure *f, Status code)
{
    *f = (Failure){.code = code, .said = said};
    memcpy(f->message, message, sizeof message);
    memcpy(f->trace, trace, sizeof trace);
}

Status status_restore(const Failure *f)
{
    if (!f->code) return OK;
    memcpy(message, f->message, sizeof message);
    memcpy(trace, f->trace, sizeof trace);
    said = f->said;
    return f->code;
}

const char *status_message(void) { return message; }
const char *status_trace_text(void) { return trace; }
void status_mark_said(void) { said = true; }
bool status_said(void) { return said; }

void check_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "equipoise: bug at %s:%d: %s does not hold\n", file, line, what);
    abort();
}
