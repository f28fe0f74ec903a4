/* sweep.c - the launchers of either device. */
#include "exec/sweep.h"
#include "kernels.h"
#include <string.h>

#if EQ_CUDA
#define ON_GPU(d, call)                                                                            \
    if (device_is_gpu(d)) return (call)
#else
#define ON_GPU(d, call) (void)(d)
#endif

Status update_new(Update *u, Device *d)
{
    TRY(device_alloc(d, (void **)&u->set, sizeof *u->set, "optimizer settings"));
    TRY(device_alloc(d, (void **)&u->norm, sizeof *u->norm, "the gradient's norm"));
    return device_feed_new(&u->feed, d, sizeof *u->set);
}

void update_free(Update *u, Device *d)
{
    device_release(d, u->set);
    device_release(d, u->norm);
    device_feed_free(u->feed);
    *u = (Update){0};
}

/* As cpu_adamw() and cpu_sgd_nesterov() derive them. */
static UpdateSet derive(const Update *u)
{
    const Adamw *a = &u->adamw;
    double fix1 = 1 - pow(a->beta1, (double)a->step), fix2 = 1 - pow(a->beta2, (double)a->step);
    return (UpdateSet){.keep = (float)(1 - a->rate * a->weight_decay),
                       .rate = (float)(a->rate / fix1),
                       .new1 = (float)(1 - a->beta1),
                       .old2 = (float)a->beta2,
                       .new2 = (float)(1 - a->beta2),
                       .root = (float)(1 / sqrt(fix2)),
                       .eps = (float)a->eps,
                       .sgd_rate = (float)u->sgd.rate,
                       .momentum = (float)u->sgd.momentum,
                       .decay = (float)u->sgd.weight_decay,
                       .pull = (float)(1 - a->ema_decay),
                       .share = u->share,
                       .clip = u->clip};
}

Status sweep_begin(Device *d, const Update *u)
{
    if (!device_is_gpu(d)) return OK;
    UpdateSet set = derive(u);
    return device_feed(u->feed, u->set, &set, sizeof set);
}

Status sweep_sq_norm(Device *d, const Update *u, bool add, const float *x, size_t count)
{
    ON_GPU(d, cuda_sq_norm(u->norm, add, x, count, device_stream(d)));
    double part;
    TRY(cpu_sq_norm(&part, x, count, device_stream(d)));
    u->norm->square = add ? u->norm->square + part : part;
    return OK;
}

Status sweep_squares(Device *d, double *part, const float *x, size_t count)
{
    ON_GPU(d, cuda_squares(part, x, count, device_stream(d)));
    return cpu_squares(part, x, count, device_stream(d));
}

Status sweep_sum_squares(Device *d, const Update *u, bool add, const double *part, int n, int sets,
                         size_t stride)
{
    ON_GPU(d, cuda_sum_squares(u->norm, add, part, n, sets, stride, device_stream(d)));
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double one = 0;
        for (int k = 0; k < sets; k++) one += part[(size_t)k * stride + (size_t)i];
        sum += one;
    }
    u->norm->square = add ? u->norm->square + sum : sum;
    return OK;
}

Status sweep_norm(Device *d, const Update *u)
{
    ON_GPU(d, cuda_grad_norm(u->norm, u->set, device_stream(d)));
    grad_norm_finish(u->norm, u->share, u->clip);
    return OK;
}

Status sweep_read_norm(Device *d, const Update *u, double *norm)
{
    return device_read(d, norm, &u->norm->norm, sizeof *norm);
}

Status sweep_adamw(Device *d, const Update *u, float *value, const float *grad, float *m, float *v,
                   float *ema, void *half, size_t count)
{
    ON_GPU(d, cuda_adamw(value, grad, m, v, ema, half, count, u->set, u->norm, device_stream(d)));
    CHECK(!half);
    if (!u->norm->finite) return OK;
    Adamw a = u->adamw;
    a.grad_scale = u->norm->scale;
    return cpu_adamw(value, grad, m, v, ema, count, a, device_stream(d));
}

Status sweep_sgd(Device *d, const Update *u, float *value, const float *grad, float *momentum,
                 float *ema, void *half, size_t count)
{
    ON_GPU(d, cuda_sgd_nesterov(value, grad, momentum, ema, half, count, u->set, u->norm,
                                device_stream(d)));
    CHECK(!half);
    if (!u->norm->finite) return OK;
    Sgd a = u->sgd;
    a.grad_scale = u->norm->scale;
    TRY(cpu_sgd_nesterov(value, grad, momentum, count, a, device_stream(d)));
    return ema ? cpu_ema(ema, value, u->adamw.ema_decay, count, device_stream(d)) : OK;
}

Status sweep_restore(Device *d, const Update *u, float *y, const float *x, size_t count)
{
    ON_GPU(d, cuda_restore(y, x, count, u->norm, device_stream(d)));
    if (!u->norm->finite) memcpy(y, x, count * sizeof *y);
    return OK;
}

Status sweep_add(Device *d, float *y, const float *x, size_t count)
{
    ON_GPU(d, cuda_axpy(y, 1, x, count, device_stream(d)));
    return cpu_axpy(y, 1, x, count, device_stream(d));
}

Status sweep_scale(Device *d, float *y, double a, size_t count)
{
    ON_GPU(d, cuda_scale_shift_fwd(y, y, (float)a, 0, count, DTYPE_F32, device_stream(d)));
    return cpu_scale_shift_fwd(y, y, (float)a, 0, count, device_stream(d));
}

Status sweep_halve(Device *d, void *half, const float *x, size_t count)
{
    ON_GPU(d, cuda_cast(half, DTYPE_BF16, x, DTYPE_F32, count, device_stream(d)));
    CHECK(!half && !x && !count); /* a CPU has no such copy */
    return OK;
}
