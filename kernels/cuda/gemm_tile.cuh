/* gemm_tile.cuh - one block's tile of a product (gemm.cuh) on tensor cores: bf16, fp32 sums.
 *
 * Slices of 32 inner indices of A and B arrive in a ring of STAGES by cp.async; ldmatrix feeds
 * mma.m16n8k16. A tile lies in shared memory as rows of 16-byte chunks, either along the inner
 * index (a row is an m or n, 4 chunks) or across it (a row is an inner index, and .trans turns it).
 * Chunks of a row are permuted so that 8 rows at one chunk touch all 32 banks.
 *
 * Operands whose channels are no multiple of 8 (THIN) are gathered value by value.
 */
#pragma once
#include "async.cuh"
#include "gemm.cuh"

template <int BM_, int BN_, int WARPS_M_, int WARPS_N_, int STAGES_, int BLOCKS_> struct Tile {
    static constexpr int BM = BM_, BN = BN_, BK = 32, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
    static constexpr int BLOCKS = BLOCKS_, STAGES = STAGES_, THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N, MI = WM / 16, NI = WN / 8;
    static constexpr int A = BM * BK, B = BN * BK; /* values of a stage */
    static constexpr int PITCH = BN + 8; /* of the result in shared memory: no conflicts */
    static constexpr int SHARED =
        (STAGES * (A + B) > BM * PITCH ? STAGES * (A + B) : BM * PITCH) * 2;
};

/* Where chunk `chunk` of row `row` lies, in values; a row has WIDTH chunks. */
template <int WIDTH> DEVICE int swizzled(int row, int chunk)
{
    if (WIDTH % 8 == 0) chunk ^= row & 7;
    else if (WIDTH % 4 == 0) chunk ^= row / 2 & 3;
    else if (WIDTH % 2 == 0) chunk ^= row / 4 & 1;
    return (row * WIDTH + chunk) * 8;
}

/* One chunk, or zeros where offset < 0. */
DEVICE void load_chunk(bf16 *to, const void *from, long long offset)
{
    async_copy16(to, (const bf16 *)from + (offset < 0 ? 0 : offset), offset < 0 ? 0 : 16);
}

/* Which chunks of rows of WIDTH, DEPTH rows, a thread loads: column `chunk`, rows row,
 * row + ROWS ... Whole eights of rows, where they fit, let one permutation serve all loads of a
 * thread. */
template <int WIDTH, int DEPTH, int THREADS> struct Share {
    static constexpr int FIT = THREADS / WIDTH < DEPTH ? THREADS / WIDTH : DEPTH;
    static constexpr int ROWS = FIT < 8 ? FIT : FIT / 8 * 8, LOADS = (DEPTH + ROWS - 1) / ROWS;
    static DEVICE int chunk() { return threadIdx.x % WIDTH; }
    static DEVICE int row() { return threadIdx.x / WIDTH; }
    /* Whether load i of the thread is one. */
    static DEVICE bool has(int i)
    {
        bool idle = ROWS * WIDTH < THREADS && row() >= ROWS;
        return !idle && (DEPTH % ROWS == 0 || row() + i * ROWS < DEPTH);
    }
};

/* ---- A: FWD and DX gather rows of pixels along the inner index ---------------------------- */
template <GemmPass PASS, class TILE, bool THIN> struct SourceA {
    static constexpr int WIDTH = 4, OUTSIDE = -(1 << 30);
    typedef Share<WIDTH, TILE::BM, TILE::THREADS> Mine;
    const Gemm &g;
    const Phase &p;
    /* of tap (0, 0) of this thread's rows */
    int h[Mine::LOADS], w[Mine::LOADS], at[Mine::LOADS], m0;

    DEVICE SourceA(const Gemm &g_, const Phase &p_, int m0_) : g(g_), p(p_), m0(m0_)
    {
#pragma unroll
        for (int i = 0; i < Mine::LOADS; i++) {
            int m = m0 + Mine::row() + i * Mine::ROWS;
            Pixel x = gemm_pixel(p, m < p.rows ? m : 0);
            h[i] = m < p.rows ? x.i * g.step + p.first_h : OUTSIDE;
            w[i] = x.j * g.step + p.first_w;
            at[i] = (x.image * g.image_h + x.i * g.step + p.first_h) * g.image_w + w[i];
        }
    }

    DEVICE void load(bf16 *tile, int k0, int end) const
    {
        if (THIN && !g.aligned_a) {
            int across = threadIdx.x % TILE::BK, k = k0 + across; /* one tap a thread */
            Tap t = gemm_tap(g, p, k);
            Channel x = PASS == GEMM_FWD ? gemm_channel(g, t.c) : Channel{g.a, g.image_c, t.c};
            for (int r = threadIdx.x / TILE::BK; r < TILE::BM; r += TILE::THREADS / TILE::BK) {
                bool inside = k < end && m0 + r < p.rows;
                int pixel = inside ? gemm_seen(g, p, gemm_pixel(p, m0 + r), t) : -1;
                tile[swizzled<WIDTH>(r, across / 8) + across % 8] =
                    pixel < 0 ? bf16(0.f) : ((const bf16 *)x.of)[(long long)pixel * x.width + x.c];
            }
            return;
        }
        int k = k0 + Mine::chunk() * 8;
        Tap t = gemm_tap(g, p, k);
        Channel x = PASS == GEMM_FWD ? gemm_channel(g, t.c) : Channel{g.a, g.image_c, t.c};
        int dh = t.r * g.dir, dw = t.s * g.dir, step = dh * g.image_w + dw;
#pragma unroll
        for (int i = 0; i < Mine::LOADS; i++) {
            if (!Mine::has(i)) break;
            bool inside = k < end && (unsigned)(h[i] + dh) < (unsigned)g.image_h &&
                          (unsigned)(w[i] + dw) < (unsigned)g.image_w;
            load_chunk(tile + swizzled<WIDTH>(Mine::row() + i * Mine::ROWS, Mine::chunk()), x.of,
                       inside ? (long long)(at[i] + step) * x.width + x.c : -1);
        }
    }

    /* Fragment of 16 rows from m, 16 inner indices from k. */
    static DEVICE void fragment(unsigned (&a)[4], const bf16 *tile, int m, int k)
    {
        int lane = threadIdx.x % 32;
        ldmatrix_x4(a, tile + swizzled<WIDTH>(m + lane % 16, k / 8 + lane / 16));
    }
};

