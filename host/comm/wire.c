/* wire.c - frames and the bytes that wait on either side of a socket. */
#include "comm/wire.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char magic[8] = {'E', 'Q', 'R', 'A', 'N', 'K', 'S', '1'};

double wire_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double wire_clock(Clock *c)
{
    double now = wire_now(), gap = c->seen > 0 ? now - c->seen : 0;
    c->seen = now;
    return c->own += gap < 0.5 ? gap : 0.1;
}

const char *call_text(char out[CALL_TEXT], const Frame *call)
{
    static const char *const words[] = {
#define OP_WORDS(name, text) text,
        COMM_OPS(OP_WORDS)
#undef OP_WORDS
    };
    snprintf(out, CALL_TEXT, "%s \"%.47s\"", call->op < N_OPS ? words[call->op] : "?", call->what);
    return out;
}

Hello hello_of(const char *token, int rank, int world)
{
    Hello h = {.pid = (int32_t)getpid(), .rank = rank, .world = world};
    memcpy(h.magic, magic, sizeof h.magic);
    snprintf(h.token, sizeof h.token, "%s", token);
    snprintf(h.version, sizeof h.version, "%s", EQ_VERSION);
    if (gethostname(h.host, sizeof h.host - 1)) snprintf(h.host, sizeof h.host, "?");
    return h;
}

static bool ends(const char *s, size_t room) { return memchr(s, 0, room) != NULL; }

bool hello_fits(const Hello *h, const char *token)
{
    return !memcmp(h->magic, magic, sizeof h->magic) && ends(h->token, sizeof h->token) &&
           ends(h->version, sizeof h->version) && ends(h->host, sizeof h->host) &&
           !strcmp(h->token, token);
}

const char *peer_text(char out[PEER_TEXT], const Hello *h)
{
    snprintf(out, PEER_TEXT, "rank %d on host %s (process %d)", (int)h->rank, h->host, (int)h->pid);
    return out;
}

/* Room for n more bytes at the end. */
static char *room(Bytes *b, size_t n)
{
    if (b->begin == b->end) b->begin = b->end = 0;
    if (b->end + n > b->cap && b->begin) {
        memmove(b->at, b->at + b->begin, b->end - b->begin);
        b->end -= b->begin;
        b->begin = 0;
    }
    if (b->end + n > b->cap) {
        b->cap = 2 * (b->end + n);
        b->at = realloc(b->at, b->cap);
        CHECK(b->at);
    }
    return b->at + b->end;
}

static void add(Bytes *b, const void *data, size_t n)
{
    if (!n) return;
    memcpy(room(b, n), data, n);
    b->end += n;
}

void wire_close(Wire *w)
{
    if (w->fd >= 0) close(w->fd);
    free(w->in.at);
    free(w->out.at);
    *w = (Wire){.fd = -1};
}

bool wire_read(Wire *w)
{
    enum { PIECE = 1 << 16, MOST_AT_ONCE = 64 };
    for (int i = 0; i < MOST_AT_ONCE; i++) { /* then the caller takes what is whole */
        ssize_t n = recv(w->fd, room(&w->in, PIECE), PIECE, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        if (n == 0) return false;
        w->in.end += (size_t)n;
    }
    return true;
}

bool wire_flush(Wire *w)
{
    while (w->out.begin < w->out.end) {
        ssize_t n = send(w->fd, w->out.at + w->out.begin, w->out.end - w->out.begin,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        w->out.begin += (size_t)n;
    }
    return true;
}

void wire_put_hello(Wire *w, const Hello *h) { add(&w->out, h, sizeof *h); }

void wire_put(Wire *w, const Frame *f, const void *data)
{
    add(&w->out, f, sizeof *f);
    add(&w->out, data, f->bytes);
}

int wire_take_hello(Wire *w, Hello *h)
{
    size_t n = w->in.end - w->in.begin;
    const char *at = w->in.at + w->in.begin;
    if (n && memcmp(at, magic, n < sizeof magic ? n : sizeof magic)) return -1;
    if (n < sizeof *h) return 0;
    memcpy(h, at, sizeof *h);
    w->in.begin += sizeof *h;
    return 1;
}

int wire_take(Wire *w, Frame *f, const char **data)
{
    size_t n = w->in.end - w->in.begin;
    if (n < sizeof *f) return 0;
    memcpy(f, w->in.at + w->in.begin, sizeof *f);
    if (f->kind >= N_FRAMES || f->op >= N_OPS || f->bytes > FRAME_MOST ||
        !ends(f->what, sizeof f->what))
        return -1;
    if (n - sizeof *f < f->bytes) return 0;
    *data = w->in.at + w->in.begin + sizeof *f;
    w->in.begin += sizeof *f + f->bytes;
    return 1;
}

/* A thread that takes no signals: those are the program's. */
Status wire_thread(pthread_t *t, void *(*run)(void *), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int why = pthread_create(t, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return why ? FAIL(ERR_SPACE, "a thread could not be started: %s", strerror(why)) : OK;
}
