/* test_loader.c - batches in a fixed order from any number of threads; augmentation. */
#include "data/image.h"
#include "data/loader.h"
#include "ref/make_image.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N = 37, SIZE = 24, PIXELS = SIZE * SIZE };
static char path[N + 1][64];
static LoaderItem item[N + 1];
static float grey[PIXELS];

/* Prepared films, and among them one of another size, one in colour and one in memory. */
static int make_films(void **state)
{
    (void)state;
    char folder[48];
    snprintf(folder, sizeof folder, "/tmp/test_loader-%ld", (long)getpid());
    for (int i = 0; i < PIXELS; i++) grey[i] = (float)i / PIXELS;
    for (uint32_t i = 0; i < N; i++) {
        snprintf(path[i], sizeof path[i], "%s/%u.%s", folder, i, i == 9 ? "jpg" : "png");
        write_film(path[i], i == 7 ? 40 : SIZE, i == 7 ? 31 : SIZE, i);
        item[i] = (LoaderItem){path[i], i == 11 ? grey : NULL, (int)(i % 3), 1000 + i};
    }
    snprintf(path[N], sizeof path[N], "%s/missing.png", folder);
    item[N] = (LoaderItem){path[N], NULL, 0, 1};
    return 0;
}

static int remove_films(void **state)
{
    (void)state;
    path[0][strlen(path[0]) - strlen("/0.png")] = 0;
    return dir_remove(path[0]);
}

static LoaderSettings settings(int n_threads)
{
    return (LoaderSettings){.size = SIZE,
                            .batch = 5,
                            .n_threads = n_threads,
                            .shuffle = true,
                            .seed = 4,
                            .augment = {7, .05, .1, .1, .1, true},
                            .cache_bytes = 1 << 20,
                            .n_epochs = 3};
}

/* Everything that a loader says from where it starts: pixels, labels and items of all batches. */
static size_t listen(float **all, const LoaderSettings *s)
{
    Loader *l;
    Batch b;
    size_t n = 0, per = (size_t)s->batch * (PIXELS + 2);
    assert_int_equal(loader_open(&l, item, N, s), OK);
    *all = malloc(per * sizeof **all * 3 * (size_t)((N + s->batch - 1) / s->batch));
    for (;; n++) {
        if (loader_next(l, &b)) fail_msg("%s", status_message());
        if (!b.n) break;
        float *to = *all + n * per;
        memcpy(to, b.pixel, (size_t)s->batch * PIXELS * sizeof *to);
        for (int i = 0; i < s->batch; i++) {
            to[s->batch * PIXELS + 2 * i] = (float)b.label[i];
            to[s->batch * PIXELS + 2 * i + 1] = (float)b.item[i];
        }
    }
    loader_close(l);
    return n * per;
}

static void threads_and_cache_change_nothing(void **state)
{
    (void)state;
    static const struct {
        int threads;
        size_t cache;
    } way[] = {{2, 1 << 20}, {7, 1 << 20}, {2, 0}, {7, 9 * PIXELS}};
    float *want, *got;
    LoaderSettings s = settings(1);
    size_t n = listen(&want, &s);
    assert_int_equal(n, (size_t)3 * 8 * 5 * (PIXELS + 2));
    for (int i = 0; i < 4; i++) {
        s.n_threads = way[i].threads;
        s.cache_bytes = way[i].cache;
        assert_int_equal(listen(&got, &s), n);
        assert_memory_equal(got, want, n * sizeof *got);
        free(got);
    }
    s.seed++;
    assert_int_equal(listen(&got, &s), n);
    assert_true(memcmp(got, want, n * sizeof *got));
    free(got);
    free(want);
}

static void starts_anywhere(void **state)
{
    (void)state;
    float *want, *got;
    LoaderSettings s = settings(2);
    size_t n = listen(&want, &s), per = (size_t)5 * (PIXELS + 2);
    for (int start = 0; start < 24; start++) {
        s.first_epoch = (uint32_t)start / 8;
        s.first_batch = start % 8;
        assert_int_equal(listen(&got, &s), n - (size_t)start * per);
        assert_memory_equal(got, want + (size_t)start * per,
                            (n - (size_t)start * per) * sizeof *got);
        free(got);
    }
    free(want);
}

