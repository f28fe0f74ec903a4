/* test_point_invariance.c - an element's, row's or image's result is the same in every bit
 * whatever stands beside it in the batch, wherever it stands, and for any number of threads. */
#include "base/random.h"
#include "kernels.h"
#include "ops/ops.h"
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static uint32_t seed(void **state) { return *(uint32_t *)*state; }

static float *normals(size_t n, uint32_t seed_, uint32_t what)
{
    float *v = aligned_alloc(64, (n * sizeof *v + 63) / 64 * 64);
    assert_non_null(v);
    random_normals(v, n, (RandomKey){seed_, STREAM_TEST, 0, what});
    return v;
}

static float *empty(size_t n)
{
    float *v = aligned_alloc(64, (n * sizeof *v + 63) / 64 * 64);
    assert_non_null(v);
    memset(v, 0xff, n * sizeof *v);
    return v;
}

static Stream *stream_of_test(void)
{
    Stream *s;
    assert_int_equal(cpu_stream_new(&s), OK);
    return s;
}

/* ---- elementwise: any piece alone gives the bits of the whole -------------------------- */

typedef Status (*Map)(float *y, const float *x, size_t count, Stream *s);
typedef Status (*MapDx)(float *dx, const float *x, const float *dy, size_t count, Stream *s);

static void test_elements(void **state)
{
    static const Map map[] = {cpu_silu_fwd, cpu_gelu_fwd, cpu_quick_gelu_fwd,
                              cpu_mish_fwd, cpu_relu_fwd, cpu_soft_clamp_fwd};
    static const MapDx map_dx[] = {cpu_silu_dx, cpu_gelu_dx, cpu_quick_gelu_dx,
                                   cpu_mish_dx, cpu_relu_dx, cpu_soft_clamp_dx};
    size_t n = 40003;
    Stream *s = stream_of_test();
    float *x = normals(n, seed(state), 1), *dy = normals(n, seed(state), 2), *whole = empty(n),
          *piece = empty(n);
    for (size_t f = 0; f < 2 * sizeof map / sizeof *map; f++)
        for (uint32_t k = 0; k < 60; k++) {
            RandomKey key = {seed(state), STREAM_TEST, 1, k};
            size_t from = random_below(key, 0, 20000),
                   count = 1 + random_below(key, 1, k % 2 ? 20000 : 70);
            omp_set_num_threads(1 + (int)(k % 3));
            if (f % 2) {
                assert_int_equal(map[f / 2](whole, x, n, s), OK);
                assert_int_equal(map[f / 2](piece, x + from, count, s), OK);
            } else {
                assert_int_equal(map_dx[f / 2](whole, x, dy, n, s), OK);
                omp_set_num_threads(1 + (int)((k + 1) % 3));
                assert_int_equal(map_dx[f / 2](piece, x + from, dy + from, count, s), OK);
            }
            assert_memory_equal(piece, whole + from, count * sizeof *x);
        }
    free(x);
    free(dy);
    free(whole);
    free(piece);
    cpu_stream_free(s);
}

static void test_ddim_steps(void **state)
{
    enum { N = 5000 };
    static const float coef[6] = {.3f, .95f, .5f, .8f, .2f, 0};
    Stream *s = stream_of_test();
    float *x = normals(N, seed(state), 1), *pred = normals(2 * N, seed(state), 2);
    float *noise = normals(N, seed(state), 3), *whole = empty(N), *piece = empty(N);
    float *two = empty(2 * N); /* the piece's predictions, side by side */
    for (uint32_t k = 0; k < 240; k++) {
        RandomKey key = {seed(state), STREAM_TEST, 2, k};
        size_t from = random_below(key, 0, N / 2);
        size_t count = 1 + random_below(key, 1, k % 5 ? 90 : N / 2);
        int guided = k % 2, prediction = (int)(k / 2 % 3);
        const float *drawn = k / 6 % 2 ? noise : NULL;
        memcpy(two, pred + from, count * sizeof *two);
        memcpy(two + count, pred + N + from, count * sizeof *two);
        omp_set_num_threads(1 + (int)(k % 3));
        assert_int_equal(
            cpu_ddim_step(whole, x, pred, drawn, coef, N, guided, prediction, 3, s), OK);
        omp_set_num_threads(1 + (int)((k + 1) % 3));
        assert_int_equal(cpu_ddim_step(piece, x + from, two, drawn ? drawn + from : NULL, coef,
                                       count, guided, prediction, 3, s),
                         OK);
        assert_memory_equal(piece, whole + from, count * sizeof *piece);
    }
    float *all[] = {x, pred, noise, whole, piece, two};
    for (int i = 0; i < 6; i++) free(all[i]);
    cpu_stream_free(s);
}

