/* dropout.c - y = x / (1 - rate) where kept, else 0. Element e of sample i is kept where the
 * uniform number (seed, stream, step, first sample + i, e) is rate or more. The mask is not
 * stored: the gradient draws it again, so backward is forward on dy.
 */
#include "base/random.h"
#include "cpu.h"
#include "kernels_point.h"

Status cpu_dropout_fwd(float *y, const float *x, const int32_t *rng, size_t n, size_t per_sample,
                       float rate, uint32_t stream, uint32_t element, Stream *s)
{
    (void)s;
    if (element % 4) return FAIL(ERR_BUG, "first element %u, expected a multiple of 4", element);
    uint32_t seed = (uint32_t)rng[0], step = (uint32_t)rng[1], first = (uint32_t)rng[2];
    float scale = 1 / (1 - rate);
    size_t draws = (per_sample + 3) / 4; /* one gives four numbers */
#pragma omp parallel for collapse(2) if (n * per_sample >= PARALLEL_MIN)
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < draws; k++) {
            uint32_t bits[4];
            uint64_t sample = (uint64_t)first + i;
            philox4x32_10(bits,
                          (uint32_t[]){element / 4 + (uint32_t)k, step, (uint32_t)sample,
                                       (uint32_t)(sample >> 32)},
                          (uint32_t[]){seed, stream});
            for (size_t e = 4 * k; e < 4 * k + 4 && e < per_sample; e++)
                y[i * per_sample + e] =
                    bits[e % 4] * 0x1p-32 >= rate ? x[i * per_sample + e] * scale : 0;
        }
    return OK;
}
