/* diffusion.cu - time embedding, mixing of image and noise, and the DDIM step; formulas in
 * kernels/cpu/diffusion.c.
 *
 * mix_samples moves 3 values an element, its gradient 2. The step is one kernel: guidance, x0 and
 * noise from the prediction, update, noise: 3 values an element, 1 more each for guidance and
 * for noise. Bound by memory; a batch of latents is so small that the launch counts more. Drawn
 * noise costs no memory but about 200 instructions of double for two elements: where double is 64
 * times slower, 40 us for 16 latents of 64 x 64.
 */
#include "base/random.h"
#include "kernels_shape.h"
#include "random.cuh"
#include "sweep.cuh"

struct Mix {
    const float *c;
    float p, q;
    DEVICE void begin(size_t i)
    {
        p = c[2 * i];
        q = c[2 * i + 1];
    }
    DEVICE void operator()(float *y, const float *x, size_t) const { y[0] = p * x[0] + q * x[1]; }
};
struct MixDx {
    const float *c; /* + which */
    float p;
    DEVICE void begin(size_t i) { p = c[2 * i]; }
    DEVICE void operator()(float *dx, const float *dy, size_t) const { dx[0] = p * dy[0]; }
};

/* x_t and what the network is to predict, with noise that is drawn here: cpu/draw.c. */
struct NoiseSamples {
    const int32_t *key;
    const float *mix, *target;
    float offset;
    unsigned channels;
    uint32_t stream, seed, step;
    uint64_t sample;
    float p, q, target_p, target_q;
    DEVICE void begin(size_t i)
    {
        seed = (uint32_t)key[4 * i];
        step = (uint32_t)key[4 * i + 1];
        sample = (uint32_t)key[4 * i + 2] | (uint64_t)(uint32_t)key[4 * i + 3] << 32;
        p = mix[2 * i];
        q = mix[2 * i + 1];
        target_p = target[2 * i];
        target_q = target[2 * i + 1];
    }
    DEVICE void operator()(float *y, const float *x, size_t i) const
    {
        float z = normal(seed, stream, step, sample, (uint32_t)i);
        if (offset > 0)
            z += offset * normal(seed, STREAM_NOISE_OFFSET, step, sample, (uint32_t)(i % channels));
        y[0] = p * x[0] + q * z;
        y[1] = target_p * x[0] + target_q * z;
    }
};

enum Noise { NO_NOISE, GIVEN, DRAWN };

/* Inputs: x, pred, then the conditional prediction if GUIDED, then noise if it is given. */
template <bool GUIDED, Noise NOISE> struct DdimStep {
    const float *coef;
    int prediction;
    float guidance;
    const int32_t *key; /* of drawn noise */
    uint32_t seed, step;
    uint64_t sample;
    float a, b, next_a, next_b, spread;
    DEVICE void begin(size_t i)
    {
        if (NOISE == DRAWN) {
            seed = (uint32_t)key[3 * i];
            sample = (uint32_t)key[3 * i + 1] | (uint64_t)(uint32_t)key[3 * i + 2] << 32;
            step = (uint32_t)coef[5];
        }
        a = coef[0];
        b = coef[1];
        next_a = coef[2];
        next_b = coef[3];
        spread = NOISE ? coef[4] : 0;
    }
    DEVICE void operator()(float *y, const float *in, size_t i) const
    {
        float x = in[0], e = GUIDED ? in[1] + guidance * (in[1 + GUIDED] - in[1]) : in[1];
        float x0 = prediction == 2 ? e : prediction == 1 ? a * x - b * e : (x - b * e) / a;
        float noise_now = prediction == 2 ? (x - a * e) / b : prediction == 1 ? a * e + b * x : e;
        float v = next_a * x0 + next_b * noise_now;
        if (NOISE == GIVEN) v += spread * in[1 + GUIDED + (NOISE == GIVEN)];
        if (NOISE == DRAWN) v += spread * normal(seed, STREAM_STEP, step, sample, (uint32_t)i);
        y[0] = v;
    }
};

/* The angle is rounded as diffusers does, in fp32 at each step; its sine is then taken in double,
 * over pi: that way it needs no subroutine for large angles. */
