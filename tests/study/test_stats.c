/* test_stats.c - metrics, exact intervals, tests and distances against scikit-learn, scipy and
 * statsmodels (tests/golden/stats/make_stats.py), and the predictions file.
 */
#include "base/file.h"
#include "stats/distance.h"
#include "stats/evaluation.h"
#include "stats/significance.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static json_t *golden; /* read once by main's setup */

static double real_of(const json_t *j) { return json_is_number(j) ? json_number_value(j) : NAN; }
static double at(const json_t *array, size_t i) { return real_of(json_array_get(array, i)); }
static double in(const json_t *o, const char *key) { return real_of(json_object_get(o, key)); }
static int int_in(const json_t *o, const char *key)
{
    return (int)json_integer_value(json_object_get(o, key));
}

/* Relative 1e-9; an expected zero and an expected NaN must be met exactly. */
static void near(double found, double expected, const char *what, const char *where)
{
    if (isnan(expected) ? isnan(found) : fabs(found - expected) <= 1e-9 * fabs(expected)) return;
    fail_msg("%s of %s: found %.17g, expected %.17g", what, where, found, expected);
}

static void near_interval(Interval found, const json_t *expected, const char *what,
                          const char *where)
{
    near(found.lo, at(expected, 0), what, where);
    near(found.hi, at(expected, 1), what, where);
}

static void load(Predictions *p, const json_t *d, const char *arm)
{
    const json_t *score = json_object_get(d, arm), *label = json_object_get(d, "label");
    const json_t *patient = json_object_get(d, "patient");
    int n = (int)json_array_size(score);
    Arena names = {0};
    const char **id = arena_alloc(&names, (size_t)n * sizeof *id);
    const char **who = arena_alloc(&names, (size_t)n * sizeof *who);
    uint8_t *y = arena_alloc(&names, (size_t)n);
    double *s = arena_alloc(&names, (size_t)n * sizeof *s);
    for (int i = 0; i < n; i++) {
        id[i] = arena_printf(&names, "film%d", i);
        who[i] = arena_printf(&names, "person%g", at(patient, (size_t)i));
        y[i] = (uint8_t)at(label, (size_t)i);
        s[i] = at(score, (size_t)i);
    }
    assert_int_equal(predictions_new(p, arm, n, id, who, y, s), OK);
    arena_free(&names);
}

static void check_metrics(const Arm *a, const json_t *expected, const char *where)
{
    double value[METRIC_COUNT];
    arm_metrics(value, a, NULL);
    for (Metric m = 0; m < METRIC_COUNT; m++)
        near(value[m], in(expected, metric_info(m)->name), metric_info(m)->name, where);
}

static void check_roc(const Arm *a, const json_t *roc, const char *where)
{
    int n;
    RocPoint *point = roc_points(&n, &a->ranking);
    assert_int_equal(n, json_array_size(json_array_get(roc, 0)));
    for (int i = 0; i < n; i++) {
        near(point[i].fpr, at(json_array_get(roc, 0), (size_t)i), "false positive rate", where);
        near(point[i].tpr, at(json_array_get(roc, 1), (size_t)i), "true positive rate", where);
    }
    free(point);
}

static void check_delong(const DeLong *found, const json_t *expected, const char *where)
{
    near(found->value, in(expected, "value"), "DeLong's value", where);
    near(found->variance, in(expected, "variance"), "DeLong's variance", where);
    near_interval(found->ci, json_object_get(expected, "ci"), "DeLong's interval", where);
}

static void datasets_match(void **state)
{
    (void)state;
    size_t i;
    json_t *d;
    json_array_foreach(json_object_get(golden, "datasets"), i, d)
    {
        const char *name = json_string_value(json_object_get(d, "name"));
        Predictions p[2];
        Arm arm[2];
        load(&p[0], d, "a");
        load(&p[1], d, "b");
        arm_new(&arm[0], &p[0], in(d, "threshold_a"));
        arm_new(&arm[1], &p[1], in(d, "threshold_b"));
        check_metrics(&arm[0], json_object_get(d, "metrics_a"), name);
        check_metrics(&arm[1], json_object_get(d, "metrics_b"), name);
        check_roc(&arm[0], json_object_get(d, "roc"), name);
        near(threshold_of_youden(&arm[0].ranking), in(d, "youden_threshold"), "threshold", name);
        DeLong one = delong(&arm[0].ranking);
        DeLong two = delong_difference(&arm[0].ranking, &arm[1].ranking);
        const json_t *difference = json_object_get(d, "delong_difference");
        check_delong(&one, json_object_get(d, "delong_a"), name);
        check_delong(&two, difference, name);
        near(delong_p(&two), in(difference, "p"), "DeLong's p", name);
        near(mcnemar_on(1, arm), in(d, "mcnemar_diseased"), "McNemar on diseased", name);
        near(mcnemar_on(0, arm), in(d, "mcnemar_normal"), "McNemar on normal", name);

        Evaluation e;
        evaluation_run(&e, &p[0], in(d, "threshold_a"), &(Resampling){100, 100, 1});
        near_interval(e.metric[METRIC_SENSITIVITY].beside, json_object_get(d, "sensitivity_ci"),
                      "sensitivity's interval", name);
        near_interval(e.metric[METRIC_SPECIFICITY].beside, json_object_get(d, "specificity_ci"),
                      "specificity's interval", name);
        for (int k = 0; k < 2; k++) {
            arm_free(&arm[k]);
            predictions_free(&p[k]);
        }
    }
    assert_true(i > 10);
}

