/* conform.cu - every wrapper of special instructions, checked word for word.
 *
 * CMake builds test_hostcuda_conform for the simulated GPU and, with `ninja gpu`, conform_gpu for
 * one of sm_90; that exits 4 without a GPU, 77 on another kind. All sums are exact in fp32, so a
 * GPU must give the same words. Beside each kernel stands what it must write, as the PTX manual has
 * it: matrices are filled from the fragments it draws and multiplied in loops, tiles are looked up
 * in the tensor. Nothing of the simulated GPU is in that. The hashes of the words are here besides;
 * `conform words` prints the words.
 */
#include "../../../kernels/cuda/async.cuh"
#include "../../../kernels/cuda/tma.cuh"
#include "../../../kernels/cuda/wgmma.cuh"
#include "driver_entry.h"
#include <cstdio>
#include <cstring>
#include <vector>

static const int WORDS = 4096, SIDE = 32;

struct Maps {
    /* of x, of y (floats, SIDE x SIDE), of x as NHWC 2 x 4 x 4 x 32 */
    CUtensorMap tiled, out, columns;
    CUtensorMap box; /* of x in 4-d, as columns has it: boxes of 2 x 2 x 2 pixels, 8 channels */
    CUtensorMap rows[4]; /* by swizzle, of b_number: bf16, 32 rows of one swizzle's span */
};
using Out = unsigned *;

/* Small whole numbers, many of them different */
static __host__ __device__ __forceinline__ float number(int i) { return (float)(i * 37 % 31 - 15); }

static unsigned bits(float v)
{
    unsigned u;
    memcpy(&u, &v, 4);
    return u;
}
/* x[i] of main() */
static float input(int i) { return (float)(i + 1); }

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

/* Lane l has rows l / 4 and 8 more of A and D, column l / 4 of B; pairs from 2 (l % 4) on, and 8
 * more. */