template <class T>
static __global__ void __launch_bounds__(128)
    timestep_embedding_kernel(T *y, const float *t, int n, int half, bool flip, float shift)
{
    int at = blockIdx.x * 128 + threadIdx.x;
    if (at >= n * half) return;
    int k = at / half, i = at % half;
    float exponent = -9.21034037197618f * (float)i; /* ln 10000 */
    exponent /= (float)half - shift;
    float angle = t[k] * (float)exp((double)exponent);
    double sine, cosine;
    sincospi(angle * 0.31830988618379067154, &sine, &cosine);
    T *row = y + (size_t)k * 2 * half;
    row[flip ? half + i : i] = from_float<T>((float)sine);
    row[flip ? i : half + i] = from_float<T>((float)cosine);
}

Status cuda_timestep_embedding(void *y, const float *t, int n, int dim, int flip, float shift,
                               Dtype type, Stream *s)
{
    int half = dim / 2;
    if (dim % 2 || half <= (double)shift)
        return FAIL(ERR_BUG, "timestep_embedding: width %d, shift %g", dim, (double)shift);
    unsigned blocks = (unsigned)((size_t)n * half + 127) / 128;
    if (type == DTYPE_BF16)
        timestep_embedding_kernel<<<blocks, 128, 0, s->handle>>>((bf16 *)y, t, n, half, flip != 0,
                                                                 shift);
    else
        timestep_embedding_kernel<<<blocks, 128, 0, s->handle>>>((float *)y, t, n, half, flip != 0,
                                                                 shift);
    return launched("timestep_embedding");
}

Status cuda_mix_samples_fwd(void *y, const void *a, const void *b, const float *c, int n,
                            size_t per, Dtype type, Stream *s)
{
    return sweep("mix_samples", Mix{c, 0, 0}, {y}, {a, b}, 0, (size_t)n, per, type, s);
}

Status cuda_mix_samples_dx(void *dx, const void *dy, const float *c, int which, int n, size_t per,
                           Dtype type, Stream *s)
{
    return sweep("mix_samples_dx", MixDx{c + which, 0}, {dx}, {dy}, 0, (size_t)n, per, type, s);
}

Status cuda_ddim_step(void *y, const void *x, const void *pred, const void *noise,
                      const float *coef, size_t count, int guided, int prediction, float guidance,
                      Dtype type, Stream *s)
{
    const void *cond = (const char *)pred + count * dtype_bytes(type);
    const char *name = "ddim_step";
    if (guided && noise)
        return sweep(name, DdimStep<true, GIVEN>{coef, prediction, guidance}, {y},
                     {x, pred, cond, noise}, count, type, s);
    if (guided)
        return sweep(name, DdimStep<true, NO_NOISE>{coef, prediction, guidance}, {y},
                     {x, pred, cond}, count, type, s);
    if (noise)
        return sweep(name, DdimStep<false, GIVEN>{coef, prediction, guidance}, {y},
                     {x, pred, noise}, count, type, s);
    return sweep(name, DdimStep<false, NO_NOISE>{coef, prediction, guidance}, {y}, {x, pred},
                 count, type, s);
}

Status cuda_ddim_step_drawn(void *y, const void *x, const void *pred, const int32_t *key,
                            const float *coef, int n, size_t per, int guided, int prediction,
                            float guidance, Dtype type, Stream *s)
{
    const void *cond = (const char *)pred + (size_t)n * per * dtype_bytes(type);
    const char *name = "ddim_step_drawn";
    if (guided)
        return sweep(name, DdimStep<true, DRAWN>{coef, prediction, guidance, key}, {y},
                     {x, pred, cond}, 0, (size_t)n, per, type, s);
    return sweep(name, DdimStep<false, DRAWN>{coef, prediction, guidance, key}, {y},
                 {x, pred}, 0, (size_t)n, per, type, s);
}

Status cuda_noise_samples(void *noisy, void *wanted, const void *x, const int32_t *key,
                          const float *mix, const float *target, float offset, uint32_t stream,
                          int n, size_t per, int channels, Dtype type, Stream *s)
{
    NoiseSamples f = {key, mix, target, offset, (unsigned)channels, stream};
    return sweep("noise_samples", f, {noisy, wanted}, {x}, 0, (size_t)n, per, type, s);
}
