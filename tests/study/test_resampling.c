/* test_resampling.c - bootstrap and permutation against what theory says of them, and their
 * independence of threads and of the order of rows. Inputs are fresh in every run; limits are five
 * standard errors, about one false alarm in a million.
 */
#include "base/random.h"
#include "stats/distance.h"
#include "stats/evaluation.h"
#include "stats/significance.h"
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static uint32_t fresh; /* seed of this run, printed by main */

static double uniform(uint64_t sample, int element)
{
    return random_uniform((RandomKey){.seed = fresh, .stream = STREAM_TEST, .sample = sample},
                          (uint32_t)element);
}

/* Films 0..n-1, in the order that `order` gives or their own; `each` films per patient. */
static void make(Predictions *p, int n, int each, const uint8_t *label, const double *score,
                 const int *order)
{
    Arena names = {0};
    const char **id = arena_alloc(&names, (size_t)n * sizeof *id);
    const char **who = arena_alloc(&names, (size_t)n * sizeof *who);
    uint8_t *y = arena_alloc(&names, (size_t)n);
    double *s = arena_alloc(&names, (size_t)n * sizeof *s);
    for (int i = 0; i < n; i++) {
        int film = order ? order[i] : i;
        id[i] = arena_printf(&names, "f%d", film);
        who[i] = arena_printf(&names, "p%d", film / each);
        y[i] = label[film];
        s[i] = score[film];
    }
    assert_int_equal(predictions_new(p, "made", n, id, who, y, s), OK);
    arena_free(&names);
}

/* Two arms of n films, the second worse by a share of 0..1; scores of two decimals, so that many
 * are tied. backwards: the same films from a file with its rows turned round. */
static void make_pair(Predictions p[2], int n, int each, uint64_t sample, double worse,
                      bool backwards)
{
    int *order = malloc((size_t)n * sizeof *order);
    uint8_t *y = malloc((size_t)n);
    double *s = malloc(2 * (size_t)n * sizeof *s);
    for (int i = 0; i < n; i++) {
        order[i] = backwards ? n - 1 - i : i;
        y[i] = i < 2 ? (uint8_t)i : uniform(sample, 3 * i) < 0.3;
        for (int k = 0; k < 2; k++) {
            double noise = uniform(sample, 3 * i + 1 + k);
            double signal = y[i] ? 1 - noise * noise : noise * noise;
            s[k * n + i] = round(100 * ((1 - k * worse) * signal + k * worse * noise)) / 100;
        }
    }
    for (int k = 0; k < 2; k++) make(&p[k], n, each, y, s + k * n, order);
    free(order);
    free(y);
    free(s);
}

static void free_pair(Predictions p[2])
{
    for (int k = 0; k < 2; k++) predictions_free(&p[k]);
}

/* Specificity of n normal films in groups of `each` alike: its replicates are a binomial share of
 * n / each patients, whose moments are known. */
static void moments_of_a_share(int patients, int each)
{
    enum { B = 20000 };
    int n = patients * each, cleared = 0;
    uint8_t *y = calloc((size_t)n, 1);
    double *s = malloc((size_t)n * sizeof *s), mean = 0, variance = 0;
    double *value = malloc((size_t)METRIC_COUNT * B * sizeof *value);
    for (int i = 0; i < n; i++) s[i] = uniform((uint64_t)each, i / each) < 0.8 ? 0.2 : 0.9;
    for (int i = 0; i < each; i++) s[i] = 0.9; /* not all alike */
    for (int i = 0; i < n; i += each) cleared += s[i] < 0.5;
    Predictions p;
    Arm arm;
    make(&p, n, each, y, s, NULL);
    arm_new(&arm, &p, 0.5);
    assert_int_equal(p.n_patients, patients);
    bootstrap(value, &arm, 1, &(Resampling){B, 0, fresh});
    double *share = value + (size_t)METRIC_SPECIFICITY * B;
    for (int b = 0; b < B; b++) mean += share[b] / B;
    for (int b = 0; b < B; b++) variance += (share[b] - mean) * (share[b] - mean) / (B - 1);

    double q = (double)cleared / patients, expected = q * (1 - q) / patients;
    double kurtosis = 3 + (1 - 6 * q * (1 - q)) / (patients * q * (1 - q));
    assert_true(q > 0.3 && q < 1);
    assert_true(fabs(mean - q) < 5 * sqrt(expected / B));
    assert_true(fabs(variance / expected - 1) < 5 * sqrt((kurtosis - 1) / B));
    arm_free(&arm);
    predictions_free(&p);
    free(value);
    free(y);
    free(s);
}

