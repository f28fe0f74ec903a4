/* attention_mma_bwd.cu - bf16 attention backward on tensor cores; see attention_mma.cuh.
 *
 * With P = exp(s - lse) computed again and dS = P (dP - dot), dP = dy.v', dot = rowsum(dy y):
 *   by keys     dv = P'.dy,  dk = dS'.q / sqrt(dh)    a block holds keys, queries stream by
 *   by queries  dq = dS.k / sqrt(dh)                  a block holds queries, keys stream by
 * Two passes instead of one with atomics: no result is shared by two blocks, sums keep their order,
 * for 7 products instead of 5. Both are one kernel: its rows are the side it holds, its columns the
 * side that streams, s = rows.columns', dp likewise of the other two tensors, and the weights of
 * rows and columns are, as registers, already left operands of the second products.
 *
 * FLOPs 14 tq tk dh (10 would be the least), 2 ex2 a score. For 128 x 128 scores special functions
 * take 2048 clocks of an SM, products on sm_90 3994 for heads of 40, 5734 of 64, 7168 of 80, 14336
 * of 160 (1280 multiply-adds a clock): tensor cores bound it. Where M = 1 a right operand serves
 * one left operand only: then shared memory does, 2 clocks a product of 16 x 8 x 16 that takes 1.6.
 *   head                      8    16    24    32    40    64    80   160
 *   registers by keys       142   160   192   218   250   203   226   243   sm_80
 *   registers by queries    115   147   167   178   214   232   188   180
 *   registers by keys       142   172   210   228   246   220   228   247   sm_90a
 *   registers by queries    118   140   168   178   214   234   186   182
 *   shared memory, KiB        5    13    13    21    21    37    23    63
 * Two blocks of 4 warps an SM, three or four up to heads of 16 (160 on sm_86 and sm_89: one).
 */
#include "attention_mma.cuh"

typedef enum { BY_KEYS, BY_QUERIES } Side;

/* M: 16-row tiles of a warp; COLS of a stage of the ring; SUB: columns at a time; HELD: the rows'
 * fragments stay in registers, else they are read again from shared memory in front of the ring. */
template <int W, Side SIDE> struct Plan {
    static constexpr int M = W <= 40 || (W == 64 && SIDE == BY_QUERIES) ? 2 : 1;
    static constexpr int COLS = W <= 64 ? 64 : W <= 80 ? 32 : 16;
    static constexpr int SUB = W == 160 || (W == 64 && SIDE == BY_QUERIES) ? 16 : 32;
    static constexpr int STAGES = 2, BLOCKS = 2;
    static constexpr bool HELD = W <= 80;
    static constexpr int ROWS = 16 * M * MMA_WARPS, PITCH = Width<W>::PITCH;
    static constexpr int ROOM = 2 * ROWS * PITCH;                /* of the rows, in chunks */
    static constexpr int STAGE = 2 * COLS * PITCH + COLS / 2;    /* columns and their RowSums */
    static constexpr int RING = STAGES * STAGE;
    static constexpr int CHUNKS = HELD ? (RING > ROOM ? RING : ROOM) : RING + ROOM;
    static constexpr size_t BYTES = (size_t)CHUNKS * sizeof(Chunk);
};

template <class A, class B, bool FIRST> struct Either { typedef A Type; };
template <class A, class B> struct Either<A, B, false> { typedef B Type; };

/* Columns first .. first+COLS-1 of both tensors; by keys also their sums, zero behind the last
 * query: there s = 0, P = 1, dy = 0, dS = 0. */
template <int W, Side SIDE>
DEVICE void load_stage(Chunk *stage, const HeadRows &one, const HeadRows &two, const RowSums *sums,
                       int first)
{
    typedef Plan<W, SIDE> P;
    load_tile<W, P::COLS>(stage, one, first);
    load_tile<W, P::COLS>(stage + P::COLS * P::PITCH, two, first);
    if (SIDE == BY_KEYS && threadIdx.x < P::COLS) {
        int query = first + threadIdx.x;
        bool there = query < one.count;
        async_copy<8>((RowSums *)(stage + 2 * P::COLS * P::PITCH) + threadIdx.x,
                      sums + (there ? query : 0), there ? 8 : 0);
    }
}

