/* conform.cu - every wrapper of special instructions, checked word for word.
 *
 * CMake builds test_hostcuda_conform for the simulated GPU and, with `ninja gpu`, conform_gpu for
 * one of sm_90; that exits 4 without a GPU, 77 on another kind.
 * All sums are exact in fp32, so a GPU must give the same words; the hashes below are of the words
 * that the simulated GPU gives. `conform words` prints them.
 */
#include "../../../kernels/cuda/async.cuh"
#include "../../../kernels/cuda/tma.cuh"
#include "../../../kernels/cuda/wgmma.cuh"
#include <cstdio>
#include <cstring>
#include <vector>

static const int WORDS = 4096, SIDE = 32;

struct Maps {
    /* of x, of y (floats, SIDE x SIDE), of x as NHWC 2 x 4 x 4 x 32 */
    CUtensorMap tiled, out, columns;
};
using Out = unsigned *;

/* Small whole numbers, many of them different */
DEVICE float number(int i) { return (float)(i * 37 % 31 - 15); }

static __global__ void mma_case(Out y, const float *)
{
    int lane = threadIdx.x;
    unsigned a[4], b[2];
    float d[4];
    for (int k = 0; k < 4; k++) {
        a[k] = pack_bf16(number(lane * 8 + k), number(lane * 5 + k + 1));
        d[k] = number(lane + k);
    }
    for (int k = 0; k < 2; k++) b[k] = pack_bf16(number(lane * 3 + k), number(lane * 7 + k + 2));
    mma_bf16(d, a, b[0], b[1]);
    for (int k = 0; k < 4; k++) y[lane * 4 + k] = __float_as_uint(d[k]);
}

static __global__ void ldmatrix_case(Out y, const float *)
{
    __shared__ alignas(16) unsigned tile[32 * 4];
    int lane = threadIdx.x;
    for (int k = 0; k < 4; k++)
        tile[lane * 4 + k] = (lane * 8 + 2 * k) | (lane * 8 + 2 * k + 1) << 16;
    __syncwarp();
    unsigned r[4], s[2];
    Out mine = y + lane * 12;
    ldmatrix_x4(r, &tile[lane * 4]);
    for (int k = 0; k < 4; k++) mine[k] = r[k];
    ldmatrix_x4_trans(r, &tile[lane * 4]);
    for (int k = 0; k < 4; k++) mine[4 + k] = r[k];
    ldmatrix_x2(s, &tile[lane % 16 * 4]);
    mine[8] = s[0], mine[9] = s[1];
    ldmatrix_x2_trans(s, &tile[lane % 16 * 4]);
    mine[10] = s[0], mine[11] = s[1];
}

static __global__ void copy_case(Out y, const float *x)
{
    __shared__ alignas(16) float tile[32 * 8];
    int lane = threadIdx.x;
    float *mine = tile + lane * 8;
    async_copy16(mine, x + lane * 4, lane % 17);
    async_copy<8>(mine + 4, x + lane * 2, lane % 9);
    async_copy<4>(mine + 6, x + lane);
    mine[7] = 0;
    async_commit();
    async_wait<0>();
    for (int k = 0; k < 8; k++) y[lane * 8 + k] = __float_as_uint(mine[k]);
}

/* Corners inside and outside the tensor, im2col columns, a store */
static __global__ void tma_case(Out y, const __grid_constant__ Maps maps)
{
    __shared__ alignas(128) float a[64], b[64], c[32 * 8];
    __shared__ alignas(8) uint64_t bar;
    if (threadIdx.x == 0) {
        mbar_init(&bar, 1);
        mbar_init_fence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mbar_arrive_expect(&bar, sizeof a + sizeof b + sizeof c);
        tma_load_2d(a, &maps.tiled, &bar, -3, 5);
        tma_load_2d(b, &maps.tiled, &bar, SIDE - 4, SIDE - 2);
        tma_load_im2col(c, &maps.columns, &bar, 0, -1, -1, 0, 1, 2);
    }
    mbar_wait(&bar, 0);
    for (int i = threadIdx.x; i < 64; i += blockDim.x) {
        y[1024 + i] = __float_as_uint(a[i]);
        y[1088 + i] = __float_as_uint(b[i]);
    }
    for (int i = threadIdx.x; i < 256; i += blockDim.x) y[1152 + i] = __float_as_uint(c[i]);
    __syncthreads();
    if (threadIdx.x == 0) {
        tma_store_2d(&maps.out, a, 8, 16);
        tma_commit();
        tma_wait<0>();
    }
}

/* Each CTA of a pair reads the other's numbers; rank 0 loads for both; arrivals from afar. */
static __global__ void __cluster_dims__(2) cluster_case(Out y, const __grid_constant__ Maps maps)
{
    __shared__ alignas(128) float tile[64];
    __shared__ alignas(8) uint64_t bar, far;
    __shared__ float mine[32];
    int rank = cluster_rank();
    if (threadIdx.x == 0) {
        mbar_init(&bar, 1);
        mbar_init(&far, 1);
        mbar_init_fence();
        mbar_arrive_expect(&bar, sizeof tile);
    }
    mine[threadIdx.x] = number(blockIdx.x * 32 + threadIdx.x);
    cluster_sync();
    if (rank == 0 && threadIdx.x == 0) tma_load_2d_multicast(tile, &maps.tiled, &bar, 8, 8, 3);
    if (threadIdx.x == 0) mbar_arrive_at(&far, rank ^ 1);
    mbar_wait(&bar, 0);
    mbar_wait(&far, 0);
    Out out = y + blockIdx.x * 96;
    out[threadIdx.x] = __float_as_uint(cluster_load(&mine[threadIdx.x], rank ^ 1));
    out[32 + threadIdx.x] = __float_as_uint(tile[threadIdx.x]);
    out[64 + threadIdx.x] = __float_as_uint(tile[32 + threadIdx.x]);
    cluster_sync();
}

