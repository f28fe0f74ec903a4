/* half.h - 16-bit floats, in software and bit-exact (IEEE 754 binary16, bfloat16).
 *
 * To float is exact; signalling NaNs become quiet ones with the same payload, as hardware does.
 * To half rounds to nearest, ties to even; subnormals are kept, values from 65520 up become
 * infinity, a NaN stays a (quiet) NaN with the upper bits of its payload. To bfloat16 likewise;
 * infinity there begins at 2^128 - 2^119.
 */
#ifndef HALF_H
#define HALF_H
#include <stddef.h>
#include <stdint.h>

void half_to_float(float *out, const uint16_t *in, size_t n);
void bf16_to_float(float *out, const uint16_t *in, size_t n);
void float_to_half(uint16_t *out, const float *in, size_t n);
void float_to_bf16(uint16_t *out, const float *in, size_t n);
#endif
