/* ampere.cu - bugs around barriers, cp.async, bounds, warps and swizzles. */
#include "../../../kernels/cuda/async.cuh"
#include "bugs.h"
#include <vector>

namespace {

const int N = 256;

/* Device memory with 0, 1, 2, ... or nothing in it */
struct Buffer {
    float *p = nullptr;
    explicit Buffer(int n, bool filled = false)
    {
        cudaMalloc(&p, n * sizeof *p);
        std::vector<float> v(n);
        for (int i = 0; i < n; i++) v[i] = (float)i;
        if (filled) cudaMemcpy(p, v.data(), n * sizeof *p, cudaMemcpyHostToDevice);
    }
    ~Buffer() { cudaFree(p); }
    std::vector<float> read(int n) const
    {
        std::vector<float> v(n);
        cudaMemcpy(v.data(), p, n * sizeof *p, cudaMemcpyDeviceToHost);
        return v;
    }
};

template <bool BUG> __global__ void reverse_kernel(float *y, const float *x)
{
    __shared__ float tile[N];
    tile[threadIdx.x] = x[threadIdx.x];
    if (!BUG) __syncthreads();
    y[threadIdx.x] = tile[N - 1 - threadIdx.x];
}

template <bool BUG> __global__ void reuse_kernel(float *y, const float *x)
{
    __shared__ float tile[N];
    float sum = 0;
    for (int k = 0; k < 2; k++) {
        tile[threadIdx.x] = x[k * N + threadIdx.x];
        __syncthreads();
        sum += tile[N - 1 - threadIdx.x];
        if (!BUG) __syncthreads();
    }
    y[threadIdx.x] = sum;
}

/* A ring of two stages */
template <bool BUG> __global__ void ring_kernel(float *y, const float *x)
{
    __shared__ alignas(16) float ring[2][4 * 32];
    float sum = 0;
    async_copy16(&ring[0][4 * threadIdx.x], x + 4 * threadIdx.x);
    async_commit();
    for (int k = 0; k < 4; k++) {
        if (k < 3)
            async_copy16(&ring[(k + 1) & 1][4 * threadIdx.x], x + (k + 1) * 128 + 4 * threadIdx.x);
        async_commit();
        async_wait<BUG ? 2 : 1>();
        __syncthreads();
        sum += ring[k & 1][127 - threadIdx.x];
        __syncthreads();
    }
    y[threadIdx.x] = sum;
}

/* Copies more than it reads */
template <bool BUG> __global__ void ahead_kernel(float *y, const float *x)
{
    __shared__ alignas(16) float ring[2][4 * 32];
    for (int k = 0; k < 2; k++) {
        async_copy16(&ring[k][4 * threadIdx.x], x + k * 128 + 4 * threadIdx.x);
        async_commit();
    }
    async_wait<BUG ? 1 : 0>();
    y[threadIdx.x] = ring[0][4 * threadIdx.x];
}

template <bool BUG> __global__ void tail_kernel(float *y, const float *x, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (BUG || i < n) y[i] = x[i];
}

/* A tile starts one too late: the last one, or the one before it. */
template <bool BUG> __global__ void tile_kernel(float *y, const float *x, int late)
{
    __shared__ float tile[32];
    int from = blockIdx.x * 32 + (BUG && blockIdx.x == late);
    tile[threadIdx.x] = x[from + threadIdx.x];
    __syncthreads();
    y[blockIdx.x * 32 + threadIdx.x] = tile[31 - threadIdx.x];
}

template <bool BUG> __global__ void divergent_kernel(float *y, const float *x)
{
    float v = x[threadIdx.x];
    if (!BUG || threadIdx.x < 20) v += __shfl_xor_sync(~0u, v, 1);
    y[threadIdx.x] = v;
}

template <bool BUG> __global__ void maximum_kernel(float *y, const float *x)
{
    float v = x[threadIdx.x];
    for (int step = 16; step > (BUG ? 1 : 0); step /= 2)
        v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
    y[threadIdx.x] = v;
}

template <bool BUG> __global__ void uninitialised_kernel(float *y, const float *x)
{
    __shared__ float part[2];
    if (threadIdx.x == 0 || (!BUG && threadIdx.x == 32)) part[threadIdx.x / 32] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = part[0] + part[1];
}

/* Rows of 64 bytes; ldmatrix of a column of them is free of conflicts with the swizzle. With the
 * bug the reader forgets it. */
template <bool BUG> __global__ void swizzle_kernel(float *y, const float *x)
{
    __shared__ alignas(128) float tile[16][16];
    int lane = threadIdx.x;
    for (int k = 0; k < 2; k++) {
        int row = lane / 2, chunk = lane % 2 * 2 + k;
        async_copy16(&tile[row][(chunk ^ (row / 2 & 3)) * 4], x + row * 16 + chunk * 4);
    }
    async_commit();
    async_wait<0>();
    __syncthreads();
    unsigned r[4];
    int row = lane % 16, chunk = lane / 16;
    ldmatrix_x4(r, &tile[row][(BUG ? chunk : chunk ^ (row / 2 & 3)) * 4]);
    y[lane] = __uint_as_float(r[0]);
}

template <class F> bool same(const Buffer &y, int n, F expected)
{
    std::vector<float> v = y.read(n);
    for (int i = 0; i < n; i++)
        if (!(v[i] == expected(i))) return false;
    return true;
}

#define PICK(kernel, grid, block, ...)                                                             \
    do {                                                                                           \
        if (bug) kernel<true><<<grid, block>>>(__VA_ARGS__);                                       \
        else kernel<false><<<grid, block>>>(__VA_ARGS__);                                          \
        cudaDeviceSynchronize();                                                                   \
    } while (0)

bool reverse(bool bug)
{
    Buffer x(N, true), y(N);
    PICK(reverse_kernel, 1, N, y.p, x.p);
    return same(y, N, [](int i) { return (float)(N - 1 - i); });
}
bool reuse(bool bug)
{
    Buffer x(2 * N, true), y(N);
    PICK(reuse_kernel, 1, N, y.p, x.p);
    return same(y, N, [](int i) { return (float)(2 * (N - 1 - i) + N); });
}
bool ring(bool bug)
{
    Buffer x(512, true), y(32);
    PICK(ring_kernel, 1, 32, y.p, x.p);
    return same(y, 32, [](int i) { return (float)(4 * (127 - i) + 128 * 6); });
}
bool ahead(bool bug)
{
    Buffer x(256, true), y(32);
    PICK(ahead_kernel, 1, 32, y.p, x.p);
    return same(y, 32, [](int i) { return (float)(4 * i); });
}
bool tail(bool bug)
{
    Buffer x(100, true), y(100);
    PICK(tail_kernel, 2, 64, y.p, x.p, 100);
    return same(y, 100, [](int i) { return (float)i; });
}
bool late_tile(bool bug, int late)
{
    Buffer x(96, true), y(96);
    PICK(tile_kernel, 3, 32, y.p, x.p, late);
    return same(y, 96, [](int i) { return (float)(i / 32 * 32 + 31 - i % 32); });
}
bool tile(bool bug) { return late_tile(bug, 2); }
bool inner_tile(bool bug) { return late_tile(bug, 1); }
bool divergent(bool bug)
{
    Buffer x(32, true), y(32);
    PICK(divergent_kernel, 1, 32, y.p, x.p);
    return same(y, 32, [](int i) { return (float)(i + (i ^ 1)); });
}
bool maximum(bool bug)
{
    Buffer x(32, true), y(32);
    PICK(maximum_kernel, 1, 32, y.p, x.p);
    return same(y, 32, [](int) { return 31.f; });
}
bool uninitialised(bool bug)
{
    Buffer x(64, true), y(64);
    PICK(uninitialised_kernel, 1, 64, y.p, x.p);
    return same(y, 64, [](int) { return 32.f; });
}
bool swizzle(bool bug)
{
    Buffer x(256, true), y(32);
    PICK(swizzle_kernel, 1, 32, y.p, x.p);
    return same(y, 32, [](int i) { return (float)(i / 4 * 16 + i % 4); });
}

const Case list[] = {
    {"a removed barrier", reverse, {"data race", "uninitialised"}},
    {"no barrier before a buffer is used again", reuse, {"data race"}},
    {"a lax copy wait", ring, {"destination of an asynchronous copy"}},
    {"a copy that nothing waits for", ahead, {"exit while this copy is in flight"}},
    {"a missing tail predicate", tail, {"out of bounds"}},
    {"an off-by-one tile", tile, {"out of bounds"}},
    {"an off-by-one tile inside the tensor", inner_tile, {}},
    {"a full-mask shuffle in divergent code", divergent, {"exited", "which exits"}},
    {"a missing shuffle step", maximum, {}},
    {"a sum that was not written", uninitialised, {"uninitialised"}},
    {"a wrong swizzle", swizzle, {}},
};

} // namespace

Cases ampere_cases() { return {list, sizeof list / sizeof *list}; }
