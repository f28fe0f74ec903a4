/* test_safetensors.c - round trips; every rule of the format broken once; damage.
 *
 * The rules (docs of the format and its reference reader) and where they are tested (7 to 9 in
 * test_safetensors_values.c):
 *   1 length before all else, at most 100,000,000, in the file    lengths_are_checked_first
 *   2 UTF-8, from { to }, then spaces only                        rules_are_kept
 *   3 no key twice, escaped or not                                rules_are_kept
 *   4 __metadata__: text to text                                  rules_are_kept
 *   5 from 0 to the end, no hole, overlap or leftover             rules_are_kept
 *   6 sizes agree, by checked products; whole bytes               rules_are_kept
 *   7 zero dimensions and rank 0 are legal; NaN are the reader's  random_tensors_come_back,
 *     to judge                     not_a_number_is_read; the model's refusal: test_params.c
 *   8 data at any address                                         unaligned_data_read
 *   9 a file saved over itself stays whole                        a_file_is_saved_over_itself
 *   and: other kinds of file, floods, damage, shards              disguises_are_named, ...,
 *                                          test_shards.c; millions of mutations: tests/fuzz
 */
#include "base/random.h"
#include "weights/safetensors.h"
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h> /* needs those above */

static char folder[] = "/tmp/test_safetensors-XXXXXX";
static RandomKey key; /* fresh each run; printed */
static uint32_t drawn;

static uint32_t draw(uint32_t below) { return random_below(key, drawn++, below); }

