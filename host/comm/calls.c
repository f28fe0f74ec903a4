/* calls.c - groups of ranks and the calls that not all of a group have reached yet, in order. */
#include "comm/calls.h"
#include <stdlib.h>
#include <string.h>

typedef struct Call Call;
struct Call {
    Frame frame; /* as the first rank called it */
    int first, n_here;
    double since;
    bool *here;  /* [n of the group] */
    char **data; /* [n], owned; NULL where none came */
    Call *next;
};

typedef struct {
    uint32_t id;
    int n, n_left;
    int *ranks;     /* [n], owned, of the job */
    uint64_t *made; /* [n], owned, calls that each has reached */
    Call *calls;
} Group;

struct Calls {
    const Hello *peers;
    CallsSend *send;
    void *arg;
    Group *groups; /* owned */
    int n_groups;
    uint32_t next_id;
};

static Group *group_add(Calls *c, int n)
{
    c->groups = realloc(c->groups, (size_t)(c->n_groups + 1) * sizeof *c->groups);
    CHECK(c->groups);
    Group *g = &c->groups[c->n_groups++];
    *g = (Group){.id = c->next_id++, .n = n};
    g->ranks = calloc((size_t)n, sizeof *g->ranks);
    g->made = calloc((size_t)n, sizeof *g->made);
    CHECK(g->ranks && g->made);
    return g;
}

Calls *calls_new(int world, const Hello *peers, CallsSend *send, void *arg)
{
    Calls *c = calloc(1, sizeof *c);
    CHECK(c);
    *c = (Calls){.peers = peers, .send = send, .arg = arg};
    Group *all = group_add(c, world);
    for (int r = 0; r < world; r++) all->ranks[r] = r;
    return c;
}

static void call_free(Call *k, int n)
{
    for (int i = 0; i < n; i++) free(k->data[i]);
    free(k->data);
    free(k->here);
    free(k);
}

static void group_clear(Group *g)
{
    while (g->calls) {
        Call *k = g->calls;
        g->calls = k->next;
        call_free(k, g->n);
    }
    free(g->ranks);
    free(g->made);
}

void calls_free(Calls *c)
{
    if (!c) return;
    for (int i = 0; i < c->n_groups; i++) group_clear(&c->groups[i]);
    free(c->groups);
    free(c);
}

static Group *group_of(const Calls *c, uint32_t id)
{
    for (int i = 0; i < c->n_groups; i++)
        if (c->groups[i].id == id) return &c->groups[i];
    return NULL;
}

/* Place of a rank of the job in a group, -1: none. */
static int place_in(const Group *g, int rank)
{
    for (int i = 0; i < g->n; i++)
        if (g->ranks[i] == rank) return i;
    return -1;
}

void calls_leave(Calls *c, int rank, uint32_t id)
{
    Group *g = group_of(c, id);
    if (!g || id == 0 || place_in(g, rank) < 0 || ++g->n_left < g->n) return;
    group_clear(g);
    *g = c->groups[--c->n_groups];
}

static Call *call_of(Group *g, double now, int first, const Frame *f)
{
    Call **at = &g->calls;
    while (*at && (*at)->frame.seq != f->seq) at = &(*at)->next;
    if (*at) return *at;
    Call *k = calloc(1, sizeof *k);
    CHECK(k);
    *k = (Call){.frame = *f, .first = first, .since = now};
    k->here = calloc((size_t)g->n, sizeof *k->here);
    k->data = calloc((size_t)g->n, sizeof *k->data);
    CHECK(k->here && k->data);
    return *at = k;
}

static bool same(const Frame *a, const Frame *b)
{
    return a->op == b->op && a->root == b->root && a->size == b->size && !strcmp(a->what, b->what);
}

/* The parts of all in the order of ranks, each of frame.size bytes; heap. */
static char *joined(const Group *g, const Call *k)
{
    size_t size = k->frame.size;
    char *all = malloc((size_t)g->n * size + 1);
    CHECK(all);
    for (int i = 0; i < g->n; i++)
        if (size) memcpy(all + (size_t)i * size, k->data[i], size);
    return all;
}

static void answer(Calls *c, const Group *g, const Call *k)
{
    Frame f = k->frame;
    f.kind = FRAME_REPLY;
    f.bytes = f.op == OP_HOST_BROADCAST ? f.size : (size_t)g->n * f.size;
    char *all = f.op == OP_HOST_BROADCAST ? NULL : joined(g, k);
    for (int i = 0; i < g->n; i++) c->send(c->arg, g->ranks[i], &f, all ? all : k->data[f.root]);
    free(all);
}

