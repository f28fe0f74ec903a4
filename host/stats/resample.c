/* resample.c - one replicate costs one pass over the patients and one over the ranked films. */
#include "stats/resample.h"
#include "base/random.h"
#include "base/signal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

const double same_difference = 1e-12;

void arm_new(Arm *a, const Predictions *films, double threshold)
{
    *a = (Arm){.films = films, .threshold = threshold};
    ranking_new(&a->ranking, films);
    a->patient = calloc((size_t)films->n_patients, sizeof *a->patient);
    CHECK(a->patient);
    for (int i = 0; i < films->n; i++)
        tally_film(&a->patient[films->patient[i]], films->label[i], films->score[i], threshold);
}

void arm_free(Arm *a)
{
    ranking_free(&a->ranking);
    free(a->patient);
    *a = (Arm){0};
}

void arm_metrics(double value[METRIC_COUNT], const Arm *a, const int *times)
{
    Tally sum = {0};
    for (int k = 0; k < a->films->n_patients; k++)
        tally_add(&sum, &a->patient[k], times ? times[k] : 1);
    metrics_from_tally(value, &sum);
    ranking_areas(&value[METRIC_AUROC], &value[METRIC_AUPRC], &a->ranking, times);
}

/* Draws patients until each class of the films is among them. At
 * least every second draw has them (the worst case is two patients, one of each class). */
static void draw_patients(int *times, const Arm *a, uint32_t seed, int replicate)
{
    const Predictions *f = a->films;
    RandomKey key = {.seed = seed, .stream = STREAM_BOOTSTRAP, .sample = (uint64_t)replicate};
    bool want[2] = {f->n_positives<f->n, f->n_positives> 0}, have[2];
    do {
        memset(times, 0, (size_t)f->n_patients * sizeof *times);
        have[0] = have[1] = false;
        for (int k = 0; k < f->n_patients; k++) {
            uint32_t who = random_below(key, (uint32_t)k, (uint32_t)f->n_patients);
            const Tally *t = &a->patient[who];
            times[who]++;
            have[0] = have[0] || t->tn + t->fp > 0;
            have[1] = have[1] || t->tp + t->fn > 0;
        }
        key.step++;
    } while ((want[0] && !have[0]) || (want[1] && !have[1]));
}

Status bootstrap(double *value, const Arm *arm, int n_arms, const Resampling *how)
{
    size_t b_total = (size_t)how->replicates;
#pragma omp parallel
    {
        int *times = malloc((size_t)arm->films->n_patients * sizeof *times);
        CHECK(times);
#pragma omp for schedule(static)
        for (int b = 0; b < how->replicates; b++) {
            double one[METRIC_COUNT];
            if (signal_stop_requested()) continue;
            draw_patients(times, arm, how->seed, b);
            for (int k = 0; k < n_arms; k++) {
                arm_metrics(one, &arm[k], times);
                for (int m = 0; m < METRIC_COUNT; m++)
                    value[((size_t)k * METRIC_COUNT + (size_t)m) * b_total + (size_t)b] = one[m];
            }
        }
        free(times);
    }
    return signal_check();
}

/* First arm minus second; patients whose bit is set are exchanged. key NULL: nobody is. */
static void exchanged_difference(double difference[METRIC_COUNT], const Arm arm[2],
                                 const RandomKey *key)
{
    Tally sum[2] = {0};
    double value[2][METRIC_COUNT];
    uint32_t coins = 0;
    for (int k = 0; k < arm->films->n_patients; k++) {
        if (key && k % 32 == 0) coins = random_bits(*key, (uint32_t)k / 32);
        uint32_t swap = coins >> (k % 32) & 1;
        tally_add(&sum[swap], &arm[0].patient[k], 1);
        tally_add(&sum[!swap], &arm[1].patient[k], 1);
    }
    for (int k = 0; k < 2; k++) metrics_from_tally(value[k], &sum[k]);
    for (int m = 0; m < METRIC_COUNT; m++) difference[m] = value[0][m] - value[1][m];
}

Status permutation_test(double p[METRIC_COUNT], const Arm arm[2], const Resampling *how)
{
    double observed[METRIC_COUNT];
    int64_t as_far[METRIC_COUNT] = {0};
    exchanged_difference(observed, arm, NULL);
#pragma omp parallel for schedule(static) reduction(+ : as_far[:METRIC_COUNT])
    for (int b = 0; b < how->permutations; b++) {
        RandomKey key = {.seed = how->seed, .stream = STREAM_PERMUTE, .sample = (uint64_t)b};
        double difference[METRIC_COUNT];
        if (signal_stop_requested()) continue;
        exchanged_difference(difference, arm, &key);
        for (int m = 0; m < METRIC_COUNT; m++)
            as_far[m] += fabs(difference[m]) >= fabs(observed[m]) - same_difference;
    }
    for (int m = 0; m < METRIC_COUNT; m++)
        p[m] = isnan(observed[m]) ? NAN : (1.0 + (double)as_far[m]) / (1.0 + how->permutations);
    return signal_check();
}
