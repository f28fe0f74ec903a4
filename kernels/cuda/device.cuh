/* device.cuh - what every CUDA kernel shares: storage types, 16-byte packs, sums, launches.
 *
 * Kernels are templates over the storage type T (float or bf16) and compute in fp32. Every device
 * function is __forceinline__, and inline PTX stands in the wrapper headers only (mma.cuh,
 * async.cuh), so that tests can run kernels on a CPU.
 */
#pragma once
#include "kernels_base.h"
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define DEVICE __device__ __forceinline__

typedef __nv_bfloat16 bf16;

struct Stream {
    cudaStream_t handle;
    void *scratch; /* owned; the newest and largest of `block` */
    size_t scratch_bytes;
    void *block[24]; /* owned: outgrown blocks stay, recorded CUDA graphs still use them */
    int n_block;
    struct Choices *choices; /* owned: of product.cu, or NULL */
};

/* At least `bytes` of device memory, 256-byte aligned, for the launches that follow until the next
 * call; NULL without memory. Grows in the first run of a graph only, never during capture. */
void *stream_scratch(Stream *s, size_t bytes);

/* After a launch: OK, or ERR_DEVICE with the runtime's words. */
Status launched(const char *kernel);

/* ---- storage ----------------------------------------------------------------------------- */
DEVICE float to_float(float v) { return v; }
DEVICE float to_float(bf16 v) { return __bfloat162float(v); }
template <class T> DEVICE T from_float(float v);
template <> DEVICE float from_float<float>(float v) { return v; }
template <> DEVICE bf16 from_float<bf16>(float v) { return __float2bfloat16_rn(v); }

/* V neighbours, moved by one load or store. */
template <class T, int V> struct alignas(V * sizeof(T)) Pack {
    T v[V];
};

/* The widest pack: 16 bytes. */
template <class T> struct Wide {
    static constexpr int N = 16 / sizeof(T);
};

/* ---- sums in a fixed order ---------------------------------------------------------------- */
template <class F> DEVICE F warp_sum(F v)
{
#pragma unroll
    for (int step = 16; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
    return v;
}

DEVICE float warp_max(float v)
{
#pragma unroll
    for (int step = 16; step; step /= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
    return v;
}

/* Over a block of THREADS threads; each gets the sum. Two calls may follow one another. */
template <int THREADS, class F> DEVICE F block_sum(F v)
{
    __shared__ F partial[THREADS / 32];
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
    __syncthreads();
    F sum = 0;
#pragma unroll
    for (int w = 0; w < THREADS / 32; w++) sum += partial[w];
    __syncthreads();
    return sum;
}

/* In a block of 8 warps, each with V channels a lane: write(channel, sum over the warps). */
template <int V, class F> DEVICE void sum_of_warps(const float (&v)[V], F write)
{
    __shared__ float part[8][32 * V];
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < V; k++) part[threadIdx.x / 32][k * 32 + lane] = v[k];
    __syncthreads();
    for (int i = threadIdx.x; i < 32 * V; i += 256) {
        float total = 0;
#pragma unroll
        for (int w = 0; w < 8; w++) total += part[w][i];
        write(i % 32 * V + i / 32, total);
    }
}

/* ---- launches ----------------------------------------------------------------------------- */
/* f<T>(...) for the storage type: BY_TYPE(type, run, y, x, count, s) returns run<bf16> or
 * run<float>(y, x, count, s). */
#define BY_TYPE(type, f, ...) ((type) == DTYPE_BF16 ? f<bf16>(__VA_ARGS__) : f<float>(__VA_ARGS__))

/* Blocks of `threads` that a sweep over `items` wants: enough to fill any GPU, few enough to be
 * cheap. The kernel steps by the whole grid. */
static inline unsigned sweep_blocks(size_t items, unsigned threads)
{
    size_t blocks = (items + threads - 1) / threads;
    return (unsigned)(blocks < 1 ? 1 : blocks > 8192 ? 8192 : blocks);
}
