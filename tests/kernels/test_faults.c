/* test_faults.c - without memory: ERR_SPACE, nothing half made, and the stream goes on working. The
 * sizes asked for exceed the address space, so that no setting of the kernel grants them. */
#include "exec/exec.h"
#include "kernels.h"
#include "ops/op.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void scratch_fails_and_recovers(void **state)
{
    (void)state;
    Stream *s;
    float x[3] = {1, 2, 3}, zero[3] = {0}, weight = 1, loss;
    double sum = -1;
    assert_int_equal(cpu_stream_new(&s), OK);
    assert_int_equal(cpu_sq_norm(&sum, x, 3, s), OK);
    assert_int_equal(cpu_sq_norm(&sum, x, SIZE_MAX / 8, s), ERR_SPACE);
    assert_non_null(strstr(status_message(), "no memory for"));
    assert_true(sum == 14); /* as it was */
    assert_int_equal(cpu_weighted_mse_fwd(&loss, x, x, &weight, 1 << 30, (size_t)1 << 40, s),
                     ERR_SPACE);
    assert_int_equal(cpu_weighted_mse_fwd(&loss, x, zero, &weight, 1, 3, s), OK);
    assert_true(loss == 14.0f / 3);
    cpu_stream_free(s);
    cpu_stream_free(NULL);
}

static void plan_too_large(void **state)
{
    (void)state;
    enum { N = 40 };
    Device *d;
    Exec *e;
    Tensor *big[N];
    float one = 1;
    assert_int_equal(device_open(&d, "cpu", "auto", 1, NULL), OK);
    Graph *g = graph_new();
    for (int i = 0; i < N; i++) /* 4 TiB each */
        big[i] = graph_node(g, &op_fill, 2, (int[]){1 << 20, 1 << 20}, 0, NULL, &one, sizeof one);
    graph_finish(g, big, N);
    assert_int_equal(exec_new(&e, d, g, big, N), ERR_SPACE);
    assert_string_equal(status_message(), "no memory for activations: 167772160.0 MiB needed");
    assert_null(e);
    exec_free(e);
    graph_free(g);
    device_close(d);
    device_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scratch_fails_and_recovers),
        cmocka_unit_test(plan_too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
