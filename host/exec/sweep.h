/* sweep.h - single passes over parameter blocks on whatever device they live: optimizers, norms,
 * averages. The launchers of kernels_train.h, by device. Counts are in floats. */
#ifndef SWEEP_H
#define SWEEP_H
#include "exec/device.h"
#include "kernels_train.h"

Status sweep_adamw(Device *d, float *value, const float *grad, float *m, float *v,
                   float *ema /* or NULL */, size_t count, Adamw a);
Status sweep_sgd(Device *d, float *value, const float *grad, float *momentum, size_t count, Sgd a);
Status sweep_ema(Device *d, float *shadow, const float *value, double decay, size_t count);
Status sweep_sq_norm(Device *d, double *sum, const float *x, size_t count);
Status sweep_add(Device *d, float *y, const float *x, size_t count);   /* y += x */
Status sweep_zero(Device *d, float *y, size_t count);
#endif
