/* test_params.c - the parameter store: registration, memory, first values, gradients, files. */
#include "exec/exec.h"
#include "models/params.h"
#include "ops/ops.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static Device *device;
static char folder[] = "/tmp/eq-params-XXXXXX";

static const char *at(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

/* A store with one of each kind, allocated and filled. */
static void make(ParamStore *s, uint32_t seed)
{
    Graph *g = graph_new();
    graph_scope_push(g, "block.%d", 3);
    param(g, s, "conv.weight", LAYOUT_OIHW, 4, (int[]){5, 3, 2, 7}, INIT_UNIFORM, 0.5f);
    param_state(g, s, "bn.running_mean", 1, (int[]){5}, INIT_ZERO, false);
    param_state(g, s, "bn.num_batches_tracked", 1, (int[]){1}, INIT_ZERO, true);
    param(g, s, "fc.weight", LAYOUT_SAME, 2, (int[]){3, 5}, INIT_NORMAL, 1);
    graph_scope_pop(g);
    param(g, s, "bias", LAYOUT_SAME, 1, (int[]){17}, INIT_ONE, 0);
    require(graph_status(g));
    graph_free(g);
    require(params_alloc(s, device, true));
    require(params_init(s, seed));
}

static void test_registration(void **state)
{
    (void)state;
    ParamStore s = {0};
    Graph *g = graph_new();
    Tensor *a = param(g, &s, "a", LAYOUT_SAME, 2, (int[]){3, 4}, INIT_ZERO, 0);
    assert_non_null(a);
    assert_ptr_equal(param(g, &s, "a", LAYOUT_SAME, 2, (int[]){3, 4}, INIT_ZERO, 0), a);
    graph_scope_push(g, "deep");
    assert_ptr_not_equal(param(g, &s, "a", LAYOUT_SAME, 1, (int[]){2}, INIT_ZERO, 0), a);
    assert_int_equal(s.n, 2);
    assert_non_null(params_find(&s, "deep.a"));
    assert_null(params_find(&s, "deep"));

    assert_null(param(g, &s, "a", LAYOUT_SAME, 1, (int[]){3}, INIT_ZERO, 0));
    assert_string_equal(g->error, "deep: parameter deep.a: found shape [3], expected [2]");
    graph_free(g);

    require(params_alloc(&s, device, false));
    g = graph_new();
    assert_non_null(param(g, &s, "a", LAYOUT_SAME, 2, (int[]){3, 4}, INIT_ZERO, 0));
    assert_null(param(g, &s, "b", LAYOUT_SAME, 1, (int[]){3}, INIT_ZERO, 0));
    assert_string_equal(g->error, "parameter b: the model was made without it");
    graph_free(g);
    params_free(&s);
}

static void test_memory(void **state)
{
    (void)state;
    ParamStore s = {0};
    make(&s, 1);
    size_t end = 0;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < s.n; i++) {
            if (s.param[i].state != (k == 1)) continue;
            assert_true(s.param[i].offset == (end + 15) / 16 * 16);
            end = s.param[i].offset + s.param[i].count;
            assert_true(s.param[i].state ? s.param[i].offset >= s.count_param
                                         : end <= s.count_param);
        }
    assert_true(s.count == (end + 15) / 16 * 16);
    params_free(&s);
    assert_null(s.value);
}

