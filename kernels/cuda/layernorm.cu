/* layernorm.cu - normalisation of rows of d elements; formulas in kernels/cpu/layernorm.c.
 *
 * A team of `wide` threads, whole warps, holds TOGETHER rows in registers, PACKS packs of each a
 * thread; a block is `teams` teams that stay in step. Forward reads and writes x once and leaves
 * after its rows. Backward reads dy and x once, writes dx, and each block walks down many rows to
 * keep its share of dgain and dbias in registers; one more kernel sums the blocks' shares in order.
 * Bound by memory: 2 passes over x forward, 3 backward.
 * Limits: rows of at most 1024 packs of 16 bytes or, where those do not divide d, 4096 elements.
 */
#include "kernels_point.h"
#include "totals.cuh"

enum {
    TEAM_THREADS = 256,
    WIDE_THREADS = 512, /* of a row that takes more, several packs each */
    SHARES = 256        /* most blocks backward */
};

struct Teams {
    size_t rows;
    int d, wide, teams;
    int block_rows; /* backward */
};

/* v[N] summed over the thread's team, in every thread. */
template <int N> DEVICE void team_sum(float (&v)[N], const Teams &t)
{
    __shared__ float part[32][N];
    int warp = threadIdx.x / 32, warps = t.wide / 32, first = warp - warp % warps;
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = warp_sum(v[i]);
        if (threadIdx.x % 32 == 0) part[warp][i] = v[i];
    }
    if (warps == 1) return;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = 0;
        for (int w = 0; w < warps; w++) v[i] += part[first + w][i];
    }
    __syncthreads();
}

/* The mean is found twice, the second time about the first: exact to a rounding. */
template <class T, int V, int PACKS, int TOGETHER>
static __global__ void __launch_bounds__(PACKS > 1 ? WIDE_THREADS : TEAM_THREADS, PACKS > 1 ? 2 : 3)
    rows_kernel(T *__restrict__ y, float *__restrict__ stats, const T *__restrict__ x,
                const float *__restrict__ gain, const float *__restrict__ bias, float eps, Teams t)
{
    int team = threadIdx.x / t.wide, lane = threadIdx.x - team * t.wide;
    size_t row = ((size_t)blockIdx.x * t.teams + team) * TOGETHER;
    int rows = (int)min((size_t)TOGETHER, row < t.rows ? t.rows - row : 0);
    Pack<T, V> held[TOGETHER][PACKS];
    float sum[TOGETHER], moment[2 * TOGETHER], share = 1.f / t.d;
#pragma unroll
    for (int r = 0; r < TOGETHER; r++) {
        sum[r] = 0;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            int at = (lane + p * t.wide) * V;
            if (r >= rows || at >= t.d) continue;
            held[r][p] = *(const Pack<T, V> *)(x + (row + r) * t.d + at);
#pragma unroll
            for (int k = 0; k < V; k++) sum[r] += to_float(held[r][p].v[k]);
        }
    }
    team_sum<TOGETHER>(sum, t);
#pragma unroll
    for (int r = 0; r < TOGETHER; r++) {
        sum[r] *= share;
        moment[r] = moment[TOGETHER + r] = 0;
#pragma unroll
        for (int p = 0; p < PACKS; p++)
            if (r < rows && (lane + p * t.wide) * V < t.d)
#pragma unroll
                for (int k = 0; k < V; k++) {
                    float d = to_float(held[r][p].v[k]) - sum[r];
                    moment[r] += d;
                    moment[TOGETHER + r] += d * d;
                }
    }
    team_sum<2 * TOGETHER>(moment, t);
#pragma unroll
    for (int r = 0; r < TOGETHER; r++) {
        float rest = moment[r] * share;
        sum[r] += rest;
        moment[r] = 1 / sqrtf(moment[TOGETHER + r] * share - rest * rest + eps);
        if (r >= rows || lane) continue;
        stats[2 * (row + r)] = sum[r];
        stats[2 * (row + r) + 1] = moment[r];
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int at = (lane + p * t.wide) * V;
        if (at >= t.d) continue;
        Pack<float, V> g = *(const Pack<float, V> *)(gain + at),
                       b = *(const Pack<float, V> *)(bias + at);
#pragma unroll
        for (int r = 0; r < TOGETHER; r++) {
            if (r >= rows) continue;
#pragma unroll
            for (int k = 0; k < V; k++) {
                float h = (to_float(held[r][p].v[k]) - sum[r]) * moment[r];
                held[r][p].v[k] = from_float<T>(h * g.v[k] + b.v[k]);
            }
            *(Pack<T, V> *)(y + (row + r) * t.d + at) = held[r][p];
        }
    }
}

