/* test_reduce.c - sums over the micro-batches of a step on a GPU: spans of any length, whose places in
 * the blocks that wait must suit sweeps by 16 bytes; the bits of sums on the host by the tree. */
#include "base/random.h"
#include "comm/reduce.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SPANS = 4, MICRO = 7 };
static const size_t length[SPANS] = {2, 4099, 7, 1};

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

/* Micro-batch i's values of span s, on the host; heap */
static float *values(int i, int s)
{
    float *x = malloc(length[s] * sizeof *x);
    random_normals(x, length[s], (RandomKey){5, STREAM_TEST, (uint32_t)i, (uint64_t)s});
    return x;
}

/* By the tree of all micro-batches; heap */
static float *sum_on_host(int s)
{
    float *waiting[TREE_DEPTH];
    TreeStack t;
    tree_start(&t, MICRO);
    for (int i = 0; i < MICRO; i++) {
        int top = t.n, n = tree_push(&t, (TreeNode){0, i});
        waiting[top] = values(i, s);
        for (; n > 0; n--, top--) {
            for (size_t k = 0; k < length[s]; k++) waiting[top - 1][k] += waiting[top][k];
            free(waiting[top]);
        }
    }
    assert_int_equal(t.n, 1);
    return waiting[0];
}

static void spans_of_any_length(void **state)
{
    (void)state;
    Device *d;
    Reduction r;
    Span span[SPANS];
    require(device_open(&d, "cuda", "fp32", 1, NULL));
    for (int s = 0; s < SPANS; s++) {
        span[s].count = length[s];
        require(device_alloc(d, (void **)&span[s].data, length[s] * sizeof(float), "span"));
    }
    require(reduction_new(&r, d, &(ReduceSettings){.n_micro = MICRO}, "gradients", span, SPANS));
    assert_true(r.n_kept > 1);
    for (int step = 0; step < 2; step++) {
        reduction_start(&r);
        for (int i = 0; i < MICRO; i++) {
            bool last = i == MICRO - 1;
            if (last) reduction_last(&r);
            else reduction_more(&r);
            for (int s = 0; s < SPANS; s++) {
                float *x = values(i, s);
                require(device_write(d, span[s].data, x, length[s] * sizeof *x));
                free(x);
            }
            require(last ? reduction_finish(&r) : reduction_hold(&r));
        }
        for (int s = 0; s < SPANS; s++) {
            float *want = sum_on_host(s), *got = malloc(length[s] * sizeof *got);
            require(device_read(d, got, span[s].data, length[s] * sizeof *got));
            assert_memory_equal(got, want, length[s] * sizeof *got);
            free(want);
            free(got);
        }
    }
    reduction_free(&r);
    for (int s = 0; s < SPANS; s++) device_release(d, span[s].data);
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(spans_of_any_length)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