static void test_first_values(void **state)
{
    (void)state;
    enum { N = 40000 };
    ParamStore s = {0}, t = {0};
    Graph *g = graph_new(), *h = graph_new();
    param(g, &s, "normal", LAYOUT_SAME, 1, (int[]){N}, INIT_NORMAL, 3);
    param(g, &s, "cut", LAYOUT_SAME, 1, (int[]){N}, INIT_TRUNCATED, 1.5f);
    param(g, &s, "uniform", LAYOUT_SAME, 1, (int[]){N}, INIT_UNIFORM, 0.25f);
    param(h, &t, "uniform", LAYOUT_SAME, 1, (int[]){N}, INIT_UNIFORM, 0.25f);
    require(params_alloc(&s, device, false));
    require(params_alloc(&t, device, false));
    require(params_init(&s, 7));
    require(params_init(&t, 7));
    /* a value depends on seed and name, not on what else is registered */
    assert_memory_equal(s.value + s.param[2].offset, t.value, N * sizeof(float));
    require(params_init(&t, 8));
    assert_memory_not_equal(s.value + s.param[2].offset, t.value, N * sizeof(float));

    /* A normal cut at c = 2/1.5 deviations has variance 1 - 2 c phi(c) / (2 Phi(c) - 1) = 0.465 of
     * it. */
    const double variance[] = {9, 1.5 * 1.5 * 0.46505, 0.25 * 0.25 / 3};
    const double bound[] = {INFINITY, 2, 0.25};
    for (int i = 0; i < 3; i++) {
        const float *v = s.value + s.param[i].offset;
        double sum = 0, square = 0;
        for (int k = 0; k < N; k++) {
            sum += v[k];
            square += (double)v[k] * v[k];
            assert_true(fabsf(v[k]) <= bound[i]);
        }
        /* five deviations of the estimates */
        assert_true(fabs(sum / N) < 5 * sqrt(variance[i] / N));
        assert_true(fabs(square / N / variance[i] - 1) < 5 * sqrt(2.0 / N));
    }
    graph_free(g);
    graph_free(h);
    params_free(&s);
    params_free(&t);
}

/* y = a + b + c, c frozen: a and b share one gradient tensor, the input dy. */
static void test_gradients(void **state)
{
    (void)state;
    ParamStore s = {0};
    Graph *g = graph_new();
    for (int i = 0; i < 4; i++)
        param(g, &s, (char[]){(char)('a' + i), 0}, LAYOUT_SAME, 1, (int[]){5}, INIT_ONE, 0);
    graph_free(g);
    require(params_alloc(&s, device, true));
    require(params_init(&s, 1));
    params_freeze(&s, "c");

    g = graph_new();
    Tensor *p[4];
    for (int i = 0; i < 4; i++)
        p[i] = param(g, &s, (char[]){(char)('a' + i), 0}, LAYOUT_SAME, 1, (int[]){5}, INIT_ONE, 0);
    Tensor *y = add(g, add(g, p[0], p[1]), p[2]);
    Tensor *dy = graph_leaf(g, KIND_INPUT, DTYPE_F32, "dy", 1, (int[]){5});
    graph_backward(g, 1, &y, &dy);
    params_pin_grads(g);
    params_bind(g);
    graph_finish(g, &y, 1);
    Exec *e;
    require(exec_new(&e, device, g, &y, 1));
    const float value[] = {1, -2, 3, -4, 5}, zero[5] = {0};
    float sum[5];
    require(exec_write(e, dy, value));
    require(exec_run(e));
    require(exec_read(e, y, sum));
    for (int k = 0; k < 5; k++) assert_true(sum[k] == 3);
    assert_memory_equal(s.grad + s.param[0].offset, value, sizeof value);
    assert_memory_equal(s.grad + s.param[1].offset, value, sizeof value);
    assert_memory_equal(s.grad + s.param[2].offset, zero, sizeof zero);
    assert_memory_equal(s.grad + s.param[3].offset, zero, sizeof zero);
    exec_free(e);
    graph_free(g);
    params_free(&s);
}

static void test_round_trip(void **state)
{
    (void)state;
    uint32_t seed = (uint32_t)time(NULL);
    ParamStore s = {0}, t = {0};
    make(&s, seed);
    make(&t, seed + 1);
    s.value[params_find(&s, "block.3.bn.num_batches_tracked")->offset] = 41;
    require(params_save(&s, NULL, at("a.safetensors"), SAVE_F32, 1, &(SafeMeta){"width", "0.5"}));
    require(params_load(&t, at("a.safetensors"), NULL));
    assert_memory_equal(s.value, t.value, s.count * sizeof(float));

    SafeFile f = {0};
    require(st_open(&f, at("a.safetensors")));
    assert_string_equal(st_metadata(&f, "width"), "0.5");
    const SafeTensor *count = st_find(&f, "block.3.bn.num_batches_tracked"), *w;
    assert_int_equal(count->dtype, SAFE_I64);
    assert_int_equal(count->ndim, 0);
    float v[5][7][3][2];
    require(st_expect(&w, &f, "block.3.conv.weight", 4, (int64_t[]){5, 7, 3, 2}));
    require(st_read_f32(&f, w, &v[0][0][0][0]));
    const float *ours = s.value + params_find(&s, "block.3.conv.weight")->offset;
    for (int k = 0; k < 5; k++)
        for (int r = 0; r < 3; r++)
            for (int q = 0; q < 2; q++)
                for (int c = 0; c < 7; c++)
                    assert_true(v[k][c][r][q] == ours[((k * 3 + r) * 2 + q) * 7 + c]);
    st_close(&f);

    require(params_save(&s, t.value, at("b.safetensors"), SAVE_F16, 0, NULL));
    require(params_load(&t, at("b.safetensors"), NULL));
    for (size_t i = 0; i < s.count; i++)
        assert_true(fabsf(s.value[i] - t.value[i]) <= 0x1p-11f * fabsf(s.value[i]) + 0x1p-25f);
    params_free(&s);
    params_free(&t);
}

