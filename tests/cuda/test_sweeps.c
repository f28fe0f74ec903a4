/* test_sweeps.c - the sweeps of an update on a GPU against those on the CPU: AdamW with average and
 * bf16 copy, SGD, norm, clipping, a gradient that is no number, odd sizes and several ranges. */
#include "base/random.h"
#include "exec/sweep.h"
#include "weights/half.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { STEPS = 4, BLOCKS = 5 }; /* value, grad, m, v, ema */
static const size_t sizes[] = {1, 7, 33, 1027, 9001, 40003};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

typedef struct {
    Device *device;
    Update update;
    float *block[BLOCKS], *host; /* device memory; host memory of as many */
    void *half;
    size_t n;
    double norm;
} Side;

static void require(Status s)
{
    if (s) fprintf(stderr, "%s\n", status_message());
    assert_int_equal(s, OK);
}

static void side_open(Side *s, const char *which, size_t n)
{
    *s = (Side){.n = n, .host = calloc(n, sizeof(float))};
    require(device_open(&s->device, which, "auto", 2, NULL));
    require(update_new(&s->update, s->device));
    for (int k = 0; k < BLOCKS; k++)
        require(device_alloc(s->device, (void **)&s->block[k], n * sizeof(float), "block"));
    if (device_is_gpu(s->device)) require(device_alloc(s->device, &s->half, 2 * n, "half"));
}

static void side_close(Side *s)
{
    for (int k = 0; k < BLOCKS; k++) device_release(s->device, s->block[k]);
    device_release(s->device, s->half);
    update_free(&s->update, s->device);
    device_close(s->device);
    free(s->host);
}

static void fill(Side *s, int k, uint32_t seed, uint32_t step)
{
    random_normals(s->host, s->n, (RandomKey){seed, STREAM_TEST, step, (uint64_t)k});
    require(device_write(s->device, s->block[k], s->host, s->n * sizeof(float)));
}

/* Two ranges, so that the norm is a sum of two; the limit is below the norm in some steps. */
static void step(Side *s, bool adamw, int64_t number, double clip)
{
    Update *u = &s->update;
    size_t cut = s->n / 32 * 16, from[] = {0, cut}, count[] = {cut, s->n - cut};
    u->adamw = (Adamw){.rate = .01 * (double)number,
                       .beta1 = .9,
                       .beta2 = .999,
                       .eps = 1e-8,
                       .weight_decay = .1,
                       .ema_decay = .9,
                       .step = number};
    u->sgd = (Sgd){.rate = .01, .momentum = .9, .weight_decay = .05};
    u->share = .5;
    u->clip = clip;
    require(sweep_begin(s->device, u));
    bool add = false;
    for (int r = 0; r < 2; r++) {
        if (!count[r]) continue;
        require(sweep_sq_norm(s->device, u, add, s->block[1] + from[r], count[r]));
        add = true;
    }
    require(sweep_norm(s->device, u));
    for (int r = 0; r < 2; r++) {
        float *p[BLOCKS];
        for (int k = 0; k < BLOCKS; k++) p[k] = s->block[k] + from[r];
        void *half = s->half ? (char *)s->half + 2 * from[r] : NULL;
        if (!count[r]) continue;
        if (adamw)
            require(sweep_adamw(s->device, u, p[0], p[1], p[2], p[3], p[4], half, count[r]));
        else require(sweep_sgd(s->device, u, p[0], p[1], p[2], p[4], half, count[r]));
    }
    require(sweep_read_norm(s->device, u, &s->norm));
}

static float *read_block(Side *s, int k)
{
    float *v = malloc(s->n * sizeof *v);
    require(device_read(s->device, v, s->block[k], s->n * sizeof *v));
    return v;
}

/* Rounding of a step is a few of the value's and of the update's, which is at most of size one;
 * a GPU contracts other products and divides in one rounding: steps times twice eight of them. */
static void compare(Side *cpu, Side *gpu, bool adamw)
{
    for (int k = 0; k < BLOCKS; k++) {
        if (k == 3 && !adamw) continue;
        float *want = read_block(cpu, k), *got = read_block(gpu, k), top = 1;
        for (size_t i = 0; i < cpu->n; i++) top = fmaxf(top, fabsf(want[i]));
        for (size_t i = 0; i < cpu->n; i++)
            if (!(fabsf(got[i] - want[i]) <= 16 * 0x1p-24f * STEPS * top))
                fail_msg("block %d[%zu] of %zu: %.9g, CPU %.9g", k, i, cpu->n, got[i], want[i]);
        free(want);
        free(got);
    }
    if (!(fabs(gpu->norm - cpu->norm) <= 1e-14 * (double)cpu->n * cpu->norm))
        fail_msg("norm of %zu: %.17g, CPU %.17g", cpu->n, gpu->norm, cpu->norm);
}

static void half_follows(Side *gpu)
{
    uint16_t *half = malloc(2 * gpu->n), *want = malloc(2 * gpu->n);
    float *value = read_block(gpu, 0);
    float_to_bf16(want, value, gpu->n);
    require(device_read(gpu->device, half, gpu->half, 2 * gpu->n));
    assert_memory_equal(half, want, 2 * gpu->n);
    free(half);
    free(want);
    free(value);
}

