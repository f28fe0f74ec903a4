/* link.c - the rank's side of the store. The thread reads; the program and the thread write. */
#include "comm/link.h"
#include "base/signal.h"
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_MS = 100,
    TEXT = 1400,
    STAY_S = 3 /* who says a failure, while others of its host see that one does */
};
static const double beat_s = 0.2, slack_s = 2, grace_s = 2, orphan_s = 20;

struct Link {
    Hello own, store; /* of this rank, of rank 0 */
    double limit_s;
    Log *log;
    pthread_t thread;
    bool started;
    pid_t launcher;      /* that started this rank and stays until it ends; 0: none does */
    double orphan_since; /* 0: it is there; of the thread alone */
    int wake;
    atomic_int failed;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t change;
    Wire wire; /* in: of the thread alone */
    Clock clock;
    double now; /* of the clock, when the thread looked last */
    double heard, beat_at;
    bool complete; /* all ranks have come */
    bool closing;
    bool busy; /* the program is in a call */
    Frame call;
    double busy_since, late_at; /* late_at: told to the store, -1 = not */
    bool answered;
    Frame answer;
    char *data;      /* owned; of the answer */
    char text[TEXT]; /* of the failure */
};

/* ------------------------------------------------------------------ both threads */

/* Locked. */
static void put(Link *l, const Frame *f, const void *data)
{
    wire_put(&l->wire, f, data);
    wire_flush(&l->wire); /* a closed connection is seen by the thread */
    if (l->wire.out.begin < l->wire.out.end && write(l->wake, &(uint64_t){1}, 8) < 0) {}
}

static void until(struct timespec *t, double seconds)
{
    clock_gettime(CLOCK_MONOTONIC, t);
    double s = seconds + 1e-9 * (double)t->tv_nsec;
    t->tv_sec += (time_t)s;
    t->tv_nsec = (long)(1e9 * (s - (double)(time_t)s));
}

/* Also where only rank 0 speaks. */
static void say(Link *l, const char *text, const char *trace)
{
    bool mute = log_mute(l->log, false);
    log_failure(l->log, text, trace);
    log_mute(l->log, mute);
}

static Status failure(const Link *l)
{
    Status s = FAIL(ERR_PEER, "%s", l->text);
    status_mark_said();
    return s;
}

/* ------------------------------------------------------------------ the thread */

/* Unlocked. The first failure counts. Does not return unless the program closes the link. */
static void fail(Link *l, const char *text, bool says)
{
    struct timespec end;
    if (says) say(l, text, "");
    pthread_mutex_lock(&l->lock);
    snprintf(l->text, sizeof l->text, "%s", text);
    atomic_store(&l->failed, 1);
    pthread_cond_broadcast(&l->change);
    pthread_mutex_unlock(&l->lock);
    until(&end, grace_s);
    pthread_mutex_lock(&l->lock);
    while (!l->closing && pthread_cond_timedwait(&l->change, &l->lock, &end) != ETIMEDOUT) {}
    bool closing = l->closing;
    pthread_mutex_unlock(&l->lock);
    if (!closing) _exit(ERR_PEER);
}

/* One rank of this host says it, and stays until the others have seen that it does. */
static void fail_on_host(Link *l, const char *text)
{
    bool says = wire_first_here(l->own.token);
    if (says) say(l, text, "");
    if (says) sleep(STAY_S);
    fail(l, text, false);
}

/* A failure that the store cannot tell: rank 0 is gone or silent. */
static void fail_without_store(Link *l, const char *what)
{
    char text[TEXT], peer[PEER_TEXT], call[CALL_TEXT];
    pthread_mutex_lock(&l->lock);
    snprintf(text, sizeof text, "%s %s%s%s", peer_text(peer, &l->store), what,
             l->busy ? " while ranks wait in " : "", l->busy ? call_text(call, &l->call) : "");
    pthread_mutex_unlock(&l->lock);
    fail_on_host(l, text);
}