static void bootstrap_has_binomial_moments(void **state)
{
    (void)state;
    moments_of_a_share(50, 1);
    moments_of_a_share(37, 3); /* films of one patient go together */
}

/* Metrics of a replicate are those of the films written out as often as they count. */
static void weights_are_repetitions(void **state)
{
    (void)state;
    for (uint64_t trial = 0; trial < 20; trial++) {
        enum { EACH = 3, PATIENTS = 17, N = EACH * PATIENTS };
        Predictions pair[2], written;
        Arm one, two;
        make_pair(pair, N, EACH, trial, 0.3, false);
        arm_new(&one, &pair[0], 0.4);
        int times[PATIENTS], film[4 * N], n = 0;
        double score[4 * N], weighted[METRIC_COUNT], plain[METRIC_COUNT];
        uint8_t label[4 * N];
        for (int k = 0; k < PATIENTS; k++) times[k] = (int)(4 * uniform(100 + trial, k));
        for (int i = 0; i < N; i++)
            for (int t = 0; t < times[pair[0].patient[i]]; t++, n++) {
                film[n] = n;
                score[n] = pair[0].score[i];
                label[n] = pair[0].label[i];
            }
        make(&written, n, 1, label, score, film);
        arm_new(&two, &written, 0.4);
        arm_metrics(weighted, &one, times);
        arm_metrics(plain, &two, NULL);
        for (Metric m = 0; m < METRIC_COUNT; m++)
            if (!isnan(plain[m])) assert_true(fabs(weighted[m] - plain[m]) < 1e-13);
            else assert_true(isnan(weighted[m]));
        arm_free(&one);
        arm_free(&two);
        free_pair(pair);
        predictions_free(&written);
    }
}

/* With few diseased films many draws have none: they are drawn again, so nothing is undefined. */
static void replicates_have_both_classes(void **state)
{
    (void)state;
    enum { N = 40, B = 3000 };
    uint8_t y[N] = {[7] = 1};
    double s[N], *value = malloc((size_t)METRIC_COUNT * B * sizeof *value);
    for (int i = 0; i < N; i++) s[i] = uniform(1, i);
    Predictions p;
    Arm arm;
    make(&p, N, 1, y, s, NULL);
    arm_new(&arm, &p, 0.5);
    bootstrap(value, &arm, 1, &(Resampling){B, 0, fresh});
    for (int i = 0; i < METRIC_COUNT * B; i++) assert_false(isnan(value[i]));
    arm_free(&arm);
    predictions_free(&p);
    free(value);
}

/* Scores of patients whose films agree, both arms alike in law: how a patient is read differs by
 * arm at random. */
static void make_null(Predictions p[2], int patients, int each, uint64_t sample)
{
    int n = patients * each;
    uint8_t *y = malloc((size_t)n);
    double *s = malloc(2 * (size_t)n * sizeof *s);
    for (int i = 0; i < n; i++) {
        y[i] = i / each % 2 == 0;
        for (int k = 0; k < 2; k++)
            s[k * n + i] = 0.9 * uniform(sample, i / each * 2 + k) +
                           0.1 * uniform(sample + (1u << 20), 2 * i + k);
    }
    for (int k = 0; k < 2; k++) make(&p[k], n, each, y, s + k * n, NULL);
    free(y);
    free(s);
}