/* s becomes P, dp becomes dS, for a fragment row of 16 and columns from col0 on. */
template <int W, Side SIDE>
DEVICE void weigh(float (&s)[Plan<W, SIDE>::SUB / 8][4], float (&dp)[Plan<W, SIDE>::SUB / 8][4],
                  const RowSums (&of_row)[2], const RowSums *of_col, float c)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < Plan<W, SIDE>::SUB / 8; n++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            RowSums r = SIDE == BY_KEYS ? of_col[8 * n + lane % 4 * 2 + k % 2] : of_row[k / 2];
            s[n][k] = exp2_approx(fmaf(s[n][k], c, -LOG2E * r.lse));
            dp[n][k] = s[n][k] * (dp[n][k] - r.dot);
        }
}

/* Zero where a key is not there, or, with `causal`, behind its query. */
template <int W, Side SIDE>
DEVICE void hide(float (&s)[Plan<W, SIDE>::SUB / 8][4], float (&dp)[Plan<W, SIDE>::SUB / 8][4],
                 int row0, int col0, const AttentionShape &a)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < Plan<W, SIDE>::SUB / 8; n++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int row = row0 + lane / 4 + k / 2 * 8, col = col0 + 8 * n + lane % 4 * 2 + k % 2;
            int key = SIDE == BY_KEYS ? row : col, query = SIDE == BY_KEYS ? col : row;
            if (key >= a.tk || (a.causal && key > query)) s[n][k] = dp[n][k] = 0;
        }
}

/* by keys: grad_one = dk, grad_two = dv; by queries: grad_one = dq */
template <int W, Side SIDE>
static __global__ void __launch_bounds__(MMA_THREADS, (Plan<W, SIDE>::BLOCKS))
    attention_mma_bwd_kernel(bf16 *grad_one, bf16 *grad_two, const bf16 *dy, const RowSums *sums,
                             const bf16 *q, const bf16 *k, const bf16 *v, AttentionShape a)
{
    typedef Plan<W, SIDE> P;
    constexpr bool by_keys = SIDE == BY_KEYS;
    extern __shared__ Chunk shared[];
    Chunk *ring = shared + (P::HELD ? 0 : P::ROOM);
    const HeadRows rq = head_rows(q, a.tq, a), rk = head_rows(k, a.tk, a),
                   rv = head_rows(v, a.tk, a), rdy = head_rows(dy, a.tq, a);
    const HeadRows &col_one = by_keys ? rq : rk, &col_two = by_keys ? rdy : rv;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, rows = by_keys ? a.tk : a.tq;
    const int row0 = blockIdx.x * P::ROWS, row = row0 + warp * 16 * P::M;
    const int from = by_keys && a.causal ? row0 : 0;
    const int to = by_keys ? a.tq : a.causal ? min(a.tk, row0 + P::ROWS) : a.tk;
    const int tiles = (to - from + P::COLS - 1) / P::COLS; /* may be negative */
    const float scale = rsqrtf((float)a.dh);
    sums += (blockIdx.z * (size_t)a.heads + blockIdx.y) * a.tq;

    load_tile<W, P::ROWS>(shared, by_keys ? rk : rq, row0);
    load_tile<W, P::ROWS>(shared + P::ROOM / 2, by_keys ? rv : rdy, row0);
    async_commit();
    async_wait<0>();
    __syncthreads();
    typename Either<LeftHeld<W, P::M>, LeftShared<W, P::M>, P::HELD>::Type one, two;
    one.init(shared, warp * 16 * P::M);
    two.init(shared + P::ROOM / 2, warp * 16 * P::M);
    RowSums of_row[P::M][2] = {};
    if (!by_keys)
#pragma unroll
        for (int i = 0; i < 2 * P::M; i++) {
            int query = row + 8 * i + lane / 4;
            if (query < a.tq) of_row[i / 2][i % 2] = sums[query];
        }
    __syncthreads(); /* the ring lies where the rows were */
    if (tiles > 0) load_stage<W, SIDE>(ring, col_one, col_two, sums, from);
    async_commit();

    float sum_one[P::M][W / 8][4] = {}, sum_two[P::M][W / 8][4] = {};
    for (int t = 0; t < tiles; t++) {
        async_wait<0>();
        __syncthreads(); /* tile t is there, and all are done with tile t - 1 */
        if (t + 1 < tiles)
            load_stage<W, SIDE>(ring + (t + 1) % 2 * P::STAGE, col_one, col_two, sums,
                                from + (t + 1) * P::COLS);
        async_commit();
        const Chunk *stage = ring + t % 2 * P::STAGE;
#pragma unroll 1
        for (int sub = 0; sub < P::COLS; sub += P::SUB) {
            int col0 = from + t * P::COLS + sub, last = col0 + P::SUB - 1;
            if (row >= rows || col0 >= to) break;
            if (a.causal && (by_keys ? last < row : col0 >= row + 16 * P::M)) continue;
            const Chunk *c1 = stage + sub * P::PITCH, *c2 = c1 + P::COLS * P::PITCH;
            const RowSums *of_col = (const RowSums *)(stage + 2 * P::COLS * P::PITCH) + sub;
            float s[P::M][P::SUB / 8][4] = {}, dp[P::M][P::SUB / 8][4] = {};
            row_products<W, P::M, P::SUB>(s, one, c1);
            row_products<W, P::M, P::SUB>(dp, two, c2);
            bool cut = a.causal ? (by_keys ? col0 < row + 16 * P::M : last > row) : false;
#pragma unroll
            for (int m = 0; m < P::M; m++) {
                weigh<W, SIDE>(s[m], dp[m], of_row[m], of_col, scale * LOG2E);
                if (cut || (!by_keys && last >= a.tk))
                    hide<W, SIDE>(s[m], dp[m], row + 16 * m, col0, a);
            }
            if (by_keys) add_products<W, P::M, P::SUB>(sum_two, s, c2);
            add_products<W, P::M, P::SUB>(sum_one, dp, c1);
        }
    }
    __syncthreads();
    float factor[P::M][2];
    Chunk *stage = shared + warp * 16 * P::M * P::PITCH;
#pragma unroll
    for (int i = 0; i < 2 * P::M; i++) factor[i / 2][i % 2] = scale;
    store_rows<W, P::M>(head_rows(grad_one, rows, a), stage, sum_one, factor, row);
    if constexpr (by_keys) {
#pragma unroll
        for (int i = 0; i < 2 * P::M; i++) factor[i / 2][i % 2] = 1;
        __syncwarp();
        store_rows<W, P::M>(head_rows(grad_two, rows, a), stage, sum_two, factor, row);
    }
}