static void updates_agree(void **state)
{
    (void)state;
    uint32_t seed = (uint32_t)time(NULL);
    printf("seed %u\n", seed);
    for (int i = 0; i < N_SIZES; i++)
        for (int adamw = 0; adamw < 2; adamw++) {
            Side side[2];
            for (int k = 0; k < 2; k++) {
                Side *s = &side[k];
                side_open(s, k ? "cuda" : "cpu", sizes[i]);
                fill(s, 0, seed, 0);
                fill(s, 4, seed, 0);
                for (int64_t t = 1; t <= STEPS; t++) {
                    fill(s, 1, seed, (uint32_t)t);
                    step(s, adamw, t, t % 2 ? .25 * sqrt((double)s->n) : 0);
                }
            }
            compare(&side[0], &side[1], adamw);
            half_follows(&side[1]);
            for (int k = 0; k < 2; k++) side_close(&side[k]);
        }
}

/* No number in the gradient: the norm says so; nothing changes but what sweep_restore() is for. */
static void bad_gradient_changes_nothing(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++)
        for (int adamw = 0; adamw < 2; adamw++) {
            Side s;
            side_open(&s, "cuda", 1027);
            for (int k = 0; k < BLOCKS; k++) fill(&s, k, 3, 0);
            fill(&s, 3, 4, 0);
            float *before = read_block(&s, 0), *other = read_block(&s, 4);
            require(device_write(s.device, s.block[1] + 1026, &bad[i], sizeof bad[i]));
            step(&s, adamw, 1, 1);
            assert_false(isfinite(s.norm));
            float *after = read_block(&s, 0), *average = read_block(&s, 4);
            assert_memory_equal(before, after, s.n * sizeof *before);
            assert_memory_equal(other, average, s.n * sizeof *before);
            require(sweep_restore(s.device, &s.update, s.block[2], s.block[0], s.n));
            float *restored = read_block(&s, 2);
            assert_memory_equal(before, restored, s.n * sizeof *before);
            fill(&s, 1, 5, 0);
            fill(&s, 2, 6, 0);
            step(&s, adamw, 1, 1);
            require(sweep_restore(s.device, &s.update, s.block[0], s.block[4], s.n));
            float *moved = read_block(&s, 0); /* not put back: its norm is finite */
            assert_memory_not_equal(moved, before, s.n * sizeof *before);
            free(before), free(other), free(after), free(average), free(restored), free(moved);
            side_close(&s);
        }
}

static void add_and_copies(void **state)
{
    (void)state;
    Side s;
    side_open(&s, "cuda", 1003);
    fill(&s, 0, 7, 0);
    fill(&s, 1, 8, 0);
    float *a = read_block(&s, 0), *b = read_block(&s, 1);
    require(sweep_add(s.device, s.block[0], s.block[1], s.n));
    float *sum = read_block(&s, 0);
    for (size_t i = 0; i < s.n; i++) assert_true(sum[i] == a[i] + b[i]);
    require(device_copy(s.device, s.block[2], s.block[1], s.n * sizeof(float)));
    float *copy = read_block(&s, 2);
    assert_memory_equal(copy, b, s.n * sizeof(float));
    require(sweep_halve(s.device, s.half, s.block[0], s.n));
    half_follows(&s);
    free(a), free(b), free(sum), free(copy);
    side_close(&s);
}

/* Shards of whole parts in the hands of three, among zeros: the same norm to the bit, on either
 * device; a part that is left out is missed. */
static void norm_of_shards(const char *which)
{
    enum { N = 5 * SQUARES + 77, PARTS = 6, HANDS = 3, EACH = 2 };
    Side s;
    double *part, whole, shared, less;
    void *room;
    side_open(&s, which, N);
    fill(&s, 1, 9, 0);
    s.update.share = 1;
    require(sweep_begin(s.device, &s.update));
    require(sweep_sq_norm(s.device, &s.update, false, s.block[1], N));
    require(sweep_norm(s.device, &s.update));
    require(sweep_read_norm(s.device, &s.update, &whole));
    require(device_alloc(s.device, &room, HANDS * PARTS * sizeof *part, "parts"));
    part = room;
    for (size_t h = 0; h < HANDS; h++) {
        size_t first = h * EACH * SQUARES, left = N - first;
        require(sweep_squares(s.device, part + h * PARTS + h * EACH, s.block[1] + first,
                              left < EACH * SQUARES ? left : EACH * SQUARES));
    }
    require(sweep_sum_squares(s.device, &s.update, false, part, PARTS, HANDS, PARTS));
    require(sweep_norm(s.device, &s.update));
    require(sweep_read_norm(s.device, &s.update, &shared));
    assert_true(whole == shared && whole > sqrt(N) * .9);
    require(sweep_sum_squares(s.device, &s.update, false, part, PARTS - 1, HANDS, PARTS));
    require(sweep_norm(s.device, &s.update));
    require(sweep_read_norm(s.device, &s.update, &less));
    assert_true(less < shared);
    device_release(s.device, room);
    side_close(&s);
}

static void shards_have_the_norm_of_the_whole(void **state)
{
    (void)state;
    norm_of_shards("cpu");
    norm_of_shards("cuda");
}

static void scaled(void **state)
{
    (void)state;
    Side s;
    side_open(&s, "cuda", 1003);
    fill(&s, 0, 7, 0);
    float *a = read_block(&s, 0);
    require(sweep_scale(s.device, s.block[0], 1. / 3, s.n));
    float *b = read_block(&s, 0);
    for (size_t i = 0; i < s.n; i++) assert_true(b[i] == a[i] * (float)(1. / 3));
    free(a), free(b);
    side_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(updates_agree),
                                       cmocka_unit_test(bad_gradient_changes_nothing),
                                       cmocka_unit_test(shards_have_the_norm_of_the_whole),
                                       cmocka_unit_test(scaled),
                                       cmocka_unit_test(add_and_copies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
