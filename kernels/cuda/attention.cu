/* attention.cu - attention in fp32 arithmetic for any head size up to 512; launchers of all of it.
 *
 * One block holds 64 rows of one image and head and streams the other side in tiles of 64. A tile
 * of scores is summed over slices of 32 columns of the head, 4 x 4 scores a thread; the weights of
 * the tile (P, or dS of the backward pass) go through shared memory into the second product, whose
 * sums stay in registers: 8 a thread and slice.
 *   forward   rows are queries: softmax online (largest score m, sum l), y = sum P v / l
 *   dq        rows are queries: P = exp(s - lse), dS = P (dy.v' - dot) / sqrt(dh), dq = dS.k
 *   dk, dv    rows are keys, a launch each: dk = dS'.q, dv = P'.dy
 * with dot = rowsum(dy y) made first. No result is shared by two blocks: no atomics, fixed order.
 *
 * FLOPs 4 tq tk dh forward, 16 backward (scores again in each of three launches; the least is 10).
 * Half a load from shared memory for a multiply-add: half of the fp32 peak bounds it. 256 threads,
 * 35 KiB; heads up to 64, 160, 512: at most 128, 168, 254 registers, so 2, 1, 1 blocks an SM.
 * bf16 tensors take this way where tensor cores have no kernel (attention_mma.cuh): heads that are
 * not a multiple of 8, and the gradients of heads above 160.
 */
#include "attention_mma.cuh"
#include <math_constants.h>

static const int TILE = 64, THREADS = 256, SLICE = 32;

typedef float Slice[TILE][SLICE + 4];   /* rows 16-byte aligned, eight of them in all banks */
typedef float Weights[TILE][TILE + 4];

/* Rows of one image and head. */
template <class T> struct Rows { const T *at; size_t stride; int count; };

template <class T>
DEVICE Rows<T> rows_of(const void *tensor, int count, const AttentionShape &a)
{
    size_t stride = (size_t)a.heads * a.dh;
    return {(const T *)tensor + blockIdx.z * (size_t)count * stride + blockIdx.y * (size_t)a.dh,
            stride, count};
}

/* Columns e0 .. e0+31 of rows first .. first+63; 0 outside. */
template <class T> DEVICE void load_slice(Slice s, const Rows<T> &x, int first, int e0, int dh)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 2
    for (int r = warp; r < TILE; r += THREADS / 32) {
        bool there = first + r < x.count && e0 + lane < dh;
        s[r][lane] = there ? to_float(x.at[(first + r) * x.stride + e0 + lane]) : 0;
    }
}

/* s[i][j] = row 4 (thread / 16) + i of a's tile times row thread % 16 + 16 j of b's */
template <class T>
DEVICE void product(float (&s)[4][4], const Rows<T> &a, int a0, const Rows<T> &b, int b0, int dh,
                    Slice sa, Slice sb)
{
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < 16; i++) s[i / 4][i % 4] = 0;
    for (int e0 = 0; e0 < dh; e0 += SLICE) {
        __syncthreads();
        load_slice(sa, a, a0, e0, dh);
        load_slice(sb, b, b0, e0, dh);
        __syncthreads();
#pragma unroll 2
        for (int e = 0; e < SLICE; e += 4) {
            float4 va[4], vb[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                va[i] = *(const float4 *)&sa[4 * ty + i][e];
                vb[i] = *(const float4 *)&sb[tx + 16 * i][e];
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    s[i][j] = fmaf(va[i].w, vb[j].w,
                                   fmaf(va[i].z, vb[j].z,
                                        fmaf(va[i].y, vb[j].y, fmaf(va[i].x, vb[j].x, s[i][j]))));
        }
    }
}