static const char *scratch(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* The nearest half, as a float: a multiple of the last place at x's magnitude; rint() ties to even.
 */
static float rounded(double x)
{
    int e;
    frexp(x, &e);
    double place = ldexp(1, (e - 1 < -14 ? -14 : e - 1) - 10), v = rint(x / place) * place;
    return fabs(v) >= 65520 ? copysignf(INFINITY, (float)x) : (float)v;
}

/* ---- round trips ----------------------------------------------------------------------- */

enum { MOST = 12, MOST_VALUES = 4096 };

static size_t count_of(const SafeSpec *s)
{
    size_t n = 1;
    for (int d = 0; d < s->ndim; d++) n *= (size_t)s->dim[d];
    return n;
}

static void random_spec(SafeSpec *s, char name[32], int i)
{
    static const SafeDtype dtype[] = {SAFE_F32, SAFE_F16, SAFE_I32, SAFE_I64};
    snprintf(name, 32, "t%d.\"%s\\\x1b", i, i % 2 ? "\xc3\xa9" : "..//");
    *s = (SafeSpec){.name = name, .dtype = dtype[draw(4)], .ndim = (int)draw(i == 0 ? 1 : 9)};
    for (int d = 0; d < s->ndim; d++) s->dim[d] = draw(s->ndim > 4 ? 3 : 7);
}

static void write_random(const char *path, const SafeSpec *spec, int n, const float *v)
{
    static const SafeMeta meta[] = {{"format", "pt"}, {"note", "a \"quoted\" \xe8\x82\xba\n"}};
    SafeWriter w;
    unlink(path);
    assert_int_equal(st_write_begin(&w, path, n, spec, 2, meta), OK);
    assert_false(file_exists(path));
    for (int i = 0; i < n; i++) {
        size_t left = count_of(&spec[i]), piece;
        int32_t whole[MOST_VALUES];
        for (size_t k = 0; k < left; k++) whole[k] = (int32_t)lrintf(v[k]);
        for (size_t at = 0; left; at += piece, left -= piece) {
            piece = 1 + draw((uint32_t)left);
            bool integer = safe_dtype_kind(spec[i].dtype) == 'i';
            assert_int_equal(integer ? st_write_i32(&w, whole + at, piece)
                                     : st_write_f32(&w, v + at, piece),
                             OK);
        }
    }
    assert_int_equal(st_write_commit(&w), OK);
}

static void check_random(const SafeFile *f, const SafeSpec *spec, const float *v)
{
    const SafeTensor *t;
    float got[MOST_VALUES];
    int32_t whole[MOST_VALUES];
    assert_int_equal(st_expect(&t, f, spec->name, spec->ndim, spec->dim), OK);
    assert_int_equal(t->dtype, spec->dtype);
    assert_int_equal(t->offset % ((uint64_t)safe_dtype_bits(t->dtype) / 8), 0);
    assert_int_equal(t->count, count_of(spec));
    bool integer = safe_dtype_kind(t->dtype) == 'i';
    assert_int_equal(st_read_f32(f, t, got), integer ? ERR_INPUT : OK);
    assert_int_equal(st_read_i32(f, t, whole), integer ? OK : ERR_INPUT);
    for (size_t i = 0; i < t->count; i++) {
        if (integer) assert_int_equal(whole[i], lrintf(v[i]));
        else assert_true(got[i] == (t->dtype == SAFE_F16 ? rounded(v[i]) : v[i]));
    }
    if (!integer && t->count > 2) {
        size_t first = draw((uint32_t)t->count), n = 1 + draw((uint32_t)(t->count - first));
        float part[MOST_VALUES];
        assert_int_equal(st_read_f32_part(f, t, first, n, part), OK);
        assert_memory_equal(part, got + first, n * sizeof *part);
    }
}

static void random_tensors_come_back(void **state)
{
    (void)state;
    float *v = malloc(MOST_VALUES * sizeof *v);
    for (int i = 0; i < MOST_VALUES; i++)
        v[i] = (float)(1000 * random_normal(key, 5000000u + (uint32_t)i));
    for (int turn = 0; turn < 50; turn++) {
        SafeSpec spec[MOST];
        char name[MOST][32];
        SafeFile f;
        int n = (int)draw(MOST + 1);
        for (int i = 0; i < n; i++) random_spec(&spec[i], name[i], i);
        write_random(scratch("r.safetensors"), spec, n, v);
        assert_int_equal(st_open(&f, scratch("r.safetensors")), OK);
        assert_int_equal(f.n, n);
        assert_int_equal(f.n_meta, 2);
        assert_string_equal(st_metadata(&f, "note"), "a \"quoted\" \xe8\x82\xba\n");
        assert_null(st_metadata(&f, "other"));
        for (int i = 0; i < n; i++) check_random(&f, &spec[i], v);
        assert_null(st_find(&f, "t"));
        assert_int_equal(st_match(&f, n, spec, NULL), OK);
        st_close(&f);
        st_close(&f);
    }
    free(v);
}

/* ---- files made by hand ---------------------------------------------------------------- */

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

static void expect_refusal(const void *bytes, size_t n, const char *fragment)
{
    SafeFile f;
    assert_int_equal(open_bytes(&f, bytes, n), ERR_INPUT);
    if (!strstr(status_message(), fragment))
        fail_msg("\"%s\" lacks \"%s\"", status_message(), fragment);
    assert_non_null(strstr(status_message(), "b.safetensors: "));
    assert_null(strchr(status_message(), '\n'));
    assert_null(f.path);
}

/* What Python's safetensors 0.8 writes for b = int64 7, a.weight = float32 [[1.5, -2]] and
 * h = float16 [0.5, 65504, 2^-24]. */
static const char published[] =
    "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":["
    "0,8]},"
    "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[8,16]},"
    "\"h\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[16,22]}}       ";
static const unsigned char published_data[] =
    "\7\0\0\0\0\0\0\0\0\0\xc0\x3f\0\0\0\xc0\0\x38\xff\x7b\1\0";

static void published_file_reads(void **state)
{
    (void)state;
    unsigned char file[512];
    SafeFile f;
    int32_t b;
    float a[2], h[3];
    size_t n = build(file, published, strlen(published), 22);
    memcpy(file + n - 22, published_data, 22);
    assert_int_equal(open_bytes(&f, file, n), OK);
    assert_int_equal(st_read_i32(&f, st_find(&f, "b"), &b), OK);
    assert_int_equal(st_read_f32(&f, st_find(&f, "a.weight"), a), OK);
    assert_int_equal(st_read_f32(&f, st_find(&f, "h"), h), OK);
    assert_true(b == 7 && a[0] == 1.5f && a[1] == -2 && h[0] == 0.5f && h[1] == 65504 &&
                h[2] == 0x1p-24f);
    assert_string_equal(f.tensor[0].name, "b");
    assert_true(truncate(scratch("b.safetensors"), (off_t)n - 1) == 0); /* under an open file */
    assert_int_equal(st_read_f32(&f, st_find(&f, "h"), h), ERR_INPUT);
    assert_non_null(strstr(status_message(), "did it change"));
    st_close(&f);
}

static void rules_are_kept(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        int data;
        const char *message;
    } bad[] = {
#define T "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
        {"[]", 0, "found byte 0x5b at the start of the header, expected {"},
        {" {}", 0, "found byte 0x20 at the start of the header"},
        {"{\"a\":" T "}\n", 8, "found text behind the closing }"},
        {"{\"a\":" T "} {}", 8, "found text behind the closing }"},
        {"{\"a\":" T, 8, "found the end, expected a closing } or ]"},
        {"{\"a\":" T ",}", 8, "expected valid JSON"},
        {"{\"a\":" T ",\"a\":" T "}", 8, "duplicate"},
        {"{\"a\":" T ",\"\\u0061\":" T "}", 8, "duplicate"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
         "duplicate"},
        {"{\"\xff\":" T "}", 8, "expected valid JSON"},
        {"{\"a\\u0000b\":" T "}", 8, "expected valid JSON"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ that is no object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ \"a\" that is no text"},
        {"{\"__metadata__\":{\"a\":{}}}", 0, "__metadata__ \"a\" that is no text"},
        {"{\"a\":7}", 0, "tensor \"a\": found no object"},
        {"{\"a\":{}}", 0, "tensor \"a\": found no dtype text"},
        {"{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
         "found dtype \"f32\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "found no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "no whole number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8,
         "no whole number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
         "found 9 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "more elements"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
         "more bytes"},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1, "end inside a byte"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8,
         "no pair of data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8,
         "no pair of data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8,
         "found data_offsets [8, 0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,18446744073709551615]}}", 8,
         "expected valid JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[9223372036854775800,"
         "9223372036854775807]}}",
         8, "expected begin <= end <= 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
         "found 8 bytes, expected 12 for F32 [3]"},
        {"{\"a\":" T "}", 7, "expected begin <= end <= 7"},
        {"{\"a\":" T "}", 9, "found 9 bytes behind the header, expected 8"},
        {"{}", 1, "found 1 bytes behind the header, expected 0"},
        {"{\"a\":" T ",\"b\":" T "}", 8, "it overlaps another"},
        {"{\"a\":" T ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[9,17]}}", 17,
         "a hole before it"},
        {"{\"a\":" T ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12,
         "it overlaps another"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "a hole before it"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"scale\":2}}", 8,
         "further fields"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[2]],\"data_offsets\":[0,8]}}", 8, "nested deeper"},
