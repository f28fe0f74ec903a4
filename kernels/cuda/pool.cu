/* pool.cu - maximum and mean over windows, whole-plane means and nearest upsampling of images
 * [n,h,w,c]; which windows hold a pixel is said in kernels/cpu/pool.c.
 *
 * A thread makes a pack of 16 bytes of one output pixel (an element, where packs do not divide c)
 * from what it gathers, in a fixed order: backward too, so there are no atomic sums. Overlapping
 * windows read from the caches; memory is read and written once. Bound by memory; a maximum also
 * writes, and its gradient reads, 4 bytes of index an element.
 */
#include "device.cuh"
#include "divide.cuh"
#include "kernels_shape.h"

static const int THREADS = 256;

/* Where output number i lies: pack, column, row, image. */
struct Walk {
    Divide packs, columns, rows;
    uint32_t count;
};
struct Spot {
    uint32_t pack, column, row, image;
};

DEVICE Spot spot(const Walk &w, uint32_t i)
{
    uint32_t pixel = w.packs.quotient(i), line = w.columns.quotient(pixel);
    uint32_t image = w.rows.quotient(line);
    Spot s = {i - pixel * w.packs.by, pixel - line * w.columns.by, line - image * w.rows.by, image};
    return s;
}

static Status walk(Walk *w, int n, int rows, int columns, int c, int pack)
{
    size_t count = (size_t)n * rows * columns * (c / pack);
    if (count > DIVIDE_MOST) return FAIL(ERR_BUG, "pool: more than 2^31 packs");
    *w = {divide_by(c / pack), divide_by(columns), divide_by(rows), (uint32_t)count};
    return OK;
}

#define SWEEP(i, count)                                                                            \
    for (uint32_t i = blockIdx.x * THREADS + threadIdx.x; i < (count); i += gridDim.x * THREADS)

struct Span {
    int first, end;
};

/* Rows (or columns) of an image of `extent` that window `at` holds. */
DEVICE Span window(const PoolShape &a, int at, int extent)
{
    int first = at * a.stride - a.pad;
    Span s = {max(first, 0), min(first + a.size, extent)};
    return s;
}

/* Windows, of `count`, that hold row (or column) `at`. */
DEVICE Span windows_of(const PoolShape &a, int at, int count)
{
    int low = at + a.pad - a.size + 1;
    Span s = {low <= 0 ? 0 : (low + a.stride - 1) / a.stride,
              min((at + a.pad) / a.stride + 1, count)};
    return s;
}

/* sum[V] += v */
template <class T, int V> DEVICE void add(float *sum, const Pack<T, V> &v)
{
#pragma unroll
    for (int k = 0; k < V; k++) sum[k] += to_float(v.v[k]);
}
template <class T, int V> DEVICE Pack<T, V> scaled(const float *sum, float factor)
{
    Pack<T, V> p;
#pragma unroll
    for (int k = 0; k < V; k++) p.v[k] = from_float<T>(sum[k] * factor);
    return p;
}