static __global__ void __launch_bounds__(384, 1) wgmma_case(Out y, const float *)
{
    __shared__ alignas(128) bf16 a[64 * 16], b[32 * 16];
    for (int e = threadIdx.x; e < 64 * 16; e += 384) {
        int row = e / 16, k = e % 16, at = (row / 8) * 128 + (k / 8) * 64 + row % 8 * 8 + k % 8;
        a[at] = from_float<bf16>(number(e));
        if (row < 32) b[at] = from_float<bf16>(number(3 * e + 1));
    }
    async_proxy_fence();
    __syncthreads();
    if (threadIdx.x >= 128) {
        registers_shrink<40>();
        return;
    }
    registers_grow<232>();
    float r[16];
    for (int k = 0; k < 16; k++) r[k] = number(threadIdx.x + k);
    uint64_t da = wgmma_matrix(a, 128, 256, SWIZZLE_NONE),
             db = wgmma_matrix(b, 128, 256, SWIZZLE_NONE);
    wgmma_fence();
    wgmma_m64n32(r, da, db, 1);
    wgmma_commit();
    wgmma_wait<0>();
    for (int k = 0; k < 16; k++) y[threadIdx.x * 16 + k] = __float_as_uint(r[k]);
}

static void *driver(const char *name)
{
    void *f = nullptr;
    cudaDriverEntryPointQueryResult found;
    cudaGetDriverEntryPointByVersion(name, &f, 12000, cudaEnableDefault, &found);
    return f;
}

static CUtensorMap tiled_map(void *p)
{
    CUtensorMap map;
    cuuint64_t size[] = {SIDE, SIDE}, stride[] = {SIDE * 4};
    cuuint32_t box[] = {8, 8}, step[] = {1, 1};
    ((decltype(&cuTensorMapEncodeTiled))driver("cuTensorMapEncodeTiled"))(
        &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, p, size, stride, box, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return map;
}

/* 3 x 3 taps with padding 1: 8 channels of 32 pixels */
static CUtensorMap column_map(void *p)
{
    CUtensorMap map;
    cuuint64_t size[] = {32, 4, 4, 2}, stride[] = {128, 512, 2048};
    cuuint32_t step[] = {1, 1, 1, 1};
    int low[] = {-1, -1}, high[] = {-1, -1};
    ((decltype(&cuTensorMapEncodeIm2col))driver("cuTensorMapEncodeIm2col"))(
        &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, p, size, stride, low, high, 8, 32, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return map;
}

static unsigned *words;
static float *numbers;
static bool print_words;
static int failures;

static void begin() { cudaMemset(words, 0, WORDS * 4); }

static void end(const char *name, unsigned long long expected)
{
    std::vector<unsigned> w(WORDS);
    cudaError_t e = cudaDeviceSynchronize();
    if (e == cudaSuccess) e = cudaMemcpy(w.data(), words, WORDS * 4, cudaMemcpyDeviceToHost);
    unsigned long long hash = 14695981039346656037ull;
    for (unsigned v : w) {
        hash = (hash ^ v) * 1099511628211ull;
        hash ^= hash >> 29;
    }
    bool good = e == cudaSuccess && hash == expected;
    printf("%s %s %016llx %s\n", good ? "ok" : "FAILED", name, hash,
           e == cudaSuccess ? "" : cudaGetErrorString(e));
    if (print_words)
        for (int i = 0; i < WORDS; i++)
            if (w[i]) printf("  %d %08x\n", i, w[i]);
    failures += !good;
}

int main(int argc, char **argv)
{
    print_words = argc > 1 && !strcmp(argv[1], "words");
    int gpus = 0;
    cudaDeviceProp gpu;
    if (cudaGetDeviceCount(&gpus) != cudaSuccess || !gpus) {
        puts("no GPU: no word was checked");
        return 4;
    }
    cudaGetDeviceProperties(&gpu, 0);
    if (gpu.major != 9) {
        printf("skipped: these words need sm_90, %s is sm_%d%d\n", gpu.name, gpu.major, gpu.minor);
        return 77;
    }
    std::vector<float> v(WORDS);
    for (int i = 0; i < WORDS; i++) v[i] = (float)(i + 1);
    cudaMalloc(&words, WORDS * 4);
    cudaMalloc(&numbers, WORDS * 4);
    cudaMemcpy(numbers, v.data(), WORDS * 4, cudaMemcpyHostToDevice);
    Maps maps = {tiled_map(numbers), tiled_map(words), column_map(numbers)};
    begin();
    mma_case<<<1, 32>>>(words, numbers);
    end("mma", 0x64feeedce34a9e3cull);
    begin();
    ldmatrix_case<<<1, 32>>>(words, numbers);
    end("ldmatrix", 0xadc18da8e44992dbull);
    begin();
    copy_case<<<1, 32>>>(words, numbers);
    end("cp.async", 0x37f7191a83a7890eull);
    begin();
    tma_case<<<1, 64>>>(words, maps);
    end("tma", 0x997424b2a952a2b6ull);
    begin();
    cluster_case<<<4, 32>>>(words, maps);
    end("cluster", 0xd295853d70683311ull);
    begin();
    wgmma_case<<<1, 384>>>(words, numbers);
    end("wgmma", 0xcebc9e56c720ae4dull);
    cudaFree(words);
    cudaFree(numbers);
    return failures != 0;
}