#undef T
    };
    unsigned char file[1024];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refusal(file, build(file, bad[i].header, strlen(bad[i].header), (size_t)bad[i].data),
                       bad[i].message);
    SafeFile f; /* nothing at all is a file, too */
    assert_int_equal(open_bytes(&f, file, build(file, "{}    ", 6, 0)), OK);
    assert_int_equal(f.n, 0);
    st_close(&f);
}

static void lengths_are_checked_first(void **state)
{
    (void)state;
    static const uint64_t length[] = {0, 1, 500, 100000001, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof length / sizeof *length; i++) {
        unsigned char file[100] = {0};
        for (int b = 0; b < 8; b++) file[b] = (unsigned char)(length[i] >> 8 * b);
        expect_refusal(file, sizeof file, "found a header length of");
    }
    expect_refusal("", 0, "found 0 bytes, expected at least the 8");
    expect_refusal("\1\0\0", 3, "found 3 bytes");
}

static void disguises_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *what;
    } other[] = {
        {"PK\3\4\0\0\x08\x08\0\0\0\0\0\0", 14, "zip archive"},
        {"\x80\2\x8a\nl\xfc\x9c\x46\xf9\x20", 10, "Python pickle"},
        {"\x80\4\x95\0\0\0\0\0\0\0", 10, "Python pickle"},
        {"GGUF\3\0\0\0\1\0\0\0", 12, "GGUF"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", 64,
         "git-lfs pointer"},
        {"<!DOCTYPE html><html>", 21, "HTML page"},
        {"\n <HTML lang=en>", 15, "HTML page"},
        {"{\"weight_map\": {}}", 18, "JSON text"},
        {"\x89HDF\r\n\x1a\n\0\0", 10, "HDF5"},
    };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        expect_refusal(other[i].bytes, other[i].n, other[i].what);
    SafeFile f;
    assert_int_equal(st_open(&f, "/dev/zero"), ERR_INPUT);
    assert_int_equal(st_open(&f, folder), ERR_INPUT);
    assert_int_equal(st_open(&f, scratch("absent")), ERR_INPUT);
    assert_non_null(strstr(status_message(), "absent: cannot open it"));
}

