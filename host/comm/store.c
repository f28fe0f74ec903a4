/* store.c - connections of the store, the arrival of ranks, and the reasons to end a job. */
#include "comm/store.h"
#include "comm/calls.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_STRANGERS = 64, TICK_MS = 100 };
static const double beat_s = 0.2, hello_s = 10;

typedef struct {
    Wire wire;
    int rank;     /* -1: has not said who it is */
    double since; /* connected */
} Conn;

typedef struct {
    Conn *conn;      /* NULL: not here */
    bool came, left; /* once; in order */
    double heard;    /* the last time */
    Frame last;      /* call that it reached; kind 0: none */
} Peer;

struct Store {
    int world, n_here, n_left, n_conns, listening, wake;
    double limit_s, now, beat_at; /* now: of the clock, 0 when the store opened */
    Clock clock;
    bool complete, failed;
    char *why; /* it has failed, owned */
    int says;  /* rank that prints why, -1: it has been printed */
    char token[HASH_TEXT];
    Conn *conns;  /* [world + MOST_STRANGERS], owned; fd -1: free */
    Peer *peers;  /* [world], owned */
    Hello *hello; /* [world], owned */
    int *who;     /* [world], owned; scratch */
    Calls *calls;
    pthread_t thread;
    atomic_int closing;
};

static void drop(Store *s, Conn *c)
{
    if (c->rank >= 0) s->peers[c->rank].conn = NULL;
    wire_close(&c->wire);
    c->rank = -1;
}

static void send_to(void *arg, int rank, const Frame *f, const void *data)
{
    Store *s = arg;
    Conn *c = s->peers[rank].conn;
    if (!c) return;
    wire_put(&c->wire, f, data);
    wire_flush(&c->wire); /* the other end gone: seen when it is read */
}

static void tell_failure(Store *s, int rank)
{
    Frame f = {.kind = FRAME_FAILED, .root = s->says, .bytes = strlen(s->why) + 1};
    send_to(s, rank, &f, s->why);
}

/* Ends the job. Rank 0, with which the store ends, is told last. */
static void fail(Store *s, int says, const char *text)
{
    if (s->failed) return;
    s->failed = true;
    s->says = says;
    s->why = strdup(text);
    CHECK(s->why);
    for (int r = s->world - 1; r >= 0; r--) tell_failure(s, r);
}

/* "rank 1 on host a (process 7), rank 2 on ..." of those that are here, else their numbers. */
static void list_ranks(const Store *s, Text *t, const int *who, int n)
{
    enum { MOST = 8 };
    char peer[PEER_TEXT];
    for (int i = 0; i < n && i < MOST; i++) {
        if (i) text_add(t, i == n - 1 ? " and " : ", ");
        if (s->peers[who[i]].conn) text_add(t, "%s", peer_text(peer, &s->hello[who[i]]));
        else text_add(t, "rank %d", who[i]);
    }
    if (n > MOST) text_add(t, " and %d others", n - MOST);
}

static void died(Store *s, int rank)
{
    char peer[PEER_TEXT], call[CALL_TEXT];
    Text t = {0};
    const Frame *waiting = calls_waiting(s->calls, rank);
    text_add(&t, "%s died", peer_text(peer, &s->hello[rank]));
    if (!s->complete) text_add(&t, " before all ranks had come");
    else if (waiting) text_add(&t, " while ranks wait in %s", call_text(call, waiting));
    else if (s->peers[rank].last.kind)
        text_add(&t, "; the last call that it reached is %s",
                 call_text(call, &s->peers[rank].last));
    fail(s, 0, t.s);
    free(t.s);
}

/* Ranks of which nothing is heard, and since when; by number where the line has named them. */
static void add_silent(const Store *s, Text *t, bool named)
{
    char peer[PEER_TEXT];
    for (int r = 0; r < s->world; r++) {
        double quiet = s->now - s->peers[r].heard;
        if (!s->peers[r].conn || quiet < 3 * beat_s || quiet < s->limit_s / 2) continue;
        peer_text(peer, &s->hello[r]);
        if (named) snprintf(peer, sizeof peer, "rank %d", r);
        text_add(t, "; nothing has been heard of %s for %.0f s", peer, quiet);
    }
}

/* A newcomer that is refused hears why. */
static void refuse(Store *s, Conn *c, const char *text)
{
    Frame f = {.kind = FRAME_FAILED, .root = c->rank, .bytes = strlen(text) + 1};
    wire_put(&c->wire, &f, text);
    wire_flush(&c->wire);
    c->rank = -1; /* whose number it took is not touched */
    drop(s, c);
}

