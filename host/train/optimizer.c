/* optimizer.c - sweeps over the ranges of trainable parameters, or a rank's shards of them. */
#include "train/optimizer.h"
#include <math.h>
#include <stdlib.h>

typedef struct {
    size_t first, count;
} Range;

/* The next run of trainable parameters from *at on; padding between them holds zeros and is swept
 * too. */
static bool next_range(const ParamStore *s, int *at, Range *r)
{
    int i = *at;
    while (i < s->n && (s->param[i].state || !s->param[i].trainable)) i++;
    if (i == s->n) return false;
    int j = i;
    while (j + 1 < s->n && !s->param[j + 1].state && s->param[j + 1].trainable) j++;
    *r = (Range){s->param[i].offset, s->param[j].offset + s->param[j].count - s->param[i].offset};
    *at = j + 1;
    return true;
}

/* The spans, store by store. */
static Status open_sum(Optimizer *o, const ReduceSettings *shared)
{
    Span *span = NULL;
    Range r;
    int n = 0;
    for (int k = 0; k < o->n_store; k++)
        for (int at = 0; next_range(o->store[k], &at, &r); n++) {
            span = realloc(span, (size_t)(n + 1) * sizeof *span);
            o->span = realloc(o->span, (size_t)(n + 1) * sizeof *o->span);
            CHECK(span && o->span);
            span[n] = (Span){o->store[k]->grad + r.first, r.count};
            o->span[n] = (Piece){k, r.first, r.count, r.first};
        }
    Status s = reduction_new(&o->sum, o->store[0]->device, shared, "gradients", span, n);
    free(span);
    return s;
}

static void open_pieces(Optimizer *o)
{
    bool sharded = o->sum.set.sharded;
    o->n_piece = sharded ? o->sum.n_bucket : o->sum.n_span;
    o->piece = calloc((size_t)o->n_piece + 1, sizeof *o->piece);
    CHECK(o->piece);
    for (int i = 0; i < o->n_piece; i++) {
        const Bucket *b = &o->sum.bucket[i];
        Piece *p = &o->piece[i];
        *p = o->span[sharded ? b->span : i];
        if (!sharded) continue;
        p->at += b->first + b->shard * (size_t)o->sum.rank;
        p->count = reduction_own(&o->sum, b);
        p->state = o->n_state[p->store];
        o->n_state[p->store] += b->shard;
    }
    for (int k = 0; k < o->n_store && !sharded; k++) o->n_state[k] = o->store[k]->count;
}

static Status block(Optimizer *o, int k, float **p, const char *what)
{
    return device_alloc(o->store[k]->device, (void **)p, o->n_state[k] * sizeof **p, what);
}

/* The averages begin as the weights. */
static Status open_averages(Optimizer *o, int k)
{
    const ParamStore *s = o->store[k];
    TRY(block(o, k, &o->ema[k], "averaged weights"));
    if (!o->sum.set.sharded)
        return device_copy(s->device, o->ema[k], s->value, s->count * sizeof(float));
    for (int i = 0; i < o->n_piece; i++) {
        Piece p = o->piece[i];
        if (p.store == k)
            TRY(device_copy(s->device, o->ema[k] + p.state, s->value + p.at,
                            p.count * sizeof(float)));
    }
    return OK;
}

static size_t squares_of(const Span *s) { return (s->count + SQUARES - 1) / SQUARES; }

static Status open_squares(Optimizer *o)
{
    if (!o->sum.set.sharded) return OK;
    for (int i = 0; i < o->sum.n_span; i++) o->n_square += squares_of(&o->sum.span[i]);
    return device_alloc(o->sum.device, (void **)&o->square,
                        o->n_square * (size_t)o->sum.ranks * sizeof *o->square,
                        "the gradient's norm");
}

