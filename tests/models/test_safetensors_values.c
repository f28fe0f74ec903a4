/* test_safetensors_values.c - values wherever they lie, whatever they are, and while their file is
 * written anew. */
#include "base/random.h"
#include "weights/safetensors.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h> /* needs those above */

static char folder[] = "/tmp/test_values-XXXXXX";
static RandomKey key; /* fresh each run; printed */

static const char *scratch(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static size_t build(unsigned char *file, const char *header, size_t length, size_t data)
{
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < data; i++) file[8 + length + i] = (unsigned char)(i * 37);
    return 8 + length + data;
}

static Status open_bytes(SafeFile *f, const void *bytes, size_t n)
{
    assert_int_equal(file_write(scratch("b.safetensors"), bytes, n), OK);
    return st_open(f, scratch("b.safetensors"));
}

/* A header of odd length, and an odd tensor before the wide ones: no value lies where its type
 * would want it. */
static void unaligned_data_read(void **state)
{
    (void)state;
    static const char header[] =
        "{\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
        "\"d\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[1,17]},"
        "\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[17,25]},"
        "\"f\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[25,29]},"
        "\"h\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[29,31]}}";
    static const struct {
        double d[2];
        int64_t i;
    } wide = {{0.1, -3e200}, -77};
    static const float single = 0.7f;
    for (size_t spaces = 0; spaces < 8; spaces++) {
        unsigned char file[512];
        char padded[400];
        SafeFile f;
        float d[2], v, h;
        int32_t i;
        snprintf(padded, sizeof padded, "%s%*s", header, (int)spaces, "");
        size_t n = build(file, padded, strlen(padded), 31);
        memcpy(file + n - 30, wide.d, 16);
        memcpy(file + n - 14, &wide.i, 8);
        memcpy(file + n - 6, &single, 4);
        memcpy(file + n - 2, "\0\xc0", 2);
        assert_int_equal(open_bytes(&f, file, n), OK);
        assert_int_equal(st_read_f32(&f, st_find(&f, "d"), d), OK);
        assert_int_equal(st_read_i32(&f, st_find(&f, "i"), &i), OK);
        assert_int_equal(st_read_f32(&f, st_find(&f, "f"), &v), OK);
        assert_int_equal(st_read_f32(&f, st_find(&f, "h"), &h), OK);
        assert_true(d[0] == 0.1f && isinf(d[1]) && i == -77 && v == 0.7f && h == -2);
        st_close(&f);
    }
}

static void not_a_number_is_read(void **state)
{
    (void)state;
    static const char header[] =
        "{\"h\":{\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[0,4]}}";
    unsigned char file[256];
    SafeFile f;
    float v[2];
    size_t n = build(file, header, strlen(header), 4);
    memcpy(file + n - 4, "\xc1\x7f\x80\xff", 4);
    assert_int_equal(open_bytes(&f, file, n), OK);
    assert_int_equal(st_read_f32(&f, st_find(&f, "h"), v), OK);
    assert_true(isnan(v[0]) && v[1] == -INFINITY);
    st_close(&f);
}

/* What reads a file and writes it anew under its own name, piece by piece. */
static void a_file_is_saved_over_itself(void **state)
{
    (void)state;
    enum { N = 50000 };
    const SafeSpec spec = {.name = "x", .dtype = SAFE_F32, .ndim = 1, .dim = {N}};
    const char *path = scratch("self.safetensors");
    float *v = malloc(N * sizeof *v), *again = malloc(N * sizeof *again);
    SafeWriter w;
    SafeFile f, g;
    for (int i = 0; i < N; i++) v[i] = (float)random_normal(key, 9000000u + (uint32_t)i);
    assert_int_equal(st_write_begin(&w, path, 1, &spec, 0, NULL), OK);
    assert_int_equal(st_write_f32(&w, v, N), OK);
    assert_int_equal(st_write_commit(&w), OK);
    assert_int_equal(st_open(&f, path), OK);
    assert_int_equal(st_write_begin(&w, path, 1, &spec, 0, NULL), OK);
    for (size_t at = 0; at < N; at += 1000) {
        assert_int_equal(st_read_f32_part(&f, f.tensor, at, 1000, again + at), OK);
        for (size_t i = at; i < at + 1000; i++) again[i] *= 2;
        assert_int_equal(st_write_f32(&w, again + at, 1000), OK);
    }
    assert_int_equal(st_write_commit(&w), OK);
    assert_int_equal(st_read_f32(&f, f.tensor, again), OK); /* still the old one */
    assert_memory_equal(again, v, N * sizeof *v);
    assert_int_equal(st_open(&g, path), OK);
    assert_int_equal(st_read_f32(&g, g.tensor, again), OK);
    for (int i = 0; i < N; i++) assert_true(again[i] == 2 * v[i]);
    st_close(&f);
    st_close(&g);
    free(v);
    free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unaligned_data_read),
        cmocka_unit_test(not_a_number_is_read),
        cmocka_unit_test(a_file_is_saved_over_itself),
    };
    key = (RandomKey){.seed = (uint32_t)time(NULL), .stream = STREAM_TEST};
    printf("seed %u\n", key.seed);
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dir_remove(folder);
    return failed;
}
