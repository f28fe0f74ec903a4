/* cluster.cuh - mbarriers, thread-block clusters and registers per warp (sm_90a).
 *
 * An mbarrier counts arrivals and bytes of asynchronous copies; a phase ends when both are in.
 * mbar_wait(b, parity) waits for the end of the phase with that parity (0 first). Initialise by one
 * thread, then mbar_init_fence() and __syncthreads() (or a cluster barrier, when other CTAs use
 * it).
 */
#pragma once
#include "mma.cuh"
#include <cstdint>

DEVICE void mbar_init(uint64_t *b, int count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(count)
                 : "memory");
}

DEVICE void mbar_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

DEVICE void mbar_arrive(uint64_t *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}

/* Arrives and announces `bytes` of copies that will report to b in this phase. */
DEVICE void mbar_arrive_expect(uint64_t *b, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)),
                 "r"(bytes)
                 : "memory");
}

/* Arrives at the barrier in the same place of CTA `rank` of the cluster. */
DEVICE void mbar_arrive_at(uint64_t *b, int rank)
{
    asm volatile("{\n.reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(
                     shared_address(b)),
                 "r"(rank)
                 : "memory");
}

DEVICE void mbar_wait(uint64_t *b, uint32_t parity)
{
    uint32_t over;
    do {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.b32 %0, 1, 0, p;\n}"
                     : "=r"(over)
                     : "r"(shared_address(b)), "r"(parity)
                     : "memory");
    } while (!over);
}

/* What generic stores wrote to shared memory becomes visible to TMA and wgmma. */
DEVICE void async_proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

DEVICE int cluster_rank()
{
    int r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}

/* All threads of the cluster meet; shared memory written before is seen after. */
DEVICE void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

/* A float in the same place of CTA `rank` */
DEVICE float cluster_load(const float *p, int rank)
{
    float v;
    asm volatile("{\n.reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %1, %2;\n"
                 "ld.shared::cluster.f32 %0, [there];\n}"
                 : "=f"(v)
                 : "r"(shared_address(p)), "r"(rank)
                 : "memory");
    return v;
}

/* Registers of each thread of this warpgroup from here on; all four warps execute it. */
template <int N> DEVICE void registers_grow()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> DEVICE void registers_shrink()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