/* Under the null hypothesis p <= 1/5, 2/5, ... each as often as it says: exactly, by symmetry, for
 * a statistic without ties (Brier's), and never more often for the others. McNemar, which takes the
 * five films of a patient as five witnesses, must fail the same test: the negative control. */
static void permutation_p_is_uniform(void **state)
{
    (void)state;
    enum { TRIALS = 800, LEVELS = 5 };
    int brier[LEVELS] = {0}, youden[LEVELS] = {0}, mcnemar = 0;
    for (int t = 0; t < TRIALS; t++) {
        Predictions pair[2];
        Arm arm[2];
        double p[METRIC_COUNT];
        make_null(pair, 24, 5, 1000 + (uint64_t)t);
        for (int k = 0; k < 2; k++) arm_new(&arm[k], &pair[k], 0.5);
        permutation_test(p, arm, &(Resampling){0, 199, fresh + (uint32_t)t});
        for (int l = 0; l < LEVELS; l++) {
            brier[l] += p[METRIC_BRIER] <= (l + 1.0) / LEVELS + 1e-9;
            youden[l] += p[METRIC_YOUDEN] <= (l + 1.0) / LEVELS + 1e-9;
        }
        mcnemar += mcnemar_on(1, arm) <= 0.2;
        assert_true(isnan(p[METRIC_AUROC]));
        for (int k = 0; k < 2; k++) arm_free(&arm[k]);
        free_pair(pair);
    }
    for (int l = 0; l < LEVELS; l++) {
        double level = (l + 1.0) / LEVELS, limit = 5 * sqrt(level * (1 - level) * TRIALS) + 1e-9;
        assert_true(fabs(brier[l] - level * TRIALS) <= limit);
        assert_true(youden[l] - level * TRIALS <= limit);
    }
    assert_true(mcnemar > 0.2 * TRIALS + 5 * sqrt(0.2 * 0.8 * TRIALS));
}

/* Where every patient has one film, the permutation of sensitivity is McNemar's coin per discordant
 * film, so its p estimates the exact one. */
static void permutation_estimates_mcnemar(void **state)
{
    (void)state;
    enum { N = 300, B = 20000 };
    for (int first_only = 60; first_only <= 75; first_only += 5) {
        uint8_t y[N];
        double s[2][N], p[METRIC_COUNT];
        Predictions pair[2];
        Arm arm[2];
        for (int i = 0; i < N; i++) {
            y[i] = i < 200;
            s[0][i] = i < first_only;
            s[1][i] = i >= first_only && i < 115;
        }
        for (int k = 0; k < 2; k++) {
            make(&pair[k], N, 1, y, s[k], NULL);
            arm_new(&arm[k], &pair[k], 0.5);
        }
        permutation_test(p, arm, &(Resampling){0, B, fresh});
        double exact = mcnemar_exact(first_only, 115 - first_only);
        assert_true(mcnemar_on(1, arm) == exact);
        assert_true(fabs(p[METRIC_SENSITIVITY] - exact) <=
                    5 * sqrt(exact * (1 - exact) / B) + 1.0 / B);
        for (int k = 0; k < 2; k++) arm_free(&arm[k]);
        free_pair(pair);
    }
}

/* Six p-values, and no more, are adjusted for each other. */
static void check_family(const Comparison *c)
{
    static const Metric family[6] = {METRIC_YOUDEN, METRIC_F1,    METRIC_MCC,
                                     METRIC_KAPPA,  METRIC_AUROC, METRIC_AUPRC};
    double p[6], adjusted[6];
    int n_adjusted = 0;
    for (int i = 0; i < 6; i++) p[i] = c->metric[family[i]].p;
    holm(adjusted, p, 6);
    for (int i = 0; i < 6; i++) assert_true(c->metric[family[i]].p_holm == adjusted[i]);
    for (Metric m = 0; m < METRIC_COUNT; m++) n_adjusted += !isnan(c->metric[m].p_holm);
    assert_int_equal(n_adjusted, 7); /* balanced accuracy shows Youden's */
}

