/* loss.cu - weighted mean squared and absolute error and cross-entropy, with their gradients;
 * formulas in kernels/cpu/loss.c.
 *
 * Bytes: an error reads x and the target once (and again for the gradient, written once). Sums are
 * double: two such operations an element are no bound even where double is 64 times slower.
 * Cross-entropy is a batch of labels: a warp a row, bound by its two launches.
 */
#include "kernels_train.h"
#include "sums.cuh"
#include "sweep.cuh"

struct Squared {
    static DEVICE double of(float x, float target)
    {
        double e = x - target;
        return e * e;
    }
};
struct Absolute {
    static DEVICE double of(float x, float target) { return fabsf(x - target); }
};

/* dx from x and the target; over = n * per */
struct SquaredDx {
    const float *dloss, *weight;
    double over;
    float scale;
    DEVICE void begin(size_t i) { scale = (float)(2.0 * *dloss * weight[i] / over); }
    DEVICE void operator()(float *dx, const float *x, size_t) const
    {
        dx[0] = scale * (x[0] - x[1]);
    }
};
struct AbsoluteDx {
    const float *dloss, *weight;
    double over;
    float scale;
    DEVICE void begin(size_t i) { scale = (float)((double)*dloss * weight[i] / over); }
    DEVICE void operator()(float *dx, const float *x, size_t) const
    {
        float e = x[0] - x[1];
        dx[0] = e > 0 ? scale : e < 0 ? -scale : e * scale; /* a NaN stays one */
    }
};

#define WEIGHTED_LOSS(name, E)                                                                     \
    Status cuda_##name##_fwd(float *loss, const void *x, const void *target, const float *weight,  \
                             int n, size_t per, Dtype type, Stream *s)                             \
    {                                                                                              \
        double over = (double)n * (double)per;                                                     \
        return error_sum<E>(loss, x, target, weight, n, per, over, type, s);                       \
    }                                                                                              \
    Status cuda_##name##_dx(void *dx, const float *dloss, const void *x, const void *target,       \
                            const float *weight, int n, size_t per, Dtype type, Stream *s)         \
    {                                                                                              \
        E##Dx f = {dloss, weight, (double)n * (double)per, 0};                                     \
        return sweep(#name "_dx", f, {dx}, {x, target}, 0, (size_t)n, per, type, s);               \
    }
WEIGHTED_LOSS(weighted_mse, Squared)
WEIGHTED_LOSS(weighted_l1, Absolute)

/* ---- cross-entropy ----------------------------------------------------------------------- */

/* A label outside -1..k-1 counts as -1: the row is left out. */
DEVICE bool counts(int label, int k) { return label >= 0 && label < k; }

/* A warp a row: its probabilities, and to row_part[row] its loss, not yet divided, and its weight.
 */
template <class T>
static __global__ void __launch_bounds__(128)
    row_loss_kernel(double *row_part, float *prob, const T *logits, const int32_t *label,
                    const float *weight, int n, int k, double smoothing)
{
    int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n) return;
    int own = label[row];
    const T *x = logits + (size_t)row * k;
    float top = -INFINITY;
    for (int j = lane; j < k; j += 32) top = fmaxf(top, to_float(x[j]));
    top = warp_max(top);
    double sum = 0, loss = 0;
#pragma unroll 1
    for (int j = lane; j < k; j += 32) sum += exp((double)to_float(x[j]) - top);
    double lse = top + log(warp_sum(sum));
#pragma unroll 1
    for (int j = lane; j < k; j += 32) {
        double w = weight ? weight[j] : 1, share = smoothing / k + (j == own ? 1 - smoothing : 0);
        double below = lse - to_float(x[j]);
        prob[(size_t)row * k + j] = (float)exp(-below);
        if (share != 0) loss += share * w * below;
    }
    loss = warp_sum(loss);
    if (lane) return;
    row_part[2 * row] = counts(own, k) ? loss : 0;
    row_part[2 * row + 1] = counts(own, k) ? weight ? weight[own] : 1 : 0;
}

static __global__ void __launch_bounds__(256)
    mean_loss_kernel(float *loss, const double *row_part, int n)
{
    double sum = 0, divisor = 0;
    for (int i = threadIdx.x; i < n; i += 256) {
        sum += row_part[2 * i];
        divisor += row_part[2 * i + 1];
    }
    sum = block_sum<256>(sum);
    divisor = block_sum<256>(divisor);
    if (threadIdx.x == 0) *loss = divisor > 0 ? (float)(sum / divisor) : 0;
}

/* A warp a row; each block sums the labels' and the classes' weights for itself. */
template <class T>
static __global__ void __launch_bounds__(256)
    cross_entropy_dx_kernel(T *dlogits, const float *dloss, const float *prob, const int32_t *label,
                            const float *weight, int n, int k, double smoothing)
{
    double divisor = 0, all = 0;
    for (int i = threadIdx.x; i < n; i += 256)
        if (counts(label[i], k)) divisor += weight ? weight[label[i]] : 1;
    for (int j = threadIdx.x; j < k; j += 256) all += weight ? weight[j] : 1;
    divisor = block_sum<256>(divisor);
    all = block_sum<256>(all);
    int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n) return;
    bool used = counts(label[row], k) && divisor > 0;
    double own = used && weight ? weight[label[row]] : 1, scale = used ? *dloss / divisor : 0;
    for (int j = threadIdx.x % 32; j < k; j += 32) {
        size_t at = (size_t)row * k + j;
        double w = weight ? weight[j] : 1, p = prob[at];
        double hit = (1 - smoothing) * own * (p - (j == label[row]));
        dlogits[at] =
            from_float<T>(used ? (float)(scale * (hit + smoothing / k * (p * all - w))) : 0);
    }
}

Status cuda_cross_entropy_fwd(float *loss, float *prob, const void *logits, const int32_t *label,
                              const float *weight, int n, int k, float smoothing, Dtype type,
                              Stream *s)
{
    double *part = (double *)stream_scratch(s, 2 * (size_t)n * sizeof *part);
    if (!part) return FAIL(ERR_SPACE, "no memory for %d losses", n);
    unsigned blocks = (unsigned)(n + 3) / 4;
    if (type == DTYPE_BF16)
        row_loss_kernel<<<blocks, 128, 0, s->handle>>>(part, prob, (const bf16 *)logits, label,
                                                       weight, n, k, smoothing);
    else
        row_loss_kernel<<<blocks, 128, 0, s->handle>>>(part, prob, (const float *)logits, label,
                                                       weight, n, k, smoothing);
    TRY(launched("cross_entropy"));
    mean_loss_kernel<<<1, 256, 0, s->handle>>>(loss, part, n);
    return launched("cross_entropy");
}

Status cuda_cross_entropy_dx(void *dlogits, const float *dloss, const float *prob,
                             const int32_t *label, const float *weight, int n, int k,
                             float smoothing, Dtype type, Stream *s)
{
    unsigned blocks = (unsigned)(n + 7) / 8;
    if (type == DTYPE_BF16)
        cross_entropy_dx_kernel<<<blocks, 256, 0, s->handle>>>((bf16 *)dlogits, dloss, prob, label,
                                                               weight, n, k, smoothing);
    else
        cross_entropy_dx_kernel<<<blocks, 256, 0, s->handle>>>((float *)dlogits, dloss, prob, label,
                                                               weight, n, k, smoothing);
    return launched("cross_entropy_dx");
}
