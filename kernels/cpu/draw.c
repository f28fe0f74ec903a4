/* draw.c - diffusion arithmetic with noise drawn where it is used: a sample's noising, and a DDIM
 * step. A sample's noise is that of random_normals() under its own key, so it does not
 * depend on the batch or the device. */
#include "base/random.h"
#include "cpu.h"
#include "kernels_shape.h"

static uint64_t sample_of(const int32_t *words)
{
    return (uint32_t)words[0] | (uint64_t)(uint32_t)words[1] << 32;
}

Status cpu_noise_samples(float *noisy, float *wanted, const float *x, const int32_t *key,
                         const float *mix, const float *target, float offset, uint32_t stream,
                         int n, size_t per, int channels, Stream *s)
{
    float *noise = stream_scratch(s, per * sizeof *noise);
    if (!noise) return FAIL(ERR_SPACE, "no memory for the noise of a sample");
    for (size_t i = 0; i < (size_t)n; i++) {
        RandomKey k = {(uint32_t)key[4 * i], stream, (uint32_t)key[4 * i + 1],
                       sample_of(key + 4 * i + 2)};
        random_normals(noise, per, k);
        k.stream = STREAM_NOISE_OFFSET;
        for (size_t c = 0; offset > 0 && c < (size_t)channels; c++) {
            float shift = (float)((double)offset * random_normal(k, (uint32_t)c));
            for (size_t p = c; p < per; p += (size_t)channels) noise[p] += shift;
        }
        for (size_t e = 0; e < per; e++) {
            size_t at = i * per + e;
            float value = x[at];
            noisy[at] = mix[2 * i] * value + mix[2 * i + 1] * noise[e];
            wanted[at] = target[2 * i] * value + target[2 * i + 1] * noise[e];
        }
    }
    return OK;
}

Status cpu_ddim_step_drawn(float *y, const float *x, const float *pred, const int32_t *key,
                           const float *coef, int n, size_t per, int guided, int prediction,
                           float guidance, Stream *s)
{
    size_t count = (size_t)n * per;
    float *noise = stream_scratch(s, count * sizeof *noise);
    if (!noise) return FAIL(ERR_SPACE, "no memory for the noise of %d samples", n);
    for (size_t i = 0; i < (size_t)n; i++)
        random_normals(noise + i * per, per,
                       (RandomKey){(uint32_t)key[3 * i], STREAM_STEP, (uint32_t)coef[5],
                                   sample_of(key + 3 * i + 1)});
    return cpu_ddim_step(y, x, pred, noise, coef, count, guided, prediction, guidance, s);
}
