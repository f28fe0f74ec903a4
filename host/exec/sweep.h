/* sweep.h - single passes over parameter blocks on whatever device they live: optimizers, norms,
 * averages. The launchers of kernels_train.h, by device. Counts are in floats.
 *
 * One update:  sweep_begin(); sweep_sq_norm() for each range; sweep_norm(); sweep_adamw() or
 * sweep_sgd() for each range. All but sweep_begin() may be recorded (device_record_begin) and
 * replayed behind another sweep_begin(): what changes from step to step lies in device memory.
 */
#ifndef SWEEP_H
#define SWEEP_H
#include "exec/device.h"
#include "kernels_train.h"

typedef struct {
    Adamw adamw; /* of the update: all but grad_scale; for sweep_sgd the fields of sgd, and
                    adamw.ema_decay */
    Sgd sgd;
    double share, clip; /* 1 / micro-batches; limit of the gradient's norm, 0 = off */
    UpdateSet *set;     /* owned: device memory, what of it a GPU reads */
    GradNorm *norm;     /* owned: device memory */
    Feed *feed;         /* owned: to set */
} Update;               /* starts as {0} */

Status update_new(Update *u, Device *d);
void   update_free(Update *u, Device *d);

Status sweep_begin(Device *d, const Update *u); /* after the caller has filled in the first rows */
Status sweep_sq_norm(Device *d, const Update *u, bool add, const float *x, size_t count);
/* The same where several hold parts of x: part[i] (device memory) = sum of squares of the i-th SQUARES
 * elements (kernels_train.h), then the sum over n parts, each the sum of `sets` numbers, stride apart,
 * of which all but one are 0. Bits are those of sweep_sq_norm(). */
Status sweep_squares(Device *d, double *part, const float *x, size_t count);
Status sweep_sum_squares(Device *d, const Update *u, bool add, const double *part, int n, int sets,
                         size_t stride);
Status sweep_norm(Device *d, const Update *u);
Status sweep_read_norm(Device *d, const Update *u, double *norm); /* waits */
/* half: bf16 copy of value on a GPU, or NULL. Nothing changes where the norm is not finite. */
Status sweep_adamw(Device *d, const Update *u, float *value, const float *grad, float *m, float *v,
                   float *ema /* or NULL */, void *half, size_t count);
Status sweep_sgd(Device *d, const Update *u, float *value, const float *grad, float *momentum,
                 float *ema /* or NULL */, void *half, size_t count);
/* y = x where the norm is not finite */
Status sweep_restore(Device *d, const Update *u, float *y, const float *x, size_t count);

Status sweep_add(Device *d, float *y, const float *x, size_t count);   /* y += x */
Status sweep_scale(Device *d, float *y, double a, size_t count);       /* y *= a */
Status sweep_halve(Device *d, void *half, const float *x, size_t count); /* of a GPU: bf16 of x */
#endif
