/* test_one_key.c - a query that sees one key takes its value whatever the scores are: on a CPU the
 * gradients of queries and keys are 0 then, not what is left of rounding. So in a text of one token, in
 * cross-attention to one token, and for the first query of a causal block. */
#include "base/random.h"
#include "kernels.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

static uint32_t seed, draws;

static int between(int low, int high)
{
    return low + (int)random_below((RandomKey){seed, STREAM_TEST, draws++, 1}, 0,
                                   (uint32_t)(high - low + 1));
}

static float *uniforms(size_t n)
{
    float *v = malloc(n * sizeof *v);
    assert_non_null(v);
    RandomKey key = {seed, STREAM_TEST, draws++, 0};
    for (size_t i = 0; i < n; i++)
        v[i] = (float)((double)random_below(key, (uint32_t)i, 1u << 24) / (1 << 22) - 2);
    return v;
}

static float *nans(size_t n)
{
    float *v = malloc(n * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++) v[i] = NAN;
    return v;
}

/* The first `rows` queries of each image see one key. */
static void check(const AttentionShape *a, int rows)
{
    size_t d = (size_t)a->heads * (size_t)a->dh;
    size_t nq = (size_t)a->n * (size_t)a->tq * d, nk = (size_t)a->n * (size_t)a->tk * d;
    float *q = uniforms(nq), *k = uniforms(nk), *v = uniforms(nk), *dy = uniforms(nq);
    float *y = nans(nq), *lse = nans((size_t)a->n * (size_t)a->heads * (size_t)a->tq);
    float *dq = nans(nq), *dk = nans(nk), *dv = nans(nk);
    Stream *s;
    assert_int_equal(cpu_stream_new(&s), OK);
    assert_int_equal(cpu_attention_fwd(y, lse, q, k, v, a, s), OK);
    assert_int_equal(cpu_attention_bwd(dq, dk, dv, dy, y, lse, q, k, v, a, s), OK);
    for (size_t i = 0; i < nq; i++)
        if (i / d % (size_t)a->tq < (size_t)rows && dq[i] != 0)
            fail_msg("seed %u, %d queries, %d keys: dq[%zu] is %g, expected 0", seed, a->tq, a->tk,
                     i, (double)dq[i]);
    for (size_t i = 0; i < nk && a->tk == 1; i++)
        if (dk[i] != 0) fail_msg("seed %u: dk[%zu] is %g, expected 0", seed, i, (double)dk[i]);
    for (size_t i = 0; i < nk; i++)
        if (!isfinite(dk[i]) || !isfinite(dv[i])) fail_msg("seed %u: a gradient is NaN", seed);
    cpu_stream_free(s);
    float *all[] = {q, k, v, dy, y, lse, dq, dk, dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void test_text_of_one_token(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        AttentionShape a = {between(1, 3), between(1, 150), 1, between(1, 8), between(3, 90), 0};
        check(&a, a.tq);
    }
}

static void test_first_of_a_causal_block(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        int t = between(1, 100);
        check(&(AttentionShape){between(1, 3), t, t, between(1, 8), between(3, 90), 1}, 1);
    }
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_of_one_token),
        cmocka_unit_test(test_first_of_a_causal_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
