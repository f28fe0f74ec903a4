/* test_peers.c - kernels against answers of PyTorch and diffusers (golden/kernels/make.py): what
 * the twins cannot know, because they and the kernels share our reading of the formulas. And the
 * inputs that kernels refuse. */
#include "golden/kernels/peers.h"
#include "kernels.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Both sides round in fp32: `ulps` of the larger of the values and `size`. */
static void near(const float *got, const float *want, size_t n, double ulps, double size)
{
    for (size_t i = 0; i < n; i++) {
        double bound = ulps * 0x1p-24 * fmax(size, fabs(want[i]));
        if (!(fabs((double)got[i] - want[i]) <= bound))
            fail_msg("element %zu is %.9g, the peer says %.9g, bound %.2g", i, got[i], want[i],
                     bound);
    }
}

static void optimizers_are_torch(void **state)
{
    float value[5], m[5] = {0}, v[5] = {0}, ema[5];
    memcpy(value, opt_value, sizeof value);
    memcpy(ema, opt_value, sizeof ema);
    for (int t = 1; t <= 6; t++) {
        double s = t - 1;
        Adamw a = {.rate = 0.02,
                   .beta1 = 0.9,
                   .beta2 = 0.99,
                   .eps = 1e-8,
                   .weight_decay = 0.1,
                   .grad_scale = 0.5,
                   .ema_decay = s > 0 ? fmin(0.7, (1 + s) / (10 + s)) : 0,
                   .step = t};
        assert_int_equal(cpu_adamw(value, opt_grad + 5 * (t - 1), m, v, ema, 5, a, *state), OK);
    }
    near(value, opt_adamw, 5, 6 * 8, 1); /* six steps of some eight roundings on both sides */
    near(ema, opt_adamw_ema, 5, 6 * 8, 1);

    memcpy(value, opt_value, sizeof value);
    memset(m, 0, sizeof m);
    for (int t = 0; t < 6; t++) {
        Sgd a = {.rate = 0.02, .momentum = 0.9, .weight_decay = 0.1, .grad_scale = 0.5};
        assert_int_equal(cpu_sgd_nesterov(value, opt_grad + 5 * t, m, 5, a, *state), OK);
    }
    near(value, opt_sgd, 5, 6 * 8, 1);
}

static void cross_entropy_is_torch(void **state)
{
    enum { K = 3, N = 4 };
    float loss, one = 1, prob[N * K], grad[N * K];
    assert_int_equal(
        cpu_cross_entropy_fwd(&loss, prob, ce_logits, ce_label, ce_weight, N, K, 0.1f, *state), OK);
    assert_int_equal(
        cpu_cross_entropy_dx(grad, &one, prob, ce_label, ce_weight, N, K, 0.1f, *state), OK);
    near(&loss, ce_loss, 1, 16, 1);
    near(grad, ce_grad, COUNT(ce_grad), 16, 1);

    int32_t label[N] = {0, 3, 1, 2};
    assert_int_equal(cpu_cross_entropy_fwd(&loss, prob, ce_logits, label, NULL, N, K, 0, *state),
                     ERR_INPUT);
    assert_non_null(strstr(status_message(), "row 1: label 3, expected -1 to 2"));
    label[1] = -2;
    assert_int_equal(cpu_cross_entropy_fwd(&loss, prob, ce_logits, label, NULL, N, K, 0, *state),
                     ERR_INPUT);

    float large[2] = {1000, -1000}; /* no overflow, and a loss beyond what exp can hold */
    assert_int_equal(
        cpu_cross_entropy_fwd(&loss, prob, large, &(int32_t){1}, NULL, 1, 2, 0, *state), OK);
    assert_true(loss == 2000 && prob[0] == 1 && prob[1] == 0);
    large[1] = NAN;
    assert_int_equal(
        cpu_cross_entropy_fwd(&loss, prob, large, &(int32_t){0}, NULL, 1, 2, 0, *state), OK);
    assert_true(isnan(loss));
}

static void pools_are_torch(void **state)
{
    PoolShape a = {
        .n = 1, .h = 5, .w = 5, .c = 2, .p = 2, .q = 2, .size = 3, .stride = 2, .pad = 0};
    float y[8], dx[50], mean[50];
    int32_t index[8];
    assert_int_equal(cpu_maxpool_fwd(y, index, pool_x, a, *state), OK);
    assert_memory_equal(y, pool_max, sizeof y);
    assert_memory_equal(index, pool_index, sizeof index); /* ties go to the first */
    assert_int_equal(cpu_maxpool_dx(dx, pool_dy, index, a, *state), OK);
    near(dx, pool_dx, 50, 4, 1);
    a = (PoolShape){
        .n = 1, .h = 5, .w = 5, .c = 2, .p = 5, .q = 5, .size = 3, .stride = 1, .pad = 1};
    assert_int_equal(cpu_avgpool_fwd(mean, pool_x, a, *state), OK);
    near(mean, pool_mean, 50, 4, 1);

    float bad[50]; /* not a number wins, wherever in the window it is */
    memcpy(bad, pool_x, sizeof bad);
    bad[2 * 12] = NAN;
    a = (PoolShape){
        .n = 1, .h = 5, .w = 5, .c = 2, .p = 2, .q = 2, .size = 3, .stride = 2, .pad = 0};
    assert_int_equal(cpu_maxpool_fwd(y, index, bad, a, *state), OK);
    for (int i = 0; i < 8; i++)
        assert_true(i % 2 ? y[i] == pool_max[i] : isnan(y[i]) && index[i] == 12);
    a.pad = 2;
    assert_int_equal(cpu_maxpool_fwd(y, index, pool_x, a, *state), ERR_BUG);
}

static void diffusion_is_diffusers(void **state)
{
    float y[16];
    assert_int_equal(cpu_timestep_embedding(y, (float[]){1, 981}, 2, 8, 1, 0, *state), OK);
    near(y, time_embedding, 8, 8, 1);
    near(y + 8, time_embedding + 8, 8, 4 * 981, 1); /* the peer rounds its angle of 981 to fp32 */
    for (int v = 0; v < 2; v++) {
        assert_int_equal(
            cpu_ddim_step(y, ddim_x, ddim_pred, ddim_noise, ddim_coef, 6, 0, v, 0, *state), OK);
        near(y, v ? ddim_v_prediction : ddim_epsilon, 6, 16, 4);
    }
}

static void embedding_refuses(void **state)
{
    float table[6] = {1, 2, 3, 4, 5, 6}, y[4];
    assert_int_equal(cpu_embedding_fwd(y, (int32_t[]){2, 0}, table, 2, 3, 2, *state), OK);
    assert_memory_equal(y, ((float[]){5, 6, 1, 2}), sizeof y);
    assert_int_equal(cpu_embedding_fwd(y, (int32_t[]){2, 3}, table, 2, 3, 2, *state), ERR_INPUT);
    assert_non_null(strstr(status_message(), "position 1: id 3, expected 0 to 2"));
    assert_int_equal(cpu_embedding_fwd(y, (int32_t[]){-1, 0}, table, 2, 3, 2, *state), ERR_INPUT);
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
        cmocka_unit_test(optimizers_are_torch),   cmocka_unit_test(cross_entropy_is_torch),
        cmocka_unit_test(pools_are_torch),        cmocka_unit_test(diffusion_is_diffusers),
        cmocka_unit_test(embedding_refuses),
    };
    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
