/* attention_mma_wide.cu - bf16 attention forward for one wide head, as an autoencoder has (512);
 * see attention_mma.cuh.
 *
 * A block holds 64 queries, 16 a warp, in shared memory, and makes up to 256 columns of y, as many
 * sums as fit into registers; a head of 512 takes two blocks, both of which make all scores: 6 tq
 * tk dh FLOPs for 4 useful. Keys and values come through a ring in parts of 32 x 128:
 * for each 32 keys the parts of k, then those of v.
 *
 * A right operand serves one left operand only, and left ones are read again for each tile: shared
 * memory bounds it, 2 to 3 clocks a product of 16 x 8 x 16 for which mma.sync takes 1.6 on sm_90.
 * 227 registers, 99 KiB (the most of sm_86 and sm_89): a block of 4 warps an SM, two on sm_90.
 */
#include "attention_mma.cuh"

static const int PART = 128, PARTS = 4, OUT_PARTS = 2, ITEMS = PARTS + OUT_PARTS;
static const int ROWS = 16 * MMA_WARPS, KEYS = 32, STAGES = 4;
static const int ROOM = ROWS * Width<PART * PARTS>::PITCH, STAGE = KEYS * Width<PART>::PITCH;
static const size_t BYTES = (ROOM + STAGES * STAGE) * sizeof(Chunk);

/* Left operands of one part of the queries' columns. */
struct LeftPart {
    const Chunk *queries;
    int row, part;
    DEVICE void step(unsigned (&out)[4], int m, int i) const
    {
        left_fragment<PART * PARTS>(out, queries, row + 16 * m, part * (PART / 16) + i);
    }
};

/* Item i of key tile t: a part of k, or of the block's columns of v. */
DEVICE void load_item(Chunk *ring, int t, int i, const HeadRows &k, const HeadRows &v)
{
    HeadRows x = i < PARTS ? columns_from(k, i * PART / 8)
                           : columns_from(v, (i - PARTS) * PART / 8);
    load_tile<PART, KEYS>(ring + (t * ITEMS + i) % STAGES * STAGE, x, t * KEYS);
}

static __global__ void __launch_bounds__(MMA_THREADS)
    attention_wide_kernel(bf16 *y, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                          AttentionShape a, int slices)
{
    extern __shared__ Chunk shared[];
    Chunk *ring = shared + ROOM;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int q0 = blockIdx.x / slices * ROWS, slice = blockIdx.x % slices, row = q0 + warp * 16;
    const int first_chunk = slice * (OUT_PARTS * PART / 8);
    const HeadRows rk = head_rows(k, a.tk, a),
                   rv = columns_from(head_rows(v, a.tk, a), first_chunk);
    const int tiles = ((a.causal ? min(a.tk, q0 + ROWS) : a.tk) + KEYS - 1) / KEYS;
    const float scale = rsqrtf((float)a.dh), c = scale * LOG2E;

    load_tile<PART * PARTS, ROWS>(shared, head_rows(q, a.tq, a), q0);
    for (int i = 0; i < STAGES - 1; i++) {
        load_item(ring, 0, i, rk, rv);
        async_commit(); /* the first one with the queries */
    }
    float o[OUT_PARTS][1][PART / 8][4] = {}, top[2] = {-CUDART_INF_F, -CUDART_INF_F}, sum[2] = {};
    for (int t = 0; t < tiles; t++) {
        float s[1][KEYS / 8][4] = {};
#pragma unroll
        for (int i = 0; i < ITEMS; i++) {
            const Chunk *item = ring + (t * ITEMS + i) % STAGES * STAGE;
            async_wait<STAGES - 2>();
            __syncthreads(); /* the item is there, and all are done with the one before */
            int ahead = i + STAGES - 1, next = t + ahead / ITEMS;
            if (next < tiles) load_item(ring, next, ahead % ITEMS, rk, rv);
            async_commit();
            if (i < PARTS) row_products<PART, 1, KEYS>(s, LeftPart{shared, warp * 16, i}, item);
            if (i == PARTS - 1) {
                float shrink[2];
                if ((t + 1) * KEYS > a.tk || (a.causal && (t + 1) * KEYS > row + 1))
                    hide<KEYS>(s[0], row, t * KEYS, a.tk, a.causal);
                softmax_step<KEYS>(s[0], shrink, top, sum, c); /* all queries see key 0 */
#pragma unroll
                for (int part = 0; part < OUT_PARTS; part++) scale_rows(o[part][0], shrink);
            }
            if (i >= PARTS) add_products<PART, 1, KEYS>(o[i - PARTS], s, item);
        }
    }
    float factor[1][2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float l = sum[h];
        l += __shfl_xor_sync(~0u, l, 1);
        l += __shfl_xor_sync(~0u, l, 2);
        int query = row + 8 * h + lane / 4;
        if (slice == 0 && lane % 4 == 0 && query < a.tq)
            lse[(blockIdx.z * (size_t)a.heads + blockIdx.y) * a.tq + query] =
                top[h] * scale + logf(l);
        factor[0][h] = 1 / l;
    }
    __syncthreads();
#pragma unroll
    for (int part = 0; part < OUT_PARTS; part++) {
        HeadRows to = columns_from(head_rows(y, a.tq, a), first_chunk + part * PART / 8);
        store_rows<PART, 1>(to, shared + warp * 16 * Width<PART>::PITCH, o[part], factor, row);
        __syncwarp();
    }
}

Status attention_wide_fwd(bf16 *y, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                          const AttentionShape *a, Stream *s)
{
    int slices = (a->dh + OUT_PARTS * PART - 1) / (OUT_PARTS * PART);
    dim3 grid((a->tq + ROWS - 1) / ROWS * slices, a->heads, a->n);
    cudaFuncSetAttribute(attention_wide_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    attention_wide_kernel<<<grid, MMA_THREADS, BYTES, s->handle>>>(y, lse, q, k, v, *a, slices);
    return launched("attention_wide");
}
