/* attention_mma.cu - bf16 attention forward on tensor cores; see attention_mma.cuh.
 *
 * A block holds 128 queries (64 for heads of 160), 32 (16) a warp, as fragments in registers, and
 * streams keys and values through a ring of stages. Scores, their softmax and P never leave a
 * warp's registers: the fragments of P are left operands of the second product as they are.
 *
 * FLOPs 4 tq tk dh; bytes 2 (2 tq + 2 tk) dh heads n, read once from memory and tq / 128 times from
 * L2. Special functions: one ex2 a score at 16 a clock and SM, 1024 clocks for 128 x 128 scores.
 * Products for as many, at the 1280 multiply-adds a clock that mma.sync reaches on sm_90, 1126
 * clocks for heads of 40 (k takes 48, n 40), 1638 of 64, 2048 of 80, 4096 of 160; on sm_80 1.25 of
 * that.
 * Up to 40 the two balance, and only other warps' work can overlap them: registers are held to
 * three blocks an SM there.
 *   head                     8     16    24    32    40    64    80   160
 *   registers, sm_80        124   155   167   147   168   254   255   230
 *   registers, sm_90a       121   167   168   155   168   249   255   238
 *   shared memory, KiB        6    18    18    30    30    36    44    42
 *   blocks of 4 warps an SM   4     3     3     3     3     2     2     2
 */
#include "attention_mma.cuh"

/* M: 16-row tiles of a warp, that share its right operands; KEYS of a stage of the ring; SUB: keys
 * between two softmax steps; blocks an SM holds at least.
 * A stage has room for a block's queries. */
template <int W> struct Plan {
    static constexpr int M = W <= 80 ? 2 : 1;
    static constexpr int KEYS = W <= 80 ? 64 : 32, SUB = W <= 24 || W == 64 ? 64 : 32;
    static constexpr int STAGES = W <= 40 ? 3 : 2, BLOCKS = W <= 40 ? 3 : 2;
    static constexpr int ROWS = 16 * M * MMA_WARPS;
    static constexpr int STAGE = 2 * KEYS * Width<W>::PITCH; /* chunks */
    static constexpr size_t BYTES = (size_t)STAGES * STAGE * sizeof(Chunk);
    static_assert(ROWS <= 2 * KEYS, "the queries come through the last stage");
};

template <int W>
static __global__ void __launch_bounds__(MMA_THREADS, Plan<W>::BLOCKS)
    attention_mma_fwd_kernel(bf16 *y, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                             AttentionShape a)
{
    typedef Plan<W> P;
    extern __shared__ Chunk ring[];
    const HeadRows rq = head_rows(q, a.tq, a), rk = head_rows(k, a.tk, a),
                   rv = head_rows(v, a.tk, a);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int q0 = blockIdx.x * P::ROWS, row = q0 + warp * 16 * P::M;
    const int keys = a.causal ? min(a.tk, q0 + P::ROWS) : a.tk;
    const int seen = row >= a.tq ? 0 : a.causal ? min(a.tk, row + 16 * P::M) : a.tk; /* by warp */
    const int tiles = (keys + P::KEYS - 1) / P::KEYS;
    const float scale = rsqrtf((float)a.dh), c = scale * LOG2E;

    Chunk *queries = ring + (P::STAGES - 1) * P::STAGE;
    load_tile<W, P::ROWS>(queries, rq, q0);
    async_commit();
#pragma unroll
    for (int t = 0; t < P::STAGES - 1; t++) {
        load_tile<W, P::KEYS>(ring + t * P::STAGE, rk, t * P::KEYS);
        load_tile<W, P::KEYS>(ring + t * P::STAGE + P::STAGE / 2, rv, t * P::KEYS);
        async_commit();
    }
    async_wait<P::STAGES - 1>();
    __syncthreads();
    LeftHeld<W, P::M> left;
    left.init(queries, warp * 16 * P::M);

    float o[P::M][W / 8][4] = {}, top[P::M][2], sum[P::M][2] = {};
#pragma unroll
    for (int i = 0; i < 2 * P::M; i++) top[i / 2][i % 2] = -CUDART_INF_F;
    for (int t = 0, slot = 0; t < tiles; t++, slot = slot + 1 < P::STAGES ? slot + 1 : 0) {
        async_wait<P::STAGES - 2>();
        __syncthreads(); /* tile t is there, and all are done with tile t - 1, whose slot is next */
        int next = t + P::STAGES - 1;
        if (next < tiles) {
            Chunk *to = ring + (slot ? slot - 1 : P::STAGES - 1) * P::STAGE;
            load_tile<W, P::KEYS>(to, rk, next * P::KEYS);
            load_tile<W, P::KEYS>(to + P::STAGE / 2, rv, next * P::KEYS);
        }
        async_commit();
#pragma unroll
        for (int sub = 0; sub < P::KEYS; sub += P::SUB) {
            int key0 = t * P::KEYS + sub;
            if (key0 >= seen) break; /* the first time key 0 is seen: top is finite from there */
            const Chunk *tile = ring + slot * P::STAGE + sub * Width<W>::PITCH;
            float s[P::M][P::SUB / 8][4] = {}, shrink[2];
            row_products<W, P::M, P::SUB>(s, left, tile);
#pragma unroll
            for (int m = 0; m < P::M; m++) {
                if (key0 + P::SUB > a.tk || (a.causal && key0 + P::SUB > row + 1))
                    hide<P::SUB>(s[m], row + 16 * m, key0, a.tk, a.causal);
                softmax_step<P::SUB>(s[m], shrink, top[m], sum[m], c);
                scale_rows(o[m], shrink);
            }
            add_products<W, P::M, P::SUB>(o, s, tile + P::STAGE / 2);
        }
    }
    async_wait<0>(); /* where there are fewer tiles than stages */
#pragma unroll
    for (int i = 0; i < 2 * P::M; i++) {
        float l = sum[i / 2][i % 2];
        l += __shfl_xor_sync(~0u, l, 1);
        l += __shfl_xor_sync(~0u, l, 2);
        int query = row + 8 * i + lane / 4;
        if (lane % 4 == 0 && query < a.tq)
            lse[(blockIdx.z * (size_t)a.heads + blockIdx.y) * a.tq + query] =
                top[i / 2][i % 2] * scale + logf(l);
        sum[i / 2][i % 2] = 1 / l;
    }
    __syncthreads();
    store_rows<W, P::M>(head_rows(y, a.tq, a), ring + warp * 16 * P::M * Width<W>::PITCH, o, sum,
                        row);
}

bool attention_mma_fits(const AttentionShape *a) { return a->dh % 8 == 0 && a->dh <= 160; }

template <int W>
static Status run(bf16 *y, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                  const AttentionShape *a, Stream *s)
{
    typedef Plan<W> P;
    dim3 grid((a->tq + P::ROWS - 1) / P::ROWS, a->heads, a->n);
    cudaFuncSetAttribute(attention_mma_fwd_kernel<W>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         P::BYTES);
    attention_mma_fwd_kernel<W><<<grid, MMA_THREADS, P::BYTES, s->handle>>>(y, lse, q, k, v, *a);
    return launched("attention_mma");
}

Status attention_mma_fwd(bf16 *y, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                         const AttentionShape *a, Stream *s)
{
#define RUN(w) if (a->dh <= w) return run<w>(y, lse, q, k, v, a, s);
    MMA_WIDTHS(RUN)
#undef RUN
    return FAIL(ERR_BUG, "attention on tensor cores with heads of %d", a->dh);
}