static bool fits_job(Store *s, Conn *c, const Hello *h)
{
    char text[2 * PEER_TEXT + 128], peer[PEER_TEXT], other[PEER_TEXT];
    peer_text(peer, h);
    if (h->world != s->world)
        snprintf(text, sizeof text, "%s says that there are %d ranks, rank 0 says %d", peer,
                 (int)h->world, s->world);
    else if (h->rank < 0 || h->rank >= s->world)
        snprintf(text, sizeof text, "%s: expected a rank from 0 to %d", peer, s->world - 1);
    else if (strcmp(h->version, s->hello[0].version))
        snprintf(text, sizeof text, "%s is equipoise %s, rank 0 is %s", peer, h->version,
                 s->hello[0].version);
    else if (s->peers[h->rank].came)
        snprintf(text, sizeof text, "%s: there is one already, %s", peer,
                 peer_text(other, &s->hello[h->rank]));
    else return true;
    if (!s->complete) fail(s, 0, text); /* a job in full swing goes on */
    c->rank = h->rank;
    refuse(s, c, text);
    return false;
}

static void arrive(Store *s, Conn *c)
{
    Hello h;
    int got = wire_take_hello(&c->wire, &h);
    if (got > 0 && !hello_fits(&h, s->token)) got = -1;
    if (got < 0) drop(s, c);
    if (got <= 0) return;
    wire_put_hello(&c->wire, &s->hello[0]);
    if (!fits_job(s, c, &h)) return;
    c->rank = h.rank;
    s->hello[h.rank] = h;
    s->peers[h.rank].conn = c;
    s->peers[h.rank].came = true;
    s->peers[h.rank].heard = s->now;
    wire_flush(&c->wire);
    if (s->failed) tell_failure(s, h.rank); /* before it came */
    if (++s->n_here < s->world || s->failed) return;
    s->complete = true;
    for (int r = 0; r < s->world; r++) send_to(s, r, &(Frame){.kind = FRAME_WELCOME}, NULL);
}

static void add_text_of(Text *t, const Frame *f, const char *data)
{
    text_add(t, "%.*s", (int)(f->bytes < 1000 ? f->bytes : 1000), data);
}

static void take(Store *s, Conn *c, const Frame *f, const char *data)
{
    char peer[PEER_TEXT];
    Text t = {0};
    Peer *p = &s->peers[c->rank];
    switch ((FrameKind)f->kind) {
    case FRAME_CALL:
        p->last = *f;
        if (!calls_enter(s->calls, s->now, c->rank, f, data, &t)) fail(s, 0, t.s);
        break;
    case FRAME_LEAVE:
        calls_leave(s->calls, c->rank, f->group);
        break;
    case FRAME_FAIL:
        text_add(&t, "%s failed: ", peer_text(peer, &s->hello[c->rank]));
        add_text_of(&t, f, data);
        fail(s, -1, t.s);
        break;
    case FRAME_LATE:
        add_text_of(&t, f, data);
        add_silent(s, &t, false);
        fail(s, 0, t.s);
        break;
    case FRAME_BYE:
        s->n_left += !p->left;
        p->left = true;
        break;
    default:
        break; /* beats, and what only the store says */
    }
    free(t.s);
}

static void hear(Store *s, Conn *c)
{
    const char *data;
    Frame f;
    bool open = wire_read(&c->wire);
    if (c->rank < 0) arrive(s, c);
    if (c->wire.fd < 0) return;
    int got = 0;
    while (c->rank >= 0 && (got = wire_take(&c->wire, &f, &data)) > 0) {
        s->peers[c->rank].heard = s->now;
        if (!s->failed) take(s, c, &f, data);
        else if (f.kind == FRAME_BYE) s->peers[c->rank].left = true;
    }
    if (open && got >= 0) return;
    if (c->rank >= 0 && !s->peers[c->rank].left) died(s, c->rank);
    drop(s, c);
}

static void admit(Store *s)
{
    for (;;) {
        int fd = accept4(s->listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), yes = 1, i = 0;
        if (fd < 0) return;
        while (i < s->n_conns && s->conns[i].wire.fd >= 0) i++;
        if (i == s->n_conns) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        s->conns[i] = (Conn){.wire = {.fd = fd}, .rank = -1, .since = s->now};
    }
}

static void check_arrivals(Store *s)
{
    int n = 0;
    Text t = {0};
    if (s->complete || s->now < s->limit_s) return;
    for (int r = 0; r < s->world; r++)
        if (!s->peers[r].conn) s->who[n++] = r;
    text_add(&t, "%d of %d ranks did not come within %.0f s: ", n, s->world, s->limit_s);
    list_ranks(s, &t, s->who, n);
    fail(s, 0, t.s);
    free(t.s);
}

static void check_calls(Store *s)
{
    char call[CALL_TEXT];
    int n;
    Text t = {0};
    const Frame *f = calls_late(s->calls, s->now - s->limit_s, s->who, &n);
    if (!f) return;
    list_ranks(s, &t, s->who, n);
    text_add(&t, " did not reach %s, in which others have waited for %.0f s", call_text(call, f),
             s->limit_s);
    const Frame *last = &s->peers[s->who[0]].last;
    if (n == 1 && last->kind) text_add(&t, "; its last call is %s", call_text(call, last));
    add_silent(s, &t, true);
    fail(s, 0, t.s);
    free(t.s);
}