/* o[c][i][k] += weights . x, column 32 c + 2 (thread % 16) + k. Shows w to the block first. */
template <int SLICES, class T>
DEVICE void accumulate(float (&o)[SLICES][4][2], Weights w, const Rows<T> &x, int first, int dh,
                       Slice sx)
{
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll
    for (int c = 0; c < SLICES; c++) {
        if (c * SLICE >= dh) break;
        __syncthreads();
        load_slice(sx, x, first, c * SLICE, dh);
        __syncthreads();
#pragma unroll 2
        for (int j = 0; j < TILE; j += 4) {
            float4 vw[4];
            float2 vx[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                vw[i] = *(const float4 *)&w[4 * ty + i][j];
                vx[i] = *(const float2 *)&sx[j + i][2 * tx];
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float *f = o[c][i];
                f[0] = fmaf(vw[i].x, vx[0].x, f[0]), f[1] = fmaf(vw[i].x, vx[0].y, f[1]);
                f[0] = fmaf(vw[i].y, vx[1].x, f[0]), f[1] = fmaf(vw[i].y, vx[1].y, f[1]);
                f[0] = fmaf(vw[i].z, vx[2].x, f[0]), f[1] = fmaf(vw[i].z, vx[2].y, f[1]);
                f[0] = fmaf(vw[i].w, vx[3].x, f[0]), f[1] = fmaf(vw[i].w, vx[3].y, f[1]);
            }
        }
    }
}

template <int SLICES, class T>
DEVICE void store_rows(T *out, const float (&o)[SLICES][4][2], const float (&factor)[4], int first,
                       int count, const AttentionShape &a)
{
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    Rows<T> to = rows_of<T>(out, count, a);
#pragma unroll
    for (int c = 0; c < SLICES; c++)
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int k = 0; k < 2; k++) {
                int row = first + 4 * ty + i, e = c * SLICE + 2 * tx + k;
                if (row < count && e < a.dh)
                    ((T *)to.at)[row * to.stride + e] = from_float<T>(o[c][i][k] * factor[i]);
            }
}

DEVICE bool sees(int query, int key, const AttentionShape &a)
{
    return query < a.tq && key < a.tk && (!a.causal || key <= query);
}

/* Over the 16 threads that share rows. */
DEVICE float row_max(float v)
{
#pragma unroll
    for (int step = 8; step; step /= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
    return v;
}
DEVICE float row_sum(float v)
{
#pragma unroll
    for (int step = 8; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
    return v;
}

template <class T, int SLICES>
static __global__ void __launch_bounds__(THREADS, SLICES <= 2 ? 2 : 1)
    attention_fp32_fwd(T *y, float *lse, const T *q, const T *k, const T *v, AttentionShape a)
{
    __shared__ __align__(16) Slice sa, sb;
    __shared__ __align__(16) Weights w;
    const Rows<T> rq = rows_of<T>(q, a.tq, a), rk = rows_of<T>(k, a.tk, a),
                  rv = rows_of<T>(v, a.tk, a);
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16, q0 = blockIdx.x * TILE;
    int keys = a.causal ? min(a.tk, q0 + TILE) : a.tk;
    float o[SLICES][4][2] = {}, top[4], sum[4] = {}, s[4][4], scale = rsqrtf((float)a.dh);
#pragma unroll
    for (int i = 0; i < 4; i++) top[i] = -CUDART_INF_F;
    for (int k0 = 0; k0 < keys; k0 += TILE) { /* every query sees key 0: top is finite from there */
        product(s, rq, q0, rk, k0, a.dh, sa, sb);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int query = q0 + 4 * ty + i;
            float m = top[i], part = 0;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int key = k0 + tx + 16 * j;
                s[i][j] = key < a.tk && (!a.causal || key <= query) ? s[i][j] * scale
                                                                    : -CUDART_INF_F;
                m = fmaxf(m, s[i][j]);
            }
            m = row_max(m);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float p = expf(s[i][j] - m);
                part += p;
                w[4 * ty + i][tx + 16 * j] = p;
            }
            float shrink = expf(top[i] - m);
            sum[i] = sum[i] * shrink + row_sum(part);
            top[i] = m;
#pragma unroll
            for (int c = 0; c < SLICES; c++) o[c][i][0] *= shrink, o[c][i][1] *= shrink;
        }
        accumulate<SLICES>(o, w, rv, k0, a.dh, sb);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int query = q0 + 4 * ty + i;
        if (tx == 0 && query < a.tq)
            lse[(blockIdx.z * (size_t)a.heads + blockIdx.y) * a.tq + query] =
                top[i] + logf(sum[i]);
        sum[i] = 1 / sum[i];
    }
    store_rows<SLICES, T>(y, o, sum, q0, a.tq, a);
}

