/* optimizer.c - sweeps over the ranges of trainable parameters. */
#include "train/optimizer.h"
#include <math.h>

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

static Status block(Optimizer *o, int k, float **p, const char *what)
{
    return device_alloc(o->store[k]->device, (void **)p, o->store[k]->count * sizeof **p, what);
}

Status optimizer_new(Optimizer *o, OptimizerSettings settings, ParamStore *const *store,
                     int n_store)
{
    *o = (Optimizer){.settings = settings, .n_store = n_store};
    Status s = OK;
    for (int k = 0; k < n_store; k++) o->store[k] = store[k];
    TRY_OR(done, s, update_new(&o->update, store[0]->device));
    for (int k = 0; k < n_store; k++) {
        CHECK(store[k]->value && store[k]->grad);
        TRY_OR(done, s, block(o, k, &o->m[k], "optimizer state"));
        if (settings.adamw) TRY_OR(done, s, block(o, k, &o->v[k], "optimizer state"));
        if (settings.ema_decay > 0) {
            TRY_OR(done, s, block(o, k, &o->ema[k], "averaged weights"));
            TRY_OR(done, s,
                   device_copy(store[k]->device, o->ema[k], store[k]->value,
                               store[k]->count * sizeof(float)));
        }
    }
done:
    if (s) optimizer_free(o);
    return s;
}

void optimizer_free(Optimizer *o)
{
    if (o->n_store) update_free(&o->update, o->store[0]->device);
    for (int k = 0; k < o->n_store; k++) {
        Device *d = o->store[k]->device;
        device_release(d, o->m[k]);
        device_release(d, o->v[k]);
        device_release(d, o->ema[k]);
        device_release(d, o->sum[k]);
    }
    *o = (Optimizer){0};
}

Status optimizer_accumulate(Optimizer *o)
{
    for (int k = 0; k < o->n_store; k++) {
        ParamStore *s = o->store[k];
        if (!o->sum[k]) TRY(block(o, k, &o->sum[k], "accumulated gradients"));
        TRY(sweep_add(s->device, o->sum[k], s->grad, s->count));
    }
    return OK;
}

static Status take_sum(Optimizer *o)
{
    for (int k = 0; k < o->n_store; k++) {
        ParamStore *s = o->store[k];
        if (!o->sum[k]) continue;
        TRY(sweep_add(s->device, s->grad, o->sum[k], s->count));
        TRY(device_zero(s->device, o->sum[k], s->count * sizeof(float)));
    }
    return OK;
}

static Status gradient_norm(const Optimizer *o)
{
    Device *d = o->store[0]->device;
    bool add = false;
    for (int k = 0; k < o->n_store; k++) {
        Range r;
        for (int at = 0; next_range(o->store[k], &at, &r); add = true)
            TRY(sweep_sq_norm(d, &o->update, add, o->store[k]->grad + r.first, r.count));
    }
    return sweep_norm(d, &o->update);
}

static Status update(const Optimizer *o, int k, Range r)
{
    ParamStore *s = o->store[k];
    float *value = s->value + r.first, *grad = s->grad + r.first, *m = o->m[k] + r.first;
    float *ema = o->ema[k] ? o->ema[k] + r.first : NULL;
    void *half = s->half ? (char *)s->half + r.first * dtype_bytes(DTYPE_BF16) : NULL;
    if (o->settings.adamw)
        return sweep_adamw(s->device, &o->update, value, grad, m, o->v[k] + r.first, ema, half,
                           r.count);
    return sweep_sgd(s->device, &o->update, value, grad, m, ema, half, r.count);
}

Status optimizer_begin(Optimizer *o, double rate, int n_micro)
{
    const OptimizerSettings *p = &o->settings;
    Update *u = &o->update;
    o->step++;
    o->n_micro = n_micro;
    u->adamw = (Adamw){.rate = rate,
                       .beta1 = p->beta1,
                       .beta2 = p->beta2,
                       .eps = p->epsilon,
                       .weight_decay = p->weight_decay,
                       .ema_decay = p->ema_decay > 0 ? ema_decay_at(p->ema_decay, o->step) : 0,
                       .step = o->step};
    u->sgd = (Sgd){.rate = rate, .momentum = p->momentum, .weight_decay = p->weight_decay};
    u->share = 1.0 / n_micro;
    u->clip = p->clip_norm;
    return sweep_begin(o->store[0]->device, u);
}

Status optimizer_update(void *arg)
{
    Optimizer *o = arg;
    if (o->n_micro > 1) TRY(take_sum(o));
    TRY(gradient_norm(o));
    for (int k = 0; k < o->n_store; k++) {
        Range r;
        for (int at = 0; next_range(o->store[k], &at, &r);) TRY(update(o, k, r));
    }
    return OK;
}

Status optimizer_norm(const Optimizer *o, double *norm)
{
    return sweep_read_norm(o->store[0]->device, &o->update, norm);
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
