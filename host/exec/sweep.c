/* sweep.c - the CPU's launchers; a GPU gets its row here. */
#include "exec/sweep.h"
#include "kernels.h"

Status sweep_adamw(Device *d, float *value, const float *grad, float *m, float *v, float *ema,
                   size_t count, Adamw a)
{
    return cpu_adamw(value, grad, m, v, ema, count, a, device_stream(d));
}

Status sweep_sgd(Device *d, float *value, const float *grad, float *momentum, size_t count, Sgd a)
{
    return cpu_sgd_nesterov(value, grad, momentum, count, a, device_stream(d));
}

Status sweep_ema(Device *d, float *shadow, const float *value, double decay, size_t count)
{
    return cpu_ema(shadow, value, decay, count, device_stream(d));
}

Status sweep_sq_norm(Device *d, double *sum, const float *x, size_t count)
{
    return cpu_sq_norm(sum, x, count, device_stream(d));
}

Status sweep_add(Device *d, float *y, const float *x, size_t count)
{
    return cpu_axpy(y, 1, x, count, device_stream(d));
}

Status sweep_zero(Device *d, float *y, size_t count)
{
    return cpu_fill(y, 0, count, device_stream(d));
}
