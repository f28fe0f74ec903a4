/* attention_mma.cuh - bf16 attention on tensor cores: what its two files share.
 *
 * Heads that are multiples of 8 up to 160; kernels exist for the widths of MMA_WIDTHS, and a head
 * runs in the next width up, its missing columns zero. A product over a head's columns takes steps
 * of 16; where 8 are left over, the upper half of the step's fragments is zero registers. Products
 * whose columns are a head's take 8 at a time. So no width of the list is padded in memory.
 *
 * Tiles in shared memory are rows of an odd number of 16-byte chunks (40, 24, 8 columns are odd as
 * they are, others get one unused chunk): 8 neighbouring rows at one chunk lie in 8 different
 * groups of 4 banks, so that ldmatrix, plain and transposed, never meets a conflict.
 */
#pragma once
#include "async.cuh"
#include "kernels_matrix.h"
#include <math_constants.h>

typedef Pack<bf16, 8> Chunk;

#define MMA_WIDTHS(X) X(8) X(16) X(24) X(32) X(40) X(64) X(80) X(160)

static const int MMA_WARPS = 4, MMA_THREADS = 32 * MMA_WARPS;
static const float LOG2E = 1.4426950408889634f;

/* Per query, made before the backward pass: its lse, and rowsum(dy y). */
struct RowSums { float lse, dot; };

bool attention_mma_fits(const AttentionShape *a);
/* The forward pass of heads above 160, a multiple of 8 up to 512. */
Status attention_wide_fwd(bf16 *y, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                          const AttentionShape *a, Stream *s);
Status attention_mma_fwd(bf16 *y, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                         const AttentionShape *a, Stream *s);
Status attention_mma_bwd(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dy, const RowSums *sums,
                         const bf16 *q, const bf16 *k, const bf16 *v, const AttentionShape *a,
                         Stream *s);

template <int W> struct Width {
    static constexpr int CHUNKS = W / 8, PITCH = CHUNKS | 1, STEPS = (W + 15) / 16;
    static constexpr bool HALF = W % 16 != 0; /* the last step has 8 columns */
};

/* Rows of one image and head in global memory. */
struct HeadRows { const bf16 *at; size_t stride; int count, chunks; };

DEVICE HeadRows head_rows(const bf16 *tensor, int count, const AttentionShape &a)
{
    size_t stride = (size_t)a.heads * a.dh;
    return {tensor + blockIdx.z * (size_t)count * stride + blockIdx.y * (size_t)a.dh, stride, count,
            a.dh / 8};
}

/* Without the columns before 8 first_chunk. */
DEVICE HeadRows columns_from(HeadRows x, int first_chunk)
{
    return {x.at + 8 * first_chunk, x.stride, x.count, x.chunks - first_chunk};
}

/* Starts the copy of rows first .. first+ROWS-1 to a tile; 0 outside. */
template <int W, int ROWS> DEVICE void load_tile(Chunk *tile, const HeadRows &x, int first)
{
    typedef Width<W> H;
    const int ALL = ROWS * H::CHUNKS;
#pragma unroll
    for (int i = 0; i < (ALL + MMA_THREADS - 1) / MMA_THREADS; i++) {
        int at = threadIdx.x + i * MMA_THREADS, row = at / H::CHUNKS, chunk = at % H::CHUNKS;
        if (ALL % MMA_THREADS && at >= ALL) break;
        bool there = first + row < x.count && chunk < x.chunks;
        async_copy16(tile + row * H::PITCH + chunk,
                     there ? x.at + (first + row) * x.stride + chunk * 8 : x.at, there ? 16 : 0);
    }
}

/* Rows of a tile as left operands, 16 x M from `row` on: held in registers, or read from the tile
 * when used. step(f, m, i): the fragment of 16 rows from 16 m and 16 columns from 16 i on. */
template <int W> DEVICE void left_fragment(unsigned (&f)[4], const Chunk *tile, int row, int step)
{
    typedef Width<W> H;
    const int lane = threadIdx.x % 32;
    const Chunk *at = tile + (row + lane % 16) * H::PITCH + 2 * step;
    if (H::HALF && step == H::STEPS - 1) {
        unsigned half[2];
        ldmatrix_x2(half, at);
        f[0] = half[0], f[1] = half[1], f[2] = f[3] = 0;
    } else ldmatrix_x4(f, at + lane / 16);
}

template <int W, int M> struct LeftHeld {
    unsigned f[M][Width<W>::STEPS][4];
    DEVICE void init(const Chunk *tile, int row)
    {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < Width<W>::STEPS; i++)
                left_fragment<W>(f[m][i], tile, row + 16 * m, i);
    }
    DEVICE void step(unsigned (&out)[4], int m, int i) const
    {
#pragma unroll
        for (int k = 0; k < 4; k++) out[k] = f[m][i][k];
    }
};

template <int W, int M> struct LeftShared {
    const Chunk *tile;
    int row;
    DEVICE void init(const Chunk *tile_, int row_) { tile = tile_, row = row_; }
    DEVICE void step(unsigned (&out)[4], int m, int i) const
    {
        left_fragment<W>(out, tile, row + 16 * m, i);
    }
};