static void tests_see_a_difference_and_only_one(void **state)
{
    (void)state;
    Predictions pair[2];
    Comparison c;
    Resampling how = {1000, 1000, fresh};
    make_pair(pair, 4000, 1, 77, 0.9, false); /* about 9 deviations apart */
    comparison_run(&c, &pair[0], 0.5, &pair[1], 0.5, &how);
    for (Metric m = 0; m < METRIC_COUNT; m++) {
        const Contrast *d = &c.metric[m];
        bool better = m == METRIC_BRIER ? d->ci.hi < 0 : d->ci.lo > 0;
        if (!better || d->p > 0.01) fail_msg("%s: no difference seen", metric_info(m)->name);
        assert_true(d->ci.lo <= d->difference && d->difference <= d->ci.hi);
    }
    check_family(&c);
    assert_true(c.metric[METRIC_YOUDEN].p_holm == c.metric[METRIC_BALANCED_ACCURACY].p_holm);
    assert_true(c.metric[METRIC_YOUDEN].p == c.metric[METRIC_BALANCED_ACCURACY].p);
    comparison_run(&c, &pair[1], 0.5, &pair[1], 0.5, &how);
    for (Metric m = 0; m < METRIC_COUNT; m++)
        assert_true(c.metric[m].p == 1 && c.metric[m].ci.lo == 0 && c.metric[m].ci.hi == 0);
    free_pair(pair);
}

/* The main test is the one that the design allows; the other stands beside it. */
static void clusters_choose_the_test(void **state)
{
    (void)state;
    for (int each = 1; each <= 2; each++) {
        Predictions pair[2];
        Comparison c;
        make_pair(pair, 60, each, 5, 0.4, false);
        comparison_run(&c, &pair[0], 0.5, &pair[1], 0.5, &(Resampling){200, 200, fresh});
        const Contrast *s = &c.metric[METRIC_SENSITIVITY], *a = &c.metric[METRIC_AUROC];
        assert_int_equal(c.clustered, each > 1);
        assert_int_equal(s->test, each == 1 ? TEST_MCNEMAR : TEST_PERMUTATION);
        assert_int_equal(s->test_beside, each == 1 ? TEST_PERMUTATION : TEST_MCNEMAR);
        assert_int_equal(a->test, each == 1 ? TEST_DELONG : TEST_BOOTSTRAP);
        assert_int_equal(a->test_beside, each == 1 ? TEST_BOOTSTRAP : TEST_DELONG);
        assert_int_equal(c.metric[METRIC_AUPRC].test, TEST_BOOTSTRAP);
        assert_int_equal(c.metric[METRIC_F1].test_beside, TEST_NONE);
        free_pair(pair);
    }
}