static void write_file(const char *path, int n, const SafeSpec *spec, float value)
{
    SafeWriter w = {0};
    require(st_write_begin(&w, path, n, spec, 0, NULL));
    for (int i = 0; i < n; i++) {
        size_t count = 1;
        for (int k = 0; k < spec[i].ndim; k++) count *= (size_t)spec[i].dim[k];
        float v[256];
        for (size_t k = 0; k < count; k++) v[k] = value;
        require(st_write_f32(&w, v, count));
    }
    require(st_write_commit(&w));
}

static void expect_failure(ParamStore *s, const char *path, const ParamFile *how,
                           const char *const *part, int n)
{
    float before[600];
    assert_true(s->count <= 600);
    memcpy(before, s->value, s->count * sizeof(float));
    assert_int_equal(params_load(s, path, how), ERR_INPUT);
    for (int i = 0; i < n; i++)
        if (!strstr(status_message(), part[i]))
            fail_msg("no \"%s\" in: %s", part[i], status_message());
    assert_memory_equal(before, s->value, s->count * sizeof(float));
}

static void upper_name(char file_name[PARAM_NAME], const char *name)
{
    snprintf(file_name, PARAM_NAME, "X-%s", name);
}

static void test_files(void **state)
{
    (void)state;
    ParamStore s = {0};
    make(&s, 3);
    const char *path = at("c.safetensors");
    SafeSpec all[] = {{"block.3.conv.weight", SAFE_F32, 4, {5, 7, 3, 2}},
                      {"block.3.bn.running_mean", SAFE_F32, 1, {5}},
                      {"block.3.fc.weight", SAFE_F32, 2, {3, 5}},
                      {"bias", SAFE_F32, 1, {17}},
                      {"extra", SAFE_F32, 1, {2}}};
    write_file(path, 4, all, 2);
    require(params_load(&s, path, NULL)); /* num_batches_tracked may be missing */
    assert_true(s.value[0] == 2);

    write_file(path, 5, all, 2);
    expect_failure(&s, path, NULL, (const char *[]){path, "unexpected", "extra"}, 3);
    require(params_load(&s, path, &(ParamFile){.skip = "nothing,ext"}));

    write_file(path, 3, all, 4);
    expect_failure(&s, path, NULL, (const char *[]){path, "missing", "bias", "17"}, 4);
    require(params_load(&s, path, &(ParamFile){.optional = "bias"}));
    assert_true(s.value[params_find(&s, "bias")->offset] == 2 && s.value[0] == 4);

    /* another head: left alone on both sides */
    all[2].dim[0] = 1000 / 100;
    write_file(path, 4, all, 5);
    expect_failure(&s, path, NULL, (const char *[]){path, "block.3.fc.weight", "[10, 5]", "[3, 5]"},
                   4);
    require(params_load(&s, path, &(ParamFile){.skip = "block.3.fc."}));
    assert_true(s.value[params_find(&s, "block.3.fc.weight")->offset] == 4 && s.value[0] == 5);
    all[2].dim[0] = 3;

    all[0].dim[1] = 3, all[0].dim[2] = 2,
    all[0].dim[3] = 7; /* our layout is not the published one */
    write_file(path, 4, all, 5);
    expect_failure(&s, path, NULL,
                   (const char *[]){"block.3.conv.weight", "[5, 3, 2, 7]", "[5, 7, 3, 2]"}, 3);
    all[0].dim[1] = 7, all[0].dim[2] = 3, all[0].dim[3] = 2;

    write_file(path, 4, all, NAN);
    expect_failure(&s, path, NULL, (const char *[]){path, "finite"}, 2);

    SafeSpec named[] = {{"m.X-block.3.conv.weight", SAFE_F32, 4, {5, 7, 3, 2}},
                        {"m.X-block.3.bn.running_mean", SAFE_F32, 1, {5}},
                        {"m.X-block.3.fc.weight", SAFE_F32, 2, {3, 5}},
                        {"m.X-bias", SAFE_F32, 1, {17}},
                        {"other.bias", SAFE_F32, 1, {2}}};
    write_file(path, 5, named, 6);
    require(params_load(&s, path, &(ParamFile){.prefix = "m.", .rename = upper_name}));
    assert_true(s.value[0] == 6);
    expect_failure(&s, at("absent.safetensors"), NULL, (const char *[]){"absent.safetensors"}, 1);
    params_free(&s);
}

