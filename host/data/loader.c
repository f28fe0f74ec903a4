/* loader.c - a ring of batches: threads fill them by ticket, the caller empties them in order.
 *
 * Ticket t is the loader's own batch t % n_own of epoch t / n_own and lives in slot t % n_slot. A thread takes
 * the next ticket when its slot has been given back. The cache is one pointer per item, set
 * once by whoever decoded it first.
 */
#include "data/loader.h"
#include "data/image.h"
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    bool bytes;
    unsigned char data[];
} Cached; /* [size, size] bytes or floats */

typedef struct {
    float *pixel;      /* owned: [batch, size, size] */
    int *label, *item; /* owned: [batch] */
    int n;
    uint64_t ticket;
    bool ready;
    Failure failure;
} Slot;

struct Loader {
    LoaderSettings set;
    LoaderItem *item; /* owned: [n] */
    int n, n_own, n_slot, n_started; /* n_own: batches of an epoch that are this loader's */
    _Atomic(Cached *) *cached; /* owned: [n] */
    atomic_size_t cache_used;
    Slot *slot;                /* owned: [n_slot] */
    uint64_t next, taken, end; /* ticket to fill, ticket to hand out, first one beyond */
    bool handed_out;           /* the caller holds the slot of ticket taken - 1 */
    bool closing;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t *thread; /* owned: [n_threads] */
};

/* ---- one film ------------------------------------------------------------------------- */

static Cached *decode_item(Loader *l, const LoaderItem *item, Status *s)
{
    size_t n = (size_t)l->set.size * (size_t)l->set.size;
    Image im = {0}, fitted = {0};
    Cached *c = NULL;
    TRY_OR(done, *s, image_read(&im, item->path));
    bool exact = im.h == l->set.size && im.w == l->set.size && im.bits <= 8 && im.channels == 1;
    if (!exact) TRY_OR(done, *s, image_fit(&fitted, &im, l->set.size));
    const float *pixel = exact ? im.pixel : fitted.pixel;
    c = malloc(sizeof *c + n * (exact ? 1 : sizeof(float)));
    if (!c) {
        *s = FAIL(ERR_SPACE, "%s: no memory to keep the film", item->path);
        goto done;
    }
    c->bytes = exact;
    if (exact)
        for (size_t i = 0; i < n; i++) c->data[i] = (unsigned char)lrintf(255 * pixel[i]);
    else memcpy(c->data, pixel, n * sizeof(float));
done:
    image_free(&im);
    image_free(&fitted);
    return c;
}

static void unpack(float *out, const Cached *c, size_t n)
{
    if (!c->bytes) memcpy(out, c->data, n * sizeof *out);
    else
        for (size_t i = 0; i < n; i++) out[i] = (float)c->data[i] / 255.0f;
}

/* Keeps it if there is room; the reader that comes second throws its own away. */
static void keep_or_free(Loader *l, int i, Cached *c, size_t n)
{
    size_t bytes = sizeof *c + n * (c->bytes ? 1 : sizeof(float));
    Cached *none = NULL;
    bool room = atomic_fetch_add(&l->cache_used, bytes) + bytes <= l->set.cache_bytes;
    if (room && atomic_compare_exchange_strong(&l->cached[i], &none, c)) return;
    atomic_fetch_sub(&l->cache_used, bytes);
    free(c);
}

static Status load_item(Loader *l, float *out, int i)
{
    size_t n = (size_t)l->set.size * (size_t)l->set.size;
    const LoaderItem *item = &l->item[i];
    if (item->pixel) {
        memcpy(out, item->pixel, n * sizeof *out);
        return OK;
    }
    const Cached *there = atomic_load(&l->cached[i]);
    if (there) {
        unpack(out, there, n);
        return OK;
    }
    Status s = OK;
    Cached *c = decode_item(l, item, &s);
    if (s) return s;
    unpack(out, c, n);
    keep_or_free(l, i, c, n);
    return OK;
}

/* ---- one batch ------------------------------------------------------------------------ */

static bool augments(const Augment *a)
{
    return a->rotate_degrees > 0 || a->shift > 0 || a->scale > 0 || a->brightness > 0 ||
           a->contrast > 0 || a->flip;
}

/* Where batch k of an epoch's own stands among all of them. */
static int batch_of(const Loader *l, int k)
{
    const LoaderSettings *s = &l->set;
    return k / s->each * s->group + s->from + k % s->each;
}

static int batch_of_ticket(const Loader *l, uint64_t ticket)
{
    return batch_of(l, (int)(ticket % (uint64_t)l->n_own));
}

static Status fill(Loader *l, Slot *slot, float *scratch)
{
    size_t n = (size_t)l->set.size * (size_t)l->set.size;
    uint32_t epoch = (uint32_t)(slot->ticket / (uint64_t)l->n_own);
    int first = batch_of_ticket(l, slot->ticket) * l->set.batch;
    bool augment = augments(&l->set.augment);
    slot->n = l->n - first < l->set.batch ? l->n - first : l->set.batch;
    for (int b = 0; b < l->set.batch; b++) {
        float *out = slot->pixel + (size_t)b * n;
        if (b >= slot->n) {
            memset(out, 0, n * sizeof *out);
            slot->label[b] = slot->item[b] = -1;
            continue;
        }
        RandomKey order = {l->set.seed, STREAM_SHUFFLE, epoch, 0};
        int i = l->set.shuffle ? (int)random_permute(order, (uint32_t)(first + b), (uint32_t)l->n)
                               : first + b;
        RandomKey key = {l->set.seed, STREAM_AUGMENT, epoch, l->item[i].id};
        TRY(load_item(l, augment ? scratch : out, i));
        if (augment) augment_apply(out, scratch, l->set.size, &l->set.augment, key);
        slot->label[b] = l->item[i].label;
        slot->item[b] = i;
    }
    return OK;
}