static char *all_as_text(const Predictions pair[2], uint32_t seed)
{
    Evaluation e;
    Comparison c;
    Resampling how = {500, 500, seed};
    evaluation_run(&e, &pair[0], 0.5, &how);
    comparison_run(&c, &pair[0], 0.5, &pair[1], 0.4, &how);
    json_t *j = evaluation_json(&e);
    json_object_set_new(j, "comparison", comparison_json(&c));
    char *text = json_dumps(j, JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    json_decref(j);
    return text;
}

static void threads_and_row_order_do_not_matter(void **state)
{
    (void)state;
    enum { N = 151 };
    Predictions pair[2], turned[2];
    make_pair(pair, N, 2, 9, 0.4, false);
    make_pair(turned, N, 2, 9, 0.4, true);
    char *first = all_as_text(pair, 3), *other = all_as_text(pair, 4);
    assert_string_not_equal(first, other); /* the seed does */
    free(other);
    other = all_as_text(turned, 3);
    assert_string_equal(first, other);
    free(other);
    for (int threads = 2; threads <= 5; threads += 3) {
        omp_set_num_threads(threads);
        other = all_as_text(pair, 3);
        assert_string_equal(first, other);
        free(other);
    }
    omp_set_num_threads(1);
    free(first);
    free_pair(pair);
    free_pair(turned);
}

/* One class: what was not measured is null, everywhere, and never a NaN in the text. */
static void undefined_is_null(void **state)
{
    (void)state;
    uint8_t y[6] = {0};
    double s[6] = {0.1, 0.7, 0.2, 0.3, 0.9, 0.4};
    Predictions pair[2];
    for (int k = 0; k < 2; k++) make(&pair[k], 6, 2, y, s, NULL);
    char *text = all_as_text(pair, 1);
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    static const char *const lost[] = {"sensitivity", "balanced_accuracy", "youden", "auroc",
                                       "auprc"};
    for (int i = 0; i < 5; i++) {
        json_t *m = json_object_get(json_object_get(j, "metrics"), lost[i]);
        json_t *c = json_object_get(json_object_get(j, "comparison"), lost[i]);
        assert_true(json_is_null(json_object_get(m, "value")));
        assert_true(json_is_null(json_object_get(m, "ci")));
        assert_true(json_is_null(json_object_get(c, "p")));
    }
    json_t *m = json_object_get(json_object_get(j, "metrics"), "specificity");
    assert_true(json_number_value(json_object_get(m, "value")) == 4.0 / 6);
    assert_int_equal(json_array_size(json_object_get(m, "ci_clopper_pearson")), 2);
    json_decref(j);
    free(text);
    free_pair(pair);
}

/* The error over halves against the deviation of the estimate itself over fresh samples. 5 standard
 * errors of a sample variance of TRIALS values are 5 sqrt(2 / TRIALS); the expectation exceeds the
 * truth by the share of the degenerate term, below a tenth at this distance and size. */
static void kid_error_is_its_deviation(void **state)
{
    (void)state;
    enum { TRIALS = 400, N = 30, D = 2 };
    double value[TRIALS], mean = 0, variance = 0, claimed = 0;
    for (int t = 0; t < TRIALS; t++) {
        float x[N * D], y[N * D];
        Kid k;
        RandomKey key = {.seed = fresh, .stream = STREAM_TEST, .step = 1, .sample = (uint64_t)t};
        random_normals(x, N * D, key);
        key.step = 2;
        random_normals(y, N * D, key);
        for (int i = 0; i < N * D; i++) {
            x[i] *= 0.3f;
            y[i] = 1 + 0.3f * y[i];
        }
        assert_int_equal(kid(&k, x, N, y, N, D, fresh + (uint32_t)t), OK);
        value[t] = k.value;
        mean += k.value / TRIALS;
        claimed += k.std_error * k.std_error / TRIALS;
    }
    for (int t = 0; t < TRIALS; t++)
        variance += (value[t] - mean) * (value[t] - mean) / (TRIALS - 1);
    double slack = 5 * sqrt(2.0 / TRIALS);
    if (claimed < variance * (1 - slack) || claimed > variance * (1.1 + slack))
        fail_msg("claimed %g, found %g", claimed, variance);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bootstrap_has_binomial_moments),
        cmocka_unit_test(weights_are_repetitions),
        cmocka_unit_test(replicates_have_both_classes),
        cmocka_unit_test(permutation_p_is_uniform),
        cmocka_unit_test(permutation_estimates_mcnemar),
        cmocka_unit_test(tests_see_a_difference_and_only_one),
        cmocka_unit_test(clusters_choose_the_test),
        cmocka_unit_test(threads_and_row_order_do_not_matter),
        cmocka_unit_test(undefined_is_null),
        cmocka_unit_test(kid_error_is_its_deviation),
    };
    fresh = (uint32_t)time(NULL) * 2654435761u ^ (uint32_t)getpid();
    printf("seed %u\n", fresh);
    omp_set_num_threads(
        1); /* thousands of tiny jobs: waiting threads would cost more than they do */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