/* DW: rows of dy are the inner index. */
template <class TILE, bool THIN> struct SourceA<GEMM_DW, TILE, THIN> {
    static constexpr int WIDTH = TILE::BM / 8;
    typedef Share<WIDTH, TILE::BK, TILE::THREADS> Mine;
    const Gemm &g;
    const Phase &p;
    int m0;

    DEVICE SourceA(const Gemm &g_, const Phase &p_, int m0_) : g(g_), p(p_), m0(m0_) {}

    DEVICE void load(bf16 *tile, int k0, int end) const
    {
        if (THIN && !g.aligned_a) {
            for (int i = threadIdx.x; i < TILE::A; i += TILE::THREADS) {
                int k = i / TILE::BM, m = i % TILE::BM;
                tile[swizzled<WIDTH>(k, m / 8) + m % 8] =
                    gemm_a<GEMM_DW, bf16>(g, p, m0 + m, k0 + k, end);
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < Mine::LOADS; i++) {
            int row = Mine::row() + i * Mine::ROWS, k = k0 + row, m = m0 + Mine::chunk() * 8;
            if (!Mine::has(i)) break;
            load_chunk(tile + swizzled<WIDTH>(row, Mine::chunk()), g.a,
                       k < end && m < g.m ? (long long)k * g.m + m : -1);
        }
    }

    static DEVICE void fragment(unsigned (&a)[4], const bf16 *tile, int m, int k)
    {
        int lane = threadIdx.x % 32;
        ldmatrix_x4_trans(a, tile + swizzled<WIDTH>(k + lane / 16 * 8 + lane % 8,
                                                    m / 8 + lane / 8 % 2));
    }
};

/* ---- B: FWD reads rows of the filter along the inner index -------------------------------- */
template <GemmPass PASS, class TILE, bool THIN> struct SourceB {
    static constexpr int WIDTH = 4;
    typedef Share<WIDTH, TILE::BN, TILE::THREADS> Mine;
    const Gemm &g;
    const Phase &p;
    int n0;

    DEVICE SourceB(const Gemm &g_, const Phase &p_, int n0_) : g(g_), p(p_), n0(n0_) {}

    DEVICE void load(bf16 *tile, int k0, int end) const
    {
        if (THIN && !g.aligned_b) {
            for (int i = threadIdx.x; i < TILE::B; i += TILE::THREADS) {
                int r = i / TILE::BK, k = i % TILE::BK;
                tile[swizzled<WIDTH>(r, k / 8) + k % 8] =
                    gemm_b<PASS, bf16>(g, p, k0 + k, n0 + r, end);
            }
            return;
        }
        int k = k0 + Mine::chunk() * 8;
#pragma unroll
        for (int i = 0; i < Mine::LOADS; i++) {
            int row = Mine::row() + i * Mine::ROWS, n = n0 + row;
            if (!Mine::has(i)) break;
            load_chunk(tile + swizzled<WIDTH>(row, Mine::chunk()), g.b,
                       k < end && n < g.n
                           ? p.filter + (long long)gemm_filter_row(g, n) * p.k + k
                           : -1);
        }
    }

    /* Two fragments: 16 inner indices from k, 16 columns from n. */
    static DEVICE void fragments(unsigned (&b)[4], const bf16 *tile, int n, int k)
    {
        int lane = threadIdx.x % 32;
        ldmatrix_x4(b, tile + swizzled<WIDTH>(n + lane / 16 * 8 + lane % 8, k / 8 + lane / 8 % 2));
    }
    static DEVICE void fragment(unsigned (&b)[2], const bf16 *tile, int n, int k)
    {
        int lane = threadIdx.x % 32;
        ldmatrix_x2(b, tile + swizzled<WIDTH>(n + lane % 8, k / 8 + lane / 8 % 2));
    }
};

/* Rows are inner indices: DX reads the filter in place, DW gathers pixels. */
template <class TILE> struct Across {
    static constexpr int WIDTH = TILE::BN / 8;
    static DEVICE void fragments(unsigned (&b)[4], const bf16 *tile, int n, int k)
    {
        int lane = threadIdx.x % 32;
        ldmatrix_x4_trans(b, tile + swizzled<WIDTH>(k + lane % 16, n / 8 + lane / 16));
    }
    static DEVICE void fragment(unsigned (&b)[2], const bf16 *tile, int n, int k)
    {
        ldmatrix_x2_trans(b, tile + swizzled<WIDTH>(k + threadIdx.x % 16, n / 8));
    }
};

template <class TILE, bool THIN> struct SourceB<GEMM_DX, TILE, THIN> : Across<TILE> {
    static constexpr int WIDTH = TILE::BN / 8;
    typedef Share<WIDTH, TILE::BK, TILE::THREADS> Mine;
    const Gemm &g;
    const Phase &p;
    int n0;

    DEVICE SourceB(const Gemm &g_, const Phase &p_, int n0_) : g(g_), p(p_), n0(n0_) {}

    DEVICE void load(bf16 *tile, int k0, int end) const
    {
        if (THIN && !g.aligned_b) {
            for (int i = threadIdx.x; i < TILE::B; i += TILE::THREADS) {
                int k = i / TILE::BN, n = i % TILE::BN;
                tile[swizzled<WIDTH>(k, n / 8) + n % 8] =
                    gemm_b<GEMM_DX, bf16>(g, p, k0 + k, n0 + n, end);
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < Mine::LOADS; i++) {
            int row = Mine::row() + i * Mine::ROWS, k = k0 + row, n = n0 + Mine::chunk() * 8;
            if (!Mine::has(i)) break;
            load_chunk(tile + swizzled<WIDTH>(row, Mine::chunk()), g.b,
                       k < end && n < g.n ? gemm_filter(g, p, k) + n : -1);
        }
    }
};

template <class TILE, bool THIN> struct SourceB<GEMM_DW, TILE, THIN> : Across<TILE> {
    static constexpr int WIDTH = TILE::BN / 8, OUTSIDE = -(1 << 30);
    typedef Share<WIDTH, TILE::BK, TILE::THREADS> Mine;
    const Gemm &g;
    const Phase &p;
    int n0, reach_h, reach_w, offset; /* of this thread's column, from a pixel */

    DEVICE SourceB(const Gemm &g_, const Phase &p_, int n0_) : g(g_), p(p_), n0(n0_)
    {
        int n = n0 + Mine::chunk() * 8;
        Tap t = gemm_tap(g, p, n < g.n ? n : 0);
        reach_w = p.first_w + t.s;
        offset = ((p.first_h + t.r) * g.image_w + reach_w) * g.image_c + t.c;
        reach_h = n < g.n ? p.first_h + t.r : OUTSIDE;
    }

    DEVICE void load(bf16 *tile, int k0, int end) const
    {
        if (THIN && !g.aligned_b) {
            int across = threadIdx.x % TILE::BN, n = n0 + across; /* one tap a thread */
            Tap t = gemm_tap(g, p, n);
            for (int r = threadIdx.x / TILE::BN; r < TILE::BK; r += TILE::THREADS / TILE::BN) {
                bool inside = n < g.n && k0 + r < end;
                long long from = inside ? gemm_source(g, p, gemm_pixel(p, k0 + r), t) : -1;
                tile[swizzled<WIDTH>(r, across / 8) + across % 8] =
                    from < 0 ? bf16(0.f) : ((const bf16 *)g.b)[from];
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < Mine::LOADS; i++) {
            int row = Mine::row() + i * Mine::ROWS, k = k0 + row;
            if (!Mine::has(i)) break;
            Pixel x = gemm_pixel(p, k);
            int line = (x.image * g.image_h + x.i * g.step) * g.image_w + x.j * g.step;
            bool inside = k < end && (unsigned)(x.i * g.step + reach_h) < (unsigned)g.image_h &&
                          (unsigned)(x.j * g.step + reach_w) < (unsigned)g.image_w;
            load_chunk(tile + swizzled<WIDTH>(row, Mine::chunk()), g.b,
                       inside ? (long long)line * g.image_c + offset : -1);
        }
    }
};
