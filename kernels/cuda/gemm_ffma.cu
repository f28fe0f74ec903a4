/* gemm_ffma.cu - the products of gemm.cuh on ordinary cores, in fp32: what fp32 storage runs, to
 * check everything else tightly.
 *
 * A block makes BM x BN = 4096 of out, a thread 4x4, from slices of 16 inner indices in shared
 * memory: 64x64, or where one side has 16 or fewer 256 of the other. A sum's order does not depend
 * on it.
 * Bound: 2 FLOP per 2 bytes read from shared memory; a third of the fp32 peak is what to expect.
 */
#include "gemm.cuh"

static const int SLICE = 16, THREADS = 256;

template <GemmPass PASS, int BM, int BN>
static __global__ void __launch_bounds__(THREADS) ffma_kernel(const Gemm g)
{
    __shared__ __align__(16) float a[SLICE][BM + 4], b[SLICE][BN + 4];
    const Phase p = gemm_phase(g, blockIdx.z);
    const int tiles_n = (g.n + BN - 1) / BN, t = threadIdx.x;
    const int m0 = blockIdx.x / tiles_n * BM, n0 = blockIdx.x % tiles_n * BN;
    const int mine_m = t / (BN / 4) * 4, mine_n = t % (BN / 4) * 4;
    const int inner = PASS == GEMM_DW ? p.rows : p.k, rows = PASS == GEMM_DW ? g.m : p.rows;
    const int share = ((inner + g.splits - 1) / g.splits + SLICE - 1) / SLICE * SLICE;
    const int begin = blockIdx.y * share, end = min(inner, begin + share);
    if (m0 >= rows) return;
    float sum[4][4] = {};
    for (int k0 = begin; k0 < end; k0 += SLICE) {
        __syncthreads();
#pragma unroll 1
        for (int i = t; i < SLICE * (BM > BN ? BM : BN); i += THREADS) {
            int row = i / SLICE, k = i % SLICE; /* neighbours in memory: neighbours in t */
            if (i < SLICE * BM && PASS == GEMM_DW)
                a[i / BM][i % BM] = gemm_a<PASS, float>(g, p, m0 + i % BM, k0 + i / BM, end);
            else if (i < SLICE * BM)
                a[k][row] = gemm_a<PASS, float>(g, p, m0 + row, k0 + k, end);
            if (i < SLICE * BN && PASS == GEMM_FWD)
                b[k][row] = gemm_b<PASS, float>(g, p, k0 + k, n0 + row, end);
            else if (i < SLICE * BN)
                b[i / BN][i % BN] = gemm_b<PASS, float>(g, p, k0 + i / BN, n0 + i % BN, end);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < SLICE; k++) {
            Pack<float, 4> x = *(const Pack<float, 4> *)&a[k][mine_m];
            Pack<float, 4> y = *(const Pack<float, 4> *)&b[k][mine_n];
#pragma unroll
            for (int i = 0; i < 16; i++) sum[i / 4][i % 4] += x.v[i / 4] * y.v[i % 4];
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int m = m0 + mine_m + i;
        if (m >= rows) break;
        size_t row = gemm_out_row<PASS>(g, p, m);
        float value = 0; /* with geglu: of the column before */
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int n = n0 + mine_n + j;
            if (n >= g.n) break;
            if (g.splits > 1) g.partial[blockIdx.y * g.part + row + n] = sum[i][j];
            else {
                float y[1] = {sum[i][j] + (g.bias ? g.bias[gemm_filter_row(g, n)] : 0)};
                if (PASS == GEMM_FWD && g.geglu) {
                    if (j % 2) ((float *)g.out)[(row + n) / 2] = gemm_gated(value, y[0]);
                    value = y[0];
                    continue;
                }
                if (PASS == GEMM_FWD)
                    gemm_after<float, 1>(g, y, gemm_pixel(p, m).image, row + n, n);
                ((float *)g.out)[row + n] = y[0];
            }
        }
    }
}

template <GemmPass PASS, int BM, int BN> static void launch(const Gemm *g, Stream *s)
{
    unsigned tiles = (unsigned)((g->m + BM - 1) / BM) * (unsigned)((g->n + BN - 1) / BN);
    dim3 grid(tiles, (unsigned)g->splits, (unsigned)g->phases);
    ffma_kernel<PASS, BM, BN><<<grid, THREADS, 0, s->handle>>>(*g);
}

Status gemm_ffma(const Gemm *g, GemmPass pass, Stream *s)
{
    bool thin = (pass == GEMM_DW ? g->m : g->n) <= 16;
    if (pass == GEMM_FWD) (thin ? launch<GEMM_FWD, 256, 16> : launch<GEMM_FWD, 64, 64>)(g, s);
    if (pass == GEMM_DX) (thin ? launch<GEMM_DX, 256, 16> : launch<GEMM_DX, 64, 64>)(g, s);
    if (pass == GEMM_DW) (thin ? launch<GEMM_DW, 16, 256> : launch<GEMM_DW, 64, 64>)(g, s);
    return launched("gemm_ffma");
}