static void check_time(Store *s)
{
    double now = s->now;
    for (int i = 0; i < s->n_conns; i++)
        if (s->conns[i].wire.fd >= 0 && s->conns[i].rank < 0 && now - s->conns[i].since > hello_s)
            drop(s, &s->conns[i]);
    if (s->failed) return;
    check_arrivals(s);
    check_calls(s);
    if (now - s->beat_at < beat_s) return;
    s->beat_at = now;
    for (int r = 0; r < s->world; r++) send_to(s, r, &(Frame){.kind = FRAME_BEAT}, NULL);
}

/* All have left in order; or have heard that the job fails and have gone, but for those that hang.
 * Going before they have read it could take it from them. */
static bool may_close(Store *s, double since)
{
    int n = 0, open = 0;
    if (s->n_left == s->world) return true;
    for (int r = 1; r < s->world; r++) open += s->peers[r].conn != NULL;
    if (s->failed) return !open || s->now - since > 1;
    if (s->now - since < s->limit_s) return false;
    Text t = {0};
    for (int r = 0; r < s->world; r++)
        if (!s->peers[r].left) s->who[n++] = r;
    list_ranks(s, &t, s->who, n);
    text_add(&t, " did not end within %.0f s after the others", s->limit_s);
    add_silent(s, &t, true);
    fail(s, 0, t.s);
    free(t.s);
    return false;
}

static void wait_for_work(Store *s, struct pollfd *p)
{
    for (int i = 0; i < s->n_conns; i++) {
        const Wire *w = &s->conns[i].wire;
        p[i] = (struct pollfd){w->fd, POLLIN, 0};
        if (w->fd >= 0 && w->out.begin < w->out.end) p[i].events |= POLLOUT;
    }
    p[s->n_conns] = (struct pollfd){s->listening, POLLIN, 0};
    p[s->n_conns + 1] = (struct pollfd){s->wake, POLLIN, 0};
    if (poll(p, (nfds_t)s->n_conns + 2, TICK_MS) <= 0)
        for (int i = 0; i < s->n_conns + 2; i++) p[i].revents = 0;
    s->now = wire_clock(&s->clock);
    uint64_t woken;
    if (p[s->n_conns + 1].revents && read(s->wake, &woken, sizeof woken) < 0) {} /* is emptied */
}

static void *serve(void *arg)
{
    Store *s = arg;
    struct pollfd *p = calloc((size_t)s->n_conns + 2, sizeof *p);
    CHECK(p);
    for (double closing_at = -1;;) {
        wait_for_work(s, p);
        for (int i = 0; i < s->n_conns; i++) {
            if (s->conns[i].wire.fd < 0 || !p[i].revents) continue;
            if (p[i].revents & POLLOUT) wire_flush(&s->conns[i].wire);
            if (p[i].revents & ~POLLOUT) hear(s, &s->conns[i]);
        }
        if (p[s->n_conns].revents) admit(s);
        check_time(s);
        if (!atomic_load(&s->closing)) continue;
        if (closing_at < 0) closing_at = s->now;
        if (may_close(s, closing_at)) break;
    }
    free(p);
    return NULL;
}

static void store_free(Store *s)
{
    for (int i = 0; i < s->n_conns; i++) wire_close(&s->conns[i].wire);
    if (s->listening >= 0) close(s->listening);
    if (s->wake >= 0) close(s->wake);
    calls_free(s->calls);
    free(s->conns);
    free(s->peers);
    free(s->hello);
    free(s->who);
    free(s->why);
    free(s);
}

Status store_open(Store **out, int world, int seconds, int *port, const char *token, int *own_fd)
{
    int pair[2];
    Store *s = calloc(1, sizeof *s);
    CHECK(s);
    *s = (Store){.world = world, .n_conns = world + MOST_STRANGERS, .limit_s = seconds};
    s->listening = s->wake = -1;
    snprintf(s->token, sizeof s->token, "%s", token);
    s->conns = calloc((size_t)s->n_conns, sizeof *s->conns);
    s->peers = calloc((size_t)world, sizeof *s->peers);
    s->hello = calloc((size_t)world, sizeof *s->hello);
    s->who = calloc((size_t)world, sizeof *s->who);
    CHECK(s->conns && s->peers && s->hello && s->who);
    for (int i = 0; i < s->n_conns; i++) s->conns[i] = (Conn){.wire = {.fd = -1}, .rank = -1};
    s->calls = calls_new(world, s->hello, send_to, s);
    s->hello[0] = hello_of(token, 0, world);
    Status st;
    TRY_OR(fail, st, wire_listen(&s->listening, port));
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->wake < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
        st = FAIL(ERR_SPACE, "a socket could not be made: %s", strerror(errno));
        goto fail;
    }
    s->conns[0] = (Conn){
        .wire = {.fd = pair[0]},
        .rank = -1,
    };
    st = wire_thread(&s->thread, serve, s);
    if (!st) {
        *own_fd = pair[1];
        *out = s;
        return OK;
    }
    close(pair[1]);
fail:
    store_free(s);
    return st;
}

void store_close(Store *s)
{
    if (!s) return;
    atomic_store(&s->closing, 1);
    if (write(s->wake, &(uint64_t){1}, sizeof(uint64_t)) < 0) {} /* else it looks within a tick */
    pthread_join(s->thread, NULL);
    store_free(s);
}
