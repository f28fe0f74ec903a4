/* distance.c - the kernel matrix once, in double, then sums over its parts.
 *
 * Why halves: for a statistic like a mean, a sample of m of n without replacement varies by
 * (1/m - 1/n) sigma^2 around the whole. At m = n/2 this is sigma^2 / n, the variance of the whole
 * itself. Where both sets come from one distribution the estimate is degenerate (variance falls as
 * 1/n^2) and halves overstate its error by up to 1.7.
 */
#include "stats/distance.h"
#include "base/random.h"
#include <math.h>
#include <stdlib.h>

static double dot(const float *x, const float *y, int d)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < d; i++) sum += (double)x[i] * y[i];
    return sum;
}

/* k [n, n] over x's rows followed by y's. */
static void fill_kernel(double *k, const float *x, int n_x, const float *y, int n_y, int d)
{
    int n = n_x + n_y;
#pragma omp parallel for schedule(dynamic, 8)
    for (int i = 0; i < n; i++) {
        const float *a = i < n_x ? x + (size_t)i * (size_t)d : y + (size_t)(i - n_x) * (size_t)d;
        for (int j = 0; j <= i; j++) {
            const float *b =
                j < n_x ? x + (size_t)j * (size_t)d : y + (size_t)(j - n_x) * (size_t)d;
            double u = dot(a, b, d) / d + 1;
            k[(size_t)i * (size_t)n + (size_t)j] = k[(size_t)j * (size_t)n + (size_t)i] = u * u * u;
        }
    }
}

/* Mean of k over the chosen rows and columns, without the diagonal if they are the same images. */
static double mean_kernel(const double *k, int n, const int *row, int n_row, const int *column,
                          int n_column)
{
    bool same = row == column;
    double sum = 0;
    for (int i = 0; i < n_row; i++) {
        double of_row = 0;
        for (int j = 0; j < n_column; j++)
            if (!same || i != j) of_row += k[(size_t)row[i] * (size_t)n + (size_t)column[j]];
        sum += of_row;
    }
    return sum / ((double)n_row * (same ? n_column - 1 : n_column));
}

/* chosen holds n_x images of x, then n_y of y. */
static double discrepancy(const double *k, int n, const int *chosen, int n_x, int n_y)
{
    const int *y = chosen + n_x;
    return mean_kernel(k, n, chosen, n_x, chosen, n_x) + mean_kernel(k, n, y, n_y, y, n_y) -
           2 * mean_kernel(k, n, chosen, n_x, y, n_y);
}

/* A random half of each set for every repeat, and the deviation of the estimate over them. */
static double error_over_halves(const double *k, int n_x, int n_y, uint32_t seed)
{
    int half_x = n_x / 2, half_y = n_y / 2, n = n_x + n_y;
    double value[KID_HALVES], mean = 0, square = 0;
    if (half_x < 2 || half_y < 2) return NAN;
#pragma omp parallel
    {
        int *chosen = malloc((size_t)(half_x + half_y) * sizeof *chosen);
        CHECK(chosen);
#pragma omp for schedule(static)
        for (int h = 0; h < KID_HALVES; h++) {
            RandomKey key = {.seed = seed, .stream = STREAM_BOOTSTRAP, .sample = (uint64_t)h};
            for (int i = 0; i < half_x; i++)
                chosen[i] = (int)random_permute(key, (uint32_t)i, (uint32_t)n_x);
            key.step = 1;
            for (int i = 0; i < half_y; i++)
                chosen[half_x + i] = n_x + (int)random_permute(key, (uint32_t)i, (uint32_t)n_y);
            value[h] = discrepancy(k, n, chosen, half_x, half_y);
        }
        free(chosen);
    }
    for (int h = 0; h < KID_HALVES; h++) mean += value[h] / KID_HALVES;
    for (int h = 0; h < KID_HALVES; h++) square += (value[h] - mean) * (value[h] - mean);
    return sqrt(square / (KID_HALVES - 1));
}

Status kid(Kid *out, const float *x, int n_x, const float *y, int n_y, int d, uint32_t seed)
{
    CHECK(n_x >= 2 && n_y >= 2 && d > 0);
    size_t n = (size_t)n_x + (size_t)n_y;
    double *k = malloc(n * n * sizeof *k);
    int *all = malloc(n * sizeof *all);
    Status s = OK;
    *out = (Kid){.value = NAN, .std_error = NAN, .n_x = n_x, .n_y = n_y};
    if (!k || !all) {
        s = FAIL(ERR_SPACE, "KID of %d and %d images: no memory for %zu MiB, expected it free", n_x,
                 n_y, n * n * sizeof *k >> 20);
        goto done;
    }
    for (size_t i = 0; i < n; i++) all[i] = (int)i;
    fill_kernel(k, x, n_x, y, n_y, d);
    out->value = discrepancy(k, (int)n, all, n_x, n_y);
    out->std_error = error_over_halves(k, n_x, n_y, seed);
done:
    free(k);
    free(all);
    return s;
}
