/* tma.cuh - tensor copies between global and shared memory (sm_90a); one thread issues them.
 *
 * Loads report their bytes to an mbarrier; outside the tensor they read zeros. Stores are closed
 * into groups by tma_commit(); tma_wait_read<N>() waits until all but N groups have read their
 * source. Shared addresses are 128-byte aligned (1024 for the 128-byte swizzle).
 */
#pragma once
#include "cluster.cuh"
#include <cuda.h>

DEVICE void tma_load_2d(void *shared, const CUtensorMap *map, uint64_t *bar, int c0, int c1)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(shared)),
                 "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1)
                 : "memory");
}

/* Into the same place of every CTA in `mask`; their barriers in the same place as bar count too. */
DEVICE void tma_load_2d_multicast(void *shared, const CUtensorMap *map, uint64_t *bar, int c0,
                                  int c1, uint16_t mask)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(shared)),
        "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1), "h"(mask)
        : "memory");
}

DEVICE void tma_load_4d(void *shared, const CUtensorMap *map, uint64_t *bar, int c0, int c1, int c2,
                        int c3)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(shared)),
                 "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                 : "memory");
}

/* Of a map by cuTensorMapEncodeIm2col over NHWC: channel c, base pixel (w, h, n), filter tap. */
DEVICE void tma_load_im2col(void *shared, const CUtensorMap *map, uint64_t *bar, int c, int w,
                            int h, int n, uint16_t tap_w, uint16_t tap_h)
{
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col"
        ".mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};" ::"r"(
            shared_address(shared)),
        "l"(map), "r"(shared_address(bar)), "r"(c), "r"(w), "r"(h), "r"(n), "h"(tap_w), "h"(tap_h)
        : "memory");
}

DEVICE void tma_store_2d(const CUtensorMap *map, const void *shared, int c0, int c1)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
        "r"(shared_address(shared)), "r"(c0), "r"(c1)
        : "memory");
}

DEVICE void tma_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

template <int N> DEVICE void tma_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

template <int N> DEVICE void tma_wait()
{
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}
