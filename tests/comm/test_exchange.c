/* test_exchange.c - the formula of the exchange against one that is played bucket by bucket. */
#include "base/random.h"
#include "comm/exchange.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

/* Bucket k of n is there at k / n of the pass, and goes when the one before it has gone. */
static double played(const Exchange *e)
{
    double shard = e->bytes / e->buckets / e->ranks, gone = 0;
    for (int k = 1; k <= e->buckets; k++) {
        double there = e->hide_s * k / e->buckets;
        double sent = shard * (e->ranks - 1) * (e->parts + (e->sharded ? 0 : 1));
        gone = fmax(gone, there) + sent / e->link;
    }
    double rest = e->sharded ? shard * e->buckets * (e->ranks - 1) / e->link : 0;
    return gone - e->hide_s + rest;
}

static void formula_is_what_is_played(void **state)
{
    (void)state;
    uint32_t seed = (uint32_t)time(NULL);
    print_message("seed %u\n", seed);
    for (uint32_t trial = 0; trial < 2000; trial++) {
        RandomKey key = {seed, STREAM_TEST, trial, 0};
        Exchange e = {.ranks = 1 + (int)random_below(key, 0, 16),
                      .buckets = 1 + (int)random_below(key, 1, 40),
                      .parts = 1 + (int)random_below(key, 2, 3),
                      .bytes = 1e9 * random_uniform(key, 3),
                      .link = 1e8 + 1e10 * random_uniform(key, 4),
                      .hide_s = random_uniform(key, 5),
                      .sharded = random_below(key, 6, 2)};
        double expected = played(&e), whole = exchange_s(&e), got = exchange_exposed_s(&e);
        assert_true(fabs(got - expected) <= 1e-9 * (whole + e.hide_s));
        assert_true(got <= whole * (1 + 1e-12) && got >= 0);
        if (e.ranks == 1) assert_true(whole == 0 && got == 0);
    }
}

/* 3.44 GB of gradients over 8 ranks at 400 GB/s: 2 * 7 / 8 of the bytes, 15.05 ms. */
static void numbers_by_hand(void **state)
{
    (void)state;
    Exchange e = {.ranks = 8, .buckets = 100, .parts = 1, .bytes = 3.44e9, .link = 4e11};
    assert_true(fabs(exchange_s(&e) - .01505) < 1e-6);
    assert_true(fabs(exchange_exposed_s(&e) - .01505) < 1e-6); /* nothing to hide behind */
    e.hide_s = 1;
    assert_true(fabs(exchange_exposed_s(&e) - .0001505) < 1e-8); /* the last bucket */
    e.sharded = true;
    assert_true(fabs(exchange_exposed_s(&e) - (.007525 + .00007525)) < 1e-8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formula_is_what_is_played),
        cmocka_unit_test(numbers_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