static void mma_words(Out y)
{
    float a[16][16], b[16][8];
    for (int l = 0; l < 32; l++)
        for (int k = 0; k < 4; k++)
            for (int h = 0; h < 2; h++) {
                a[l / 4 + k % 2 * 8][l % 4 * 2 + h + k / 2 * 8] =
                    h ? number(l * 5 + k + 1) : number(l * 8 + k);
                if (k < 2)
                    b[l % 4 * 2 + h + k * 8][l / 4] = h ? number(l * 7 + k + 2) : number(l * 3 + k);
            }
    for (int l = 0; l < 32; l++)
        for (int k = 0; k < 4; k++) {
            float d = number(l + k);
            for (int j = 0; j < 16; j++) d += a[l / 4 + k / 2 * 8][j] * b[j][l % 4 * 2 + k % 2];
            y[l * 4 + k] = bits(d);
        }
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

/* Rows of 8 halves, half c of row r is 8 r + c. Matrix i has rows 8 i .. 8 i + 7; lane l gets
 * halves 2 (l % 4) and the next of row l / 4, of the matrix or of its transpose. */
static void ldmatrix_words(Out y)
{
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 12; i++) {
            int matrix = i < 8 ? i % 4 : i % 2, row = l / 4, pair = l % 4 * 2;
            bool turned = i / 4 == 1 || i > 9;
            int low = turned ? (matrix * 8 + pair) * 8 + row : (matrix * 8 + row) * 8 + pair;
            y[l * 12 + i] = (unsigned)(low | (low + (turned ? 8 : 1)) << 16);
        }
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

/* What is asked for beyond the source's bytes is zero. */
static void copy_words(Out y)
{
    for (int l = 0; l < 32; l++)
        for (int k = 0; k < 7; k++) { /* byte by byte: 16, 8 and 4 of which some are there */
            int from = k < 4 ? l * 4 + k : k < 6 ? l * 2 + k - 4 : l;
            int there = k < 4 ? l % 17 - 4 * k : k < 6 ? l % 9 - 4 * (k - 4) : 4;
            unsigned mask = there >= 4 ? ~0u : there > 0 ? (1u << 8 * there) - 1 : 0;
            y[l * 8 + k] = bits(input(from)) & mask;
        }
}

/* Corners inside and outside the tensor, a box of four dimensions, im2col columns; a store, whose
 * source is written over once it has been read. Another warp's arrival counts too. */
static __global__ void tma_case(Out y, const __grid_constant__ Maps maps)
{
    __shared__ alignas(128) float a[64], b[64], c[32 * 8], d[64];
    __shared__ alignas(8) uint64_t bar;
    if (threadIdx.x == 0) {
        mbar_init(&bar, 2);
        mbar_init_fence();
    }
    __syncthreads();
    if (threadIdx.x == 32) mbar_arrive(&bar);
    if (threadIdx.x == 0) {
        mbar_arrive_expect(&bar, sizeof a + sizeof b + sizeof c + sizeof d);
        tma_load_4d(d, &maps.box, &bar, 4, 3, -1, 0);
        tma_load_2d(a, &maps.tiled, &bar, -3, 5);
        tma_load_2d(b, &maps.tiled, &bar, SIDE - 4, SIDE - 2);
        tma_load_im2col(c, &maps.columns, &bar, 0, -1, -1, 0, 1, 2);
    }
    mbar_wait(&bar, 0);
    for (int i = threadIdx.x; i < 64; i += blockDim.x) {
        y[1024 + i] = __float_as_uint(a[i]);
        y[1088 + i] = __float_as_uint(b[i]);
        y[1408 + i] = __float_as_uint(d[i]);
    }
    for (int i = threadIdx.x; i < 256; i += blockDim.x) y[1152 + i] = __float_as_uint(c[i]);
    __syncthreads();
    if (threadIdx.x == 0) {
        tma_store_2d(&maps.out, a, 8, 16);
        tma_commit();
        tma_wait_read<0>();
        a[0] = -1;
        tma_wait<0>();
    }
}

static float tiled(int column, int row) /* of x, SIDE x SIDE */
{
    bool inside = column >= 0 && column < SIDE && row >= 0 && row < SIDE;
    return inside ? input(row * SIDE + column) : 0;
}

/* Columns: pixels from (-1, -1) on, four by four an image, seen through the tap one to the right
 * and two below; eight channels of each. The box: channels from 4 on of pixels whose columns are 3
 * and 4, rows -1 and 0. */
static void tma_words(Out y)
{
    for (int i = 0; i < 64; i++) {
        unsigned a = bits(tiled(-3 + i % 8, 5 + i / 8));
        y[1024 + i] = a;
        y[1088 + i] = bits(tiled(SIDE - 4 + i % 8, SIDE - 2 + i / 8));
        y[(16 + i / 8) * SIDE + 8 + i % 8] = a;
        bool inside = i / 8 % 2 == 0 && i / 16 % 2 == 1; /* column 3 of row 0 */
        y[1408 + i] = inside ? bits(input((i / 32 * 16 + 3) * 32 + 4 + i % 8)) : 0;
    }
    for (int i = 0; i < 256; i++) {
        int pixel = i / 8, n = pixel / 16, h = pixel / 4 % 4 + 1, w = pixel % 4;
        y[1152 + i] = h < 4 ? bits(input(((n * 4 + h) * 4 + w) * 32 + i % 8)) : 0;
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

static void cluster_words(Out y)
{
    for (int block = 0; block < 4; block++)
        for (int i = 0; i < 32; i++) {
            y[block * 96 + i] = bits(number((block ^ 1) * 32 + i));
            y[block * 96 + 32 + i] = bits(tiled(8 + i % 8, 8 + i / 8));
            y[block * 96 + 64 + i] = bits(tiled(8 + i % 8, 12 + i / 8));
        }
}

static __host__ __device__ __forceinline__ float a_number(int row, int k)
{
    return number(16 * row + k);
}
static __host__ __device__ __forceinline__ float b_number(int row, int k)
{
    return number(48 * row + 3 * k + 1);
}

static __global__ void __launch_bounds__(384, 1) wgmma_case(Out y, const float *)
{
    __shared__ alignas(128) bf16 a[64 * 16], b[32 * 16];
    for (int e = threadIdx.x; e < 64 * 16; e += 384) {
        int row = e / 16, k = e % 16, at = (row / 8) * 128 + (k / 8) * 64 + row % 8 * 8 + k % 8;
        a[at] = from_float<bf16>(a_number(row, k));
        if (row < 32) b[at] = from_float<bf16>(b_number(row, k));
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

/* Operands with a swizzle: rows of SPAN bytes, whose 16-byte chunk c of row i lies in place
 * c ^ (i * SPAN / 128) % (SPAN / 16). A is written so, B brought so by TMA. */
template <int SWIZZLE>
static __global__ void __launch_bounds__(128) swizzle_case(Out y, const __grid_constant__ Maps maps)
{
    const int SPAN = 256 >> SWIZZLE, K = SPAN / 2;
    __shared__ alignas(1024) bf16 a[64 * K];
    __shared__ alignas(1024) bf16 b[32 * K];
    __shared__ alignas(8) uint64_t bar;
    for (int e = threadIdx.x; e < 64 * K; e += 128) {
        int row = e / K, k = e % K, chunk = k / 8 ^ row * SPAN / 128 % (SPAN / 16);
        a[row * K + chunk * 8 + k % 8] = from_float<bf16>(a_number(row, k));
    }
    if (threadIdx.x == 0) {
        mbar_init(&bar, 1);
        mbar_init_fence();
    }
    async_proxy_fence();
    __syncthreads();
    if (threadIdx.x == 0) {
        mbar_arrive_expect(&bar, sizeof b);
        tma_load_2d(b, &maps.rows[SWIZZLE], &bar, 0, 0);
    }
    mbar_wait(&bar, 0);
    float r[16];
    for (int k = 0; k < 16; k++) r[k] = number(threadIdx.x + k);
    wgmma_fence();
    for (int k = 0; k < K; k += 16)
        wgmma_m64n32(r, wgmma_matrix(a + k, 16, 8 * SPAN, SWIZZLE),
                     wgmma_matrix(b + k, 16, 8 * SPAN, SWIZZLE), 1);
    wgmma_commit();
    wgmma_wait<0>();
    for (int k = 0; k < 16; k++) y[threadIdx.x * 16 + k] = __float_as_uint(r[k]);
}

/* Thread t's register i is D's row 16 (t / 32) + t % 32 / 4 and 8 more for i / 2 odd, column
 * 8 (i / 4) + 2 (t % 4) + i % 2: tiles of mma side by side. */
static void wgmma_words(Out y, int depth)
{
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < 16; i++) {
            int row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8,
                column = i / 4 * 8 + t % 4 * 2 + i % 2;
            float d = number(t + i);
            for (int k = 0; k < depth; k++) d += a_number(row, k) * b_number(column, k);
            y[t * 16 + i] = bits(d);
        }
}
static void wgmma_words_16(Out y) { wgmma_words(y, 16); }
static void wgmma_words_32(Out y) { wgmma_words(y, 32); }
static void wgmma_words_64(Out y) { wgmma_words(y, 64); }

static CUtensorMap tiled_map(void *p)
{
    CUtensorMap map;
    cuuint64_t size[] = {SIDE, SIDE}, stride[] = {SIDE * 4};
    cuuint32_t box[] = {8, 8}, step[] = {1, 1};
    ((decltype(&cuTensorMapEncodeTiled))driver_entry("cuTensorMapEncodeTiled"))(
        &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, p, size, stride, box, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return map;
}

/* Of p as NHWC 2 x 4 x 4 x 32 */
static CUtensorMap box_map(void *p)
{
    CUtensorMap map;
    cuuint64_t size[] = {32, 4, 4, 2}, stride[] = {128, 512, 2048};
    cuuint32_t box[] = {8, 2, 2, 2}, step[] = {1, 1, 1, 1};
    ((decltype(&cuTensorMapEncodeTiled))driver_entry("cuTensorMapEncodeTiled"))(
        &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, p, size, stride, box, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return map;
}

/* 32 rows of b_number as long as a swizzle's span, at p */
static CUtensorMap row_map(bf16 *p, int swizzle)
{
    static const CUtensorMapSwizzle mode[] = {CU_TENSOR_MAP_SWIZZLE_NONE,
                                              CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_SWIZZLE_64B,
                                              CU_TENSOR_MAP_SWIZZLE_32B};
    CUtensorMap map;
    cuuint64_t columns = swizzle ? 128 >> swizzle : 8, size[] = {columns, 32},
               stride[] = {columns * 2};
    cuuint32_t box[] = {(cuuint32_t)columns, 32}, step[] = {1, 1};
    std::vector<bf16> v(32 * columns);
    for (int i = 0; i < (int)v.size(); i++)
        v[i] = __float2bfloat16_rn(b_number(i / (int)columns, i % (int)columns));
    cudaMemcpy(p, v.data(), v.size() * sizeof v[0], cudaMemcpyHostToDevice);
    ((decltype(&cuTensorMapEncodeTiled))driver_entry("cuTensorMapEncodeTiled"))(
        &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, p, size, stride, box, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, mode[swizzle], CU_TENSOR_MAP_L2_PROMOTION_NONE,
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
    ((decltype(&cuTensorMapEncodeIm2col))driver_entry("cuTensorMapEncodeIm2col"))(
        &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, p, size, stride, low, high, 8, 32, step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return map;
}

static unsigned *words;
static float *numbers;
static bf16 *rows;
static bool print_words;
static int failures;

static void begin() { cudaMemset(words, 0, WORDS * 4); }

static void end(const char *name, void (*fill)(Out y), unsigned long long expected)
{
    std::vector<unsigned> w(WORDS), right(WORDS);
    fill(right.data());
    cudaError_t e = cudaDeviceSynchronize();
    if (e == cudaSuccess) e = cudaMemcpy(w.data(), words, WORDS * 4, cudaMemcpyDeviceToHost);
    unsigned long long hash = 14695981039346656037ull;
    for (unsigned v : w) {
        hash = (hash ^ v) * 1099511628211ull;
        hash ^= hash >> 29;
    }
    int at = 0;
    while (at < WORDS && w[at] == right[at]) at++;
    bool good = e == cudaSuccess && hash == expected && at == WORDS;
    printf("%s %s %016llx %s\n", good ? "ok" : "FAILED", name, hash,
           e == cudaSuccess ? "" : cudaGetErrorString(e));
    if (at < WORDS) printf("  word %d is %08x, expected %08x\n", at, w[at], right[at]);
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
    for (int i = 0; i < WORDS; i++) v[i] = input(i);
    cudaMalloc(&words, WORDS * 4);
    cudaMalloc(&numbers, WORDS * 4);
    cudaMemcpy(numbers, v.data(), WORDS * 4, cudaMemcpyHostToDevice);
    cudaMalloc(&rows, 4 * 4096);
    Maps maps = {tiled_map(numbers), tiled_map(words), column_map(numbers),
                 box_map(numbers), {}};
    for (int i = 0; i < 4; i++) maps.rows[i] = row_map(rows + i * 2048, i);
    begin();
    mma_case<<<1, 32>>>(words, numbers);
    end("mma", mma_words, 0x64feeedce34a9e3cull);
    begin();
    ldmatrix_case<<<1, 32>>>(words, numbers);
    end("ldmatrix", ldmatrix_words, 0xadc18da8e44992dbull);
    begin();
    copy_case<<<1, 32>>>(words, numbers);
    end("cp.async", copy_words, 0x37f7191a83a7890eull);
    begin();
    tma_case<<<1, 64>>>(words, maps);
    end("tma", tma_words, 0x0218ca98167de9d1ull);
    begin();
    cluster_case<<<4, 32>>>(words, maps);
    end("cluster", cluster_words, 0xd295853d70683311ull);
    begin();
    wgmma_case<<<1, 384>>>(words, numbers);
    end("wgmma", wgmma_words_16, 0xcebc9e56c720ae4dull);
    begin();
    swizzle_case<SWIZZLE_32><<<1, 128>>>(words, maps);
    end("wgmma, swizzle of 32", wgmma_words_16, 0xcebc9e56c720ae4dull);
    begin();
    swizzle_case<SWIZZLE_64><<<1, 128>>>(words, maps);
    end("wgmma, swizzle of 64", wgmma_words_32, 0x5aa4f2df2fb620d1ull);
    begin();
    swizzle_case<SWIZZLE_128><<<1, 128>>>(words, maps);
    end("wgmma, swizzle of 128", wgmma_words_64, 0xe10a4ad7dfb7bbefull);
    cudaFree(rows);
    cudaFree(words);
    cudaFree(numbers);
    return failures != 0;
}
