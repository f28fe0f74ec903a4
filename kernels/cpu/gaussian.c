/* gaussian.c - clamp, samples of a diagonal Gaussian, and its divergence from the standard one.
 *
 *   sample  y = mean + exp(logvar/2) * noise
 *   KL      sum over i of weight[i] * sum over elements of (mean^2 + exp(logvar) - 1 - logvar) / 2,
 *           divided by n
 * A latent is small beside what the networks around it do: the divergence runs on one thread, in
 * double.
 */
#include "cpu.h"
#include "kernels_point.h"
#include "kernels_train.h"
#include "vector_math.h"
#include <math.h>

/* Comparisons that are false for NaN, so that it passes. */
SIMD Status cpu_clamp_fwd(float *y, const float *x, float least, float most, size_t count,
                          Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) y[i] = x[i] < least ? least : x[i] > most ? most : x[i];
    return OK;
}

SIMD Status cpu_clamp_dx(float *dx, const float *x, const float *dy, float least, float most,
                         size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) dx[i] = x[i] < least || x[i] > most ? 0 : dy[i];
    return OK;
}

SIMD Status cpu_sample_gaussian_fwd(float *y, const float *mean, const float *logvar,
                                    const float *noise, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++) y[i] = mean[i] + vm_exp(0.5f * logvar[i]) * noise[i];
    return OK;
}

SIMD Status cpu_sample_gaussian_dlogvar(float *dlogvar, const float *dy, const float *logvar,
                                        const float *noise, size_t count, Stream *s)
{
    (void)s;
#pragma omp parallel for simd if (count >= PARALLEL_MIN)
    for (size_t i = 0; i < count; i++)
        dlogvar[i] = 0.5f * dy[i] * noise[i] * vm_exp(0.5f * logvar[i]);
    return OK;
}

Status cpu_gaussian_kl_fwd(float *loss, const float *mean, const float *logvar, const float *weight,
                           int n, size_t per, Stream *s)
{
    (void)s;
    double total = 0;
    for (int i = 0; i < n; i++) {
        const float *m = mean + (size_t)i * per, *v = logvar + (size_t)i * per;
        double sum = 0;
        for (size_t k = 0; k < per; k++)
            sum += (double)m[k] * m[k] + (expm1((double)v[k]) - v[k]);
        total += weight[i] * sum / 2;
    }
    *loss = (float)(total / n);
    return OK;
}

Status cpu_gaussian_kl_dx(float *dmean, float *dlogvar, const float *dloss, const float *mean,
                          const float *logvar, const float *weight, int n, size_t per, Stream *s)
{
    (void)s;
    for (int i = 0; i < n; i++) {
        double scale = (double)*dloss * weight[i] / n;
        for (size_t k = (size_t)i * per; k < (size_t)(i + 1) * per; k++) {
            dmean[k] = (float)(scale * mean[k]);
            dlogvar[k] = (float)(scale * expm1((double)logvar[k]) / 2);
        }
    }
    return OK;
}