/* One frame of the store's; false: the job has failed. */
static bool take(Link *l, const Frame *f, const char *data)
{
    if (f->kind == FRAME_FAILED) {
        char text[TEXT];
        snprintf(text, sizeof text, "%.*s", (int)(f->bytes < TEXT ? f->bytes : TEXT - 1), data);
        for (char *c = text; *c; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?'; /* a line stays one */
        fail(l, text, f->root == l->own.rank);
        return false;
    }
    pthread_mutex_lock(&l->lock);
    if (f->kind == FRAME_WELCOME) l->complete = true;
    if (f->kind == FRAME_REPLY && !l->answered) {
        l->answered = true;
        l->answer = *f;
        l->data = malloc(f->bytes + 1);
        CHECK(l->data);
        memcpy(l->data, data, f->bytes);
    }
    pthread_cond_broadcast(&l->change);
    pthread_mutex_unlock(&l->lock);
    return true;
}

/* False: the job has failed, or the program has closed the link. */
static bool hear(Link *l)
{
    Frame f;
    const char *data;
    int got;
    bool open = wire_read(&l->wire);
    while ((got = wire_take(&l->wire, &f, &data)) > 0) {
        l->heard = l->now;
        if (!take(l, &f, data)) return false;
    }
    pthread_mutex_lock(&l->lock);
    bool closing = l->closing;
    pthread_mutex_unlock(&l->lock);
    if (open && got == 0) return true;
    if (!closing) fail_without_store(l, open ? "sends what is no frame" : "died");
    return false;
}

/* The program's call takes too long. The store knows more about why, so it is asked first. */
static bool in_time(Link *l)
{
    char text[TEXT] = "", call[CALL_TEXT], peer[PEER_TEXT];
    pthread_mutex_lock(&l->lock);
    double now = l->now = wire_clock(&l->clock);
    double since = l->heard > l->busy_since ? l->heard : l->busy_since;
    bool silent = l->busy && now - since > l->limit_s;
    bool late = l->busy && now - l->busy_since > l->limit_s + slack_s;
    if (late)
        snprintf(text, sizeof text, "%s: %s has not ended within %.0f s", peer_text(peer, &l->own),
                 call_text(call, &l->call), l->limit_s);
    if (late && l->late_at < 0) {
        Frame f = {.kind = FRAME_LATE, .bytes = strlen(text) + 1};
        put(l, &f, text);
        l->late_at = now;
        late = false;
    }
    late = late && now - l->late_at > slack_s;
    pthread_mutex_unlock(&l->lock);
    if (silent) fail_without_store(l, "has not been heard of for longer than allowed");
    else if (late) fail_on_host(l, text);
    return !silent && !late;
}

/* mpirun's or srun's process that started this rank has gone, and with it whoever would end the job: the
 * rank is asked to stop, as by a signal, and ended where it does not. */
static bool has_launcher(Link *l)
{
    if (!l->launcher || getppid() == l->launcher) return true;
    if (l->orphan_since == 0) {
        l->orphan_since = wire_now();
        signal_request_stop();
    }
    double most = l->limit_s < orphan_s ? l->limit_s : orphan_s;
    if (wire_now() - l->orphan_since < most) return true;
    fail_on_host(l, "what started the ranks on this host is gone, and they do not stop");
    return false;
}

/* Once the program closes the link: nothing more is sent, and the store closes its side when it has
 * read all; closing ours first could take from it what it has not read. */
static bool finished(Link *l, double *since)
{
    if (*since == 0) *since = wire_now();
    if (l->wire.out.begin == l->wire.out.end) shutdown(l->wire.fd, SHUT_WR);
    return wire_now() - *since > 1;
}

static void *keep(void *arg)
{
    Link *l = arg;
    double closing_at = 0;
    for (bool going = hear(l); going;) { /* what came with the greeting is not polled for */
        pthread_mutex_lock(&l->lock);
        double now = l->now = wire_clock(&l->clock);
        if (!l->closing && now - l->beat_at > beat_s) {
            put(l, &(Frame){.kind = FRAME_BEAT}, NULL);
            l->beat_at = now;
        }
        wire_flush(&l->wire);
        if (l->closing && finished(l, &closing_at)) going = false;
        bool waits = l->wire.out.begin < l->wire.out.end;
        pthread_mutex_unlock(&l->lock);
        struct pollfd p[2] = {{l->wire.fd, (short)(POLLIN | (waits ? POLLOUT : 0)), 0},
                              {l->wake, POLLIN, 0}};
        uint64_t woken;
        if (!going || poll(p, 2, TICK_MS) < 0) continue;
        if (p[1].revents && read(l->wake, &woken, sizeof woken) < 0) {} /* is emptied */
        if (p[0].revents & ~POLLOUT) going = hear(l);
        if (going) going = in_time(l) && has_launcher(l);
    }
    return NULL;
}

/* ------------------------------------------------------------------ the program */

/* True: a store that knows the job answers on fd. */
static bool greet(Link *l, int fd, double until_s)
{
    l->wire = (Wire){.fd = fd};
    wire_put_hello(&l->wire, &l->own);
    for (int got = 0; got == 0;) {
        struct pollfd p = {fd, POLLIN, 0};
        if (!wire_flush(&l->wire)) break;
        if (poll(&p, 1, TICK_MS) > 0 && !wire_read(&l->wire) && l->wire.in.begin == l->wire.in.end)
            break;
        got = wire_take_hello(&l->wire, &l->store);
        if (got > 0 && hello_fits(&l->store, l->own.token)) return true;
        if (got != 0 || wire_now() > until_s) break;
    }
    wire_close(&l->wire);
    return false;
}

static Status dial(Link *l, const Address *a)
{
    double end = wire_now() + l->limit_s, pause = 0.01;
    const char *why = "";
    for (;;) {
        for (int i = 0; i < 8 && a->hosts[i][0]; i++) {
            int fd = wire_dial(a->hosts[i], a->port, 3);
            why = fd < 0 ? strerror(errno) : "another program answers there";
            if (fd >= 0 && greet(l, fd, wire_now() + 3)) return OK;
        }
        if (wire_now() > end) break;
        nanosleep(&(struct timespec){0, (long)(1e9 * pause)}, NULL);
        if (pause < 0.2) pause *= 2;
    }
    Status s = FAIL(ERR_PEER, "rank 0 was not found at %s, port %d, within %.0f s: %s", a->hosts[0],
                    a->port, l->limit_s, why);
    if (wire_first_here(l->own.token)) say(l, status_message(), status_trace_text());
    sleep(STAY_S);
    status_mark_said();
    return s;
}

static Status arrive(Link *l)
{
    Status s;
    TRY(wire_thread(&l->thread, keep, l));
    l->started = true;
    pthread_mutex_lock(&l->lock);
    while (!l->complete && !atomic_load(&l->failed)) pthread_cond_wait(&l->change, &l->lock);
    l->busy = false;
    s = atomic_load(&l->failed) ? failure(l) : OK;
    pthread_mutex_unlock(&l->lock);
    return s;
}

Status link_open(Link **out, const CommPlace *p, const Address *a, int own_fd, int seconds,
                 Log *log)
{
    Link *l = calloc(1, sizeof *l);
    CHECK(l);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->change, &monotonic);
    pthread_condattr_destroy(&monotonic);
    l->own = hello_of(a->token, p->rank, p->world);
    l->store = hello_of(a->token, 0, p->world);
    l->limit_s = seconds;
    if (!strcmp(p->found_by, "mpirun") || !strcmp(p->found_by, "srun")) l->launcher = getppid();
    l->log = log;
    l->wire.fd = -1;
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    Status s =
        l->wake < 0 ? FAIL(ERR_SPACE, "an eventfd could not be made: %s", strerror(errno)) : OK;
    if (!s && own_fd < 0) s = dial(l, a);
    else if (!s && !greet(l, own_fd, wire_now() + l->limit_s))
        s = FAIL(ERR_BUG, "rank 0 does not reach its own store");
    link_begin_untold(
        l, &(Frame){.op = OP_BARRIER, .what = "start"}); /* the first call is to arrive */
    if (!s) s = arrive(l);
    if (s) link_close(l);
    else *out = l;
    return s;
}

