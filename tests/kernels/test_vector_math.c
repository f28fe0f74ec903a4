/* test_vector_math.c - the polynomials against libm in double, as the loops of the kernels use
 * them. */
#include "../../kernels/cpu/cpu.h"
#include "../../kernels/cpu/vector_math.h"
#include "base/random.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { COUNT = 200000 };
typedef struct {
    float x[COUNT], y[COUNT], z[COUNT];
} Data;

SIMD static void all_exp(Data *d)
{
#pragma omp simd
    for (int i = 0; i < COUNT; i++) d->y[i] = vm_exp(d->x[i]);
}
SIMD static void all_logistic(Data *d)
{
#pragma omp simd
    for (int i = 0; i < COUNT; i++) d->y[i] = vm_logistic(d->x[i]);
}
SIMD static void all_tanh(Data *d)
{
#pragma omp simd
    for (int i = 0; i < COUNT; i++) d->y[i] = vm_tanh(d->x[i]);
}
SIMD static void all_normal(Data *d)
{
#pragma omp simd
    for (int i = 0; i < COUNT; i++) d->y[i] = vm_normal(d->x[i], &d->z[i]);
}

/* Uniform in [from, to), every other one shrunk towards 0 by up to 2^-20. */
static Data *data(void **state, double from, double to)
{
    Data *d = malloc(sizeof *d);
    assert_non_null(d);
    RandomKey key = {*(uint32_t *)*state, STREAM_TEST, 0, 0}, other = {key.seed, STREAM_TEST, 1, 0};
    for (uint32_t i = 0; i < COUNT; i++) {
        double shrink = i % 2 ? exp2(-20 * random_uniform(other, i)) : 1;
        d->x[i] = (float)((from + (to - from) * random_uniform(key, i)) * shrink);
    }
    return d;
}

static double ulp(double y) { return ldexp(1, ilogb(y) - 23); } /* of a float of that size */

static void test_exp(void **state)
{
    Data *d = data(state, -87, 88);
    double worst = 0;
    all_exp(d);
    for (int i = 0; i < COUNT; i++)
        worst = fmax(worst, fabs(d->y[i] - exp(d->x[i])) / ulp(exp(d->x[i])));
    print_message("exp: %.2f ulp\n", worst);
    assert_true(worst <= 2);
    d->x[0] = NAN, d->x[1] = -INFINITY, d->x[2] = INFINITY, d->x[3] = -1000, d->x[4] = 0;
    all_exp(d);
    assert_true(isnan(d->y[0]));
    assert_true(d->y[1] < 2e-38f && d->y[1] > 0 && d->y[3] == d->y[1]);
    assert_true(d->y[2] > 1e38f && !isinf(d->y[2]));
    assert_true(d->y[4] == 1);
    free(d);
}

static void test_logistic(void **state)
{
    Data *d = data(state, -80, 80);
    double worst = 0;
    all_logistic(d);
    for (int i = 0; i < COUNT; i++) {
        double y = 1 / (1 + exp(-(double)d->x[i]));
        worst = fmax(worst, fabs(d->y[i] - y) / ulp(y));
    }
    print_message("logistic: %.2f ulp\n", worst);
    assert_true(worst <= 4);
    free(d);
}

static void test_tanh(void **state)
{
    Data *d = data(state, -12, 12);
    double worst = 0;
    all_tanh(d);
    for (int i = 0; i < COUNT; i++) {
        double y = tanh(d->x[i]);
        worst = fmax(worst, y ? fabs(d->y[i] / y - 1) : fabs(d->y[i]));
    }
    print_message("tanh: relative %.2g\n", worst);
    assert_true(worst <= 5e-7);
    free(d);
}

static void test_normal(void **state)
{
    Data *d = data(state, -14, 14);
    double below = 0, density = 0;
    all_normal(d);
    for (int i = 0; i < COUNT; i++) {
        double x = d->x[i];
        below = fmax(below, fabs(d->y[i] - erfc(-x * sqrt(0.5)) / 2));
        density = fmax(density, fabs(d->z[i] - exp(-x * x / 2) * 0.39894228040143267794));
    }
    print_message("normal distribution: %.2g, density %.2g\n", below, density);
    assert_true(below <= 1e-7 && density <= 1e-7);
    free(d);
}

int main(int argc, char **argv)
{
    uint32_t value = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    void *state = &value;
    print_message("seed %u (give it as an argument to repeat)\n", value);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_exp, state), cmocka_unit_test_prestate(test_logistic, state),
        cmocka_unit_test_prestate(test_tanh, state), cmocka_unit_test_prestate(test_normal, state)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
