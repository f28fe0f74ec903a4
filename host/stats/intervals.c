/* intervals.c - incomplete beta function, Clopper-Pearson, percentiles, DeLong. */
#include "stats/intervals.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>

static const double tail = 0.025;                        /* (1 - 0.95) / 2                 */
static const double normal_quantile = 1.959963984540054; /* of 0.975                       */
const Interval interval_undefined = {NAN, NAN};

/* Continued fraction of I_x(a, b) by Lentz's method as modified by Thompson and Barnett; converges
 * in O(sqrt(max(a, b))) terms where x < (a + 1) / (a + b + 2). */
static double beta_fraction(double x, double a, double b)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double f = d;
    for (int m = 1; m < 100000; m++) {
        for (int odd = 0; odd < 2; odd++) {
            double term = odd ? -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
                              : m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
            d = 1 + term * d;
            c = 1 + term / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            f *= c * d;
        }
        if (fabs(c * d - 1) < DBL_EPSILON) break;
    }
    return f;
}

double incomplete_beta(double x, double a, double b)
{
    CHECK(a > 0 && b > 0 && x >= 0 && x <= 1);
    if (x == 0 || x == 1) return x;
    int sign;
    double scale = lgamma_r(a + b, &sign) - lgamma_r(a, &sign) - lgamma_r(b, &sign);
    double front = exp(scale + a * log(x) + b * log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(x, a, b) / a
                                     : 1 - front * beta_fraction(1 - x, b, a) / b;
}

/* The x with I_x(a, b) = p, by bisection down to neighbouring doubles. */
static double inverse_beta(double p, double a, double b)
{
    double lo = 0, hi = 1;
    while (hi - lo > 2 * DBL_EPSILON * hi) {
        double middle = lo + (hi - lo) / 2;
        if (incomplete_beta(middle, a, b) < p) lo = middle;
        else hi = middle;
    }
    return lo + (hi - lo) / 2;
}

Interval clopper_pearson(int64_t successes, int64_t n)
{
    CHECK(successes >= 0 && successes <= n);
    if (n == 0) return interval_undefined;
    double k = (double)successes, misses = (double)(n - successes);
    return (Interval){.lo = k > 0 ? inverse_beta(tail, k, misses + 1) : 0,
                      .hi = misses > 0 ? inverse_beta(1 - tail, k + 1, misses) : 1};
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

Interval percentile_interval(double *value, int n)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (!isnan(value[i])) value[kept++] = value[i];
    if (!kept) return interval_undefined;
    qsort(value, (size_t)kept, sizeof *value, compare_doubles);
    return (Interval){quantile(value, kept, tail), quantile(value, kept, 1 - tail)};
}

/* Twice the placements of a, minus those of b if there is a b: the mean over either class, divided
 * by twice the size of the other class, is the (difference in) AUROC. */
static double *placements(const Ranking *a, const Ranking *b)
{
    double *v = malloc((size_t)a->n * sizeof *v), *w = malloc((size_t)a->n * sizeof *w);
    CHECK(v && w);
    ranking_placements(v, a);
    if (b) {
        CHECK(b->n == a->n);
        ranking_placements(w, b);
        for (int i = 0; i < a->n; i++) v[i] -= w[i];
    }
    free(w);
    return v;
}

static DeLong delong_of(const Ranking *a, const Ranking *b)
{
    double *v = placements(a, b), sum[2] = {0}, square[2] = {0}, count[2] = {0};
    DeLong d = {NAN, NAN, interval_undefined};
    for (int i = 0; i < a->n; i++) {
        sum[a->film[i].label] += v[a->film[i].film];
        count[a->film[i].label]++;
    }
    double mean[2] = {sum[0] / count[0], sum[1] / count[1]};
    for (int i = 0; i < a->n; i++) {
        double from_mean = v[a->film[i].film] - mean[a->film[i].label];
        square[a->film[i].label] += from_mean * from_mean;
    }
    free(v);
    if (count[0] > 0 && count[1] > 0) d.value = sum[1] / (2 * count[0] * count[1]);
    if (count[0] > 1 && count[1] > 1) {
        d.variance = square[1] / (count[1] - 1) / count[1] / (4 * count[0] * count[0]) +
                     square[0] / (count[0] - 1) / count[0] / (4 * count[1] * count[1]);
        double reach = normal_quantile * sqrt(d.variance);
        d.ci = (Interval){fmax(d.value - reach, b ? -1 : 0), fmin(d.value + reach, 1)};
    }
    return d;
}

DeLong delong(const Ranking *r) { return delong_of(r, NULL); }

DeLong delong_difference(const Ranking *a, const Ranking *b) { return delong_of(a, b); }
