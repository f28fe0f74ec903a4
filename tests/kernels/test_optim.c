/* test_optim.c - the sweeps against obvious loops in double, over several steps and odd sizes; the
 * same bits for any number of threads and any split. */
#include "base/random.h"
#include "kernels.h"
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { STEPS = 7, SLOTS = 4 };
static const size_t sizes[] = {1, 2, 7, 16, 33, 1001, 16384, 40003};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static float draw(uint32_t seed, uint32_t step, size_t i)
{
    return (float)random_normal((RandomKey){seed, STREAM_TEST, step, 0}, (uint32_t)i);
}

static float *vector(size_t n)
{
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    return x;
}

/* slot 0: values; 1..3: state. */
typedef struct { float *slot[SLOTS]; } State;

static State start(size_t n, uint32_t seed)
{
    State st;
    for (int k = 0; k < SLOTS; k++) st.slot[k] = vector(n);
    for (size_t i = 0; i < n; i++) st.slot[0][i] = st.slot[3][i] = draw(seed, 0, i);
    return st;
}

static void drop(State *st)
{
    for (int k = 0; k < SLOTS; k++) free(st->slot[k]);
}

static Adamw adamw_at(int64_t step)
{
    return (Adamw){.rate = 0.01 * (double)step,
                   .beta1 = 0.9,
                   .beta2 = 0.999,
                   .eps = 1e-8,
                   .weight_decay = 0.1,
                   .grad_scale = 0.3,
                   .ema_decay = 0.9,
                   .step = step};
}

static const Sgd sgd = {.rate = 0.01, .momentum = 0.9, .weight_decay = 0.05, .grad_scale = 0.3};

/* STEPS steps of either, in parts of `part` elements. */
static void run(State *st, bool adamw, size_t n, size_t part, uint32_t seed, Stream *s)
{
    float *grad = vector(n);
    for (uint32_t step = 1; step <= STEPS; step++) {
        for (size_t i = 0; i < n; i++) grad[i] = draw(seed, step, i);
        for (size_t at = 0; at < n; at += part) {
            size_t count = n - at < part ? n - at : part;
            float **p = st->slot;
            Status failed = adamw
                                ? cpu_adamw(p[0] + at, grad + at, p[1] + at, p[2] + at, p[3] + at,
                                            count, adamw_at(step), s)
                                : cpu_sgd_nesterov(p[0] + at, grad + at, p[1] + at, count, sgd, s);
            assert_int_equal(failed, OK);
        }
    }
    free(grad);
}

/* Rounding errors of each step: a few of the value's, and those of the update, whose size is at
 * most the rate times one for AdamW, the gradient's for SGD. The state of a step feeds the next
 * ones. */
static double bound(double value, double update)
{
    return 8 * 0x1p-24 * STEPS * (value + STEPS * update);
}

static void check_adamw(const State *st, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        double value = draw(seed, 0, i), ema = value, m = 0, v = 0, top = fabs(value);
        for (uint32_t t = 1; t <= STEPS; t++) {
            Adamw a = adamw_at(t);
            double g = a.grad_scale * draw(seed, t, i);
            value -= a.rate * a.weight_decay * value;
            m = a.beta1 * m + (1 - a.beta1) * g;
            v = a.beta2 * v + (1 - a.beta2) * g * g;
            double mean = m / (1 - pow(a.beta1, t)), square = v / (1 - pow(a.beta2, t));
            value -= a.rate * mean / (sqrt(square) + a.eps);
            ema = a.ema_decay * ema + (1 - a.ema_decay) * value;
            top = fmax(top, fabs(value));
        }
        assert_true(fabs(st->slot[0][i] - value) <= bound(top, 0.01 * STEPS));
        assert_true(fabs(st->slot[3][i] - ema) <= bound(top, 0.01 * STEPS));
    }
}

static void check_sgd(const State *st, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        double value = draw(seed, 0, i), momentum = 0, top = fabs(value), steep = 0;
        for (uint32_t t = 1; t <= STEPS; t++) {
            double g = sgd.grad_scale * draw(seed, t, i) + sgd.weight_decay * value;
            momentum = sgd.momentum * momentum + g;
            value -= sgd.rate * (g + sgd.momentum * momentum);
            top = fmax(top, fabs(value));
            steep = fmax(steep, fabs(g) + fabs(momentum));
        }
        assert_true(fabs(st->slot[0][i] - value) <= bound(top, sgd.rate * steep));
    }
}

