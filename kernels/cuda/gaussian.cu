/* gaussian.cu - clamp, samples of a diagonal Gaussian, and its divergence from the standard one;
 * formulas in kernels/cpu/gaussian.c.
 *
 * One pass each: clamp 2 values an element and 3 backward, sample_gaussian 4 and 4, the divergence
 * 2 and 4. Bound by memory, though a latent is so small that the launch counts more.
 */
#include "kernels_point.h"
#include "kernels_train.h"
#include "sums.cuh"
#include "sweep.cuh"

/* Comparisons that are false for NaN, so that it passes. */
struct Clamp {
    float least, most;
    DEVICE void begin(size_t) {}
    DEVICE void operator()(float *y, const float *x, size_t) const
    {
        y[0] = x[0] < least ? least : x[0] > most ? most : x[0];
    }
};
struct ClampDx {
    float least, most;
    DEVICE void begin(size_t) {}
    DEVICE void operator()(float *dx, const float *x, size_t) const
    {
        dx[0] = x[0] < least || x[0] > most ? 0 : x[1];
    }
};
struct SampleGaussian { /* of mean, logvar, noise */
    DEVICE void begin(size_t) {}
    DEVICE void operator()(float *y, const float *x, size_t) const
    {
        y[0] = x[0] + expf(0.5f * x[1]) * x[2];
    }
};
struct SampleGaussianDlogvar { /* of dy, logvar, noise */
    DEVICE void begin(size_t) {}
    DEVICE void operator()(float *dv, const float *x, size_t) const
    {
        dv[0] = 0.5f * x[0] * x[2] * expf(0.5f * x[1]);
    }
};

/* Twice the divergence of one element. In double: near the standard Gaussian exp(v) - 1 - v
 * cancels. */
struct Divergence {
    static DEVICE double of(float mean, float logvar)
    {
        return (double)mean * mean + (expm1((double)logvar) - logvar);
    }
};
struct DivergenceDx { /* dmean, dlogvar of mean, logvar */
    const float *dloss, *weight;
    int n;
    float scale;
    DEVICE void begin(size_t i) { scale = (float)((double)*dloss * weight[i] / n); }
    DEVICE void operator()(float *d, const float *x, size_t) const
    {
        d[0] = scale * x[0];
        d[1] = scale * (expm1f(x[1]) * 0.5f);
    }
};

Status cuda_clamp_fwd(void *y, const void *x, float least, float most, size_t count, Dtype type,
                      Stream *s)
{
    return sweep("clamp", Clamp{least, most}, {y}, {x}, count, type, s);
}

Status cuda_clamp_dx(void *dx, const void *x, const void *dy, float least, float most, size_t count,
                     Dtype type, Stream *s)
{
    return sweep("clamp_dx", ClampDx{least, most}, {dx}, {x, dy}, count, type, s);
}

Status cuda_sample_gaussian_fwd(void *y, const void *mean, const void *logvar, const void *noise,
                                size_t count, Dtype type, Stream *s)
{
    return sweep("sample_gaussian", SampleGaussian{}, {y}, {mean, logvar, noise}, count, type, s);
}

Status cuda_sample_gaussian_dlogvar(void *dlogvar, const void *dy, const void *logvar,
                                    const void *noise, size_t count, Dtype type, Stream *s)
{
    return sweep("sample_gaussian_dlogvar", SampleGaussianDlogvar{}, {dlogvar}, {dy, logvar, noise},
                 count, type, s);
}

Status cuda_gaussian_kl_fwd(float *loss, const void *mean, const void *logvar, const float *weight,
                            int n, size_t per, Dtype type, Stream *s)
{
    return error_sum<Divergence>(loss, mean, logvar, weight, n, per, 2.0 * n, type, s);
}

Status cuda_gaussian_kl_dx(void *dmean, void *dlogvar, const float *dloss, const void *mean,
                           const void *logvar, const float *weight, int n, size_t per, Dtype type,
                           Stream *s)
{
    return sweep("gaussian_kl_dx", DivergenceDx{dloss, weight, n, 0}, {dmean, dlogvar},
                 {mean, logvar}, 0, (size_t)n, per, type, s);
}
