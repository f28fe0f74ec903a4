/* diffusion.c - time embedding, mixing of image and noise, and the DDIM step (Song et al., 2021).
 *
 * With a = sqrt(ab), b = sqrt(1-ab) of this step and a' = coef[2], b' = coef[3], s of the next:
 *   noise prediction:    e = pred                x0 = (x - b*e) / a
 *   velocity prediction: e = a*pred + b*x        x0 = a*x - b*pred
 *   clean prediction:    x0 = pred               e = (x - a*x0) / b
 * and then
 *   y = a'*x0 + b'*e + s*noise
 * Guidance first makes pred = u + guidance*(c - u). */
#include "cpu.h"
#include "kernels_shape.h"
#include <math.h>
#include <string.h>

/* The angle is rounded as diffusers does, in fp32 at each step: at t = 999 that is off by 6e-5, but
 * models were trained on it and are compared with it. n*dim is small. */
Status cpu_timestep_embedding(float *y, const float *t, int n, int dim, int flip, float shift,
                              Stream *s)
{
    (void)s;
    int half = dim / 2;
    if (dim % 2 || half <= (double)shift)
        return FAIL(ERR_BUG, "timestep_embedding: width %d, shift %g", dim, (double)shift);
    for (int i = 0; i < half; i++) {
        float exponent = -9.21034037197618f * (float)i; /* ln 10000 */
        exponent /= (float)half - shift;
        float rate = (float)exp((double)exponent);
        for (int k = 0; k < n; k++) {
            float *row = y + (size_t)k * (size_t)dim;
            float angle = t[k] * rate;
            row[flip ? half + i : i] = (float)sin((double)angle);
            row[flip ? i : half + i] = (float)cos((double)angle);
        }
    }
    return OK;
}

SIMD Status cpu_mix_samples_fwd(float *y, const float *a, const float *b, const float *c, int n,
                                size_t per, Stream *s)
{
    (void)s;
    for (int i = 0; i < n; i++) {
        float p = c[2 * i], q = c[2 * i + 1];
#pragma omp parallel for simd
        for (size_t at = (size_t)i * per; at < (size_t)(i + 1) * per; at++)
            y[at] = p * a[at] + q * b[at];
    }
    return OK;
}

SIMD Status cpu_mix_samples_dx(float *dx, const float *dy, const float *c, int which, int n,
                               size_t per, Stream *s)
{
    (void)s;
    for (int i = 0; i < n; i++) {
        float scale = c[2 * i + which];
#pragma omp parallel for simd
        for (size_t at = (size_t)i * per; at < (size_t)(i + 1) * per; at++) dx[at] = scale * dy[at];
    }
    return OK;
}

/* Elements go through one vector loop of whole blocks, the last of which is filled up: in a loop's scalar
 * tail the compiler may fuse another product of the sum, and then an element's bits would hang on
 * where in the batch it stands. */
SIMD Status cpu_ddim_step(float *y, const float *x, const float *pred, const float *noise,
                          const float *coef, size_t count, int guided, int prediction,
                          float guidance, Stream *s)
{
    (void)s;
    enum { BLOCK = 16, IN = 4 };
    float a = coef[0], b = coef[1], next_a = coef[2], next_b = coef[3],
          spread = noise ? coef[4] : 0;
    const float *const in[IN] = {x, pred, guided ? pred + count : pred, noise ? noise : x};
#pragma omp parallel for
    for (size_t at = 0; at < count; at += BLOCK) {
        size_t n = count - at < BLOCK ? count - at : BLOCK;
        float v[IN][BLOCK] = {{0}}, out[BLOCK];
        for (int k = 0; k < IN; k++) memcpy(v[k], in[k] + at, n * sizeof(float));
#pragma omp simd
        for (int i = 0; i < BLOCK; i++) {
            float now = v[0][i], e = guided ? v[1][i] + guidance * (v[2][i] - v[1][i]) : v[1][i];
            float x0 = prediction == 2 ? e : prediction == 1 ? a * now - b * e : (now - b * e) / a;
            float noise_now = prediction == 2   ? (now - a * e) / b
                              : prediction == 1 ? a * e + b * now
                                                : e;
            float next = next_a * x0 + next_b * noise_now;
            out[i] = noise ? next + spread * v[3][i] : next;
        }
        memcpy(y + at, out, n * sizeof(float));
    }
    return OK;
}
