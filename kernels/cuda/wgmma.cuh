/* wgmma.cuh - tensor-core products of a warpgroup, operands in shared memory (sm_90a).
 *
 * D (64 x N, fp32, in registers: warp w has rows 16 w.., each as the d of two m16n8 tiles side by
 * side) += A (64 x 16) . B (16 x N). Order: wgmma_fence(), products, wgmma_commit(), and
 * wgmma_wait<0>() before d or the operands' memory are touched again.
 */
#pragma once
#include "cluster.cuh"

enum { SWIZZLE_NONE = 0, SWIZZLE_128 = 1, SWIZZLE_64 = 2, SWIZZLE_32 = 3 };

/* A matrix in shared memory; leading and stride offsets in bytes, as PTX defines them. */
DEVICE uint64_t wgmma_matrix(const void *shared, int leading, int stride, int swizzle)
{
    return (uint64_t)((shared_address(shared) & 0x3ffff) >> 4) | (uint64_t)(leading >> 4) << 16
           | (uint64_t)(stride >> 4) << 32 | (uint64_t)swizzle << 62;
}

DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> DEVICE void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

#define FOUR(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
/* m64n32k16 in bf16, both operands with k contiguous; keep = 0: d = A . B */
DEVICE void wgmma_m64n32(float (&d)[16], uint64_t a, uint64_t b, int keep)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, "
                 "p, 1, 1, 0, 0;\n}"
                 : FOUR(d, 0), FOUR(d, 4), FOUR(d, 8), FOUR(d, 12)
                 : "l"(a), "l"(b), "r"(keep));
}
#undef FOUR