/* partial[block][2][d] = the block's share of dbias, of dgain */
template <class T, int V, int PACKS, int TOGETHER>
static __global__ void __launch_bounds__(PACKS > 1 ? WIDE_THREADS : TEAM_THREADS)
    rows_dx_kernel(T *__restrict__ dx, float *__restrict__ partial, const T *__restrict__ dy,
                   const T *__restrict__ x, const float *__restrict__ gain,
                   const float *__restrict__ stats, Teams t)
{
    extern __shared__ float room[]; /* [teams - 1][2][d] */
    int team = threadIdx.x / t.wide, lane = threadIdx.x - team * t.wide;
    size_t from = (size_t)blockIdx.x * t.block_rows, end = min(t.rows, from + t.block_rows);
    float first[PACKS][V], second[PACKS][V], share = 1.f / t.d;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int k = 0; k < V; k++) first[p][k] = second[p][k] = 0;

    for (; from < end; from += t.teams * TOGETHER) {
        size_t row = from + team * TOGETHER;
        int rows = (int)min((size_t)TOGETHER, row < end ? end - row : 0);
        Pack<T, V> held[TOGETHER][PACKS], given[TOGETHER][PACKS];
        float sum[2 * TOGETHER], mean[TOGETHER], per_std[TOGETHER];
#pragma unroll
        for (int r = 0; r < TOGETHER; r++) {
            sum[r] = sum[TOGETHER + r] = mean[r] = per_std[r] = 0;
            if (r >= rows) continue;
            mean[r] = stats[2 * (row + r)];
            per_std[r] = stats[2 * (row + r) + 1];
#pragma unroll
            for (int p = 0; p < PACKS; p++) {
                int at = (lane + p * t.wide) * V;
                if (at >= t.d) continue;
                held[r][p] = *(const Pack<T, V> *)(x + (row + r) * t.d + at);
                given[r][p] = *(const Pack<T, V> *)(dy + (row + r) * t.d + at);
            }
        }
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            int at = (lane + p * t.wide) * V;
            if (at >= t.d) continue;
            Pack<float, V> g = *(const Pack<float, V> *)(gain + at);
#pragma unroll
            for (int r = 0; r < TOGETHER; r++)
                if (r < rows)
#pragma unroll
                    for (int k = 0; k < V; k++) {
                        float h = (to_float(held[r][p].v[k]) - mean[r]) * per_std[r];
                        float dz = to_float(given[r][p].v[k]);
                        first[p][k] += dz;
                        second[p][k] += dz * h;
                        sum[r] += dz * g.v[k];
                        sum[TOGETHER + r] += dz * g.v[k] * h;
                    }
        }
        team_sum<2 * TOGETHER>(sum, t);
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            int at = (lane + p * t.wide) * V;
            if (at >= t.d) continue;
            Pack<float, V> g = *(const Pack<float, V> *)(gain + at);
#pragma unroll
            for (int r = 0; r < TOGETHER; r++) {
                if (r >= rows) continue;
#pragma unroll
                for (int k = 0; k < V; k++) {
                    float h = (to_float(held[r][p].v[k]) - mean[r]) * per_std[r];
                    float dh = to_float(given[r][p].v[k]) * g.v[k];
                    held[r][p].v[k] =
                        from_float<T>((dh - (sum[r] + h * sum[TOGETHER + r]) * share) * per_std[r]);
                }
                *(Pack<T, V> *)(dx + (row + r) * t.d + at) = held[r][p];
            }
        }
    }

    /* the teams' shares in order, by the first team */
    typedef Pack<float, V> Share;
    for (int which = 0; which < 2; which++)
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            int at = (lane + p * t.wide) * V;
            if (!team || at >= t.d) continue;
            *(Share *)(room + ((size_t)(team - 1) * 2 + which) * t.d + at) =
                which ? *(Share *)second[p] : *(Share *)first[p];
        }
    __syncthreads();
    if (team) return;
    for (int which = 0; which < 2; which++)
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            int at = (lane + p * t.wide) * V;
            if (at >= t.d) continue;
            Share all;