/* ---- windows -------------------------------------------------------------------------------- */

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    maxpool_kernel(T *y, int32_t *index, const T *x, PoolShape a, Walk w)
{
    SWEEP(i, w.count)
    {
        Spot s = spot(w, i);
        Span rows = window(a, s.row, a.h), columns = window(a, s.column, a.w);
        const Pack<T, V> *plane = (const Pack<T, V> *)x + (size_t)s.image * a.h * a.w * w.packs.by;
        float best[V];
        Pack<int32_t, V> where;
        bool first = true;
        for (int h = rows.first; h < rows.end; h++)
            for (int q = columns.first; q < columns.end; q++, first = false) {
                int here = h * a.w + q;
                Pack<T, V> v = plane[(size_t)here * w.packs.by + s.pack];
#pragma unroll
                for (int k = 0; k < V; k++) {
                    float f = to_float(v.v[k]);
                    bool take = first || f > best[k] || f != f;
                    best[k] = take ? f : best[k];
                    where.v[k] = take ? here : where.v[k];
                }
            }
        ((Pack<T, V> *)y)[i] = scaled<T, V>(best, 1);
        ((Pack<int32_t, V> *)index)[i] = where;
    }
}

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    maxpool_dx_kernel(T *dx, const T *dy, const int32_t *index, PoolShape a, Walk w)
{
    SWEEP(i, w.count)
    {
        Spot s = spot(w, i);
        Span rows = windows_of(a, s.row, a.p), columns = windows_of(a, s.column, a.q);
        int here = s.row * a.w + s.column;
        float sum[V] = {0};
        for (int p = rows.first; p < rows.end; p++)
            for (int q = columns.first; q < columns.end; q++) {
                size_t at = (((size_t)s.image * a.p + p) * a.q + q) * w.packs.by + s.pack;
                Pack<T, V> v = ((const Pack<T, V> *)dy)[at];
                Pack<int32_t, V> where = ((const Pack<int32_t, V> *)index)[at];
#pragma unroll
                for (int k = 0; k < V; k++) sum[k] += where.v[k] == here ? to_float(v.v[k]) : 0;
            }
        ((Pack<T, V> *)dx)[i] = scaled<T, V>(sum, 1);
    }
}

/* BACK: the gradient of x, from the windows that hold a pixel; else y, from a window's pixels. */
template <class T, int V, bool BACK>
DEVICE void average(T *to, const T *from, const PoolShape &a, const Walk &w, float share)
{
    const int height = BACK ? a.p : a.h, width = BACK ? a.q : a.w;
    SWEEP(i, w.count)
    {
        Spot s = spot(w, i);
        Span rows = BACK ? windows_of(a, s.row, height) : window(a, s.row, height);
        Span columns = BACK ? windows_of(a, s.column, width) : window(a, s.column, width);
        const Pack<T, V> *image =
            (const Pack<T, V> *)from + (size_t)s.image * height * width * w.packs.by + s.pack;
        float sum[V] = {0};
        for (int h = rows.first; h < rows.end; h++)
            for (int q = columns.first; q < columns.end; q++)
                add(sum, image[((size_t)h * width + q) * w.packs.by]);
        ((Pack<T, V> *)to)[i] = scaled<T, V>(sum, share);
    }
}

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    avgpool_kernel(T *y, const T *x, PoolShape a, Walk w, float share)
{
    average<T, V, false>(y, x, a, w, share);
}

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    avgpool_dx_kernel(T *dx, const T *dy, PoolShape a, Walk w, float share)
{
    average<T, V, true>(dx, dy, a, w, share);
}