/* ---- rows and images ------------------------------------------------------------------ */

typedef struct {
    size_t n, hw; /* layernorm and geglu: n rows, hw = 1 */
    int c, groups;
    Act act;
    const float *x, *dy, *gain, *bias;
    float *y, *stats, *dx, *dgain, *dbias;
    size_t n_stats; /* of one image */
} Batch;

typedef void (*Run)(const Batch *b, Stream *s);

static void run_groupnorm(const Batch *b, Stream *s)
{
    assert_int_equal(cpu_groupnorm_fwd(b->y, b->stats, b->x, b->gain, b->bias, b->n, b->hw, b->c,
                                       b->groups, 1e-5f, b->act, s),
                     OK);
    assert_int_equal(cpu_groupnorm_dx(b->dx, b->dgain, b->dbias, b->dy, b->x, b->gain, b->bias,
                                      b->stats, b->n, b->hw, b->c, b->groups, 1e-5f, b->act, s),
                     OK);
}
static void run_layernorm(const Batch *b, Stream *s)
{
    assert_int_equal(
        cpu_layernorm_fwd(b->y, b->stats, b->x, b->gain, b->bias, b->n, b->c, 1e-5f, s), OK);
    assert_int_equal(
        cpu_layernorm_dx(b->dx, b->dgain, b->dbias, b->dy, b->x, b->gain, b->stats, b->n, b->c, s),
        OK);
}
static void run_geglu(const Batch *b, Stream *s) /* c = 2d; y and dy are read as [n, d] */
{
    assert_int_equal(cpu_geglu_fwd(b->y, b->x, b->n, b->c / 2, s), OK);
    assert_int_equal(cpu_geglu_dx(b->dx, b->x, b->dy, b->n, b->c / 2, s), OK);
}
static void run_batchnorm(const Batch *b, Stream *s) /* running statistics: gain and 1 */
{
    float *one = empty((size_t)b->c);
    for (int i = 0; i < b->c; i++) one[i] = 1;
    assert_int_equal(cpu_batchnorm_fwd(b->y, b->stats, b->gain, one, b->x, b->gain, b->bias,
                                       b->n * b->hw, b->c, 1e-5f, b->act == ACT_RELU, s),
                     OK);
    assert_int_equal(cpu_batchnorm_dx(b->dx, b->dgain, b->dbias, b->dy, b->x, b->gain, b->bias,
                                      b->stats, b->n * b->hw, b->c, false, b->act == ACT_RELU, s),
                     OK);
    free(one);
}

