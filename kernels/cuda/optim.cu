/* optim.cu - sweeps over blocks of parameters: AdamW, SGD, the gradient's norm; formulas in
 * kernels/cpu/optim.c.
 *
 * One pass each, packs of 16 bytes. AdamW moves 28 bytes an element, 8 more with the average, 2
 * more with the bf16 copy; the norm 4. Bound by memory: 0.9 of the copy rate is what to expect.
 * Sums are double: a square of a float is exact there. Blocks of parameters are padded to 16
 * floats, so that a tail of below four elements is rare.
 */
#include "device.cuh"
#include "kernels_train.h"

static const int THREADS = 256, WIDTH = 4;
typedef Pack<float, WIDTH> Four;
typedef Pack<bf16, WIDTH> Half4;

/* This thread's part of a sweep: f.pack(i) for WIDTH neighbours from element i on, f.one(i) for one
 * of the tail. */
template <class F> DEVICE void sweep(size_t count, F f)
{
    size_t packs = count / WIDTH, step = (size_t)gridDim.x * THREADS;
    size_t first = blockIdx.x * (size_t)THREADS + threadIdx.x;
    for (size_t i = first; i < packs; i += step) f.pack(i * WIDTH);
    if (packs * WIDTH + first < count) f.one(packs * WIDTH + first);
}

/* ---- AdamW ------------------------------------------------------------------------------ */

struct AdamwSweep {
    float *value;
    const float *grad;
    float *m, *v, *ema;
    bf16 *half;
    float scale;
    UpdateSet set;

    DEVICE void element(float &w, float g, float &mean, float &square, float &average) const
    {
        g *= scale;
        mean += set.new1 * (g - mean);
        square = set.old2 * square + set.new2 * g * g;
        w = w * set.keep - set.rate * mean / (sqrtf(square) * set.root + set.eps);
        average -= set.pull * (average - w);
    }
    DEVICE void pack(size_t i) const
    {
        Four w = *(Four *)(value + i), g = *(const Four *)(grad + i), a = *(Four *)(m + i);
        Four b = *(Four *)(v + i), e = ema ? *(Four *)(ema + i) : w;
        Half4 h;
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
            element(w.v[k], g.v[k], a.v[k], b.v[k], e.v[k]);
            h.v[k] = from_float<bf16>(w.v[k]);
        }
        *(Four *)(value + i) = w;
        *(Four *)(m + i) = a;
        *(Four *)(v + i) = b;
        if (ema) *(Four *)(ema + i) = e;
        if (half) *(Half4 *)(half + i) = h;
    }
    DEVICE void one(size_t i) const
    {
        float e = ema ? ema[i] : 0;
        element(value[i], grad[i], m[i], v[i], e);
        if (ema) ema[i] = e;
        if (half) half[i] = from_float<bf16>(value[i]);
    }
};

static __global__ void adamw_kernel(AdamwSweep a, size_t count, const UpdateSet *set,
                                    const GradNorm *norm)
{
    if (!norm->finite) return;
    a.set = *set;
    a.scale = (float)norm->scale;
    sweep(count, a);
}

Status cuda_adamw(float *value, const float *grad, float *m, float *v, float *ema, void *half,
                  size_t count, const UpdateSet *set, const GradNorm *norm, Stream *s)
{
    AdamwSweep a = {value, grad, m, v, ema, (bf16 *)half, 0, {}};
    unsigned blocks = sweep_blocks(count / WIDTH, THREADS);
    adamw_kernel<<<blocks, THREADS, 0, s->handle>>>(a, count, set, norm);
    return launched("adamw");
}

/* ---- SGD with Nesterov momentum ----------------------------------------------------------- */

struct SgdSweep {
    float *value;
    const float *grad;
    float *momentum, *ema;
    bf16 *half;
    float scale;
    UpdateSet set;

    DEVICE void element(float &w, float g, float &p, float &average) const
    {
        g = scale * g + set.decay * w;
        p = set.momentum * p + g;
        w -= set.sgd_rate * (g + set.momentum * p);
        average -= set.pull * (average - w);
    }
    DEVICE void pack(size_t i) const
    {
        Four w = *(Four *)(value + i), g = *(const Four *)(grad + i), p = *(Four *)(momentum + i);
        Four e = ema ? *(Four *)(ema + i) : w;
        Half4 h;
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
            element(w.v[k], g.v[k], p.v[k], e.v[k]);
            h.v[k] = from_float<bf16>(w.v[k]);
        }
        *(Four *)(value + i) = w;
        *(Four *)(momentum + i) = p;
        if (ema) *(Four *)(ema + i) = e;
        if (half) *(Half4 *)(half + i) = h;
    }
    DEVICE void one(size_t i) const
    {
        float e = ema ? ema[i] : 0;
        element(value[i], grad[i], momentum[i], e);
        if (ema) ema[i] = e;
        if (half) half[i] = from_float<bf16>(value[i]);
    }
};

static __global__ void sgd_kernel(SgdSweep a, size_t count, const UpdateSet *set,
                                  const GradNorm *norm)
{
    if (!norm->finite) return;
    a.set = *set;
    a.scale = (float)norm->scale;
    sweep(count, a);
}