/* A group for every color; each rank learns its own. */
static void answer_split(Calls *c, uint32_t id, const Call *k)
{
    int n = group_of(c, id)->n;
    int *colors = (int *)(void *)joined(group_of(c, id), k);
    Frame f = k->frame;
    f.kind = FRAME_REPLY;
    f.bytes = (size_t)n * sizeof *colors;
    for (int i = 0; i < n; i++) {
        int size = 0, first = i, at = 0;
        for (int j = n - 1; j >= 0; j--)
            if (colors[j] == colors[i]) first = j, size++;
        if (first != i) continue;
        Group *part = group_add(c, size);
        const Group *g = group_of(c, id); /* adding may have moved it */
        f.group = part->id;
        for (int j = i; j < n; j++)
            if (colors[j] == colors[i]) {
                part->ranks[at++] = g->ranks[j];
                c->send(c->arg, g->ranks[j], &f, colors);
            }
    }
    free(colors);
}

static void differ(const Calls *c, int rank, const Frame *f, int other, const Frame *of, Text *why)
{
    char peer[PEER_TEXT], call[CALL_TEXT];
    text_add(why, "%s calls %s of %llu bytes", peer_text(peer, &c->peers[rank]), call_text(call, f),
             (unsigned long long)f->size);
    if (f->root) text_add(why, " from %d", (int)f->root);
    text_add(why, " where %s calls %s of %llu", peer_text(peer, &c->peers[other]),
             call_text(call, of), (unsigned long long)of->size);
    if (of->root) text_add(why, " from %d", (int)of->root);
}

/* What a program that follows comm.c's rules sends. */
static bool lawful(const Group *g, int i, const Frame *f)
{
    bool carried = f->op > OP_ALL_TO_ALL, from_root = f->op == OP_HOST_BROADCAST;
    if (f->seq != g->made[i] || f->root < 0 || f->root >= g->n) return false;
    if (carried && f->size > FRAME_MOST / (uint64_t)(from_root ? 1 : g->n)) return false;
    if (f->op == OP_SPLIT && f->size != sizeof(int)) return false;
    return f->bytes == (carried && (!from_root || f->root == i) ? f->size : 0);
}

bool calls_enter(Calls *c, double now, int rank, const Frame *f, const char *data, Text *why)
{
    Group *g = group_of(c, f->group);
    int i = g ? place_in(g, rank) : -1;
    if (i < 0 || !lawful(g, i, f)) {
        char call[CALL_TEXT], peer[PEER_TEXT];
        text_add(why, "%s sends a call %s that breaks the rules of the store",
                 peer_text(peer, &c->peers[rank]), call_text(call, f));
        return false;
    }
    Call *k = call_of(g, now, rank, f);
    if (!same(&k->frame, f)) {
        differ(c, rank, f, k->first, &k->frame, why);
        return false;
    }
    g->made[i]++;
    k->here[i] = true;
    if (f->bytes) {
        k->data[i] = malloc(f->bytes);
        CHECK(k->data[i]);
        memcpy(k->data[i], data, f->bytes);
    }
    if (++k->n_here < g->n) return true;
    CHECK(k == g->calls); /* who is in a call has been in all before it */
    if (f->op == OP_SPLIT) answer_split(c, f->group, k);
    else if (f->op > OP_ALL_TO_ALL) answer(c, g, k);
    g = group_of(c, f->group);
    g->calls = k->next;
    call_free(k, g->n);
    return true;
}

/* The oldest call that is waited in, for this rank, or for any where it is -1. */
static const Call *oldest(const Calls *c, int rank, const Group **of)
{
    const Call *found = NULL;
    for (int i = 0; i < c->n_groups; i++) {
        const Group *g = &c->groups[i];
        int at = rank < 0 ? -1 : place_in(g, rank);
        if (rank >= 0 && at < 0) continue;
        for (const Call *k = g->calls; k; k = k->next) {
            if ((at >= 0 && k->here[at]) || (found && found->since <= k->since)) continue;
            found = k;
            *of = g;
        }
    }
    return found;
}

const Frame *calls_waiting(const Calls *c, int rank)
{
    const Group *g;
    const Call *k = oldest(c, rank, &g);
    if (!k) k = oldest(c, -1, &g);
    return k ? &k->frame : NULL;
}

const Frame *calls_late(const Calls *c, double then, int *who, int *n)
{
    const Group *g = NULL;
    const Call *k = oldest(c, -1, &g);
    *n = 0;
    if (!k || k->since > then) return NULL;
    for (int i = 0; i < g->n; i++)
        if (!k->here[i]) who[(*n)++] = g->ranks[i];
    return &k->frame;
}