/* sums[n,heads,tq]: lse, and the sum over a head's columns of dy y. Eight lanes a row, V columns
 * at a time. */
template <class T, int V>
static __global__ void attention_sums(RowSums *sums, const T *dy, const T *y, const float *lse,
                                      AttentionShape a)
{
    int query = blockIdx.x * (THREADS / 8) + threadIdx.x / 8;
    bool there = query < a.tq;
    Rows<T> rdy = rows_of<T>(dy, a.tq, a), ry = rows_of<T>(y, a.tq, a);
    size_t at = there ? query * ry.stride : 0, out = blockIdx.z * (size_t)a.heads + blockIdx.y;
    float sum = 0;
    for (int e = threadIdx.x % 8 * V; e < a.dh; e += 8 * V) {
        Pack<T, V> pdy = *(const Pack<T, V> *)(rdy.at + at + e),
                   py = *(const Pack<T, V> *)(ry.at + at + e);
#pragma unroll
        for (int k = 0; k < V; k++) sum = fmaf(to_float(pdy.v[k]), to_float(py.v[k]), sum);
    }
#pragma unroll
    for (int step = 4; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    out = out * a.tq + query;
    if (there && threadIdx.x % 8 == 0) sums[out] = {lse[out], sum};
}

typedef enum { GRAD_Q, GRAD_K, GRAD_V } Grad;

template <class T, int SLICES, Grad OF>
static __global__ void __launch_bounds__(THREADS, SLICES <= 2 ? 2 : 1)
    attention_fp32_bwd(T *grad, const T *dy, const RowSums *sums, const T *q, const T *k,
                       const T *v, AttentionShape a)
{
    __shared__ __align__(16) Slice sa, sb;
    __shared__ __align__(16) Weights w;
    const bool by_query = OF == GRAD_Q;
    const Rows<T> rq = rows_of<T>(q, a.tq, a), rk = rows_of<T>(k, a.tk, a),
                  rv = rows_of<T>(v, a.tk, a), rdy = rows_of<T>(dy, a.tq, a);
    int ty = threadIdx.x / 16, tx = threadIdx.x % 16, row0 = blockIdx.x * TILE;
    int from = !by_query && a.causal ? row0 : 0;
    int to = !by_query ? a.tq : a.causal ? min(a.tk, row0 + TILE) : a.tk;
    float o[SLICES][4][2] = {}, s[4][4], dp[4][4], scale = rsqrtf((float)a.dh);
    sums += (blockIdx.z * (size_t)a.heads + blockIdx.y) * a.tq;
    for (int col0 = from; col0 < to; col0 += TILE) {
        product(s, by_query ? rq : rk, row0, by_query ? rk : rq, col0, a.dh, sa, sb);
        if (OF != GRAD_V)
            product(dp, by_query ? rdy : rv, row0, by_query ? rv : rdy, col0, a.dh, sa, sb);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int row = row0 + 4 * ty + i, col = col0 + tx + 16 * j;
                int query = by_query ? row : col, key = by_query ? col : row;
                float p = 0;
                if (sees(query, key, a)) {
                    p = expf(s[i][j] * scale - sums[query].lse);
                    if (OF != GRAD_V) p *= (dp[i][j] - sums[query].dot) * scale;
                }
                w[4 * ty + i][tx + 16 * j] = p;
            }
        accumulate<SLICES>(o, w, OF == GRAD_Q ? rk : OF == GRAD_K ? rq : rdy, col0, a.dh, sb);
    }
    const float one[4] = {1, 1, 1, 1};
    store_rows<SLICES, T>(grad, o, one, row0, by_query ? a.tq : a.tk, a);
}

static dim3 grid_of(int rows, int per_block, const AttentionShape *a)
{
    return dim3((rows + per_block - 1) / per_block, a->heads, a->n);
}

template <class T, int SLICES>
static Status fp32_fwd(void *y, float *lse, const void *q, const void *k, const void *v,
                       const AttentionShape *a, Stream *s)
{
    attention_fp32_fwd<T, SLICES><<<grid_of(a->tq, TILE, a), THREADS, 0, s->handle>>>(
        (T *)y, lse, (const T *)q, (const T *)k, (const T *)v, *a);
    return launched("attention");
}