void link_close(Link *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    if (l->started && !atomic_load(&l->failed)) put(l, &(Frame){.kind = FRAME_BYE}, NULL);
    l->closing = true;
    pthread_cond_broadcast(&l->change);
    pthread_mutex_unlock(&l->lock);
    if (l->wake >= 0 && write(l->wake, &(uint64_t){1}, 8) < 0) {}
    if (l->started) pthread_join(l->thread, NULL);
    wire_close(&l->wire);
    if (l->wake >= 0) close(l->wake);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->change);
    free(l->data);
    free(l);
}

const char *link_name(const Link *l, char out[PEER_TEXT]) { return peer_text(out, &l->own); }

/* Locked. */
static void set_busy(Link *l, const Frame *call)
{
    l->busy = true;
    l->call = *call;
    l->busy_since = l->now;
    l->late_at = -1;
}

void link_begin(Link *l, Frame *call)
{
    call->kind = FRAME_CALL;
    pthread_mutex_lock(&l->lock);
    set_busy(l, call);
    put(l, call, NULL);
    pthread_mutex_unlock(&l->lock);
}

void link_begin_untold(Link *l, const Frame *call)
{
    pthread_mutex_lock(&l->lock);
    set_busy(l, call);
    pthread_mutex_unlock(&l->lock);
}