static void closed_forms_match(void **state)
{
    (void)state;
    size_t i;
    json_t *row;
    char where[64];
    json_array_foreach(json_object_get(golden, "clopper_pearson"), i, row)
    {
        Interval c = clopper_pearson((int64_t)at(row, 0), (int64_t)at(row, 1));
        snprintf(where, sizeof where, "%g of %g", at(row, 0), at(row, 1));
        near(c.lo, at(row, 2), "Clopper-Pearson, lower", where);
        near(c.hi, at(row, 3), "Clopper-Pearson, upper", where);
    }
    json_array_foreach(json_object_get(golden, "incomplete_beta"), i, row)
    {
        snprintf(where, sizeof where, "%g, %g, %g", at(row, 0), at(row, 1), at(row, 2));
        near(incomplete_beta(at(row, 0), at(row, 1), at(row, 2)), at(row, 3), "beta", where);
    }
    json_array_foreach(json_object_get(golden, "mcnemar"), i, row)
    {
        snprintf(where, sizeof where, "%g against %g", at(row, 0), at(row, 1));
        near(mcnemar_exact((int64_t)at(row, 0), (int64_t)at(row, 1)), at(row, 2), "McNemar", where);
    }
}

static void holm_matches(void **state)
{
    (void)state;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(golden, "holm"), i, row)
    {
        double p[12], adjusted[12];
        int n = 0;
        for (size_t k = 0; k < json_array_size(json_array_get(row, 0)); k++) {
            if (k == 1) p[n++] = NAN; /* an untested hypothesis changes nothing */
            p[n++] = at(json_array_get(row, 0), k);
        }
        holm(adjusted, p, n);
        size_t k = 0;
        for (int j = 0; j < n; j++)
            if (isnan(p[j])) assert_true(isnan(adjusted[j]));
            else near(adjusted[j], at(json_array_get(row, 1), k++), "Holm", "golden vector");
    }
}

static float *floats(const json_t *array)
{
    float *v = malloc(json_array_size(array) * sizeof *v);
    for (size_t i = 0; i < json_array_size(array); i++) v[i] = (float)at(array, i);
    return v;
}

static void kid_matches(void **state)
{
    (void)state;
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(golden, "kid"), i, c)
    {
        float *x = floats(json_object_get(c, "x")), *y = floats(json_object_get(c, "y"));
        int n_x = int_in(c, "n_x"), n_y = int_in(c, "n_y");
        Kid k;
        assert_int_equal(kid(&k, x, n_x, y, n_y, int_in(c, "d"), 1), OK);
        /* The value is a difference of sums: their rounding, 2^-53 a term in random directions, is
         * far below 1e-13 of their size. */
        if (fabs(k.value - in(c, "value")) > 1e-13 * in(c, "scale"))
            fail_msg("KID %zu: found %.17g, expected %.17g", i, k.value, in(c, "value"));
        assert_true(n_x < 4 || n_y < 4 ? isnan(k.std_error) : k.std_error > 0);
        free(x);
        free(y);
    }
}

static char *scratch(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "/tmp/test_stats-%ld/%s", (long)getpid(), name);
    return path;
}

static void read_text(Predictions *p, const char *text, Status want, const char *message)
{
    assert_int_equal(file_write(scratch("p.csv"), text, strlen(text)), OK);
    assert_int_equal(predictions_read(p, scratch("p.csv")), want);
    if (want && !strstr(status_message(), message))
        fail_msg("\"%s\" does not say \"%s\"", status_message(), message);
}