static void each_film_once_per_epoch(void **state)
{
    (void)state;
    LoaderSettings s = settings(3);
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        Loader *l;
        Batch b;
        int order[3][N], n[3] = {0};
        s.shuffle = shuffle;
        assert_int_equal(loader_open(&l, item, N, &s), OK);
        while (!loader_next(l, &b) && b.n)
            for (int i = 0; i < 5; i++) {
                assert_int_equal(b.n, b.index == 7 ? 2 : 5);
                if (i >= b.n) {
                    assert_true(b.label[i] == -1 && b.item[i] == -1 &&
                                b.pixel[(size_t)i * PIXELS + 3] == 0);
                    continue;
                }
                assert_int_equal(b.label[i], b.item[i] % 3);
                order[b.epoch][n[b.epoch]++] = b.item[i];
            }
        for (int e = 0; e < 3; e++) {
            bool seen[N] = {0};
            int same = 0;
            assert_int_equal(n[e], N);
            for (int i = 0; i < N; i++) {
                assert_false(seen[order[e][i]]);
                seen[order[e][i]] = true;
                same += order[e][i] == i;
                if (!shuffle) assert_int_equal(order[e][i], i);
            }
            if (shuffle) assert_true(same < N / 3);
        }
        if (shuffle) assert_memory_not_equal(order[0], order[1], sizeof order[0]);
        loader_close(l);
    }
}

static void plain_films_are_what_image_read_says(void **state)
{
    (void)state;
    LoaderSettings s = {
        .size = SIZE, .batch = N, .n_threads = 2, .cache_bytes = 1 << 20, .n_epochs = 2};
    Loader *l;
    Batch b;
    assert_int_equal(loader_open(&l, item, N, &s), OK);
    for (int epoch = 0; epoch < 2; epoch++) {
        assert_int_equal(loader_next(l, &b), OK);
        for (int i = 0; i < N; i++) {
            Image im = {0}, fit = {0};
            assert_int_equal(image_read(&im, path[i]), OK);
            assert_int_equal(image_fit(&fit, &im, SIZE), OK);
            const float *want = i == 11 ? grey : i == 7 ? fit.pixel : im.pixel;
            assert_memory_equal(b.pixel + (size_t)i * PIXELS, want, PIXELS * sizeof(float));
            image_free(&im);
            image_free(&fit);
        }
    }
    loader_close(l);
}

static void failure_reaches_the_caller(void **state)
{
    (void)state;
    LoaderSettings s = settings(3);
    s.shuffle = false;
    Loader *l;
    Batch b;
    assert_int_equal(loader_open(&l, item, N + 1, &s), OK);
    for (int epoch = 0; epoch < 2; epoch++)
        for (int i = 0; i < 8; i++) {
            Status got = loader_next(l, &b);
            assert_int_equal(got, i < 7 ? OK : ERR_INPUT);
            if (got) assert_non_null(strstr(status_message(), "missing.png: cannot open it"));
        }
    loader_close(l);
}

static void closes_at_any_time(void **state)
{
    (void)state;
    for (int k = 0; k < 60; k++) {
        LoaderSettings s = settings(1 + k % 5);
        Loader *l;
        Batch b;
        s.n_epochs = 0;
        assert_int_equal(loader_open(&l, item, N, &s), OK);
        for (int i = 0; i < k % 13; i++) assert_int_equal(loader_next(l, &b), OK);
        loader_close(l);
    }
    loader_close(NULL);
}

/* ---- augmentation --------------------------------------------------------------------- */

static RandomKey key(uint32_t epoch, uint64_t id)
{
    return (RandomKey){1, STREAM_AUGMENT, epoch, id};
}

static void nothing_asked_nothing_changed(void **state)
{
    (void)state;
    Augment none = {0}, all = {7, .05, .1, .1, .1, true};
    float in[PIXELS], a[PIXELS], b[PIXELS];
    for (uint32_t i = 0; i < PIXELS; i++) in[i] = (float)random_uniform(key(9, 9), i);
    augment_apply(a, in, SIZE, &none, key(0, 3));
    assert_memory_equal(a, in, sizeof in);
    augment_apply(a, in, SIZE, &all, key(2, 3));
    augment_apply(b, in, SIZE, &all, key(2, 3));
    assert_memory_equal(a, b, sizeof a);
    augment_apply(b, in, SIZE, &all, key(3, 3));
    assert_memory_not_equal(a, b, sizeof a);
    augment_apply(b, in, SIZE, &all, key(2, 4));
    assert_memory_not_equal(a, b, sizeof a);
    for (int i = 0; i < PIXELS; i++) assert_true(b[i] >= 0 && b[i] <= 1);
}

/* Where the middle of a bright spot goes, from the definition of each change. */
static void spot(double at[2], const Augment *a, RandomKey k, double y0, double x0)
{
    enum { S = 65 };
    float in[S * S], out[S * S];
    double sum = 0;
    for (int i = 0; i < S * S; i++)
        in[i] = (float)exp(-(pow(i / S - y0, 2) + pow(i % S - x0, 2)) / 8);
    augment_apply(out, in, S, a, k);
    at[0] = at[1] = 0;
    for (int i = 0; i < S * S; i++) {
        sum += (double)out[i];
        at[0] += (double)out[i] * (i / S);
        at[1] += (double)out[i] * (i % S);
    }
    at[0] /= sum;
    at[1] /= sum;
}

