/* loss.c - weighted mean squared and absolute error and cross-entropy, with their gradients.
 *
 * Cross-entropy as torch.nn.functional.cross_entropy(weight, label_smoothing = s), mean over rows:
 *   W    = sum over rows of w[label]
 *   loss = 1/W * sum over rows of
 *          (1-s) * w[label] * -log p[label] + s/k * sum over j of w[j] * -log p[j]
 *   dlogits[j] = dloss/W * ((1-s) * w[label] * (p[j] - [j = label]) + s/k * (p[j] * sum w - w[j]))
 * Logits are a batch of labels, so that kernel runs on one thread. */
#include "cpu.h"
#include "kernels_train.h"
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { BLOCK = 4096, LANES = 8 }; /* elements of one partial sum; independent sums inside it */

/* One block's sum of errors. The square of a float's double is exact, so contraction to FMA changes
 * no bit: the sum is the same for every instruction set and number of threads. */
static inline double block_error(const float *x, const float *target, size_t count, bool squared)
{
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t k = 0; k < LANES; k++) {
            float e = x[i + k] - target[i + k];
            lane[k] += squared ? (double)e * (double)e : (double)fabsf(e);
        }
    for (; i < count; i++) {
        float e = x[i] - target[i];
        lane[0] += squared ? (double)e * (double)e : (double)fabsf(e);
    }
    for (size_t k = 0; k < LANES; k++) sum += lane[k];
    return sum;
}

/* From the blocks' sums [n, blocks]. */
static float weighted_mean(const double *part, const float *weight, int n, size_t blocks,
                           size_t per)
{
    double total = 0;
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (size_t b = 0; b < blocks; b++) sum += part[(size_t)i * blocks + b];
        total += weight[i] * (sum / (double)per);
    }
    return (float)(total / n);
}

#define WEIGHTED_LOSS(name, squared)                                                               \
    SIMD Status name(float *loss, const float *x, const float *target, const float *weight, int n, \
                     size_t per, Stream *s)                                                        \
    {                                                                                              \
        size_t blocks = (per + BLOCK - 1) / BLOCK, all = blocks * (size_t)n;                       \
        double *part = stream_scratch(s, all * sizeof *part);                                      \
        if (!part) return FAIL(ERR_SPACE, "no memory for %zu partial sums", all);                  \
        _Pragma("omp parallel for") for (size_t b = 0; b < all; b++)                               \
        {                                                                                          \
            size_t from = b % blocks * BLOCK, at = b / blocks * per + from;                        \
            part[b] = block_error(x + at, target + at, per - from < BLOCK ? per - from : BLOCK,    \
                                  squared);                                                        \
        }                                                                                          \
        *loss = weighted_mean(part, weight, n, blocks, per);                                       \
        return OK;                                                                                 \
    }
WEIGHTED_LOSS(cpu_weighted_mse_fwd, true)
WEIGHTED_LOSS(cpu_weighted_l1_fwd, false)

SIMD Status cpu_weighted_mse_dx(float *dx, const float *dloss, const float *x, const float *target,
                                const float *weight, int n, size_t per, Stream *s)
{
    (void)s;
    for (int i = 0; i < n; i++) {
        float scale = (float)(2.0 * *dloss * weight[i] / ((double)n * (double)per));
#pragma omp parallel for simd
        for (size_t at = (size_t)i * per; at < (size_t)(i + 1) * per; at++)
            dx[at] = scale * (x[at] - target[at]);
    }
    return OK;
}

SIMD Status cpu_weighted_l1_dx(float *dx, const float *dloss, const float *x, const float *target,
                               const float *weight, int n, size_t per, Stream *s)
{
    (void)s;
    for (int i = 0; i < n; i++) {
        float scale = (float)((double)*dloss * weight[i] / ((double)n * (double)per));
#pragma omp parallel for simd
        for (size_t at = (size_t)i * per; at < (size_t)(i + 1) * per; at++) {
            float e = x[at] - target[at];
            dx[at] = e > 0 ? scale : e < 0 ? -scale : e * scale; /* a NaN stays one */
        }
    }
    return OK;
}

/* Sum of the weights of the rows' labels: the divisor. */
static double label_weight(const int32_t *label, const float *weight, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (label[i] >= 0) sum += weight ? (double)weight[label[i]] : 1;
    return sum;
}

/* Writes the probabilities of one row; returns its loss, not yet divided. */
static double row_loss(float *prob, const float *logits, int label, const float *weight, int k,
                       double smoothing)
{
    double top = logits[0], sum = 0, loss = 0;
    for (int j = 1; j < k; j++) top = logits[j] > top ? (double)logits[j] : top;
    for (int j = 0; j < k; j++) sum += exp(logits[j] - top);
    double lse = top + log(sum);
    for (int j = 0; j < k; j++) {
        double w = weight ? (double)weight[j] : 1,
               share = smoothing / k + (j == label ? 1 - smoothing : 0);
        prob[j] = (float)exp(logits[j] - lse);
        if (share != 0) loss += share * w * (lse - logits[j]);
    }
    return label < 0 ? 0 : loss;
}

Status cpu_cross_entropy_fwd(float *loss, float *prob, const float *logits, const int32_t *label,
                             const float *weight, int n, int k, float smoothing, Stream *s)
{
    (void)s;
    for (int i = 0; i < n; i++)
        if (label[i] < -1 || label[i] >= k)
            return FAIL(ERR_INPUT, "row %d: label %d, expected -1 to %d", i, (int)label[i], k - 1);
    double sum = 0, divisor = label_weight(label, weight, n);
    for (int i = 0; i < n; i++) {
        size_t at = (size_t)i * (size_t)k;
        sum += row_loss(prob + at, logits + at, label[i], weight, k, smoothing);
    }
    *loss = divisor > 0 ? (float)(sum / divisor) : 0;
    return OK;
}

Status cpu_cross_entropy_dx(float *dlogits, const float *dloss, const float *prob,
                            const int32_t *label, const float *weight, int n, int k,
                            float smoothing, Stream *s)
{
    (void)s;
    double divisor = label_weight(label, weight, n), sum = 0;
    for (int j = 0; j < k; j++) sum += weight ? (double)weight[j] : 1;
    for (int i = 0; i < n; i++) {
        float *row = dlogits + (size_t)i * (size_t)k;
        const float *p = prob + (size_t)i * (size_t)k;
        if (label[i] < 0 || divisor <= 0) {
            memset(row, 0, (size_t)k * sizeof *row);
            continue;
        }
        double own = weight ? (double)weight[label[i]] : 1, scale = *dloss / divisor,
               even = (double)smoothing / k;
        for (int j = 0; j < k; j++) {
            double w = weight ? (double)weight[j] : 1;
            double hit = (1 - (double)smoothing) * own * (p[j] - (j == label[i]));
            row[j] = (float)(scale * (hit + even * (p[j] * sum - w)));
        }
    }
    return OK;
}
