/* significance.c - McNemar, DeLong, bootstrap p, Holm. */
#include "stats/significance.h"
#include <math.h>

double mcnemar_exact(int64_t only_first, int64_t only_second)
{
    double n = (double)(only_first + only_second);
    double few = (double)(only_first < only_second ? only_first : only_second);
    if (2 * few == n) return 1;
    return fmin(1, 2 * incomplete_beta(0.5, n - few, few + 1)); /* P(Binomial(n, 1/2) <= few) */
}

double mcnemar_on(int label, const Arm arm[2])
{
    const Predictions *f[2] = {arm[0].films, arm[1].films};
    int64_t only[2] = {0}, films = 0;
    for (int i = 0; i < f[0]->n; i++) {
        if (f[0]->label[i] != label) continue;
        bool called[2];
        for (int k = 0; k < 2; k++) called[k] = f[k]->score[i] >= arm[k].threshold;
        films++;
        if (called[0] != called[1]) only[called[0] != label]++;
    }
    return films ? mcnemar_exact(only[0], only[1]) : NAN;
}

double delong_p(const DeLong *difference)
{
    double deviation = sqrt(difference->variance);
    if (isnan(deviation)) return NAN;
    if (difference->value == 0) return 1;
    return deviation > 0 ? erfc(fabs(difference->value) / deviation / sqrt(2)) : NAN;
}

double bootstrap_p(const double *difference, int n)
{
    int below = 0, above = 0, kept = 0;
    for (int i = 0; i < n; i++) {
        if (isnan(difference[i])) continue;
        kept++;
        below += difference[i] <= same_difference;
        above += difference[i] >= -same_difference;
    }
    return kept ? fmin(1, 2 * (1.0 + (below < above ? below : above)) / (1.0 + kept)) : NAN;
}

void holm(double *adjusted, const double *p, int n)
{
    int tests = 0;
    for (int i = 0; i < n; i++) tests += !isnan(p[i]);
    /* The largest, over all p[j] up to p[i], of p[j] times the number of tests that are not below
     * it. */
    for (int i = 0; i < n; i++) {
        adjusted[i] = isnan(p[i]) ? NAN : 0;
        for (int j = 0; j < n && !isnan(p[i]); j++) {
            if (isnan(p[j]) || p[j] > p[i]) continue;
            int below = 0;
            for (int k = 0; k < n; k++) below += !isnan(p[k]) && p[k] < p[j];
            adjusted[i] = fmax(adjusted[i], fmin(1, (tests - below) * p[j]));
        }
    }
}
