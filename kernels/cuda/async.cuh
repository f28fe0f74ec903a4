/* async.cuh - asynchronous copies from global to shared memory (sm_80 and later).
 *
 * A thread issues copies, closes them into a group with async_commit(), and after async_wait<N>()
 * all but its N newest groups have landed for this thread; __syncthreads() then shows them to the
 * block. Groups may be empty, so that a ring's tail counts like its body.
 */
#pragma once
#include "mma.cuh"

/* 16 bytes, both sides 16-byte aligned; only the first `bytes` (0..16) are read, the rest is 0. */
DEVICE void async_copy16(void *shared, const void *global, int bytes = 16)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}

/* BYTES = 4 or 8, both sides aligned to it; only the first `bytes` are read, the rest is 0. */
template <int BYTES> DEVICE void async_copy(void *shared, const void *global, int bytes = BYTES)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
                 "l"(global), "n"(BYTES), "r"(bytes)
                 : "memory");
}

DEVICE void async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int N> DEVICE void async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
