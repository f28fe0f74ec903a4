/* fake.h - what the stand-ins for vendors' libraries share: elements in fp32 and bf16, work in
 * stream order, failures on demand.
 *
 * They compute in double on the simulated GPU's memory (tests/hostcuda). The environment, read at
 * each call: FAKE_FAIL=FUNCTION makes that function fail, FAKE_WRONG=1 makes results 1 % too large.
 */
#ifndef FAKE_H
#define FAKE_H
#include "hostcuda/hostcuda_runtime.h"
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

static inline bool fake_fails(const char *function)
{
    const char *order = getenv("FAKE_FAIL");
    return order && !strcmp(order, function);
}

static inline double fake_load(const void *p, bool half, size_t i)
{
    uint32_t bits = half ? (uint32_t)((const uint16_t *)p)[i] << 16 : ((const uint32_t *)p)[i];
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* To the nearest, ties to even. */
static inline void fake_store(void *p, bool half, size_t i, double v)
{
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (half) ((uint16_t *)p)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    else ((uint32_t *)p)[i] = bits;
    hostcuda_wrote((char *)p + i * (half ? 2 : 4), half ? 2 : 4);
}

static inline double fake_scale(void)
{
    const char *wrong = getenv("FAKE_WRONG");
    return wrong && *wrong == '1' ? 1.01 : 1;
}

static inline bool fake_aligned(const void *p, uintptr_t bytes)
{
    return (uintptr_t)p % bytes == 0;
}
#endif
