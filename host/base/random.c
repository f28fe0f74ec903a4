/* random.c - Philox4x32-10, uniforms, normals by Box-Muller, and a Feistel permutation. */
#include "base/random.h"
#include <math.h>

void philox4x32_10(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u; /* Weyl constants: golden ratio, sqrt(3) - 1 */
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void block(uint32_t out[4], RandomKey k, uint32_t index)
{
    philox4x32_10(out, (uint32_t[]){index, k.step, (uint32_t)k.sample, (uint32_t)(k.sample >> 32)},
                  (uint32_t[]){k.seed, k.stream});
}

uint32_t random_bits(RandomKey k, uint32_t element)
{
    uint32_t r[4];
    block(r, k, element / 4);
    return r[element % 4];
}

double random_uniform(RandomKey k, uint32_t element) { return random_bits(k, element) * 0x1p-32; }

uint32_t random_below(RandomKey k, uint32_t element, uint32_t n)
{
    return (uint32_t)((uint64_t)random_bits(k, element) * n >> 32);
}

/* Two uniforms give two normals: the radius from the first, shifted off zero, the angle
 * from the second. In double, so that hosts and devices agree after rounding to float. */
static void normal_pair(double out[2], uint32_t a, uint32_t b)
{
    double radius = sqrt(-2 * log((a + 0.5) * 0x1p-32));
    double angle = 6.283185307179586476925 * (b * 0x1p-32);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

double random_normal(RandomKey k, uint32_t element)
{
    uint32_t r[4];
    double pair[2];
    block(r, k, element / 4);
    normal_pair(pair, r[element % 4 / 2 * 2], r[element % 4 / 2 * 2 + 1]);
    return pair[element % 2];
}

void random_normals(float *out, size_t n, RandomKey k)
{
#pragma omp parallel for
    for (size_t i = 0; i < n; i += 4) {
        uint32_t r[4];
        double z[4];
        block(r, k, (uint32_t)(i / 4));
        normal_pair(z, r[0], r[1]);
        normal_pair(z + 2, r[2], r[3]);
        for (size_t j = 0; j < 4 && i + j < n; j++) out[i + j] = (float)z[j];
    }
}

/* A four-round Feistel network on the smallest even number of bits that holds n, walked until
 * it lands below n again. */
uint32_t random_permute(RandomKey k, uint32_t i, uint32_t n)
{
    uint32_t half = 1;
    while (half < 16 && (1ull << (2 * half)) < n) half++;
    uint32_t mask = half == 16 ? 0xffffu : (1u << half) - 1;
    do {
        uint32_t left = i >> half, right = i & mask;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t r[4];
            philox4x32_10(r, (uint32_t[]){right, k.step, (uint32_t)k.sample, round | 0x80000000u},
                          (uint32_t[]){k.seed, k.stream});
            uint32_t next = left ^ (r[0] & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