static void optimizers_match_and_split(void **state)
{
    Stream *s = *state;
    uint32_t seed = (uint32_t)time(NULL);
    printf("seed %u\n", seed);
    for (int k = 0; k < N_SIZES; k++)
        for (int adamw = 0; adamw < 2; adamw++) {
            size_t n = sizes[k];
            omp_set_num_threads(1);
            State one = start(n, seed);
            run(&one, adamw, n, n, seed, s);
            if (adamw) check_adamw(&one, n, seed);
            else check_sgd(&one, n, seed);
            for (int threads = 2; threads <= 3; threads++) {
                omp_set_num_threads(threads);
                State many = start(n, seed);
                run(&many, adamw, n, threads == 2 ? n : n / 3 + 1, seed, s);
                for (int slot = 0; slot < SLOTS; slot++)
                    assert_memory_equal(one.slot[slot], many.slot[slot], n * sizeof(float));
                drop(&many);
            }
            drop(&one);
        }
}

static void adamw_needs_a_step(void **state)
{
    float x = 1, g = 1, m = 0, v = 0;
    assert_int_equal(cpu_adamw(&x, &g, &m, &v, NULL, 1, adamw_at(0), *state), ERR_BUG);
    assert_true(x == 1);
    assert_int_equal(cpu_adamw(&x, &g, &m, &v, NULL, 1, adamw_at(1), *state), OK); /* no average */
    assert_true(fabs(x - (1 - 0.001 - 0.01)) < 1e-6);
}

static void norm_is_the_sum(void **state)
{
    Stream *s = *state;
    for (int k = 0; k < N_SIZES; k++) {
        size_t n = sizes[k];
        float *x = vector(n);
        double want = 0, got[3];
        for (size_t i = 0; i < n; i++) {
            x[i] = draw(3, 0, i);
            want += (double)x[i] * x[i];
        }
        for (int threads = 1; threads <= 3; threads++) {
            omp_set_num_threads(threads);
            assert_int_equal(cpu_sq_norm(&got[threads - 1], x, n, s), OK);
        }
        assert_true(fabs(got[0] - want) <= 1e-15 * (double)n * want);
        assert_memory_equal(got, got + 1, sizeof *got);
        assert_memory_equal(got, got + 2, sizeof *got);
        x[n / 2] = NAN; /* a broken gradient must be seen */
        assert_int_equal(cpu_sq_norm(got, x, n, s), OK);
        assert_true(isnan(*got));
        free(x);
    }
}

/* The other sums over many elements: a loss, and a table's gradient with ids that repeat. */
static void sums_ignore_threads(void **state)
{
    enum { N = 3, PER = 9001, IDS = 200, ROWS = 17, D = 131 };
    float *x = vector(N * PER), *target = vector(N * PER), loss[3], *table[3];
    float weight[N] = {0.5f, 3, 1};
    int32_t ids[IDS];
    for (uint32_t i = 0; i < IDS; i++)
        ids[i] = (int32_t)random_below((RandomKey){5, STREAM_TEST, 0, 0}, i, ROWS);
    for (size_t i = 0; i < N * PER; i++) {
        x[i] = draw(6, 0, i);
        target[i] = draw(6, 1, i);
    }
    for (int k = 0; k < 3; k++) {
        omp_set_num_threads(k + 1);
        table[k] = vector(ROWS * D);
        assert_int_equal(cpu_weighted_mse_fwd(&loss[k], x, target, weight, N, PER, *state), OK);
        assert_int_equal(cpu_embedding_dw(table[k], ids, x, IDS, ROWS, D, *state), OK);
        assert_memory_equal(loss, loss + k, sizeof *loss);
        assert_memory_equal(table[0], table[k], ROWS * D * sizeof(float));
    }
    for (int k = 0; k < 3; k++) free(table[k]);
    free(x);
    free(target);
}

static void sweeps_do_their_line(void **state)
{
    Stream *s = *state;
    enum { N = 1003 };
    float x[N], summed[N], averaged[N];
    for (size_t i = 0; i < N; i++) {
        x[i] = draw(4, 0, i);
        summed[i] = averaged[i] = draw(4, 1, i);
    }
    assert_int_equal(cpu_axpy(summed, -1.7f, x, N, s), OK);
    assert_int_equal(cpu_ema(averaged, x, 0.99, N, s), OK);
    for (size_t i = 0; i < N; i++) { /* at most three roundings of the larger term */
        double y = draw(4, 1, i), top = 4 * 0x1p-24 * (fabs(y) + 1.7 * fabs(x[i]));
        assert_true(fabs(summed[i] - (y - (double)1.7f * x[i])) <= top);
        assert_true(fabs(averaged[i] - (0.99 * y + 0.01 * x[i])) <= top);
    }
}

static int open_stream(void **state) { return (int)cpu_stream_new((Stream **)state); }
static int close_stream(void **state)
{
    cpu_stream_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimizers_match_and_split),
        cmocka_unit_test(adamw_needs_a_step),
        cmocka_unit_test(norm_is_the_sum),
        cmocka_unit_test(sums_ignore_threads),
        cmocka_unit_test(sweeps_do_their_line),
    };
    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
