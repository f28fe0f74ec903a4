/* optim.c - sweeps over blocks of parameters: AdamW, SGD with Nesterov momentum, averages, norms.
 *
 * AdamW moves 28 bytes an element (36 with the average); nothing but memory bounds it.
 *   m = b1*m + (1-b1)*g          v = b2*v + (1-b2)*g*g                  g = grad_scale * grad
 *   value = value*(1 - rate*decay) - rate/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps)
 * SGD: g += decay*value; momentum = mu*momentum + g; value -= rate * (g + mu*momentum). */
#include "cpu.h"
#include "kernels_train.h"
#include <math.h>

enum { LANES = 8 };

SIMD Status cpu_adamw(float *value, const float *grad, float *m, float *v, float *ema, size_t count,
                      Adamw a, Stream *s)
{
    (void)s;
    if (a.step < 1) return FAIL(ERR_BUG, "adamw: step %lld, expected 1 or more", (long long)a.step);
    double fix1 = 1 - pow(a.beta1, (double)a.step), fix2 = 1 - pow(a.beta2, (double)a.step);
    float scale = (float)a.grad_scale, keep = (float)(1 - a.rate * a.weight_decay),
          rate = (float)(a.rate / fix1);
    float new1 = (float)(1 - a.beta1), old2 = (float)a.beta2, new2 = (float)(1 - a.beta2);
    float root = (float)(1 / sqrt(fix2)), eps = (float)a.eps, pull = (float)(1 - a.ema_decay);
#pragma omp parallel for simd
    for (size_t i = 0; i < count; i++) {
        float g = scale * grad[i];
        m[i] += new1 * (g - m[i]);
        v[i] = old2 * v[i] + new2 * g * g;
        value[i] = value[i] * keep - rate * m[i] / (sqrtf(v[i]) * root + eps);
        if (ema) ema[i] -= pull * (ema[i] - value[i]);
    }
    return OK;
}

SIMD Status cpu_sgd_nesterov(float *value, const float *grad, float *momentum, size_t count, Sgd a,
                             Stream *s)
{
    (void)s;
    float scale = (float)a.grad_scale, decay = (float)a.weight_decay, mu = (float)a.momentum,
          rate = (float)a.rate;
#pragma omp parallel for simd
    for (size_t i = 0; i < count; i++) {
        float g = scale * grad[i] + decay * value[i];
        momentum[i] = mu * momentum[i] + g;
        value[i] -= rate * (g + mu * momentum[i]);
    }
    return OK;
}

/* The square of a float is exact in double, so FMA or not, the bits are the same. */
static inline double block_squares(const float *x, size_t count)
{
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t k = 0; k < LANES; k++) lane[k] += (double)x[i + k] * (double)x[i + k];
    for (; i < count; i++) lane[0] += (double)x[i] * (double)x[i];
    for (size_t k = 0; k < LANES; k++) sum += lane[k];
    return sum;
}

SIMD Status cpu_squares(double *part, const float *x, size_t count, Stream *s)
{
    (void)s;
    size_t parts = (count + SQUARES - 1) / SQUARES;
#pragma omp parallel for
    for (size_t b = 0; b < parts; b++) {
        size_t first = b * SQUARES, left = count - first;
        part[b] = block_squares(x + first, left < SQUARES ? left : SQUARES);
    }
    return OK;
}

Status cpu_sq_norm(double *sum, const float *x, size_t count, Stream *s)
{
    size_t parts = (count + SQUARES - 1) / SQUARES;
    double *part = stream_scratch(s, (parts + 1) * sizeof *part), total = 0;
    if (!part) return FAIL(ERR_SPACE, "no memory for %zu partial sums", parts);
    TRY(cpu_squares(part, x, count, s));
    for (size_t b = 0; b < parts; b++) total += part[b];
    *sum = total;
    return OK;
}

SIMD Status cpu_axpy(float *y, float a, const float *x, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd
    for (size_t i = 0; i < count; i++) y[i] += a * x[i];
    return OK;
}

SIMD Status cpu_ema(float *shadow, const float *x, double decay, size_t count, Stream *s)
{
    (void)s;
    float pull = (float)(1 - decay);
#pragma omp parallel for simd
    for (size_t i = 0; i < count; i++) shadow[i] -= pull * (shadow[i] - x[i]);
    return OK;
}