Status cuda_sgd_nesterov(float *value, const float *grad, float *momentum, float *ema, void *half,
                         size_t count, const UpdateSet *set, const GradNorm *norm, Stream *s)
{
    SgdSweep a = {value, grad, momentum, ema, (bf16 *)half, 0, {}};
    unsigned blocks = sweep_blocks(count / WIDTH, THREADS);
    sgd_kernel<<<blocks, THREADS, 0, s->handle>>>(a, count, set, norm);
    return launched("sgd");
}

/* ---- the gradient's norm ------------------------------------------------------------------ */

/* The sum over the block, the same in a fixed order every time; thread 0 gets it. */
DEVICE double block_total(double v)
{
    __shared__ double partial[THREADS / 32];
#pragma unroll
    for (int step = 16; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
    __syncthreads();
    double sum = 0;
    if (threadIdx.x == 0)
        for (int w = 0; w < THREADS / 32; w++) sum += partial[w];
    return sum;
}

/* A block each: part[block] = sum of squares of its SQUARES elements. */
static __global__ void squares_kernel(double *part, const float *x, size_t count)
{
    double sum = 0;
    size_t from = (size_t)blockIdx.x * SQUARES, left = count - from;
    int n = left < SQUARES ? (int)left : SQUARES, packs = n / WIDTH;
    x += from;
    for (int i = threadIdx.x; i < packs; i += THREADS) {
        Four p = ((const Four *)x)[i];
#pragma unroll
        for (int k = 0; k < WIDTH; k++) sum += (double)p.v[k] * (double)p.v[k];
    }
    int i = packs * WIDTH + threadIdx.x;
    if (i < n) sum += (double)x[i] * (double)x[i];
    sum = block_total(sum);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

static __global__ void total_kernel(GradNorm *norm, bool add, const double *part, int n, int sets,
                                    size_t stride)
{
    double sum = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        double one = 0;
        for (int k = 0; k < sets; k++) one += part[k * stride + i];
        sum += one;
    }
    sum = block_total(sum);
    if (threadIdx.x == 0) norm->square = add ? norm->square + sum : sum;
}

Status cuda_squares(double *part, const float *x, size_t count, Stream *s)
{
    unsigned blocks = (unsigned)((count + SQUARES - 1) / SQUARES);
    if (!blocks) return OK;
    squares_kernel<<<blocks, THREADS, 0, s->handle>>>(part, x, count);
    return launched("squares");
}

Status cuda_sum_squares(GradNorm *norm, bool add, const double *part, int n, int sets,
                        size_t stride, Stream *s)
{
    total_kernel<<<1, THREADS, 0, s->handle>>>(norm, add, part, n, sets, stride);
    return launched("sum_squares");
}

Status cuda_sq_norm(GradNorm *norm, bool add, const float *x, size_t count, Stream *s)
{
    size_t parts = (count + SQUARES - 1) / SQUARES;
    double *part = (double *)stream_scratch(s, parts * sizeof *part);
    if (!part) return FAIL(ERR_SPACE, "no memory for %zu partial sums", parts);
    TRY(cuda_squares(part, x, count, s));
    return cuda_sum_squares(norm, add, part, (int)parts, 1, 0, s);
}

static __global__ void norm_kernel(GradNorm *norm, const UpdateSet *set)
{
    if (threadIdx.x == 0) grad_norm_finish(norm, set->share, set->clip);
}

Status cuda_grad_norm(GradNorm *norm, const UpdateSet *set, Stream *s)
{
    norm_kernel<<<1, 32, 0, s->handle>>>(norm, set);
    return launched("grad_norm");
}

/* ---- single lines --------------------------------------------------------------------------- */

struct AxpySweep {
    float *y;
    const float *x;
    float a;
    DEVICE void pack(size_t i) const
    {
        Four p = *(Four *)(y + i), q = *(const Four *)(x + i);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) p.v[k] += a * q.v[k];
        *(Four *)(y + i) = p;
    }
    DEVICE void one(size_t i) const { y[i] += a * x[i]; }
};

static __global__ void axpy_kernel(AxpySweep a, size_t count) { sweep(count, a); }

Status cuda_axpy(float *y, float a, const float *x, size_t count, Stream *s)
{
    AxpySweep sum = {y, x, a};
    axpy_kernel<<<sweep_blocks(count / WIDTH, THREADS), THREADS, 0, s->handle>>>(sum, count);
    return launched("axpy");
}

struct CopySweep {
    float *y;
    const float *x;
    DEVICE void pack(size_t i) const { *(Four *)(y + i) = *(const Four *)(x + i); }
    DEVICE void one(size_t i) const { y[i] = x[i]; }
};

static __global__ void restore_kernel(CopySweep c, size_t count, const GradNorm *norm)
{
    if (!norm->finite) sweep(count, c);
}

Status cuda_restore(float *y, const float *x, size_t count, const GradNorm *norm, Stream *s)
{
    CopySweep c = {y, x};
    restore_kernel<<<sweep_blocks(count / WIDTH, THREADS), THREADS, 0, s->handle>>>(c, count, norm);
    return launched("restore");
}