static void changes_stay_within_what_was_asked(void **state)
{
    (void)state;
    double at[2], most = 0;
    int mirrored = 0;
    for (uint64_t id = 0; id < 200; id++) {
        spot(at, &(Augment){.rotate_degrees = 30}, key(0, id), 32, 44);
        double angle = atan2(at[0] - 32, at[1] - 32) * 180 / 3.14159265358979;
        assert_true(fabs(hypot(at[0] - 32, at[1] - 32) - 12) < 0.1); /* the centre stays */
        assert_true(fabs(angle) < 30.5);
        most = fmax(most, fabs(angle));
        spot(at, &(Augment){.shift = 0.1}, key(0, id), 32, 32);
        assert_true(fabs(at[0] - 32) <= 6.6 && fabs(at[1] - 32) <= 6.6);
        spot(at, &(Augment){.scale = 0.2}, key(0, id), 32, 42);
        assert_true(fabs(at[0] - 32) < 0.1 && at[1] > 32 + 7.9 && at[1] < 32 + 12.1);
        spot(at, &(Augment){.flip = true}, key(0, id), 32, 42);
        assert_true(fabs(fabs(at[1] - 32) - 10) < 0.1);
        mirrored += at[1] < 32;
    }
    assert_true(most > 25);
    assert_true(mirrored > 65 && mirrored < 135); /* five standard errors */
    float in[PIXELS], out[PIXELS];
    for (int i = 0; i < PIXELS; i++) in[i] = 0.5f;
    augment_apply(out, in, SIZE, &(Augment){.contrast = 0.5}, key(0, 1));
    for (int i = 0; i < PIXELS; i++) assert_true(fabsf(out[i] - 0.5f) < 1e-6f);
    augment_apply(out, in, SIZE, &(Augment){.brightness = 0.25}, key(0, 1));
    for (int i = 0; i < PIXELS; i++) assert_true(fabsf(out[i] - 0.5f) <= 0.25f && out[i] == out[0]);
    assert_true(fabsf(out[0] - 0.5f) > 0.01f);
}

/* Batches that loaders share: each gives its own, from wherever it starts, and all together what one
 * loader gives. Groups of one batch each, of several, and with an incomplete last group. */
static void shares_make_the_whole(void **state)
{
    (void)state;
    static const struct {
        int group, each, batch;
    } row[] = {{2, 1, 5}, {3, 1, 5}, {4, 2, 3}, {6, 3, 4}, {9, 3, 5}, {64, 32, 5}};
    for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
        int n_batch = (N + row[k].batch - 1) / row[k].batch, seen = 0;
        size_t per = (size_t)row[k].batch * PIXELS;
        LoaderSettings s = settings(2);
        s.batch = row[k].batch;
        float *all;
        size_t stride = listen(&all, &s) / (size_t)(3 * n_batch);
        for (int from = 0; from < row[k].group; from += row[k].each) {
            s.group = row[k].group;
            s.from = from;
            s.each = row[k].each;
            s.first_epoch = 1;
            s.first_batch = n_batch > from ? 1 : 0;
            Loader *l;
            Batch b;
            assert_int_equal(loader_open(&l, item, N, &s), OK);
            for (;;) {
                if (loader_next(l, &b)) fail_msg("%s", status_message());
                if (!b.n) break;
                int turn = b.index % row[k].group;
                assert_true(turn >= from && turn < from + row[k].each && b.epoch >= 1);
                size_t at = (size_t)b.epoch * (size_t)n_batch + (size_t)b.index;
                assert_memory_equal(b.pixel, all + at * stride, per * sizeof *all);
                seen++;
            }
            loader_close(l);
            seen += s.first_batch; /* what was left out at the start */
        }
        assert_int_equal(seen, 2 * n_batch);
        free(all);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_and_cache_change_nothing),
        cmocka_unit_test(shares_make_the_whole),
        cmocka_unit_test(starts_anywhere),
        cmocka_unit_test(each_film_once_per_epoch),
        cmocka_unit_test(plain_films_are_what_image_read_says),
        cmocka_unit_test(failure_reaches_the_caller),
        cmocka_unit_test(closes_at_any_time),
        cmocka_unit_test(nothing_asked_nothing_changed),
        cmocka_unit_test(changes_stay_within_what_was_asked),
    };
    return cmocka_run_group_tests(tests, make_films, remove_films);
}