template <class T, int SLICES>
static Status fp32_bwd(void *dq, void *dk, void *dv, const void *dy,
                       const RowSums *sums, const void *q, const void *k, const void *v,
                       const AttentionShape *a, Stream *s)
{
    const T *in[] = {(const T *)dy, (const T *)q, (const T *)k, (const T *)v};
    dim3 queries = grid_of(a->tq, TILE, a), keys = grid_of(a->tk, TILE, a);
    attention_fp32_bwd<T, SLICES, GRAD_Q><<<queries, THREADS, 0, s->handle>>>(
        (T *)dq, in[0], sums, in[1], in[2], in[3], *a);
    attention_fp32_bwd<T, SLICES, GRAD_K><<<keys, THREADS, 0, s->handle>>>(
        (T *)dk, in[0], sums, in[1], in[2], in[3], *a);
    attention_fp32_bwd<T, SLICES, GRAD_V><<<keys, THREADS, 0, s->handle>>>(
        (T *)dv, in[0], sums, in[1], in[2], in[3], *a);
    return launched("attention_bwd");
}

/* Head sizes are rounded up to 2, 5 or 16 slices of 32. */
#define BY_SLICES(dh, T, f, ...)                                                                   \
    ((dh) <= 64 ? f<T, 2>(__VA_ARGS__)                                                             \
                : (dh) <= 160 ? f<T, 5>(__VA_ARGS__) : f<T, 16>(__VA_ARGS__))

static Status shape_check(const AttentionShape *a)
{
    if (a->dh < 1 || a->dh > 512 || a->heads > 65535 || a->n > 65535)
        return FAIL(ERR_BUG, "attention of %d images, %d heads of %d: at most 65535, 65535, 512",
                    a->n, a->heads, a->dh);
    return OK;
}

Status cuda_attention_fwd(void *y, float *lse, const void *q, const void *k, const void *v,
                          const AttentionShape *a, Dtype type, Stream *s)
{
    TRY(shape_check(a));
    if (type == DTYPE_F32) return BY_SLICES(a->dh, float, fp32_fwd, y, lse, q, k, v, a, s);
    if (a->dh % 8) return BY_SLICES(a->dh, bf16, fp32_fwd, y, lse, q, k, v, a, s);
    return (attention_mma_fits(a) ? attention_mma_fwd : attention_wide_fwd)(
        (bf16 *)y, lse, (const bf16 *)q, (const bf16 *)k, (const bf16 *)v, a, s);
}

template <class T, int V>
static Status make_sums(RowSums *sums, const void *dy, const void *y, const float *lse,
                        const AttentionShape *a, Stream *s)
{
    attention_sums<T, V><<<grid_of(a->tq, THREADS / 8, a), THREADS, 0, s->handle>>>(
        sums, (const T *)dy, (const T *)y, lse, *a);
    return launched("attention_sums");
}

Status cuda_attention_bwd(void *dq, void *dk, void *dv, const void *dy, const void *y,
                          const float *lse, const void *q, const void *k, const void *v,
                          const AttentionShape *a, Dtype type, Stream *s)
{
    TRY(shape_check(a));
    size_t bytes = (size_t)a->n * a->heads * a->tq * sizeof(RowSums);
    RowSums *sums = (RowSums *)stream_scratch(s, bytes);
    if (!sums) return FAIL(ERR_SPACE, "no GPU memory for %zu bytes of attention sums", bytes);
    if (type == DTYPE_F32) {
        TRY((make_sums<float, 1>(sums, dy, y, lse, a, s)));
        return BY_SLICES(a->dh, float, fp32_bwd, dq, dk, dv, dy, sums, q, k, v, a, s);
    }
    if (attention_mma_fits(a)) {
        TRY((make_sums<bf16, 8>(sums, dy, y, lse, a, s)));
        return attention_mma_bwd((bf16 *)dq, (bf16 *)dk, (bf16 *)dv, (const bf16 *)dy, sums,
                                 (const bf16 *)q, (const bf16 *)k, (const bf16 *)v, a, s);
    }
    TRY((make_sums<bf16, 1>(sums, dy, y, lse, a, s)));
    return BY_SLICES(a->dh, bf16, fp32_bwd, dq, dk, dv, dy, sums, q, k, v, a, s);
}
