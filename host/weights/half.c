/* half.c - conversions as branch-free loops over whole arrays, so that they vectorise. */
#include "weights/half.h"
#include <string.h>

static inline float as_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t as_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Both cases shift the mantissa into place. A normal number's exponent is then too small by
 * 127 - 15, which is added in two steps so that 31 lands on 255 (the multiplication by 2^-112
 * leaves infinity and NaN alone). A subnormal becomes the low bits of a float in [0.5, 1) whose
 * last place is 2^-24; subtracting 0.5 normalises it. */
void half_to_float(float *out, const uint16_t *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t wide = (uint32_t)in[i] << 16, sign = wide & 0x80000000u, rest = wide << 1;
        float normal = as_float((rest >> 4) + 0x70000000u) * 0x1p-112f;
        float subnormal = as_float((rest >> 17) | 0x3f000000u) - 0.5f;
        out[i] = as_float(sign | (rest < 0x08000000u ? as_bits(subnormal) : as_bits(normal)));
    }
}

void bf16_to_float(float *out, const uint16_t *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t wide = (uint32_t)in[i] << 16;
        uint32_t quiet = (wide & 0x7fffffffu) > 0x7f800000u ? 0x00400000u : 0;
        out[i] = as_float(wide | quiet);
    }
}

/* Normal results: add half of the last kept place, minus one where that place is even, and let
 * the carry run into the exponent (65520 carries to infinity). Subnormal results: adding 0.5
 * makes the float adder round at 2^-24. */
void float_to_half(uint16_t *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = as_bits(in[i]), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
        uint32_t normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1)) >> 13;
        uint32_t subnormal = as_bits(as_float(a < 0x38800000u ? a : 0) + 0.5f) - 0x3f000000u;
        uint32_t special = a > 0x7f800000u ? 0x7e00u | ((a >> 13) & 0x3ffu) : 0x7c00u;
        uint32_t finite = a < 0x38800000u ? subnormal : normal;
        out[i] = (uint16_t)(sign | (a < 0x47800000u ? finite : special));
    }
}

/* As the normal case above: the carry may run into the exponent, up to infinity. */
void float_to_bf16(uint16_t *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = as_bits(in[i]), a = u & 0x7fffffffu;
        uint32_t nearest = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
        out[i] = (uint16_t)(a > 0x7f800000u ? (u >> 16) | 0x40u : nearest);
    }
}
