/* test_shards.c - weights in several files: an index that is right reads as one file, one that is
 * wrong is refused for what is wrong about it. */
#include "base/random.h"
#include "weights/safetensors.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h> /* needs those above */

static char folder[] = "/tmp/test_shards-XXXXXX";
static RandomKey key;

static const char *at(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* Tensors t<from>..t<to-1>; tN has N + 1 values, all N + 0.5. */
static void write_shard(const char *name, int from, int to, const char *also)
{
    SafeSpec spec[20];
    char text[20][16];
    SafeWriter w;
    int n = 0;
    for (int t = from; t < to; t++) {
        snprintf(text[n], sizeof text[n], "t%d", t);
        spec[n] = (SafeSpec){.name = text[n], .dtype = SAFE_F16, .ndim = 1, .dim = {1 + t}};
        n++;
    }
    if (also) spec[n++] = (SafeSpec){.name = also, .dtype = SAFE_F16, .ndim = 0};
    SafeMeta meta = {"format", "pt"};
    assert_int_equal(st_write_begin(&w, at(name), n, spec, 1, &meta), OK);
    for (int i = 0; i < n; i++) {
        float v[21];
        size_t count = spec[i].ndim ? (size_t)spec[i].dim[0] : 1;
        for (size_t k = 0; k < count; k++) v[k] = (float)atoi(spec[i].name + 1) + 0.5f;
        assert_int_equal(st_write_f32(&w, v, count), OK);
    }
    assert_int_equal(st_write_commit(&w), OK);
}

static Status open_index(SafeFile *f, const char *text)
{
    const char *path = at("m.safetensors.index.json");
    assert_int_equal(file_write(path, text, strlen(text)), OK);
    return st_open(f, path);
}

static void shards_read_as_one(void **state)
{
    (void)state;
    int cut = 1 + (int)random_below(key, 0, 8), n = 10;
    char map[2048] = "{\"metadata\": {\"total_size\": 7}, \"weight_map\": {";
    SafeFile f;
    write_shard("a.safetensors", 0, cut, NULL);
    write_shard("b.safetensors", cut, n, NULL);
    for (int t = n - 1; t >= 0; t--)
        snprintf(map + strlen(map), 64, "\"t%d\": \"%c.safetensors\"%s", t, t < cut ? 'a' : 'b',
                 t ? ", " : "}}");
    assert_int_equal(open_index(&f, map), OK);
    assert_int_equal(f.n, n);
    assert_string_equal(st_metadata(&f, "format"), "pt");
    for (int t = 0; t < n; t++) {
        char name[16];
        float v[20];
        snprintf(name, sizeof name, "t%d", t);
        const SafeTensor *it = st_find(&f, name);
        assert_non_null(it);
        assert_int_equal(it->count, 1 + t);
        assert_int_equal(st_read_f32(&f, it, v), OK);
        for (int k = 0; k <= t; k++) assert_true(v[k] == (float)t + 0.5f);
        if (t) assert_true(strcmp(f.by_name[t - 1]->name, f.by_name[t]->name) < 0);
    }
    assert_null(st_find(&f, "t10"));
    assert_int_equal(truncate(at("b.safetensors"), 60), 0); /* an open shard shrinks */
    char name[16];
    float v[20];
    snprintf(name, sizeof name, "t%d", n - 1);
    assert_int_equal(st_read_f32(&f, st_find(&f, name), v), ERR_INPUT);
    assert_non_null(strstr(status_message(), "b.safetensors: found its end"));
    st_close(&f);
    st_close(&f);
}

static void lies_are_refused(void **state)
{
    (void)state;
    write_shard("a.safetensors", 0, 2, NULL); /* t0 t1 */
    write_shard("b.safetensors", 2, 3, NULL); /* t2 */
    write_shard("c.safetensors", 2, 3, "t0"); /* t2 and t0, too */
    assert_int_equal(file_write(at("d.safetensors"), "PK\3\4 and more", 13), OK);
#define MAP(x) "{\"weight_map\": {" x "}}"
#define A "\"t0\": \"a.safetensors\", \"t1\": \"a.safetensors\""
    static const struct {
        const char *index, *message;
    } bad[] = {
        {"{}", "m.safetensors.index.json: found no weight_map"},
        {"{\"weight_map\": []}", "found no weight_map"},
        {MAP(""), "weight_map: found no tensor"},
        {MAP("\"t0\": 1"), "tensor \"t0\": found no text"},
        {MAP("\"t0\": {\"a\": 1}"), "tensor \"t0\": found no text"},
        {MAP("\"t0\": \"../a.safetensors\""),
         "found \"../a.safetensors\", expected the plain name"},
        {MAP("\"t0\": \"/etc/passwd\""), "found \"/etc/passwd\", expected the plain name"},
        {MAP("\"t0\": \"x/a.safetensors\""), "expected the plain name"},
        {MAP("\"t0\": \"x\\\\a.safetensors\""), "expected the plain name"},
        {MAP("\"t0\": \"\""), "expected the plain name"},
        {MAP("\"t0\": \"..\""), "expected the plain name"},
        {MAP("\"t0\": \".safetensors\""), "expected the plain name"},
        {MAP("\"t0\": \"a.bin\""), "expected the plain name"},
        {MAP("\"t0\": \"m.safetensors.index.json\""), "expected the plain name"},
        {MAP("\"t0\": \"e.safetensors\""), "e.safetensors: found no such file"},
        {MAP("\"t0\": \"d.safetensors\""), "d.safetensors: is a zip archive"},
        {MAP("\"t0\": \"a.safetensors\""),
         "a.safetensors: tensor \"t1\": found in this shard, expected it in the index too"},
        {MAP(A ", \"t2\": \"a.safetensors\""),
         "index.json: weight_map: tensor \"t2\": found none in a.safetensors"},
        {MAP("\"t0\": \"a.safetensors\", \"t1\": \"b.safetensors\", \"t2\": \"b.safetensors\""),
         "a.safetensors: tensor \"t1\": found in this shard, expected in b.safetensors"},
        {MAP(A ", \"t2\": \"c.safetensors\""),
         "c.safetensors: tensor \"t0\": found in this shard, expected in a.safetensors"},
        {MAP(A ", " A), "duplicate"},
        {"{\"weight_map\": {" A, "expected a closing"},
        {"[]", "expected {"},
    };
    SafeFile f;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(open_index(&f, bad[i].index), ERR_INPUT);
        if (!strstr(status_message(), bad[i].message))
            fail_msg("\"%s\" lacks \"%s\"", status_message(), bad[i].message);
        assert_null(strchr(status_message(), '\n'));
        assert_null(f.path);
    }
    assert_int_equal(open_index(&f, MAP(A ", \"t2\": \"b.safetensors\"")), OK);
    st_close(&f);
}

static void too_many_shards_are_refused(void **state)
{
    (void)state;
    char *map = malloc(600 * 40 + 64), *end = map + sprintf(map, "{\"weight_map\": {");
    SafeFile f;
    for (int i = 0; i < 600; i++) end += sprintf(end, "\"t%d\": \"%d.safetensors\", ", i, i);
    strcpy(end - 2, "}}");
    assert_int_equal(open_index(&f, map), ERR_INPUT);
    assert_non_null(strstr(status_message(), "found 600 shards"));
    free(map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_read_as_one),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(too_many_shards_are_refused),
    };
    key = (RandomKey){.seed = (uint32_t)time(NULL), .stream = STREAM_TEST};
    printf("seed %u\n", key.seed);
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dir_remove(folder);
    return failed;
}