static void predictions_refuse(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"id,patient,label,score\n", "p.csv: no films"},
        {"id,patient,labels,score\na,p,1,1\n",
         "p.csv:1: no column \"label\", is \"labels\" meant?"},
        {"id,patient,label,score\na,p,1,1\nb,p,2,1\n", "p.csv:3: label \"2\", expected 0 or 1"},
        {"id,patient,label,score\na,p,1,nan\n", "p.csv:2: score \"nan\""},
        {"id,patient,label,score\na,p,1,\n", "p.csv:2: score \"\""},
        {"id,patient,label,score\na,p,1,1.25\n", "p.csv:2: score 1.25 of id \"a\""},
        {"id,patient,label,score\na,p,1,-0.1\n", "p.csv:2: score -0.1"},
        {"id,patient,label,score\n,p,1,1\n", "p.csv:2: empty id"},
        {"id,patient,label,score\na,,1,1\n", "p.csv:2: empty patient"},
        {"id,patient,label,score\nb,p,1,1\na,q,0,0\nb,p,1,0\n",
         "p.csv:4: id \"b\" stands on line 2 already"},
    };
    Predictions p;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        read_text(&p, bad[i][0], ERR_INPUT, bad[i][1]);
        assert_null(p.arena.last);
    }
    assert_int_equal(predictions_read(&p, scratch("none.csv")), ERR_INPUT);
    dir_remove(scratch(""));
}

static void predictions_match_and_average(void **state)
{
    (void)state;
    Predictions p[3], mean, back;
    read_text(&p[0], "id,patient,label,score\nc,z,1,0.1\na,\"x,1\",0,0.3\nb,z,1,0.7\n", OK, "");
    read_text(&p[1], "score,id,label,patient,fold\n0.2,b,1,z,1\n0.6,c,1,z,1\n1,a,0,\"x,1\",1\n", OK,
              "");
    assert_int_equal(p[0].n_patients, 2);
    assert_int_equal(p[0].n_positives, 2);
    assert_int_equal(p[0].patient[0], 0); /* "x,1" before "z" */
    assert_int_equal(p[0].patient[1], p[0].patient[2]);
    assert_int_equal(predictions_average(&mean, p, 2), OK);
    assert_string_equal(mean.id[2], "c");
    assert_true(mean.score[2] == (0.1 + 0.6) / 2 && mean.score[1] == (0.7 + 0.2) / 2);
    assert_int_equal(predictions_write(&mean, scratch("mean.csv")), OK);
    assert_int_equal(predictions_read(&back, scratch("mean.csv")), OK);
    assert_memory_equal(back.score, mean.score, 3 * sizeof *mean.score);
    assert_string_equal(back.patient_name[0], "x,1");
    predictions_free(&back);

    static const char *const bad[][2] = {
        {"id,patient,label,score\nc,z,1,1\na,\"x,1\",0,1\n", "p.csv: no id \"b\""},
        {"id,patient,label,score\nc,z,1,1\na,\"x,1\",0,1\nb,z,1,1\nd,z,0,1\n",
         "p.csv:5: id \"d\", expected only ids of"},
        {"id,patient,label,score\nc,z,1,1\na,\"x,1\",1,1\nb,z,1,1\n",
         "p.csv:3: id \"a\" has label 1, expected 0"},
        {"id,patient,label,score\nc,y,1,1\na,\"x,1\",0,1\nb,z,1,1\n",
         "p.csv:2: id \"c\" has patient \"y\", expected \"z\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        read_text(&p[2], bad[i][0], OK, "");
        assert_int_equal(predictions_match(&p[2], &p[0]), ERR_INPUT);
        if (!strstr(status_message(), bad[i][1]))
            fail_msg("\"%s\" does not say \"%s\"", status_message(), bad[i][1]);
        predictions_free(&p[2]);
    }
    for (int k = 0; k < 2; k++) predictions_free(&p[k]);
    predictions_free(&mean);
    dir_remove(scratch(""));
}

static int read_golden(void **state)
{
    (void)state;
    golden = json_load_file(SOURCE_DIR "/tests/golden/stats/stats.json", 0, NULL);
    return golden ? 0 : -1;
}

static int free_golden(void **state)
{
    (void)state;
    json_decref(golden);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(datasets_match),     cmocka_unit_test(closed_forms_match),
        cmocka_unit_test(holm_matches),       cmocka_unit_test(kid_matches),
        cmocka_unit_test(predictions_refuse), cmocka_unit_test(predictions_match_and_average),
    };
    return cmocka_run_group_tests(tests, read_golden, free_golden);
}
