/* divide.cuh - division by a number known at launch: a product and a shift instead of some twenty
 * instructions. After Granlund and Montgomery 1994. */
#pragma once
#include "device.cuh"

static const size_t DIVIDE_MOST = 0x7fffffff; /* largest dividend and divisor */

struct Divide {
    uint32_t by, factor, shift;
    DEVICE uint32_t quotient(uint32_t n) const
    {
        return by == 1 ? n : __umulhi(n, factor) >> shift;
    }
};

/* factor = ceil(2^(31 + bits) / by), bits = ceil(log2(by)): exact for n < 2^31. */
static inline Divide divide_by(int by)
{
    uint32_t bits = 0;
    while (((uint64_t)1 << bits) < (uint64_t)by) bits++;
    uint64_t factor = (((uint64_t)1 << (31 + bits)) + by - 1) / by;
    Divide d = {(uint32_t)by, (uint32_t)factor, bits - 1};
    return d;
}
