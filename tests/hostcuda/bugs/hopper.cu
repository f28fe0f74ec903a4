/* hopper.cu - bugs around mbarriers, TMA, proxies, clusters and wgmma; right, they also show that
 * the wrappers in tma.cuh, cluster.cuh and wgmma.cuh do what they say. */
#include "../../../kernels/cuda/tma.cuh"
#include "../../../kernels/cuda/wgmma.cuh"
#include "bugs.h"
#include "driver_entry.h"
#include <vector>

namespace {

const int SIDE = 32; /* of the matrix of floats, in tiles of 8 x 8 */

CUtensorMap map_of(float *p)
{
    CUtensorMap map;
    cuuint64_t size[] = {SIDE, SIDE}, stride[] = {SIDE * sizeof(float)};
    cuuint32_t box[] = {8, 8}, step[] = {1, 1};
    ((decltype(&cuTensorMapEncodeTiled))driver_entry("cuTensorMapEncodeTiled"))(
        &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, p, size, stride, box, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return map;
}

CUtensorMap column_map(float *p)
{
    CUtensorMap map;
    cuuint64_t size[] = {32, 4, 4, 2}, stride[] = {128, 512, 2048};
    cuuint32_t step[] = {1, 1, 1, 1};
    int low[] = {-1, -1}, high[] = {-1, -1};
    ((decltype(&cuTensorMapEncodeIm2col))driver_entry("cuTensorMapEncodeIm2col"))(
        &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, p, size, stride, low, high, 8, 32, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return map;
}

/* Sums four tiles, one after another through one buffer; thread 0 loads them. */
enum { RIGHT, PARITY, BYTES, SYNC, WAIT, SWIZZLE };
template <int BUG>
__global__ void tiles_kernel(const __grid_constant__ CUtensorMap map, float *y)
{
    __shared__ alignas(128) float tile[64];
    __shared__ alignas(8) uint64_t bar;
    if (threadIdx.x == 0) {
        mbar_init(&bar, 1);
        mbar_init_fence();
    }
    __syncthreads();
    float sum = 0;
    for (int k = 0; k < 4; k++) {
        if (threadIdx.x == 0) {
            mbar_arrive_expect(&bar, BUG == BYTES ? 128 : 256);
            tma_load_2d(tile, &map, &bar, 8 * k, 8);
        }
        mbar_wait(&bar, BUG == PARITY ? (k + 1) & 1 : k & 1);
        sum += tile[63 - threadIdx.x];
        if (BUG != SYNC) __syncthreads();
    }
    y[threadIdx.x] = sum;
}

/* A transposed tile, stored by TMA */
template <bool BUG>
__global__ void store_kernel(const __grid_constant__ CUtensorMap map, const float *x)
{
    __shared__ alignas(128) float tile[64];
    int i = threadIdx.x / 8, j = threadIdx.x % 8;
    tile[j * 8 + i] = x[i * SIDE + j];
    if (!BUG) async_proxy_fence();
    __syncthreads();
    if (threadIdx.x == 0) {
        tma_store_2d(&map, tile, 16, 24);
        tma_commit();
        tma_wait<0>();
    }
}

/* Each CTA of a pair reads what the other wrote. */
template <bool BUG> __global__ void __cluster_dims__(2) pair_kernel(float *y, const float *x)
{
    __shared__ float mine[32];
    mine[threadIdx.x] = x[blockIdx.x * 32 + threadIdx.x];
    if (!BUG) cluster_sync();
    y[blockIdx.x * 32 + threadIdx.x] = cluster_load(&mine[threadIdx.x], cluster_rank() ^ 1);
    cluster_sync();
}

/* Of NHWC 2 x 4 x 4 x 32: channels 8 .. 15 of all pixels as a 3 x 3 filter with padding 1 sees them
 * through its tap one to the right and two below. With the bug they start one pixel too far. */
template <bool BUG>
__global__ void columns_kernel(const __grid_constant__ CUtensorMap map, float *y)
{
    __shared__ alignas(128) float tile[32 * 8];
    __shared__ alignas(8) uint64_t bar;
    if (threadIdx.x == 0) {
        mbar_init(&bar, 1);
        mbar_init_fence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mbar_arrive_expect(&bar, sizeof tile);
        tma_load_im2col(tile, &map, &bar, 8, BUG ? 0 : -1, -1, 0, 1, 2);
    }
    mbar_wait(&bar, 0);
    for (int i = threadIdx.x; i < 256; i += blockDim.x) y[i] = tile[i];
}

/* D = A . B with A 64 x 16 and B 32 x 16, rows of k: their two 16-byte chunks change places in
 * every other four rows, which the descriptors call a swizzle of 32 bytes. */
template <int BUG> __global__ void product_kernel(float *d, const float *x)
{
    __shared__ alignas(256) bf16 a[64 * 16], b[32 * 16];
    for (int e = threadIdx.x; e < 64 * 16; e += 128) {
        int row = e / 16, k = e % 16, plain = row * 16 + k, at = plain ^ row / 4 % 2 * 8;
        a[at] = from_float<bf16>(x[e % 7]);
        if (row < 32) b[BUG == SWIZZLE ? plain : at] = from_float<bf16>(x[e % 5]);
    }
    async_proxy_fence();
    __syncthreads();
    float r[16];
    for (int k = 0; k < 16; k++) r[k] = 0;
    wgmma_fence();
    wgmma_m64n32(r, wgmma_matrix(a, 16, 256, SWIZZLE_32), wgmma_matrix(b, 16, 256, SWIZZLE_32), 0);
    wgmma_commit();
    if (BUG != WAIT) wgmma_wait<0>();
    if (BUG == WAIT && threadIdx.x < 64) a[threadIdx.x * 16] = from_float<bf16>(0);
    wgmma_wait<0>();
    int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
    for (int t = 0; t < 4; t++)
        for (int k = 0; k < 4; k++)
            d[(row + k / 2 * 8) * 32 + t * 8 + pair + k % 2] = r[4 * t + k];
}

std::vector<float> numbers(int n)
{
    std::vector<float> v(n);
    for (int i = 0; i < n; i++) v[i] = (float)i;
    return v;
}

/* Device memory: x = 0, 1, 2, ..., y = 0 */
struct Pair {
    float *x, *y;
    Pair()
    {
        cudaMalloc(&x, SIDE * SIDE * 4);
        cudaMalloc(&y, 2 * SIDE * SIDE * 4);
        cudaMemcpy(x, numbers(SIDE * SIDE).data(), SIDE * SIDE * 4, cudaMemcpyHostToDevice);
        cudaMemset(y, 0, 2 * SIDE * SIDE * 4);
    }
    ~Pair()
    {
        cudaFree(x);
        cudaFree(y);
    }
    std::vector<float> result() const
    {
        std::vector<float> v(2 * SIDE * SIDE);
        cudaDeviceSynchronize();
        cudaMemcpy(v.data(), y, v.size() * 4, cudaMemcpyDeviceToHost);
        return v;
    }
};

template <int BUG> bool tiles(bool bug)
{
    Pair m;
    CUtensorMap map = map_of(m.x);
    if (bug) tiles_kernel<BUG><<<1, 64>>>(map, m.y);
    else tiles_kernel<RIGHT><<<1, 64>>>(map, m.y);
    std::vector<float> v = m.result();
    for (int i = 0; i < 64; i++) {
        int from = 63 - i;
        float sum = 0;
        for (int k = 0; k < 4; k++) sum += (float)((8 + from / 8) * SIDE + 8 * k + from % 8);
        if (!(v[i] == sum)) return false;
    }
    return true;
}

bool store(bool bug)
{
    Pair m;
    CUtensorMap map = map_of(m.y);
    if (bug) store_kernel<true><<<1, 64>>>(map, m.x);
    else store_kernel<false><<<1, 64>>>(map, m.x);
    std::vector<float> v = m.result();
    for (int i = 0; i < 64; i++)
        if (!(v[(24 + i / 8) * SIDE + 16 + i % 8] == (float)(i % 8 * SIDE + i / 8))) return false;
    return true;
}

bool pair(bool bug)
{
    Pair m;
    if (bug) pair_kernel<true><<<4, 32>>>(m.y, m.x);
    else pair_kernel<false><<<4, 32>>>(m.y, m.x);
    std::vector<float> v = m.result();
    for (int i = 0; i < 128; i++)
        if (!(v[i] == (float)(i ^ 32))) return false;
    return true;
}

bool columns(bool bug)
{
    Pair m;
    CUtensorMap map = column_map(m.x);
    if (bug) columns_kernel<true><<<1, 64>>>(map, m.y);
    else columns_kernel<false><<<1, 64>>>(map, m.y);
    std::vector<float> v = m.result();
    for (int i = 0; i < 256; i++) {
        int pixel = i / 8, n = pixel / 16, h = pixel / 4 % 4 + 1, w = pixel % 4;
        if (!(v[i] == (h < 4 ? (float)(((n * 4 + h) * 4 + w) * 32 + 8 + i % 8) : 0))) return false;
    }
    return true;
}

template <int BUG> bool product(bool bug)
{
    Pair m;
    if (bug) product_kernel<BUG><<<1, 128>>>(m.y, m.x);
    else product_kernel<RIGHT><<<1, 128>>>(m.y, m.x);
    std::vector<float> v = m.result();
    for (int i = 0; i < 64 * 32; i++) {
        float sum = 0;
        for (int k = 0; k < 16; k++)
            sum += (float)((i / 32 * 16 + k) % 7) * (float)((i % 32 * 16 + k) % 5);
        if (!(v[i] == sum)) return false;
    }
    return true;
}

const Case list[] = {
    {"a wrong mbarrier parity", tiles<PARITY>,
     {"uninitialised", "destination of an asynchronous copy", "deadlock"}},
    {"too few expected bytes", tiles<BYTES>, {"deadlock"}},
    {"TMA into a buffer that is still read", tiles<SYNC>,
     {"data race", "destination of an asynchronous copy", "deadlock"}},
    {"no proxy fence before a TMA store", store, {"fence.proxy.async"}},
    {"no cluster barrier", pair, {"barrier.cluster first"}},
    {"a wrong im2col coordinate", columns, {}},
    {"an operand overwritten before wgmma's wait",
     product<WAIT>,
     {"unfinished wgmma", "data race"}},
    {"a wrong swizzle of wgmma's operand", product<SWIZZLE>, {}},
};

} // namespace

Cases hopper_cases() { return {list, sizeof list / sizeof *list}; }