#pragma unroll
            for (int k = 0; k < V; k++) all.v[k] = which ? second[p][k] : first[p][k];
            for (int i = 0; i < t.teams - 1; i++) {
                Share more = *(const Share *)(room + ((size_t)i * 2 + which) * t.d + at);
#pragma unroll
                for (int k = 0; k < V; k++) all.v[k] += more.v[k];
            }
            *(Share *)(partial + ((size_t)blockIdx.x * 2 + which) * t.d + at) = all;
        }
}

/* Threads of a team for `packs` packs a row, PACKS a thread. */
static Teams teams_of(size_t rows, int d, int packs, int per_thread, int together)
{
    Teams t = {rows, d, ((packs + per_thread - 1) / per_thread + 31) / 32 * 32, 1, 0};
    if (t.wide < TEAM_THREADS) t.teams = TEAM_THREADS / t.wide;
    size_t useful = (rows + together - 1) / together;
    if ((size_t)t.teams > useful) t.teams = (int)useful;
    return t;
}

template <class T, int V, int PACKS, int TOGETHER>
static Status forward(void *y, float *stats, const void *x, const float *gain, const float *bias,
                      size_t rows, int d, float eps, Stream *s)
{
    Teams t = teams_of(rows, d, d / V, PACKS, TOGETHER);
    if (t.teams > 4) t.teams = 4; /* blocks enough for few rows */
    size_t step = (size_t)t.teams * TOGETHER;
    rows_kernel<T, V, PACKS, TOGETHER>
        <<<(unsigned)((rows + step - 1) / step), t.wide * t.teams, 0, s->handle>>>(
            (T *)y, stats, (const T *)x, gain, bias, eps, t);
    return launched("layernorm");
}

template <class T, int V, int PACKS, int TOGETHER>
static Status backward(void *dx, float *dgain, float *dbias, const void *dy, const void *x,
                       const float *gain, const float *stats, size_t rows, int d, Stream *s)
{
    Teams t = teams_of(rows, d, d / V, PACKS, TOGETHER);
    size_t step = (size_t)t.teams * TOGETHER, least = (rows + SHARES - 1) / SHARES;
    t.block_rows = (int)((least + step - 1) / step * step);
    size_t blocks = (rows + t.block_rows - 1) / t.block_rows, width = d;
    float *partial = (float *)stream_scratch(s, blocks * 2 * width * sizeof(float));
    if (!partial) return FAIL(ERR_SPACE, "no memory for the sums of a layer norm");
    rows_dx_kernel<T, V, PACKS, TOGETHER>
        <<<(unsigned)blocks, t.wide * t.teams, (t.teams - 1) * 2 * width * sizeof(float),
           s->handle>>>((T *)dx, partial, (const T *)dy, (const T *)x, gain, stats, t);
    TRY(launched("layernorm_dx"));
    return column_totals(dbias, dgain, partial, partial + width, blocks, 2 * width, d, s);
}

/* Rows that one pack a thread holds are taken four at a time, wider ones alone. */
#define BY_WIDTH(run, T, V, PACKS, ...)                                                            \
    (d / (V) <= TEAM_THREADS           ? run<T, V, 1, 4>(__VA_ARGS__)                              \
     : d / (V) <= PACKS * WIDE_THREADS ? run<T, V, PACKS, 1>(__VA_ARGS__)                          \
                                       : FAIL(ERR_BUG, "layernorm: rows of %d elements", d))
#define DISPATCH(run, ...)                                                                         \
    (type == DTYPE_BF16                                                                            \
         ? d % 8 ? BY_WIDTH(run, bf16, 1, 8, __VA_ARGS__) : BY_WIDTH(run, bf16, 8, 2, __VA_ARGS__) \
     : d % 4 ? BY_WIDTH(run, float, 1, 8, __VA_ARGS__)                                             \
             : BY_WIDTH(run, float, 4, 2, __VA_ARGS__))

Status cuda_layernorm_fwd(void *y, float *stats, const void *x, const float *gain,
                          const float *bias, size_t rows, int d, float eps, Dtype type, Stream *s)
{
    return DISPATCH(forward, y, stats, x, gain, bias, rows, d, eps, s);
}

Status cuda_layernorm_dx(void *dx, float *dgain, float *dbias, const void *dy, const void *x,
                         const float *gain, const float *stats, size_t rows, int d, Dtype type,
                         Stream *s)
{
    return DISPATCH(backward, dx, dgain, dbias, dy, x, gain, stats, rows, d, s);
}