template <int W, Side SIDE>
static Status run(bf16 *grad_one, bf16 *grad_two, const bf16 *dy, const RowSums *sums,
                  const bf16 *q, const bf16 *k, const bf16 *v, const AttentionShape *a, Stream *s)
{
    typedef Plan<W, SIDE> P;
    dim3 grid(((SIDE == BY_KEYS ? a->tk : a->tq) + P::ROWS - 1) / P::ROWS, a->heads, a->n);
    cudaFuncSetAttribute(attention_mma_bwd_kernel<W, SIDE>,
                         cudaFuncAttributeMaxDynamicSharedMemorySize, P::BYTES);
    attention_mma_bwd_kernel<W, SIDE><<<grid, MMA_THREADS, P::BYTES, s->handle>>>(
        grad_one, grad_two, dy, sums, q, k, v, *a);
    return launched(SIDE == BY_KEYS ? "attention_mma_dk_dv" : "attention_mma_dq");
}

template <int W>
static Status both(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dy, const RowSums *sums,
                   const bf16 *q, const bf16 *k, const bf16 *v, const AttentionShape *a, Stream *s)
{
    TRY((run<W, BY_KEYS>(dk, dv, dy, sums, q, k, v, a, s)));
    return run<W, BY_QUERIES>(dq, NULL, dy, sums, q, k, v, a, s);
}

Status attention_mma_bwd(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dy, const RowSums *sums,
                         const bf16 *q, const bf16 *k, const bf16 *v, const AttentionShape *a,
                         Stream *s)
{
#define RUN(w) if (a->dh <= w) return both<w>(dq, dk, dv, dy, sums, q, k, v, a, s);
    MMA_WIDTHS(RUN)
#undef RUN
    return FAIL(ERR_BUG, "attention_bwd on tensor cores with heads of %d", a->dh);
}