/* s += a . b', b the N rows of a tile from `b` on; s[m][n] is a fragment of 16 x 8. */
template <int W, int M, int N, class Left>
DEVICE void row_products(float (&s)[M][N / 8][4], const Left &a, const Chunk *b)
{
    typedef Width<W> H;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < H::STEPS; step++) {
        unsigned fa[M][4], fb[4];
#pragma unroll
        for (int m = 0; m < M; m++) a.step(fa[m], m, step);
        if (H::HALF && step == H::STEPS - 1) {
            static_assert(!H::HALF || N % 32 == 0, "one ldmatrix takes 32 rows of 8 columns");
#pragma unroll
            for (int n = 0; n < N / 8; n += 4) {
                ldmatrix_x4(fb, b + (n * 8 + lane) * H::PITCH + 2 * step);
#pragma unroll
                for (int g = 0; g < 4; g++)
#pragma unroll
                    for (int m = 0; m < M; m++) mma_bf16(s[m][n + g], fa[m], fb[g], 0);
            }
        } else {
#pragma unroll
            for (int n = 0; n < N / 8; n += 2) {
                ldmatrix_x4(fb, b + (n * 8 + lane % 8 + lane / 16 * 8) * H::PITCH + 2 * step +
                                    lane / 8 % 2);
#pragma unroll
                for (int m = 0; m < M; m++) {
                    mma_bf16(s[m][n], fa[m], fb[0], fb[1]);
                    mma_bf16(s[m][n + 1], fa[m], fb[2], fb[3]);
                }
            }
        }
    }
}

/* o += w . b, b the N rows of a tile, w the fragments that row_products() left, rounded to bf16. */
template <int W, int M, int N>
DEVICE void add_products(float (&o)[M][W / 8][4], const float (&w)[M][N / 8][4], const Chunk *b)
{
    typedef Width<W> H;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < N / 16; step++) {
        unsigned fw[M][4], fb[4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const float *pair = &w[m][2 * step + k / 2][k % 2 * 2];
                fw[m][k] = pack_bf16(pair[0], pair[1]);
            }
        const Chunk *at = b + (step * 16 + lane % 16) * H::PITCH;
#pragma unroll
        for (int c = 0; c < H::CHUNKS; c += 2) {
            bool two = c + 1 < H::CHUNKS;
            if (two) ldmatrix_x4_trans(fb, at + c + lane / 16);
            else ldmatrix_x2_trans(*(unsigned(*)[2])fb, at + c);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_bf16(o[m][c], fw[m], fb[0], fb[1]);
                if (two) mma_bf16(o[m][c + 1], fw[m], fb[2], fb[3]);
            }
        }
    }
}

/* One step of the online softmax for rows lane / 4 and 8 further: s becomes exp(s - top); sum,
 * each lane's own part, is brought to the new top, and so must be what was added before: by
 * `shrink`. c = log2(e) / sqrt(dh). */
template <int N>
DEVICE void softmax_step(float (&s)[N / 8][4], float (&shrink)[2], float (&top)[2],
                         float (&sum)[2], float c)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float m = top[h], part = 0;
#pragma unroll
        for (int n = 0; n < N / 8; n++) m = fmaxf(m, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
        m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
        m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
        float shift = m * c;
        shrink[h] = exp2_approx(fmaf(top[h], c, -shift));
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int k = 2 * h; k < 2 * h + 2; k++) {
                s[n][k] = exp2_approx(fmaf(s[n][k], c, -shift));
                part += s[n][k];
            }
        sum[h] = fmaf(sum[h], shrink[h], part);
        top[h] = m;
    }
}

template <int N> DEVICE void scale_rows(float (&o)[N][4], const float (&factor)[2])
{
#pragma unroll
    for (int i = 0; i < 4 * N; i++) o[i / 4][i % 4] *= factor[i % 4 / 2];
}

/* Hides keys behind the last one, and with `causal` behind the query. */
template <int N>
DEVICE void hide(float (&s)[N / 8][4], int row, int key0, int keys, int causal)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        int key = key0 + i / 4 * 8 + lane % 4 * 2 + i % 2, query = row + lane / 4 + i % 4 / 2 * 8;
        if (key >= keys || (causal && key > query)) s[i / 4][i % 4] = -CUDART_INF_F;
    }
}

/* Writes a warp's 16 M rows, scaled by factor[m][half] (rows lane / 4 and 8 further), through its
 * own part of shared memory, `stage`: 16 M rows of a tile. */
template <int W, int M>
DEVICE void store_rows(const HeadRows &to, Chunk *stage, const float (&o)[M][W / 8][4],
                       const float (&factor)[M][2], int first)
{
    typedef Width<W> H;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2 * M; i++)
#pragma unroll
        for (int c = 0; c < H::CHUNKS; c++) {
            const float *pair = &o[i / 2][c][i % 2 * 2];
            float f = factor[i / 2][i % 2];
            unsigned *row = (unsigned *)(stage + (8 * i + lane / 4) * H::PITCH + c);
            row[lane % 4] = pack_bf16(pair[0] * f, pair[1] * f);
        }
    __syncwarp();
#pragma unroll
    for (int i = lane; i < 16 * M * H::CHUNKS; i += 32) {
        int row = i / H::CHUNKS, chunk = i % H::CHUNKS;
        if (first + row < to.count && chunk < to.chunks)
            *(Chunk *)(to.at + (first + row) * to.stride + chunk * 8) =
                stage[row * H::PITCH + chunk];
    }
}