/* The batch, then each of its images alone and on another number of threads. */
static void check(Run run, Batch b, int y_width, uint32_t seed_)
{
    Stream *s = stream_of_test();
    size_t c = (size_t)b.c, each = b.hw * c, each_y = b.hw * (size_t)y_width, n = b.n;
    float *x = normals(n * each, seed_, 1), *dy = normals(n * each, seed_, 2),
          *gain = normals(c, seed_, 3);
    float *bias = normals(c, seed_, 4), *y = empty(n * each), *dx = empty(n * each),
          *stats = empty(n * b.n_stats);
    float *y1 = empty(each), *dx1 = empty(each), *stats1 = empty(b.n_stats), *dgain = empty(c),
          *dbias = empty(c);
    b.x = x, b.dy = dy, b.gain = gain, b.bias = bias, b.y = y, b.dx = dx, b.stats = stats;
    b.dgain = dgain, b.dbias = dbias;
    omp_set_num_threads(2);
    run(&b, s);
    for (size_t i = 0; i < n; i++) {
        Batch one = b;
        one.n = 1, one.x = x + i * each, one.dy = dy + i * each_y, one.y = y1, one.dx = dx1,
        one.stats = stats1;
        omp_set_num_threads(1 + (int)(i % 3));
        run(&one, s);
        assert_memory_equal(y1, y + i * each_y, each_y * sizeof *y);
        assert_memory_equal(dx1, dx + i * each, each * sizeof *dx);
    }
    float *all[] = {x, dy, gain, bias, y, dx, stats, y1, dx1, stats1, dgain, dbias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    cpu_stream_free(s);
}

static void test_images(void **state)
{
    static const struct {
        size_t n, hw;
        int c, groups;
        Act act;
    } shape[] = {{7, 25, 35, 5, ACT_SILU}, {4, 300, 80, 16, ACT_SILU}, {3, 1027, 16, 8, ACT_NONE},
                 {5, 9, 33, 3, ACT_RELU},  {9, 1, 64, 32, ACT_SILU},   {2, 600, 48, 48, ACT_RELU}};
    for (size_t k = 0; k < sizeof shape / sizeof *shape; k++) {
        Batch b = {.n = shape[k].n,
                   .hw = shape[k].hw,
                   .c = shape[k].c,
                   .groups = shape[k].groups,
                   .act = shape[k].act,
                   .n_stats = 2 * (size_t)shape[k].groups};
        check(run_groupnorm, b, b.c, seed(state));
        b.n_stats = 2 * (size_t)b.c;
        check(run_batchnorm, b, b.c, seed(state));
    }
}

static void test_rows(void **state)
{
    static const int width[] = {1, 7, 31, 37, 80, 129, 320};
    for (size_t k = 0; k < sizeof width / sizeof *width; k++) {
        Batch b = {.n = 300, .hw = 1, .c = width[k], .n_stats = 2};
        check(run_layernorm, b, b.c, seed(state));
        b.c = 2 * width[k];
        check(run_geglu, b, width[k], seed(state));
    }
}

/* Everything that sums over a batch x[rows, c], into one array of all_size() floats. */
static size_t all_size(size_t rows, size_t c) { return 6 * rows * c + 14 * c + 2 * rows; }

static void run_sums(float *at, const float *x, const float *dy, const float *gain,
                     const float *bias, size_t rows, int c, Stream *s)
{
    size_t count = rows * (size_t)c, width = (size_t)c;
    float *y[3], *dx[3], *dgain[3], *dbias[3], *stats[3];
    for (int k = 0; k < 3; k++) {
        y[k] = at, dx[k] = y[k] + count, dgain[k] = dx[k] + count, dbias[k] = dgain[k] + width;
        stats[k] = dbias[k] + width;
        at = stats[k] + 2 * (k ? 1 : width + rows);
    }
    float *mean = at, *var = mean + width, *dv = var + width;
    for (size_t i = 0; i < width; i++) mean[i] = var[i] = 1;
    assert_int_equal(cpu_batchnorm_train_fwd(y[0], stats[0], mean, var, x, gain, bias, rows, c,
                                             1e-3f, 0.1f, true, s),
                     OK);
    assert_int_equal(cpu_batchnorm_dx(dx[0], dgain[0], dbias[0], dy, x, gain, bias, stats[0], rows,
                                      c, true, true, s),
                     OK);
    assert_int_equal(
        cpu_groupnorm_fwd(y[1], stats[1], x, gain, bias, 1, rows, c, 1, 1e-5f, ACT_SILU, s), OK);
    assert_int_equal(cpu_groupnorm_dx(dx[1], dgain[1], dbias[1], dy, x, gain, bias, stats[1], 1,
                                      rows, c, 1, 1e-5f, ACT_SILU, s),
                     OK);
    assert_int_equal(cpu_layernorm_fwd(y[2], stats[0], x, gain, bias, rows, c, 1e-5f, s), OK);
    assert_int_equal(cpu_layernorm_dx(dx[2], dgain[2], dbias[2], dy, x, gain, stats[0], rows, c, s),
                     OK);
    assert_int_equal(cpu_add_channel_dv(dv, dy, 1, rows, c, s), OK);
}

static void test_threads(void **state)
{
    size_t rows = 3001, c = 23, size = all_size(rows, c);
    Stream *s = stream_of_test();
    float *x = normals(rows * c, seed(state), 1), *dy = normals(rows * c, seed(state), 2);
    float *gain = normals(c, seed(state), 3), *bias = normals(c, seed(state), 4);
    float *one = empty(size), *more = empty(size);
    omp_set_num_threads(1);
    run_sums(one, x, dy, gain, bias, rows, (int)c, s);
    for (int threads = 2; threads < 5; threads++) {
        omp_set_num_threads(threads);
        run_sums(more, x, dy, gain, bias, rows, (int)c, s);
        assert_memory_equal(one, more, size * sizeof *one);
    }
    float *all[] = {x, dy, gain, bias, one, more};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    cpu_stream_free(s);
}

/* ---- dropout -------------------------------------------------------------------------- */

static void test_dropout(void **state)
{
    enum { SAMPLES = 9, EACH = 4001 };
    Stream *s = stream_of_test();
    float *x = empty(SAMPLES * EACH), *y = empty(SAMPLES * EACH), *one = empty(EACH), rate = 0.3f;
    int32_t rng[] = {(int32_t)seed(state), 17, 1000};
    for (int i = 0; i < SAMPLES * EACH; i++) x[i] = 1;
    assert_int_equal(cpu_dropout_fwd(y, x, rng, SAMPLES, EACH, rate, STREAM_DROPOUT, 8, s), OK);
    int kept = 0, same = 0;
    for (int i = 0; i < SAMPLES * EACH; i++) {
        assert_true(y[i] == 0 || y[i] == 1 / (1 - rate));
        kept += y[i] != 0;
        if (i >= EACH) same += (y[i] != 0) == (y[i - EACH] != 0);
    }
    /* Seven standard deviations of 36009 draws: 0.017. Neighbours agree in 0.58 of 32008 places. */
    assert_true(kept > (0.7 - 0.017) * SAMPLES * EACH && kept < (0.7 + 0.017) * SAMPLES * EACH);
    assert_true(same > 0.56 * (SAMPLES - 1) * EACH && same < 0.60 * (SAMPLES - 1) * EACH);
    for (int i = 0; i < SAMPLES; i++, rng[2]++) {
        assert_int_equal(cpu_dropout_fwd(one, x, rng, 1, EACH, rate, STREAM_DROPOUT, 8, s), OK);
        assert_memory_equal(one, y + i * EACH, sizeof *one * EACH);
    }
    free(x);
    free(y);
    free(one);
    cpu_stream_free(s);
}

/* Nodes of one stream draw different numbers; those of another stream start at 0. */
static void test_dropout_ranges(void **state)
{
    (void)state;
    Graph *g = graph_new();
    Tensor *x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 2, (int[]){3, 7});
    Tensor *rng = graph_leaf(g, KIND_INPUT, DTYPE_I32, "rng", 1, (int[]){3});
    Tensor *a = dropout(g, x, rng, 0.5f, STREAM_DROPOUT),
           *b = dropout(g, a, rng, 0.5f, STREAM_DROPOUT);
    Tensor *c = dropout(g, b, rng, 0.5f, STREAM_TEST);
    assert_int_equal(graph_status(g), OK);
    assert_int_equal(((const DropoutArgs *)a->args)->element, 0);
    assert_int_equal(((const DropoutArgs *)b->args)->element, 8);
    assert_int_equal(((const DropoutArgs *)c->args)->element, 0);
    assert_null(dropout(g, x, rng, 1, STREAM_DROPOUT));
    assert_int_equal(graph_status(g), ERR_USAGE);
    graph_free(g);
}

int main(int argc, char **argv)
{
    uint32_t value = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    void *state = &value;
    print_message("seed %u (give it as an argument to repeat)\n", value);
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(test_elements, state),
                                       cmocka_unit_test_prestate(test_ddim_steps, state),
                                       cmocka_unit_test_prestate(test_images, state),
                                       cmocka_unit_test_prestate(test_rows, state),
                                       cmocka_unit_test_prestate(test_threads, state),
                                       cmocka_unit_test_prestate(test_dropout, state),
                                       cmocka_unit_test(test_dropout_ranges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