void link_end(Link *l)
{
    pthread_mutex_lock(&l->lock);
    l->busy = false;
    pthread_mutex_unlock(&l->lock);
}

Status link_call(Link *l, Frame *call, const void *data, void *to, size_t room)
{
    Status s = OK;
    call->kind = FRAME_CALL;
    pthread_mutex_lock(&l->lock);
    set_busy(l, call);
    put(l, call, data);
    while (!l->answered && !atomic_load(&l->failed)) pthread_cond_wait(&l->change, &l->lock);
    if (!l->answered) {
        s = failure(l);
    } else { /* also if the job has failed since: other ranks have the answer as well */
        CHECK(l->answer.seq == call->seq && l->answer.bytes == room);
        if (room) memcpy(to, l->data, room);
        *call = l->answer;
    }
    l->answered = l->busy = false;
    free(l->data);
    l->data = NULL;
    pthread_mutex_unlock(&l->lock);
    return s;
}

void link_leave(Link *l, uint32_t group)
{
    pthread_mutex_lock(&l->lock);
    put(l, &(Frame){.kind = FRAME_LEAVE, .group = group}, NULL);
    pthread_mutex_unlock(&l->lock);
}

Status link_check(Link *l) { return atomic_load(&l->failed) ? failure(l) : OK; }

/* Until the job has failed, at most a second. */
static bool wait_for_failure(Link *l)
{
    struct timespec end;
    until(&end, 1);
    pthread_mutex_lock(&l->lock);
    while (!atomic_load(&l->failed) &&
           pthread_cond_timedwait(&l->change, &l->lock, &end) != ETIMEDOUT) {}
    pthread_mutex_unlock(&l->lock);
    return atomic_load(&l->failed);
}

Status link_verdict(Link *l, Status s) { return s && wait_for_failure(l) ? failure(l) : s; }

void link_say(Link *l, const char *message, const char *trace)
{
    say(l, message, trace);
    status_mark_said();
}

void link_fail(Link *l, Status why, const char *message, const char *trace)
{
    char text[TEXT], peer[PEER_TEXT];
    bool failed = atomic_load(&l->failed);
    snprintf(text, sizeof text, "%s: %.1000s", link_name(l, peer), message);
    if (!failed || why != ERR_PEER) link_say(l, text, trace);
    status_mark_said();
    if (failed) return;
    Frame f = {.kind = FRAME_FAIL, .bytes = strlen(message) + 1};
    pthread_mutex_lock(&l->lock);
    put(l, &f, message);
    pthread_mutex_unlock(&l->lock);
    wait_for_failure(l);
}