/* ---- whole planes: a block takes 32 packs of an image, its warps every eighth position --------
 */

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    plane_mean_kernel(T *y, const T *x, int hw, int packs, float share)
{
    __shared__ float part[THREADS / 32][V][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pack = blockIdx.x * 32 + lane;
    const Pack<T, V> *plane = (const Pack<T, V> *)x + (size_t)blockIdx.y * hw * packs + pack;
    float sum[V] = {0};
    if (pack < packs) {
#pragma unroll 4
        for (int p = warp; p < hw; p += THREADS / 32) add(sum, plane[(size_t)p * packs]);
    }
#pragma unroll
    for (int k = 0; k < V; k++) part[warp][k][lane] = sum[k];
    __syncthreads();
    if (warp || pack >= packs) return;
    for (int r = 1; r < THREADS / 32; r++)
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += part[r][k][lane];
    ((Pack<T, V> *)y)[(size_t)blockIdx.y * packs + pack] = scaled<T, V>(sum, share);
}

/* rows of w: the image's positions, one column each */
template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    plane_mean_dx_kernel(T *dx, const T *dy, Walk w, float share)
{
    SWEEP(i, w.count)
    {
        Spot s = spot(w, i);
        float sum[V] = {0};
        add(sum, ((const Pack<T, V> *)dy)[(size_t)s.image * w.packs.by + s.pack]);
        ((Pack<T, V> *)dx)[i] = scaled<T, V>(sum, share);
    }
}

/* ---- nearest upsampling from h x w to p x q pixels --------------------------------------------
 */

/* Of `in` pixels the one nearest to pixel i of `out`, scale = in / out in fp32 as in PyTorch. */
DEVICE int nearest(int i, int in, float scale) { return min((int)(i * scale), in - 1); }

/* The first of `out` pixels whose nearest is `from` or a later one. */
DEVICE int first_of(int from, int in, int out, float scale)
{
    int at = max((int)((int64_t)from * out / in) - 1, 0); /* no later, whatever the rounding */
    while (at < out && nearest(at, in, scale) < from) at++;
    return at;
}

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    upsample_kernel(T *y, const T *x, UpsampleShape a, Walk w, float down, float across)
{
    SWEEP(i, w.count)
    {
        Spot s = spot(w, i);
        size_t row = (size_t)s.image * a.h + nearest(s.row, a.h, down);
        ((Pack<T, V> *)y)[i] =
            ((const Pack<T, V> *)
                 x)[(row * a.w + nearest(s.column, a.w, across)) * w.packs.by + s.pack];
    }
}

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    upsample_dx_kernel(T *dx, const T *dy, UpsampleShape a, Walk w, float down, float across)
{
    SWEEP(i, w.count)
    {
        Spot s = spot(w, i);
        Span rows = {first_of(s.row, a.h, a.p, down), first_of(s.row + 1, a.h, a.p, down)};
        Span columns = {first_of(s.column, a.w, a.q, across),
                        first_of(s.column + 1, a.w, a.q, across)};
        float sum[V] = {0};
        for (int p = rows.first; p < rows.end; p++)
            for (int q = columns.first; q < columns.end; q++)
                add(sum, ((const Pack<T, V> *)
                              dy)[(((size_t)s.image * a.p + p) * a.q + q) * w.packs.by + s.pack]);
        ((Pack<T, V> *)dx)[i] = scaled<T, V>(sum, 1);
    }
}

/* ---- launchers ------------------------------------------------------------------------------ */

static Status check(PoolShape a)
{
    bool fits = a.size >= 1 && a.stride >= 1 && a.pad >= 0 && 2 * a.pad <= a.size &&
                (a.p - 1) * a.stride - a.pad < a.h && (a.q - 1) * a.stride - a.pad < a.w;
    return fits ? OK
                : FAIL(ERR_BUG, "pool: size %d, stride %d, padding %d do not fit %dx%d -> %dx%d",
                       a.size, a.stride, a.pad, a.h, a.w, a.p, a.q);
}

static int pack_of(int c, Dtype type)
{
    int pack = 16 / (int)dtype_bytes(type);
    return c % pack ? 1 : pack;
}

/* kernel<T, V> for the storage and the pack; its first two arguments are arrays of T */
#define LAUNCH(kernel, grid, to, from, ...)                                                        \
    do {                                                                                           \
        if (type == DTYPE_BF16 && pack > 1)                                                        \
            kernel<bf16, 8><<<grid, THREADS, 0, s->handle>>>((bf16 *)to, from(bf16), __VA_ARGS__); \
        else if (type == DTYPE_BF16)                                                               \
            kernel<bf16, 1><<<grid, THREADS, 0, s->handle>>>((bf16 *)to, from(bf16), __VA_ARGS__); \
        else if (pack > 1)                                                                         \
            kernel<float, 4>                                                                       \
                <<<grid, THREADS, 0, s->handle>>>((float *)to, from(float), __VA_ARGS__);          \
        else                                                                                       \
            kernel<float, 1>                                                                       \
                <<<grid, THREADS, 0, s->handle>>>((float *)to, from(float), __VA_ARGS__);          \
    } while (0)
#define OF_X(T) (const T *)x
#define OF_DY(T) (const T *)dy
#define INDEX_OF_X(T) index, (const T *)x

Status cuda_maxpool_fwd(void *y, int32_t *index, const void *x, PoolShape a, Dtype type, Stream *s)
{
    Walk w;
    int pack = pack_of(a.c, type);
    TRY(check(a));
    TRY(walk(&w, a.n, a.p, a.q, a.c, pack));
    LAUNCH(maxpool_kernel, sweep_blocks(w.count, THREADS), y, INDEX_OF_X, a, w);
    return launched("maxpool");
}

Status cuda_maxpool_dx(void *dx, const void *dy, const int32_t *index, PoolShape a, Dtype type,
                       Stream *s)
{
    Walk w;
    int pack = pack_of(a.c, type);
    TRY(check(a));
    TRY(walk(&w, a.n, a.h, a.w, a.c, pack));
    LAUNCH(maxpool_dx_kernel, sweep_blocks(w.count, THREADS), dx, OF_DY, index, a, w);
    return launched("maxpool_dx");
}

Status cuda_avgpool_fwd(void *y, const void *x, PoolShape a, Dtype type, Stream *s)
{
    Walk w;
    int pack = pack_of(a.c, type);
    TRY(check(a));
    TRY(walk(&w, a.n, a.p, a.q, a.c, pack));
    LAUNCH(avgpool_kernel, sweep_blocks(w.count, THREADS), y, OF_X, a, w, 1.f / (a.size * a.size));
    return launched("avgpool");
}

Status cuda_avgpool_dx(void *dx, const void *dy, PoolShape a, Dtype type, Stream *s)
{
    Walk w;
    int pack = pack_of(a.c, type);
    TRY(check(a));
    TRY(walk(&w, a.n, a.h, a.w, a.c, pack));
    LAUNCH(avgpool_dx_kernel, sweep_blocks(w.count, THREADS), dx, OF_DY, a, w,
           1.f / (a.size * a.size));
    return launched("avgpool_dx");
}

Status cuda_global_avgpool_fwd(void *y, const void *x, int n, int hw, int c, Dtype type, Stream *s)
{
    int pack = pack_of(c, type);
    dim3 grid((c / pack + 31) / 32, n);
    LAUNCH(plane_mean_kernel, grid, y, OF_X, hw, c / pack, 1.f / hw);
    return launched("global_avgpool");
}

Status cuda_global_avgpool_dx(void *dx, const void *dy, int n, int hw, int c, Dtype type, Stream *s)
{
    Walk w;
    int pack = pack_of(c, type);
    TRY(walk(&w, n, hw, 1, c, pack));
    LAUNCH(plane_mean_dx_kernel, sweep_blocks(w.count, THREADS), dx, OF_DY, w, 1.f / hw);
    return launched("global_avgpool_dx");
}

Status cuda_upsample_fwd(void *y, const void *x, UpsampleShape a, Dtype type, Stream *s)
{
    Walk over;
    int pack = pack_of(a.c, type);
    TRY(walk(&over, a.n, a.p, a.q, a.c, pack));
    LAUNCH(upsample_kernel, sweep_blocks(over.count, THREADS), y, OF_X, a, over, (float)a.h / a.p,
           (float)a.w / a.q);
    return launched("upsample");
}

Status cuda_upsample_dx(void *dx, const void *dy, UpsampleShape a, Dtype type, Stream *s)
{
    Walk over;
    int pack = pack_of(a.c, type);
    TRY(walk(&over, a.n, a.h, a.w, a.c, pack));
    LAUNCH(upsample_dx_kernel, sweep_blocks(over.count, THREADS), dx, OF_DY, a, over,
           (float)a.h / a.p, (float)a.w / a.q);
    return launched("upsample_dx");
}