/* Attention of an old autoencoder: other names, and linear layers as 1 x 1 convolutions; a
 * projection that was a convolution and now is none, and the other way round. */
static void old_attention_loads(void **state)
{
    (void)state;
    ParamStore s = {0};
    Graph *g = graph_new();
    graph_scope_push(g, "mid.attentions.0");
    param(g, &s, "to_q.weight", LAYOUT_SAME, 2, (int[]){3, 5}, INIT_ZERO, 0);
    param(g, &s, "to_out.0.weight", LAYOUT_SAME, 2, (int[]){5, 3}, INIT_ZERO, 0);
    param(g, &s, "to_out.0.bias", LAYOUT_SAME, 1, (int[]){5}, INIT_ZERO, 0);
    param(g, &s, "proj_in.weight", LAYOUT_OIHW, 4, (int[]){3, 1, 1, 5}, INIT_ZERO, 0);
    graph_scope_pop(g);
    require(graph_status(g));
    graph_free(g);
    require(params_alloc(&s, device, false));
    const char *path = at("old.safetensors");
    SafeSpec old[] = {{"mid.attentions.0.query.weight", SAFE_F32, 4, {3, 5, 1, 1}},
                      {"mid.attentions.0.proj_attn.weight", SAFE_F32, 2, {5, 3}},
                      {"mid.attentions.0.proj_attn.bias", SAFE_F32, 1, {5}},
                      {"mid.attentions.0.proj_in.weight", SAFE_F32, 2, {3, 5}}};
    SafeWriter w = {0};
    require(st_write_begin(&w, path, 4, old, 0, NULL));
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < (i == 2 ? 5 : 15); k++)
            require(st_write_f32(&w, &(float){(float)(100 * i + k)}, 1));
    require(st_write_commit(&w));
    require(params_load(&s, path, NULL));
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < (i == 2 ? 5 : 15); k++)
            assert_true(s.value[s.param[i].offset + (size_t)k] == (float)(100 * i + k));

    old[0].dim[2] = 2, old[0].dim[1] = 5; /* no 1 x 1 convolution */
    write_file(path, 4, old, 1);
    expect_failure(&s, path, NULL,
                   (const char *[]){"1 of another shape", "query.weight [3, 5, 2, 1] not [3, 5]"},
                   2);
    old[0].dim[2] = 1, old[0].dim[0] = 5, old[0].dim[1] = 3; /* transposed */
    write_file(path, 4, old, 1);
    expect_failure(&s, path, NULL, (const char *[]){"query.weight [5, 3, 1, 1] not [3, 5]"}, 1);
    old[0].dim[0] = 3, old[0].dim[1] = 5;
    SafeSpec both[] = {
        old[0], old[1], old[2], old[3], {"mid.attentions.0.to_q.weight", SAFE_F32, 2, {3, 5}}};
    write_file(path, 5, both, 1);
    expect_failure(&s, path, NULL, (const char *[]){"1 unexpected: mid.attentions.0.query.w"}, 1);
    params_free(&s);
}

static int open_all(void **state)
{
    (void)state;
    return !mkdtemp(folder) || device_open(&device, "cpu", "auto", 0, NULL);
}

static int close_all(void **state)
{
    (void)state;
    device_close(device);
    return dir_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registration),   cmocka_unit_test(test_memory),
        cmocka_unit_test(test_first_values),   cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_files),
        cmocka_unit_test(old_attention_loads),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
