/* gemm_ffma.cu - the products of gemm.cuh on ordinary cores, in fp32: for fp32 storage (checks of
 * everything else), and for the strides that tensor-core kernels do not know.
 *
 * A block makes 64x64 of out, a thread 4x4, from slices of 16 inner indices in shared memory.
 * Bound: 2 FLOP per 2 bytes read from shared memory; a third of the fp32 peak is what to expect.
 */
#include "gemm.cuh"

static const int TILE = 64, SLICE = 16, THREADS = 256;

/* Element (m, k) of A and (k, n) of B; 0 beyond the ends, which lie at slices' ends too. */
template <GemmPass PASS, class T>
DEVICE float element_a(const Gemm &g, const Phase &p, int m, int k, int k_end)
{
    if (k >= k_end || m >= (PASS == GEMM_DW ? g.m : p.rows)) return 0;
    if (PASS == GEMM_DW) return to_float(((const T *)g.a)[(size_t)k * g.m + m]);
    long long at = gemm_source(g, p, gemm_pixel(p, m), gemm_tap(g, p, k));
    return at < 0 ? 0 : to_float(((const T *)g.a)[at]);
}

template <GemmPass PASS, class T>
DEVICE float element_b(const Gemm &g, const Phase &p, int k, int n, int k_end)
{
    if (k >= k_end || n >= g.n) return 0;
    long long at;
    if (PASS == GEMM_FWD) at = (long long)n * p.k + k;
    if (PASS == GEMM_DX) at = gemm_filter(g, p, k) + n;
    if (PASS == GEMM_DW) at = gemm_source(g, p, gemm_pixel(p, k), gemm_tap(g, p, n));
    return at < 0 ? 0 : to_float(((const T *)g.b)[at]);
}

template <GemmPass PASS, class T>
static __global__ void __launch_bounds__(THREADS) ffma_kernel(const Gemm g)
{
    __shared__ __align__(16) float a[SLICE][TILE + 4], b[SLICE][TILE + 4];
    const Phase p = gemm_phase(g, blockIdx.z);
    const int tiles_n = (g.n + TILE - 1) / TILE, t = threadIdx.x;
    const int m0 = blockIdx.x / tiles_n * TILE, n0 = blockIdx.x % tiles_n * TILE;
    const int inner = PASS == GEMM_DW ? p.rows : p.k, rows = PASS == GEMM_DW ? g.m : p.rows;
    const int share = ((inner + g.splits - 1) / g.splits + SLICE - 1) / SLICE * SLICE;
    const int begin = blockIdx.y * share, end = min(inner, begin + share);
    if (m0 >= rows) return;
    float sum[4][4] = {};
    for (int k0 = begin; k0 < end; k0 += SLICE) {
        __syncthreads();
#pragma unroll
        for (int i = t; i < SLICE * TILE; i += THREADS) { /* neighbours in memory: neighbours in t */
            int across = i % TILE, along = i / TILE, k_a = i % SLICE, row = i / SLICE;
            if (PASS == GEMM_DW) a[along][across] = element_a<PASS, T>(g, p, m0 + across, k0 + along, end);
            else a[k_a][row] = element_a<PASS, T>(g, p, m0 + row, k0 + k_a, end);
            if (PASS == GEMM_FWD) b[k_a][row] = element_b<PASS, T>(g, p, k0 + k_a, n0 + row, end);
            else b[along][across] = element_b<PASS, T>(g, p, k0 + along, n0 + across, end);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < SLICE; k++) {
            Pack<float, 4> x = *(const Pack<float, 4> *)&a[k][t / 16 * 4];
            Pack<float, 4> y = *(const Pack<float, 4> *)&b[k][t % 16 * 4];
#pragma unroll
            for (int i = 0; i < 16; i++) sum[i / 4][i % 4] += x.v[i / 4] * y.v[i % 4];
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int m = m0 + t / 16 * 4 + i;
        if (m >= rows) break;
        size_t row = gemm_out_row<PASS>(g, p, m);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int n = n0 + t % 16 * 4 + j;
            if (n >= g.n) break;
            if (g.splits > 1) g.partial[blockIdx.y * g.part + row + n] = sum[i][j];
            else if (PASS == GEMM_DW) ((float *)g.out)[row + n] = sum[i][j];
            else ((T *)g.out)[row + n] = from_float<T>(sum[i][j] + (g.bias ? g.bias[n] : 0));
        }
    }
}

template <class T> static void launch(const Gemm &g, GemmPass pass, cudaStream_t stream)
{
    unsigned tiles = (unsigned)((g.m + TILE - 1) / TILE) * (unsigned)((g.n + TILE - 1) / TILE);
    dim3 grid(tiles, (unsigned)g.splits, (unsigned)g.phases);
    if (pass == GEMM_FWD) ffma_kernel<GEMM_FWD, T><<<grid, THREADS, 0, stream>>>(g);
    if (pass == GEMM_DX) ffma_kernel<GEMM_DX, T><<<grid, THREADS, 0, stream>>>(g);
    if (pass == GEMM_DW) ffma_kernel<GEMM_DW, T><<<grid, THREADS, 0, stream>>>(g);
}

Status gemm_ffma(const Gemm *g, GemmPass pass, Dtype type, Stream *s)
{
    if (type == DTYPE_BF16) launch<bf16>(*g, pass, s->handle);
    else launch<float>(*g, pass, s->handle);
    return launched("gemm_ffma");
}