Status optimizer_new(Optimizer *o, OptimizerSettings settings, ParamStore *const *store,
                     int n_store, const ReduceSettings *shared)
{
    *o = (Optimizer){.settings = settings, .n_store = n_store};
    Status s = OK;
    for (int k = 0; k < n_store; k++) {
        CHECK(store[k]->value && store[k]->grad);
        o->store[k] = store[k];
    }
    TRY_OR(done, s, update_new(&o->update, store[0]->device));
    TRY_OR(done, s, open_sum(o, shared));
    open_pieces(o);
    TRY_OR(done, s, open_squares(o));
    for (int k = 0; k < n_store; k++) {
        TRY_OR(done, s, block(o, k, &o->m[k], "optimizer state"));
        if (settings.adamw) TRY_OR(done, s, block(o, k, &o->v[k], "optimizer state"));
        if (settings.ema_decay > 0) TRY_OR(done, s, open_averages(o, k));
    }
done:
    if (s) optimizer_free(o);
    return s;
}

void optimizer_free(Optimizer *o)
{
    if (o->n_store) update_free(&o->update, o->store[0]->device);
    if (o->n_store) device_release(o->store[0]->device, o->square);
    for (int k = 0; k < o->n_store; k++) {
        Device *d = o->store[k]->device;
        device_release(d, o->m[k]);
        device_release(d, o->v[k]);
        device_release(d, o->ema[k]);
    }
    reduction_free(&o->sum);
    free(o->span);
    free(o->piece);
    *o = (Optimizer){0};
}

/* Sums of squares of this rank's shards among zeros, then everyone's. */
static Status gather_squares(Optimizer *o)
{
    double *own = o->square + o->n_square * (size_t)o->sum.rank;
    size_t at = 0;
    for (int i = 0, b = 0; i < o->sum.n_span; at += squares_of(&o->sum.span[i++]))
        for (; b < o->sum.n_bucket && o->sum.bucket[b].span == i; b++) {
            Piece p = o->piece[b];
            size_t first = o->sum.bucket[b].first + o->sum.bucket[b].shard * (size_t)o->sum.rank;
            if (p.count)
                TRY(sweep_squares(o->sum.device, own + at + first / SQUARES,
                                  o->store[p.store]->grad + p.at, p.count));
        }
    return comm_all_gather(o->sum.set.comm, "the gradient's norm", o->square, own,
                           o->n_square * sizeof *own);
}

static Status gradient_norm(Optimizer *o)
{
    Device *d = o->sum.device;
    bool sharded = o->sum.set.sharded;
    size_t at = 0;
    if (sharded) TRY(gather_squares(o));
    for (int i = 0; i < o->sum.n_span; i++) {
        const Span *x = &o->sum.span[i];
        size_t n = squares_of(x);
        if (sharded)
            TRY(sweep_sum_squares(d, &o->update, i > 0, o->square + at, (int)n, o->sum.ranks,
                                  o->n_square));
        else TRY(sweep_sq_norm(d, &o->update, i > 0, x->data, x->count));
        at += n;
    }
    return sweep_norm(d, &o->update);
}

static Status update(const Optimizer *o, Piece p)
{
    ParamStore *s = o->store[p.store];
    float *value = s->value + p.at, *grad = s->grad + p.at, *m = o->m[p.store] + p.state;
    float *ema = o->ema[p.store] ? o->ema[p.store] + p.state : NULL;
    void *half = s->half ? (char *)s->half + p.at * dtype_bytes(DTYPE_BF16) : NULL;
    if (o->settings.adamw)
        return sweep_adamw(s->device, &o->update, value, grad, m, o->v[p.store] + p.state, ema,
                           half, p.count);
    return sweep_sgd(s->device, &o->update, value, grad, m, ema, half, p.count);
}

/* Everyone's shards of the parameters. */
static Status gather_values(Optimizer *o)
{
    for (int b = 0; b < o->sum.n_bucket; b++) {
        const Bucket *bucket = &o->sum.bucket[b];
        ParamStore *s = o->store[o->piece[b].store];
        size_t before = bucket->shard * (size_t)o->sum.rank;
        float *first = s->value + o->piece[b].at - before;
        TRY(reduction_gather(&o->sum, bucket, first, first + before));
    }
    for (int k = 0; k < o->n_store; k++) TRY(params_refresh(o->store[k]));
    return OK;
}

