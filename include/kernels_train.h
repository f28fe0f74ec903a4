/* kernels_train.h - launchers of training: losses, and optimizer sweeps over parameter blocks.
 * See kernels.h. */
#ifndef KERNELS_TRAIN_H
#define KERNELS_TRAIN_H
#include "kernels_base.h"
#include <math.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- losses ------------------------------------------------------------------------------ */
/* loss[1] = sum over i of weight[i] * mean over per elements of (x-target)^2, divided by n. */
Status cpu_weighted_mse_fwd(float *loss, const float *x, const float *target, const float *weight,
                            int n, size_t per, Stream *s);
Status cpu_weighted_mse_dx(float *dx, const float *dloss, const float *x, const float *target,
                           const float *weight, int n, size_t per, Stream *s);
/* The same with |x-target|. */
Status cpu_weighted_l1_fwd(float *loss, const float *x, const float *target, const float *weight,
                           int n, size_t per, Stream *s);
Status cpu_weighted_l1_dx(float *dx, const float *dloss, const float *x, const float *target,
                          const float *weight, int n, size_t per, Stream *s);
/* loss[1] = KL divergence of N(mean, exp(logvar)) from N(0, 1), summed over the per elements of a
 * sample, weighted over samples, divided by n. */
Status cpu_gaussian_kl_fwd(float *loss, const float *mean, const float *logvar, const float *weight,
                           int n, size_t per, Stream *s);
Status cpu_gaussian_kl_dx(float *dmean, float *dlogvar, const float *dloss, const float *mean,
                          const float *logvar, const float *weight, int n, size_t per, Stream *s);
/* loss[1], prob[n,k] = softmax of the rows; the formula is in loss.c. label -1: the row is left
 * out; any other outside 0..k-1 is ERR_INPUT. No row left: loss and gradient are 0. */
Status cpu_cross_entropy_fwd(float *loss, float *prob, const float *logits, const int32_t *label,
                             const float *weight /* [k] or NULL */, int n, int k, float smoothing,
                             Stream *s);
Status cpu_cross_entropy_dx(float *dlogits, const float *dloss, const float *prob,
                            const int32_t *label, const float *weight, int n, int k,
                            float smoothing, Stream *s);

/* The same on a GPU, n <= 65535. A label outside -1..k-1 counts as -1: the caller has checked. */
Status cuda_weighted_mse_fwd(float *loss, const void *x, const void *target, const float *weight,
                             int n, size_t per, Dtype type, Stream *s);
Status cuda_weighted_mse_dx(void *dx, const float *dloss, const void *x, const void *target,
                            const float *weight, int n, size_t per, Dtype type, Stream *s);
Status cuda_weighted_l1_fwd(float *loss, const void *x, const void *target, const float *weight,
                            int n, size_t per, Dtype type, Stream *s);
Status cuda_weighted_l1_dx(void *dx, const float *dloss, const void *x, const void *target,
                           const float *weight, int n, size_t per, Dtype type, Stream *s);
Status cuda_gaussian_kl_fwd(float *loss, const void *mean, const void *logvar, const float *weight,
                            int n, size_t per, Dtype type, Stream *s);
Status cuda_gaussian_kl_dx(void *dmean, void *dlogvar, const float *dloss, const void *mean,
                           const void *logvar, const float *weight, int n, size_t per, Dtype type,
                           Stream *s);
Status cuda_cross_entropy_fwd(float *loss, float *prob, const void *logits, const int32_t *label,
                              const float *weight /* [k] or NULL */, int n, int k, float smoothing,
                              Dtype type, Stream *s);
Status cuda_cross_entropy_dx(void *dlogits, const float *dloss, const float *prob,
                             const int32_t *label, const float *weight, int n, int k,
                             float smoothing, Dtype type, Stream *s);

/* ---- optimizers -------------------------------------------------------------------------- */
/* Each sweeps `count` elements from the pointers given, so a caller can hand over a part of a
 * block. grad_scale multiplies the gradient as it is read: clipping and the mean over micro-batches
 * cost no sweep of their own. Every element is computed by itself: any split gives equal bits. */