static void expect_quick_refusal(const char *open, const char *each, int n, const char *message)
{
    size_t length = strlen(open) + strlen(each) * (size_t)n;
    char *header = malloc(length + 1), *at = header + sprintf(header, "%s", open);
    unsigned char *file = malloc(length + 8);
    for (int i = 0; i < n; i++) at += sprintf(at, "%s", each);
    expect_refusal(file, build(file, header, length, 0), message);
    free(header);
    free(file);
}

static void floods_are_refused_quickly(void **state)
{
    (void)state;
    expect_quick_refusal("{\"a\":", "[", 100000, "nested deeper");
    expect_quick_refusal("{\"a\":", "{\"a\":", 100000, "nested deeper");
    expect_quick_refusal("{", ",", 1000000, "expected a closing");
    expect_quick_refusal("{\"a\":[1", ",1", 5000000, "values");
    expect_quick_refusal("{\"", "a", 1000000, "closing quote");

    enum { N = 20000 };
    char *header = malloc(N * 80), *at = header;
    for (int i = 0; i < N; i++)
        at += sprintf(at, "%c\"%d\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}",
                      i ? ',' : '{', i);
    *at++ = '}';
    unsigned char *file = malloc(N * 80);
    SafeFile f;
    assert_int_equal(open_bytes(&f, file, build(file, header, (size_t)(at - header), 0)), OK);
    assert_int_equal(f.n, N);
    assert_non_null(st_find(&f, "19999"));
    st_close(&f);
    free(header);
    free(file);
}

/* ---- damage ---------------------------------------------------------------------------- */

static void use_all(const SafeFile *f)
{
    for (int i = 0; i < f->n; i++) {
        const SafeTensor *t = &f->tensor[i];
        float *v = malloc(t->count * sizeof *v + 1);
        int32_t *whole = malloc(t->count * sizeof *whole + 1);
        if (safe_dtype_kind(t->dtype) == 'f') assert_int_equal(st_read_f32(f, t, v), OK);
        else st_read_i32(f, t, whole);
        free(v);
        free(whole);
    }
}

static void damage_is_survived(void **state)
{
    (void)state;
    unsigned char file[512], hurt[512];
    size_t n = build(file, published, strlen(published), 22), header = n - 22;
    SafeFile f;
    for (size_t cut = 0; cut < n; cut++) {
        assert_int_equal(open_bytes(&f, file, cut), ERR_INPUT);
        assert_null(f.path);
    }
    int opened = 0;
    for (size_t bit = 0; bit < 8 * header; bit++) {
        memcpy(hurt, file, n);
        hurt[bit / 8] ^= (unsigned char)(1u << bit % 8);
        Status s = open_bytes(&f, hurt, n);
        assert_true(s == OK || s == ERR_INPUT);
        if (s) continue;
        opened++; /* a letter of a name, a digit of the metadata, F16 for BF16 */
        use_all(&f);
        st_close(&f);
    }
    assert_true(opened > 0 && opened < 250);
}

/* ---- against a model, and writing that fails -------------------------------------------- */

static bool is_old(const char *name) { return strstr(name, "position_ids") != NULL; }

