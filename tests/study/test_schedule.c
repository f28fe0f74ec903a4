/* test_schedule.c - plans of stages over ranks: for random studies and numbers of ranks every stage
 * has its place behind what it needs, no rank has two stages at once, and the plan is not longer
 * than what bounds it from above. */
#include "base/random.h"
#include "study/schedule.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The shape of a study: prepare, two baselines, two diffusion models, ... */
enum { PREPARE, BASELINE_A, BASELINE_B, LDM_A, LDM_B, SYNTH_A, SYNTH_B, AUG_A, AUG_B, EVALUATE, N };

static void make_study(Job job[N], double baseline, double ldm, double synth, double aug, int micro)
{
    enum { BOTH_AUG = 1 << AUG_A | 1 << AUG_B };
    const Job all[N] = {{0, 0, 0, 1},
                        {baseline, 1, 1, micro},
                        {baseline, 1, 1, micro},
                        {ldm, 1, 2, micro},
                        {ldm, 1, 2, micro},
                        {synth, 1 << LDM_A, 3, 0},
                        {synth, 1 << LDM_B, 3, 0},
                        {aug, 1 << SYNTH_A, 4, micro},
                        {aug, 1 << SYNTH_B, 4, micro},
                        {0, BOTH_AUG | 1 << BASELINE_A | 1 << BASELINE_B, 5, 0}};
    memcpy(job, all, sizeof all);
}

static void check_plan(const Slot *slot, const Job *job, int n, int ranks, double end)
{
    double last = 0;
    for (int i = 0; i < n; i++) {
        const Slot *s = &slot[i];
        assert_true(s->n >= 1 && s->first >= 0 && s->first + s->n <= ranks && s->first % s->n == 0);
        assert_true(!job[i].micro || job[i].micro % s->n == 0);
        double took = job[i].work / s->n * (1 + log2(s->n) / 20);
        assert_true(fabs(s->end - s->start - took) <= 1e-12 * (1 + end));
        if (s->end > last) last = s->end;
        for (int k = 0; k < n; k++) {
            const Slot *o = &slot[k];
            if (k == i) continue;
            assert_int_not_equal(o->place, s->place);
            if (job[i].kind == job[k].kind) assert_int_equal(o->n, s->n);
            if (job[i].needs >> k & 1) assert_true(o->place < s->place && o->end <= s->start);
            bool shared = o->first < s->first + s->n && s->first < o->first + o->n;
            if (shared && o->place < s->place) assert_true(o->end <= s->start);
        }
    }
    assert_true(fabs(last - end) <= 1e-12 * (1 + end));
}

static void on_one_rank_the_order_is_the_given_one(void **state)
{
    (void)state;
    Job job[N];
    Slot slot[N];
    make_study(job, 3, 7, 2, 4, 4);
    double end = schedule_make(slot, job, N, 1);
    check_plan(slot, job, N, 1, end);
    for (int i = 0; i < N; i++) assert_int_equal(slot[i].place, i);
    assert_true(fabs(end - 32) < 1e-12);
}

/* What must come out, by hand. */
static void plans_are_as_good_as_can_be(void **state)
{
    (void)state;
    Job job[N];
    Slot slot[N];
    /* two ranks, one for each disease: no better way, all are busy all the time */
    make_study(job, 3, 7, 2, 4, 4);
    assert_true(fabs(schedule_make(slot, job, N, 2) - 16) < 1e-9);
    assert_int_not_equal(slot[LDM_A].first, slot[LDM_B].first);
    /* four ranks: the baselines beside the diffusion models; nothing shorter than ldm, synth, aug
     * on one rank each, unless these get two */
    make_study(job, 10, 6, 2, 2, 1);
    assert_true(schedule_make(slot, job, N, 4) <= 10 + 1e-9);
    assert_int_equal(slot[BASELINE_A].n, 1);
    /* training that does not divide: more ranks change nothing but for the synthesis */
    make_study(job, 1, 8, 4, 1, 1);
    double four = schedule_make(slot, job, N, 4), eight = schedule_make(slot, job, N, 8);
    assert_int_equal(slot[LDM_A].n, 1);
    assert_true(slot[SYNTH_A].n > 1);
    assert_true(eight < four);
    /* one long kind: it gets all that it can use */
    make_study(job, 0, 100, 0, 0, 8);
    schedule_make(slot, job, N, 16);
    assert_int_equal(slot[LDM_A].n, 8);
    assert_int_equal(slot[LDM_B].n, 8);
    assert_int_not_equal(slot[LDM_A].first, slot[LDM_B].first);
}

static void random_plans_hold_the_rules(void **state)
{
    (void)state;
    const char *given = getenv("EQ_TEST_SEED");
    uint32_t seed = given ? (uint32_t)atoi(given) : (uint32_t)getpid();
    print_message("seed %u\n", seed);
    for (uint32_t trial = 0; trial < 400; trial++) {
        RandomKey key = {seed, STREAM_TEST, trial, 0};
        uint32_t at = 0;
        int n = 1 + (int)random_below(key, at++, MOST_STAGES), micro[MOST_STAGES];
        int ranks = 1 + (int)random_below(key, at++, trial % 4 ? 9 : 70);
        Job job[MOST_STAGES];
        Slot slot[MOST_STAGES], again[MOST_STAGES];
        double sum = 0;
        for (int k = 0; k < MOST_STAGES; k++) micro[k] = (int)random_below(key, at++, 13);
        for (int i = 0; i < n; i++) {
            int kind = (int)random_below(key, at++, 6);
            unsigned needs = random_below(key, at++, 1u << i);
            needs &= random_below(key, at++, 1u << i);
            double work = random_below(key, at++, 4) ? random_uniform(key, at++) : 0;
            job[i] = (Job){work, needs, kind, micro[kind]};
            sum += work;
        }
        double end = schedule_make(slot, job, n, ranks);
        check_plan(slot, job, n, ranks, end);
        assert_true(end <= sum * (1 + 1e-9) && end >= sum / ranks * (1 - 1e-9));
        for (int i = 0; ranks == 1 && i < n; i++) assert_int_equal(slot[i].place, i);
        assert_true(schedule_make(again, job, n, ranks) == end);
        for (int i = 0; i < n; i++)
            assert_true(again[i].first == slot[i].first && again[i].n == slot[i].n &&
                        again[i].place == slot[i].place);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_one_rank_the_order_is_the_given_one),
        cmocka_unit_test(plans_are_as_good_as_can_be),
        cmocka_unit_test(random_plans_hold_the_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