typedef struct {
    double rate, beta1, beta2, eps, weight_decay; /* as torch.optim.AdamW: decay is decoupled */
    double grad_scale;
    double ema_decay;                             /* used when ema is given                   */
    int64_t step;                                 /* of this update, counted from 1           */
} Adamw;
Status cpu_adamw(float *value, const float *grad, float *m, float *v, float *ema /* or NULL */,
                 size_t count, Adamw a, Stream *s);

typedef struct {
    /* as torch.optim.SGD(nesterov=True): decay joins the gradient */
    double rate, momentum, weight_decay;
    double grad_scale;
} Sgd;
Status cpu_sgd_nesterov(float *value, const float *grad, float *momentum /* zeros at first */,
                        size_t count, Sgd a, Stream *s);

/* Sums of squares are taken by parts of SQUARES elements, and these in their order: who has the
 * parts only, in whatever hands, gets the same bits. */
enum { SQUARES = 16384 };
/* part[i] = sum of squares of elements i * SQUARES to (i + 1) * SQUARES - 1 */
Status cpu_squares(double *part, const float *x, size_t count, Stream *s);
/* *sum = sum of x[i]^2; y += a*x; shadow -= (1-decay) * (shadow - x). */
Status cpu_sq_norm(double *sum, const float *x, size_t count, Stream *s);
Status cpu_axpy(float *y, float a, const float *x, size_t count, Stream *s);
Status cpu_ema(float *shadow, const float *x, double decay, size_t count, Stream *s);

/* ---- optimizers on a GPU ------------------------------------------------------------------- */
/* What an update needs lies in device memory, so that a recorded graph can be replayed for every
 * step and no host waits for the gradient's norm: the host writes UpdateSet before a step, the
 * GPU writes GradNorm. All pointers are device memory. */
typedef struct {
    float keep, rate, new1, old2, new2, root, eps; /* of AdamW, as cpu_adamw() derives them */
    float sgd_rate, momentum, decay;
    float pull;         /* 1 - decay of the average */
    double share, clip; /* 1 / micro-batches; limit of the norm, 0 = off */
} UpdateSet;
typedef struct {
    double square; /* sum of the squares of the gradients in memory */
    double norm;   /* sqrt(square) * share */
    double scale;  /* of each gradient: share and clipping */
    int32_t finite; /* 0: nothing is to change */
} GradNorm;

/* half: bf16 copy of value, or NULL. Where the norm is not finite they change nothing. */
Status cuda_adamw(float *value, const float *grad, float *m, float *v, float *ema /* or NULL */,
                  void *half, size_t count, const UpdateSet *set, const GradNorm *norm, Stream *s);
Status cuda_sgd_nesterov(float *value, const float *grad, float *momentum, float *ema /* or NULL */,
                         void *half, size_t count, const UpdateSet *set, const GradNorm *norm,
                         Stream *s);
Status cuda_squares(double *part, const float *x, size_t count, Stream *s); /* as cpu_squares() */
/* norm->square = sum over the n parts, each of which is the sum of `sets` numbers, stride apart; or,
 * add, += */
Status cuda_sum_squares(GradNorm *norm, bool add, const double *part, int n, int sets,
                        size_t stride, Stream *s);
/* norm->square = sum of x[i]^2, or, add, += */
Status cuda_sq_norm(GradNorm *norm, bool add, const float *x, size_t count, Stream *s);
Status cuda_grad_norm(GradNorm *norm, const UpdateSet *set, Stream *s); /* the rest of it */
Status cuda_axpy(float *y, float a, const float *x, size_t count, Stream *s);
/* y = x where the norm is not finite */
Status cuda_restore(float *y, const float *x, size_t count, const GradNorm *norm, Stream *s);

/* The rest of a GradNorm, from its square; clipping is torch's clip_grad_norm_. */
#ifdef __CUDACC__
__host__ __device__ __forceinline__
#else
static inline
#endif
void grad_norm_finish(GradNorm *n, double share, double clip)
{
    n->norm = sqrt(n->square) * share;
    n->finite = n->norm <= 1.7976931348623157e308; /* neither infinite nor NaN */
    n->scale = clip > 0 && n->norm > clip ? share * (clip / (n->norm + 1e-6)) : share;
}

#ifdef __cplusplus
}
#endif
#endif