Status optimizer_begin(Optimizer *o, double rate)
{
    const OptimizerSettings *p = &o->settings;
    Update *u = &o->update;
    o->step++;
    u->adamw = (Adamw){.rate = rate,
                       .beta1 = p->beta1,
                       .beta2 = p->beta2,
                       .eps = p->epsilon,
                       .weight_decay = p->weight_decay,
                       .ema_decay = p->ema_decay > 0 ? ema_decay_at(p->ema_decay, o->step) : 0,
                       .step = o->step};
    u->sgd = (Sgd){.rate = rate, .momentum = p->momentum, .weight_decay = p->weight_decay};
    u->share = 1.0 / o->sum.set.n_micro;
    u->clip = p->clip_norm;
    return sweep_begin(o->sum.device, u);
}

Status optimizer_update(Optimizer *o)
{
    TRY(gradient_norm(o));
    for (int i = 0; i < o->n_piece; i++)
        if (o->piece[i].count) TRY(update(o, o->piece[i]));
    return o->sum.set.sharded ? gather_values(o) : OK;
}

Status optimizer_norm(const Optimizer *o, double *norm)
{
    return sweep_read_norm(o->sum.device, &o->update, norm);
}

/* ---- whole blocks of what is sharded ------------------------------------------------------------- */

Status optimizer_visit(Optimizer *o, int k, const float *state, const float *rest, StatePart *part,
                       void *to)
{
    size_t at = 0, count = o->store[k]->count;
    if (!o->sum.set.sharded) return part(to, state, count);
    for (int b = 0; b < o->sum.n_bucket; b++) {
        const Bucket *bucket = &o->sum.bucket[b];
        const float *whole;
        if (o->piece[b].store != k) continue;
        size_t first = o->piece[b].at - bucket->shard * (size_t)o->sum.rank;
        if (first > at) TRY(part(to, rest ? rest + at : NULL, first - at));
        TRY(reduction_gathered(&o->sum, bucket, &whole, state + o->piece[b].state));
        TRY(part(to, whole, bucket->count));
        at = first + bucket->count;
    }
    if (at < count) TRY(part(to, rest ? rest + at : NULL, count - at));
    return device_sync(o->sum.device); /* others have this rank's parts when it leaves */
}

typedef struct {
    Device *device;
    float *host;
} HostCopy;

static Status to_host(void *to, const float *part, size_t count)
{
    HostCopy *c = to;
    if (!c->host) return OK;
    TRY(device_read(c->device, c->host, part, count * sizeof *part));
    c->host += count;
    return OK;
}

Status optimizer_averages(Optimizer *o, int k, float *host)
{
    const ParamStore *s = o->store[k];
    HostCopy copy = {o->sum.device, host};
    TRY(optimizer_visit(o, k, o->ema[k], s->value, to_host, &copy));
    if (!host) return OK; /* running averages are averages already */
    return device_read(o->sum.device, host + s->count_param, s->value + s->count_param,
                       (s->count - s->count_param) * sizeof *host);
}

double ema_decay_at(double decay, long step)
{
    double s = step > 1 ? (double)(step - 1) : 0;
    return s <= 0 ? 0 : fmin(decay, (1 + s) / (10 + s));
}

double lr_at(LrShape shape, double rate, double floor, long step, long steps, long warmup)
{
    if (step <= warmup) return rate * (double)step / (double)(warmup + 1);
    double done =
        steps > warmup ? fmin(1, (double)(step - warmup - 1) / (double)(steps - warmup)) : 1;
    double left = shape == LR_CONSTANT ? 1
                  : shape == LR_LINEAR ? 1 - done
                                       : .5 * (1 + cos(M_PI * done));
    return floor + (rate - floor) * left;
}
