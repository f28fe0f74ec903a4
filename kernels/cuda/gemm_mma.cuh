/* gemm_mma.cuh - the kernel around a tile (gemm_tile.cuh): main loop, result, launch.
 *
 * Each pass is instantiated in a file of its own, gemm_fwd.cu, gemm_dx.cu and gemm_dw.cu.
 */
#pragma once
#include "gemm_tile.cuh"

/* One stage: every warp its WM x WN. The side with fewer fragments stays in registers. */
template <class A, class B, class TILE>
DEVICE void multiply(float (&sum)[TILE::MI][TILE::NI][4], const bf16 *a, const bf16 *b, int m,
                     int n)
{
    constexpr int MI = TILE::MI, NI = TILE::NI;
    constexpr bool HOLD_A = 2 * MI <= NI;
#pragma unroll
    for (int k = 0; k < TILE::BK; k += 16) {
        unsigned fa[HOLD_A ? MI : 1][4], fb[HOLD_A ? 1 : (NI + 1) / 2][4];
        if constexpr (HOLD_A) {
#pragma unroll
            for (int i = 0; i < MI; i++) A::fragment(fa[i], a, m + i * 16, k);
#pragma unroll
            for (int j = 0; j < NI; j += 2) {
                B::fragments(fb[0], b, n + j * 8, k);
#pragma unroll
                for (int i = 0; i < MI; i++) {
                    mma_bf16(sum[i][j], fa[i], fb[0][0], fb[0][1]);
                    mma_bf16(sum[i][j + 1], fa[i], fb[0][2], fb[0][3]);
                }
            }
        } else if constexpr (NI == 1) {
            unsigned one[2];
            B::fragment(one, b, n, k);
#pragma unroll
            for (int i = 0; i < MI; i++) {
                A::fragment(fa[0], a, m + i * 16, k);
                mma_bf16(sum[i][0], fa[0], one[0], one[1]);
            }
        } else {
#pragma unroll
            for (int j = 0; j < NI; j += 2) B::fragments(fb[j / 2], b, n + j * 8, k);
#pragma unroll
            for (int i = 0; i < MI; i++) {
                A::fragment(fa[0], a, m + i * 16, k);
#pragma unroll
                for (int j = 0; j < NI; j++)
                    mma_bf16(sum[i][j], fa[0], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
}

/* fp32 straight from the fragments: pairs of neighbours, whole sectors. */
template <GemmPass PASS, class TILE>
DEVICE void store_fp32(const float (&sum)[TILE::MI][TILE::NI][4], const Gemm &g, const Phase &p,
                       int m, int n, float *out)
{
    int lane = threadIdx.x % 32, rows = PASS == GEMM_DW ? g.m : p.rows;
#pragma unroll
    for (int i = 0; i < TILE::MI * 2; i++) {
        int at = m + i * 8 + lane / 4;
        if (at >= rows) continue;
        float *row = out + gemm_out_row<PASS>(g, p, at);
#pragma unroll
        for (int j = 0; j < TILE::NI; j++) {
            int c = n + j * 8 + lane % 4 * 2;
            float u = sum[i / 2][j][i % 2 * 2], v = sum[i / 2][j][i % 2 * 2 + 1];
            if (g.n % 2 == 0 && c < g.n) *(float2 *)(row + c) = make_float2(u, v);
            else if (c < g.n) row[c] = u;
            if (g.n % 2 && c + 1 < g.n) row[c + 1] = v;
        }
    }
}

DEVICE void after_pair(const Gemm &g, const Phase &p, float (&y)[2], int m, int n)
{
    size_t at = gemm_out_row<GEMM_FWD>(g, p, m) + n;
    int image = gemm_pixel(p, m).image;
    if (g.n % 2 == 0) {
        if (n < g.n) gemm_after<bf16, 2>(g, y, image, at, n);
        return;
    }
    float one[1] = {y[0]}, two[1] = {y[1]};
    if (n < g.n) gemm_after<bf16, 1>(g, one, image, at, n);
    if (n + 1 < g.n) gemm_after<bf16, 1>(g, two, image, at + 1, n + 1);
    y[0] = one[0], y[1] = two[0];
}

/* Rounded once, with the bias, then through shared memory to chunks of 16 bytes. */
template <GemmPass PASS, class TILE>
DEVICE void store_bf16(const float (&sum)[TILE::MI][TILE::NI][4], const Gemm &g, const Phase &p,
                       int m0, int n0, int m, int n, bf16 *tile)
{
    int lane = threadIdx.x % 32;
    bool more = PASS == GEMM_FWD && gemm_has_after(g), gated = PASS == GEMM_FWD && g.geglu;
    __syncthreads(); /* the ring is read no more */
#pragma unroll
    for (int j = 0; j < TILE::NI; j++) {
        int c = n + j * 8 + lane % 4 * 2, at = n0 + c;
        float u = g.bias && at < g.n ? g.bias[gemm_filter_row(g, at)] : 0;
        float v = g.bias && at + 1 < g.n ? g.bias[gemm_filter_row(g, at + 1)] : 0;
#pragma unroll
        for (int i = 0; i < TILE::MI * 2; i++) {
            int row = m + i * 8 + lane / 4;
            float y[2] = {sum[i / 2][j][i % 2 * 2] + u, sum[i / 2][j][i % 2 * 2 + 1] + v};
            if (more && m0 + row < p.rows) after_pair(g, p, y, m0 + row, at);
            if (gated) tile[row * TILE::PITCH + c / 2] = bf16(gemm_gated(y[0], y[1]));
            else *(unsigned *)&tile[row * TILE::PITCH + c] = pack_bf16(y[0], y[1]);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE::BM * TILE::BN / 8; i += TILE::THREADS) {
        int row = i / (TILE::BN / 8), c = i % (TILE::BN / 8) * 8, at = n0 + c;
        if (m0 + row >= p.rows || at >= g.n) continue;
        bf16 *to = (bf16 *)g.out + ((gemm_out_row<PASS>(g, p, m0 + row) + at) >> gated);
        const bf16 *from = tile + row * TILE::PITCH + (c >> gated);
        if (g.n % 8 == 0 && gated) *(Pack<bf16, 4> *)to = *(const Pack<bf16, 4> *)from;
        else if (g.n % 8 == 0) *(Pack<bf16, 8> *)to = *(const Pack<bf16, 8> *)from;
        else
            for (int e = 0; e < 8 >> gated && at + (e << gated) < g.n; e++) to[e] = from[e];
    }
}

template <GemmPass PASS, class TILE, bool THIN>
static __global__ void __launch_bounds__(TILE::THREADS, TILE::BLOCKS) gemm_kernel(const Gemm g)
{
    extern __shared__ __align__(128) unsigned char shared[];
    bf16 *ring = (bf16 *)shared;
    const Phase p = PASS == GEMM_DW ? g.phase[0] : gemm_phase(g, blockIdx.z);
    const int tiles_n = (g.n + TILE::BN - 1) / TILE::BN, warp = threadIdx.x / 32;
    const int m0 = blockIdx.x / tiles_n * TILE::BM, n0 = blockIdx.x % tiles_n * TILE::BN;
    const int m = warp / TILE::WARPS_N * TILE::WM, n = warp % TILE::WARPS_N * TILE::WN;
    const int inner = PASS == GEMM_DW ? p.rows : p.k;
    const int slices = (inner + TILE::BK - 1) / TILE::BK,
              share = (slices + g.splits - 1) / g.splits;
    const int begin = blockIdx.y * share * TILE::BK, ahead = (TILE::STAGES - 1) * TILE::BK;
    const int end = min(slices, (int)(blockIdx.y + 1) * share) * TILE::BK;
    if (m0 >= (PASS == GEMM_DW ? g.m : p.rows)) return;

    typedef SourceA<PASS, TILE, THIN> A;
    typedef SourceB<PASS, TILE, THIN> B;
    const A a(g, p, m0);
    const B b(g, p, n0);
    float sum[TILE::MI][TILE::NI][4] = {};
    auto load = [&](int k, int slot) {
        bf16 *to = ring + slot * (TILE::A + TILE::B);
        if (k < end) {
            a.load(to, k, inner);
            b.load(to + TILE::A, k, inner);
        }
        async_commit();
    };
#pragma unroll
    for (int i = 0; i < TILE::STAGES - 1; i++) load(begin + i * TILE::BK, i);
    for (int k = begin, slot = 0; k < end; k += TILE::BK) {
        async_wait<TILE::STAGES - 2>();
        __syncthreads(); /* of all threads; and the slot of the slice before is free */
        load(k + ahead, slot ? slot - 1 : TILE::STAGES - 1);
        const bf16 *from = ring + slot * (TILE::A + TILE::B);
        multiply<A, B, TILE>(sum, from, from + TILE::A, m, n);
        slot = slot + 1 == TILE::STAGES ? 0 : slot + 1;
    }
    if (g.splits > 1 || PASS == GEMM_DW)
        store_fp32<PASS, TILE>(sum, g, p, m0 + m, n0 + n,
                               g.splits > 1 ? g.partial + blockIdx.y * g.part : (float *)g.out);
    else store_bf16<PASS, TILE>(sum, g, p, m0, n0, m, n, ring);
}

template <GemmPass PASS, class TILE, bool THIN> static Status gemm_launch(const Gemm *g, Stream *s)
{
    const size_t tiles_m = (size_t)((g->m + TILE::BM - 1) / TILE::BM);
    const size_t tiles_n = (size_t)((g->n + TILE::BN - 1) / TILE::BN);
    dim3 grid((unsigned)(tiles_m * tiles_n), (unsigned)g->splits, (unsigned)g->phases);
    if (TILE::SHARED > 48 * 1024)
        cudaFuncSetAttribute(gemm_kernel<PASS, TILE, THIN>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, TILE::SHARED);
    gemm_kernel<PASS, TILE, THIN><<<grid, TILE::THREADS, TILE::SHARED, s->handle>>>(*g);
    return launched("gemm");
}

/* Tile `tile` of GEMM_TILES. */
template <GemmPass PASS>
static Status gemm_by_tile(const Gemm *g, GemmTile tile, bool thin, Stream *s)
{
#define RUN(m, n, wm, wn, stages, blocks, rate)                                                    \
    if constexpr (gemm_has_tile(PASS, TILE_##m##x##n, true))                                       \
        if (thin && tile == TILE_##m##x##n)                                                        \
            return gemm_launch<PASS, Tile<m, n, wm, wn, stages, blocks>, true>(g, s);              \
    if constexpr (gemm_has_tile(PASS, TILE_##m##x##n, false))                                      \
        if (!thin && tile == TILE_##m##x##n)                                                       \
            return gemm_launch<PASS, Tile<m, n, wm, wn, stages, blocks>, false>(g, s);
    GEMM_TILES(RUN)
#undef RUN
    return FAIL(ERR_BUG, "tile %d is not built for pass %d", (int)tile, (int)PASS);
}
