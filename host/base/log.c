/* log.c - lines, progress and JSON records. */
#include "base/log.h"
#include "base/text.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TEXT = 2048 };
struct Log {
    pthread_mutex_t lock;
    bool quiet, mute, terminal, open_line;
    FILE *json;              /* owned; NULL until log_file */
    char what[128];          /* of the progress line being shown */
    double began_s, shown_s, began_done;
};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

Log *log_new(bool quiet)
{
    Log *l = calloc(1, sizeof *l);
    CHECK(l);
    pthread_mutex_init(&l->lock, NULL);
    l->quiet = quiet;
    l->terminal = isatty(STDERR_FILENO);
    return l;
}

void log_free(Log *l)
{
    if (!l) return;
    log_progress_end(l);
    if (l->json) fclose(l->json);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* s as the inside of a JSON string. */
static void json_escape(char *out, size_t room, const char *s)
{
    size_t n = 0;
    for (; *s && n + 7 < room; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            out[n++] = '\\';
            out[n++] = (char)c;
        } else if (c < 0x20) {
            n += (size_t)snprintf(out + n, room - n, "\\u%04x", c);
        } else {
            out[n++] = (char)c;
        }
    }
    out[n] = 0;
}

static void record(Log *l, const char *event, const char *fields)
{
    if (!l->json || l->mute) return;
    struct timespec t;
    struct tm utc;
    char stamp[32];
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &utc);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
    fprintf(l->json, "{\"time\":\"%s\",\"event\":\"%s\"%s%s}\n", stamp, event, *fields ? "," : "",
            fields);
    fflush(l->json);
}

bool log_mute(Log *l, bool mute)
{
    pthread_mutex_lock(&l->lock);
    bool was = l->mute;
    l->mute = mute;
    pthread_mutex_unlock(&l->lock);
    return was;
}

void log_file(Log *l, const char *path)
{
    pthread_mutex_lock(&l->lock);
    if (l->json) fclose(l->json);
    l->json = fopen(path, "a");
    pthread_mutex_unlock(&l->lock);
    if (!l->json) log_warn(l, "%s: cannot be written, going on without it", path);
}

/* A line in one write, as ranks share a stderr and their lines must not mix. On a terminal what clears
 * the progress line goes before it. */
static void __attribute__((format(printf, 2, 3))) put(Log *l, const char *fmt, ...)
{
    char text[2 * TEXT + 64]; /* a failure may be that there is no memory */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (l->open_line && l->terminal) fputs("\r\033[K", stderr);
    l->open_line = false;
    fputs(text, stderr);
    fflush(stderr);
}

/* The record has text as it is, the terminal what cannot steer it; text is changed. */
static void say(Log *l, const char *level, char *text)
{
    char safe[TEXT], fields[TEXT + 32];
    json_escape(safe, sizeof safe, text);
    text_tame(text);
    pthread_mutex_lock(&l->lock);
    bool warn = level[0] == 'w';
    if (!l->mute && (warn || !l->quiet)) put(l, "%s%s\n", warn ? "warning: " : "", text);
    snprintf(fields, sizeof fields, "\"text\":\"%s\"", safe);
    record(l, level, fields);
    pthread_mutex_unlock(&l->lock);
}

#define FORMAT(buffer, fmt)                                                                        \
    do {                                                                                           \
        va_list ap;                                                                                \
        va_start(ap, fmt);                                                                         \
        vsnprintf(buffer, sizeof buffer, fmt, ap);                                                 \
        va_end(ap);                                                                                \
    } while (0)

void log_info(Log *l, const char *fmt, ...)
{
    char text[TEXT];
    FORMAT(text, fmt);
    say(l, "info", text);
}

void log_warn(Log *l, const char *fmt, ...)
{
    char text[TEXT];
    FORMAT(text, fmt);
    say(l, "warning", text);
}

void log_record(Log *l, const char *event, const char *fields, ...)
{
    char text[TEXT];
    FORMAT(text, fields);
    pthread_mutex_lock(&l->lock);
    record(l, event, text);
    pthread_mutex_unlock(&l->lock);
}

void log_failure(Log *l, const char *message, const char *trace)
{
    char safe[TEXT], safe_trace[TEXT], fields[2 * TEXT + 64];
    const char *wanted = getenv("EQ_TRACE");
    pthread_mutex_lock(&l->lock);
    if (!l->mute) put(l, "equipoise: %s\n%s", message, wanted && !strcmp(wanted, "1") ? trace : "");
    json_escape(safe, sizeof safe, message);
    json_escape(safe_trace, sizeof safe_trace, trace);
    snprintf(fields, sizeof fields, "\"text\":\"%s\",\"trace\":\"%s\"", safe, safe_trace);
    record(l, "failure", fields);
    pthread_mutex_unlock(&l->lock);
}

static void time_left(char *out, size_t room, double s)
{
    if (s < 0 || s > 360000) snprintf(out, room, "?");
    else if (s < 60) snprintf(out, room, "%.0f s", s);
    else snprintf(out, room, "%d min %02d s", (int)(s / 60), (int)s % 60);
}

void log_progress(Log *l, const char *what, double done, double total, const char *note)
{
    pthread_mutex_lock(&l->lock);
    double t = now_s();
    if (strncmp(l->what, what, sizeof l->what - 1)) {
        snprintf(l->what, sizeof l->what, "%s", what);
        l->began_s = t;
        l->began_done = done;
        l->shown_s = 0;
    }
    if (!l->quiet && !l->mute && t - l->shown_s >= (l->terminal ? 0.2 : 10.0)) {
        char left[32], pace[80] = "", shown[TEXT];
        snprintf(shown, sizeof shown, "%s", what);
        text_tame(shown);
        double rate = t > l->began_s ? (done - l->began_done) / (t - l->began_s) : 0;
        time_left(left, sizeof left, rate > 0 ? (total - done) / rate : -1);
        if (rate > 0) snprintf(pace, sizeof pace, "  %.1f/s  %s left", rate, left);
        put(l, "%s%s %.0f/%.0f%s%s%s%s", l->terminal ? "" : "  ", shown, done, total, pace,
            note ? "  " : "", note ? note : "", l->terminal ? "" : "\n");
        l->shown_s = t;
        l->open_line = l->terminal;
    }
    pthread_mutex_unlock(&l->lock);
}

void log_progress_end(Log *l)
{
    pthread_mutex_lock(&l->lock);
    if (l->open_line) fputc('\n', stderr);
    l->open_line = false;
    l->what[0] = 0;
    pthread_mutex_unlock(&l->lock);
}