static void misfits_are_listed(void **state)
{
    (void)state;
    const SafeSpec have[] = {{.name = "a", .ndim = 2, .dim = {2, 3}},
                             {.name = "position_ids", .ndim = 1, .dim = {1}},
                             {.name = "extra", .ndim = 1, .dim = {4}}};
    const SafeSpec want[] = {{.name = "a", .ndim = 2, .dim = {3, 2}},
                             {.name = "gone", .ndim = 1, .dim = {5}}};
    const float zero[6] = {0};
    const SafeTensor *t;
    SafeWriter w;
    SafeFile f;
    assert_int_equal(st_write_begin(&w, scratch("m.safetensors"), 3, have, 0, NULL), OK);
    for (int i = 0; i < 3; i++) assert_int_equal(st_write_f32(&w, zero, count_of(&have[i])), OK);
    assert_int_equal(st_write_commit(&w), OK);
    assert_int_equal(st_open(&f, scratch("m.safetensors")), OK);

    assert_int_equal(st_match(&f, 2, want, is_old), ERR_INPUT);
    assert_non_null(strstr(status_message(),
                           "1 missing: gone [5]; 1 of another shape: a [2, 3] not [3, 2]; "
                           "1 unexpected: extra [4]"));
    assert_int_equal(st_match(&f, 2, want, NULL), ERR_INPUT);
    assert_non_null(strstr(status_message(), "2 unexpected: extra [4], position_ids [1]"));
    assert_int_equal(st_expect(&t, &f, "a", 2, want[0].dim), ERR_INPUT);
    assert_non_null(
        strstr(status_message(), "m.safetensors: tensor \"a\": found [2, 3], expected [3, 2]"));
    assert_int_equal(st_expect(&t, &f, "gone", 1, want[1].dim), ERR_INPUT);
    assert_non_null(strstr(status_message(), "tensor \"gone\": found none, expected [5]"));
    st_close(&f);
}

static void failed_writes_leave_nothing(void **state)
{
    (void)state;
    const SafeSpec half = {.name = "x", .dtype = SAFE_F16, .ndim = 1, .dim = {2}};
    const SafeSpec large = {.name = "x", .dtype = SAFE_F32, .ndim = 1, .dim = {100000}};
    const float values[2] = {INFINITY, 65520};
    SafeWriter w;
    assert_int_equal(st_write_begin(&w, scratch("w/h.safetensors"), 1, &half, 0, NULL), OK);
    assert_int_equal(st_write_f32(&w, values, 1), OK); /* infinity is what it was */
    assert_int_equal(st_write_f32(&w, values + 1, 1), ERR_NUMERIC);
    assert_non_null(strstr(status_message(), "tensor \"x\": found the value 65520"));
    st_write_abandon(&w);
    st_write_abandon(&w);

    struct rlimit old, limit;
    getrlimit(RLIMIT_FSIZE, &old);
    limit = (struct rlimit){50000, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    float *zero = calloc(100000, sizeof *zero);
    assert_int_equal(st_write_begin(&w, scratch("w/l.safetensors"), 1, &large, 0, NULL), OK);
    setrlimit(RLIMIT_FSIZE, &limit);
    Status s = st_write_f32(&w, zero, 100000);
    if (!s) s = st_write_commit(&w);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(s, ERR_SPACE);
    st_write_abandon(&w);
    free(zero);
    DirList l;
    assert_int_equal(dir_list(&l, scratch("w")), OK);
    assert_int_equal(l.n, 0);
    dir_list_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_tensors_come_back),
        cmocka_unit_test(published_file_reads),
        cmocka_unit_test(rules_are_kept),
        cmocka_unit_test(lengths_are_checked_first),
        cmocka_unit_test(disguises_are_named),
        cmocka_unit_test(floods_are_refused_quickly),
        cmocka_unit_test(damage_is_survived),
        cmocka_unit_test(misfits_are_listed),
        cmocka_unit_test(failed_writes_leave_nothing),
    };
    key = (RandomKey){.seed = (uint32_t)time(NULL), .stream = STREAM_TEST};
    printf("seed %u\n", key.seed);
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dir_remove(folder);
    return failed;
}
