/* gemm_ffma.cu - the products of gemm.cuh on ordinary cores, in fp32: what fp32 storage runs, to
 * check everything else tightly.
 *
 * A block makes 64x64 of out, a thread 4x4, from slices of 16 inner indices in shared memory.
 * Bound: 2 FLOP per 2 bytes read from shared memory; a third of the fp32 peak is what to expect.
 */
#include "gemm.cuh"

static const int TILE = 64, SLICE = 16, THREADS = 256;

template <GemmPass PASS>
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
        /* neighbours in memory: neighbours in t */
        for (int i = t; i < SLICE * TILE; i += THREADS) {
            int row = i / SLICE, k = k0 + i % SLICE, along = k0 + i / TILE, across = i % TILE;
            if (PASS == GEMM_DW)
                a[i / TILE][across] = gemm_a<PASS, float>(g, p, m0 + across, along, end);
            else a[i % SLICE][row] = gemm_a<PASS, float>(g, p, m0 + row, k, end);
            if (PASS == GEMM_FWD) b[i % SLICE][row] = gemm_b<PASS, float>(g, p, k, n0 + row, end);
            else b[i / TILE][across] = gemm_b<PASS, float>(g, p, along, n0 + across, end);
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
            else {
                float y[1] = {sum[i][j] + (g.bias ? g.bias[n] : 0)};
                if (PASS == GEMM_FWD)
                    gemm_after<float, 1>(g, y, gemm_pixel(p, m).image, row + n, n);
                ((float *)g.out)[row + n] = y[0];
            }
        }
    }
}

Status gemm_ffma(const Gemm *g, GemmPass pass, Stream *s)
{
    unsigned tiles = (unsigned)((g->m + TILE - 1) / TILE) * (unsigned)((g->n + TILE - 1) / TILE);
    dim3 grid(tiles, (unsigned)g->splits, (unsigned)g->phases);
    if (pass == GEMM_FWD) ffma_kernel<GEMM_FWD><<<grid, THREADS, 0, s->handle>>>(*g);
    if (pass == GEMM_DX) ffma_kernel<GEMM_DX><<<grid, THREADS, 0, s->handle>>>(*g);
    if (pass == GEMM_DW) ffma_kernel<GEMM_DW><<<grid, THREADS, 0, s->handle>>>(*g);
    return launched("gemm_ffma");
}