/* The slot that the caller still reads is not free. */
static bool may_fill(const Loader *l)
{
    uint64_t held = l->taken - (l->handed_out ? 1 : 0);
    return l->next < l->end && l->next < held + (uint64_t)l->n_slot;
}

static void *work(void *arg)
{
    Loader *l = arg;
    float *scratch = malloc((size_t)l->set.size * (size_t)l->set.size * sizeof *scratch);
    CHECK(scratch);
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->closing && !may_fill(l)) pthread_cond_wait(&l->changed, &l->lock);
        if (l->closing) break;
        Slot *slot = &l->slot[l->next % (uint64_t)l->n_slot];
        slot->ticket = l->next++;
        pthread_mutex_unlock(&l->lock);
        status_keep(&slot->failure, fill(l, slot, scratch));
        pthread_mutex_lock(&l->lock);
        slot->ready = true;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    free(scratch);
    return NULL;
}

/* ---- the caller's side ---------------------------------------------------------------- */

Status loader_next(Loader *l, Batch *b)
{
    *b = (Batch){0};
    pthread_mutex_lock(&l->lock);
    if (l->handed_out) {
        l->slot[(l->taken - 1) % (uint64_t)l->n_slot].ready = false;
        l->handed_out = false;
        pthread_cond_broadcast(&l->changed);
    }
    if (l->taken == l->end) {
        pthread_mutex_unlock(&l->lock);
        return OK;
    }
    Slot *slot = &l->slot[l->taken % (uint64_t)l->n_slot];
    while (!slot->ready) pthread_cond_wait(&l->changed, &l->lock);
    l->taken++;
    l->handed_out = true;
    pthread_mutex_unlock(&l->lock);
    TRY(status_restore(&slot->failure));
    *b = (Batch){.pixel = slot->pixel,
                 .label = slot->label,
                 .item = slot->item,
                 .n = slot->n,
                 .epoch = (uint32_t)(slot->ticket / (uint64_t)l->n_own),
                 .index = batch_of_ticket(l, slot->ticket)};
    return OK;
}

void loader_close(Loader *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->closing = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_started; i++) pthread_join(l->thread[i], NULL);
    for (int i = 0; i < l->n; i++) free(atomic_load(&l->cached[i]));
    for (int i = 0; i < l->n_slot; i++) {
        free(l->slot[i].pixel);
        free(l->slot[i].label);
        free(l->slot[i].item);
    }
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
    free(l->slot);
    free((void *)l->cached);
    free(l->item);
    free(l->thread);
    free(l);
}

static Status slots_alloc(Loader *l)
{
    size_t n = (size_t)l->set.batch, pixels = n * (size_t)l->set.size * (size_t)l->set.size;
    for (int i = 0; i < l->n_slot; i++) {
        Slot *s = &l->slot[i];
        s->pixel = malloc(pixels * sizeof *s->pixel);
        s->label = malloc(n * sizeof *s->label);
        s->item = malloc(n * sizeof *s->item);
        if (!s->pixel || !s->label || !s->item)
            return FAIL(ERR_SPACE, "no memory for %d batches of %d films", l->n_slot, l->set.batch);
    }
    return OK;
}

static int count_own(const Loader *l)
{
    int n_batch = (l->n + l->set.batch - 1) / l->set.batch, n = 0;
    while (batch_of(l, n) < n_batch) n++;
    return n;
}

Status loader_open(Loader **out, const LoaderItem *item, int n, const LoaderSettings *s)
{
    CHECK(n > 0 && s->batch > 0 && s->size > 0 && s->n_threads > 0 && s->first_batch >= 0);
    *out = NULL;
    Loader *l = calloc(1, sizeof *l);
    CHECK(l);
    l->set = *s;
    l->n = n;
    if (!l->set.group) l->set.group = l->set.each = 1;
    CHECK(l->set.each > 0 && l->set.from >= 0 && l->set.from + l->set.each <= l->set.group);
    l->n_own = count_own(l);
    l->n_slot = s->n_threads + 2; /* one with the caller, one ready, one with each thread */
    l->item = malloc((size_t)n * sizeof *l->item);
    l->cached = calloc((size_t)n, sizeof *l->cached);
    l->slot = calloc((size_t)l->n_slot, sizeof *l->slot);
    l->thread = calloc((size_t)s->n_threads, sizeof *l->thread);
    CHECK(l->item && l->cached && l->slot && l->thread && s->first_batch <= l->n_own);
    memcpy(l->item, item, (size_t)n * sizeof *item);
    l->next = l->taken = (uint64_t)s->first_epoch * (uint64_t)l->n_own + (uint64_t)s->first_batch;
    l->end = s->n_epochs ? (uint64_t)s->n_epochs * (uint64_t)l->n_own : UINT64_MAX;
    CHECK(l->n_own || s->n_epochs); /* else there is nothing to wait for */
    if (l->next > l->end) l->next = l->taken = l->end;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    Status status = slots_alloc(l);
    for (int i = 0; i < s->n_threads && !status; i++) {
        if (pthread_create(&l->thread[i], NULL, work, l))
            status = FAIL(ERR_SPACE, "cannot start loader thread %d of %d", i + 1, s->n_threads);
        else l->n_started++;
    }
    if (status) loader_close(l);
    else *out = l;
    return status;
}
