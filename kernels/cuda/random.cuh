/* random.cuh - the numbers of host/base/random.h on a GPU: Philox4x32-10, bit for bit, and its
 * normals, which agree to a rounding of double (so in fp32 but for rare ties). */
#pragma once
#include "device.cuh"

struct Draw {
    uint32_t word[4];
}; /* elements 4 * block .. 4 * block + 3 */

DEVICE Draw philox(uint32_t seed, uint32_t stream, uint32_t step, uint64_t sample, uint32_t block)
{
    uint32_t c0 = block, c1 = step, c2 = (uint32_t)sample, c3 = (uint32_t)(sample >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint32_t high0 = __umulhi(0xD2511F53u, c0), high1 = __umulhi(0xCD9E8D57u, c2);
        uint32_t low0 = 0xD2511F53u * c0, low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ seed;
        c2 = high0 ^ c3 ^ stream;
        c1 = low1;
        c3 = low0;
        seed += 0x9E3779B9u;
        stream += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

/* Two uniforms give two normals: Box-Muller, in double as on the host. */
DEVICE void normal_pair(float *out, uint32_t a, uint32_t b)
{
    double radius = sqrt(-2 * log((a + 0.5) * 0x1p-32)), sine, cosine;
    sincospi(b * 0x1p-31, &sine, &cosine);
    out[0] = (float)(radius * cosine);
    out[1] = (float)(radius * sine);
}

/* One element's. Of neighbours that begin at a multiple of 4, the compiler draws once. */
DEVICE float normal(uint32_t seed, uint32_t stream, uint32_t step, uint64_t sample, uint32_t i)
{
    Draw draw = philox(seed, stream, step, sample, i / 4);
    float pair[2];
    if (i % 4 < 2) normal_pair(pair, draw.word[0], draw.word[1]);
    else normal_pair(pair, draw.word[2], draw.word[3]);
    return i % 2 ? pair[1] : pair[0];
}
