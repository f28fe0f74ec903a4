/* test_tokenizer.c - ids equal to transformers' on golden strings; other layouts of the same
 * vocabulary; damaged and hostile files and text.
 *
 * golden.json is made by tests/golden/tokenizer/make_goldens.py.
 */
#include "base/file.h"
#include "base/random.h"
#include "base/text.h"
#include "weights/json_text.h"
#include "weights/tokenizer.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h> /* needs those above */

#include <cmocka.h>

#define BASE SOURCE_DIR "/samples/base/tokenizer"
enum { LENGTH = 77, N_VOCAB = 49408 };

static char folder[] = "/tmp/test_tokenizer-XXXXXX";
static RandomKey key;

static void put_bytes(const char *name, const char *text, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path); /* may be a link to the real one */
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(text, 1, n, f) == n);
    fclose(f);
}

static void put(const char *name, const char *text) /* NULL: takes the file away */
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (text) put_bytes(name, text, strlen(text));
    else unlink(path);
}

static void put_link(const char *name)
{
    char path[256], target[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(target, sizeof target, BASE "/%s", name);
    unlink(path);
    assert_int_equal(symlink(target, path), 0);
}

static void put_all(void)
{
    put_link("vocab.json");
    put_link("merges.txt");
    put_link("tokenizer_config.json");
    put_link("special_tokens_map.json");
}

/* ---- goldens --------------------------------------------------------------------------- */

static void check_row(const Tokenizer *t, const json_t *row)
{
    const char *text = json_string_value(json_array_get(row, 0));
    const json_t *want = json_array_get(row, 1);
    int n = (int)json_array_size(want), ids[LENGTH];
    assert_int_equal(tokenizer_encode(t, text, ids, LENGTH), OK);
    for (int i = 0; i < LENGTH; i++) {
        int expected =
            i < n ? (int)json_integer_value(json_array_get(want, (size_t)i)) : tokenizer_pad(t);
        if (ids[i] != expected)
            fail_msg("\"%s\": id %d is %d, expected %d", text, i, ids[i], expected);
    }
}

static void check_variant(const json_t *v)
{
    const json_t *rows = json_object_get(v, "rows");
    char map[512];
    Tokenizer *t;
    put_all();
    if (strcmp(json_string_value(json_object_get(v, "pad")), "<|endoftext|>")) {
        snprintf(map, sizeof map,
                 "{\"bos_token\":{\"content\":\"<|startoftext|>\",\"normalized\":true},"
                 "\"eos_token\":{\"content\":\"<|endoftext|>\",\"normalized\":true},"
                 "\"unk_token\":{\"content\":\"<|endoftext|>\",\"normalized\":true},\"pad_token\":"
                 "\"%s\"}",
                 json_string_value(json_object_get(v, "pad")));
        put("special_tokens_map.json", map);
    }
    assert_int_equal(tokenizer_open(&t, folder), OK);
    assert_int_equal(tokenizer_size(t), N_VOCAB);
    assert_int_equal(tokenizer_pad(t), json_integer_value(json_object_get(v, "pad_id")));
    for (size_t i = 0; i < json_array_size(rows); i++) check_row(t, json_array_get(rows, i));
    tokenizer_close(&t);
}

static void ids_equal_the_goldens(void **state)
{
    (void)state;
    json_t *golden;
    assert_int_equal(
        json_file_object(&golden, SOURCE_DIR "/tests/golden/tokenizer/golden.json", 1 << 24, 8),
        OK);
    const json_t *variants = json_object_get(golden, "variants");
    assert_int_equal(json_array_size(variants), 2);
    assert_true(json_array_size(json_object_get(json_array_get(variants, 0), "rows")) >= 300);
    for (size_t i = 0; i < json_array_size(variants); i++)
        check_variant(json_array_get(variants, i));
    json_decref(golden);
}

/* ---- other layouts ---------------------------------------------------------------------- */

static void check_same(const Tokenizer *a, const char *text)
{
    static const int lengths[] = {2, 3, 5, 77, 100};
    Tokenizer *base;
    assert_int_equal(tokenizer_open(&base, BASE), OK);
    for (int i = 0; i < 5; i++) {
        int want[100], got[100];
        assert_int_equal(tokenizer_encode(base, text, want, lengths[i]), OK);
        assert_int_equal(tokenizer_encode(a, text, got, lengths[i]), OK);
        assert_memory_equal(got, want, (size_t)lengths[i] * sizeof *got);
        assert_int_equal(got[0], 49406);
        assert_true(got[lengths[i] - 1] == 49407);
    }
    tokenizer_close(&base);
}

static void opens_from_merges_alone(void **state)
{
    (void)state;
    Tokenizer *t;
    put_all();
    put("vocab.json", NULL);
    put("tokenizer_config.json", NULL);
    put("special_tokens_map.json", NULL);
    assert_int_equal(tokenizer_open(&t, folder), OK);
    assert_int_equal(tokenizer_size(t), N_VOCAB);
    check_same(t, "Frontal chest X-ray: \xc3\x89tude n\xc2\xb0 7, \xe8\x82\xba\xe7\x82\x8e!!");
    tokenizer_close(&t);
    assert_null(t);
    tokenizer_close(&t);
}

static void windows_line_ends_change_nothing(void **state)
{
    (void)state;
    char *text;
    size_t n, out = 0;
    Tokenizer *t;
    put_all();
    assert_int_equal(file_read(&text, &n, BASE "/merges.txt", 1 << 24), OK);
    char *crlf = malloc(2 * n + 1);
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n') crlf[out++] = '\r';
        crlf[out++] = text[i];
    }
    crlf[out] = 0;
    put("merges.txt", crlf);
    assert_int_equal(tokenizer_open(&t, folder), OK);
    check_same(t, "a chest x-ray with consolidation");
    tokenizer_close(&t);
    free(text);
    free(crlf);
}

static void decoder_has_the_last_word(void **state)
{
    (void)state;
    Tokenizer *t;
    int ids[5];
    put_all();
    put("special_tokens_map.json", "{\"pad_token\": \"!\"}");
    put("tokenizer_config.json",
        "{\"pad_token\": \"<|endoftext|>\", \"added_tokens_decoder\": {\"320\": {\"content\": "
        "\"a</w>\", \"normalized\": false, \"special\": false}}}");
    assert_int_equal(tokenizer_open(&t, folder), OK);
    assert_int_equal(tokenizer_pad(t), 49407);
    assert_int_equal(tokenizer_encode(t, "a</w>!", ids, 5), OK);
    assert_true(ids[1] == 320 && ids[2] == 256);
    tokenizer_close(&t);
}

/* Settings and roles that change nothing are no reason to refuse a folder. */
static void harmless_settings_open(void **state)
{
    (void)state;
    Tokenizer *t;
    put_all();
    put("tokenizer_config.json",
        "{\"padding_side\": \"right\", \"truncation_side\": \"right\", \"add_bos_token\": false, "
        "\"split_special_tokens\": false, \"mask_token\": null, \"cls_token\": "
        "\"<|endoftext|>\", \"clean_up_tokenization_spaces\": true}");
    if (tokenizer_open(&t, folder)) fail_msg("%s", status_message());
    check_same(t, "<|endoftext|> <|ENDOFTEXT|> <|startoftext|>a</w>");
    tokenizer_close(&t);
}

static void says_the_longest_prompt(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        int longest;
    } said[] = {{"{\"model_max_length\": 20}", 20},
                {"{\"model_max_length\": 1e30}", 0},
                {"{\"model_max_length\": 1000000000000000019884624838656}", 0}, /* int(1e30) */
                {"{}", 0}};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        Tokenizer *t;
        put_all();
        put("tokenizer_config.json", said[i].config);
        assert_int_equal(tokenizer_open(&t, folder), OK);
        assert_int_equal(tokenizer_longest(t), said[i].longest);
        tokenizer_close(&t);
    }
}

/* ---- text ------------------------------------------------------------------------------ */

static void broken_text_is_replaced(void **state)
{
    (void)state;
    static const struct {
        const char *broken, *meant;
    } pair[] = {
#define R "\xef\xbf\xbd"
        {"a\xff"
         "b",
         "a" R "b"},
        {"\xc3", R},
        {"\xe8\x82", R},
        {"\xe8\x82x", R "x"},
        {"\xf0\x9f\xa9", R},
        {"\xed\xa0\x80", R R R},
        {"\xc0\xaf", R R},
        {"\xf4\x90\x80\x80", R R R R},
        {"\x80\xbf", R R},
        {"\xf8\x88\x80\x80", R R R R},
        {"\xe0\x80\x80", R R R},
#undef R
    };
    Tokenizer *t;
    assert_int_equal(tokenizer_open(&t, BASE), OK);
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) {
        int got[20], want[20];
        assert_int_equal(tokenizer_encode(t, pair[i].broken, got, 20), OK);
        assert_int_equal(tokenizer_encode(t, pair[i].meant, want, 20), OK);
        assert_memory_equal(got, want, sizeof got);
    }
    for (uint32_t turn = 0, at = 0; turn < 3000; turn++) {
        char noise[65] = {0};
        int ids[30];
        uint32_t n = random_below(key, at++, 64);
        for (uint32_t i = 0; i < n; i++) noise[i] = (char)(1 + random_below(key, at++, 255));
        assert_int_equal(tokenizer_encode(t, noise, ids, 30), OK);
        for (int i = 0; i < 30; i++) assert_in_range(ids[i], 0, N_VOCAB - 1);
    }
    tokenizer_close(&t);
}

static void long_text_is_read_or_refused(void **state)
{
    (void)state;
    static const char *const unit[] = {"a",   "\xff",         "\xcc\x81", "!", "\xf0\x9f\xa9\xbb",
                                       "ab ", "<|endoftext|>"};
    Tokenizer *t;
    assert_int_equal(tokenizer_open(&t, BASE), OK);
    for (size_t i = 0; i < sizeof unit / sizeof *unit; i++) {
        Text text = {0};
        int ids[LENGTH];
        while (text.n + strlen(unit[i]) <= TOKENIZER_MAX_TEXT) text_add(&text, "%s", unit[i]);
        assert_int_equal(tokenizer_encode(t, text.s, ids, LENGTH), OK);
        while (text.n <= TOKENIZER_MAX_TEXT) text_add(&text, "%s", unit[i]);
        assert_int_equal(tokenizer_encode(t, text.s, ids, LENGTH), ERR_INPUT);
        assert_non_null(strstr(status_message(), "expected at most 16384"));
        free(text.s);
    }
    tokenizer_close(&t);
}

/* ---- files ----------------------------------------------------------------------------- */

static void expect_refusal(const char *fragment)
{
    Tokenizer *t;
    assert_int_equal(tokenizer_open(&t, folder), ERR_INPUT);
    assert_null(t);
    if (!strstr(status_message(), fragment))
        fail_msg("\"%s\" lacks \"%s\"", status_message(), fragment);
    assert_null(strchr(status_message(), '\n'));
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *message;
    } bad[] = {
        {"merges.txt", NULL, "merges.txt: found no such file, expected CLIP's"},
        {"vocab.json", "{\"a\": 0, \"b\": 0}", "a second time"},
        {"vocab.json", "{\"a\": -1}", "an id out of range"},
        {"vocab.json", "{\"a\": 1}", "an id out of range"},
        {"vocab.json", "{\"a\": 0.0}", "no whole number"},
        {"vocab.json", "{\"a\": 0, \"a\": 1}", "duplicate"},
        {"vocab.json", "{}", "expected one for each of the 256 bytes"},
        {"vocab.json", "[]", "expected {"},
        {"vocab.json", "{\"a\": 0", "expected a closing }"},
        {"vocab.json", "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":0}}}}}}}}}",
         "nested deeper"},
        {"merges.txt", "#version: 0.2\na b c\n",
         "merges.txt:2: found \"a b c\", expected two symbols"},
        {"merges.txt", "ab\n", "merges.txt:1: found \"ab\""},
        {"merges.txt", "a \n", "expected two symbols"},
        {"merges.txt", "i n\ni n\n", "merges.txt:2: found the merge \"i n\" a second time"},
        {"merges.txt", "q zzz\n",
         "merges.txt:1: found the token \"zzz\" that is not in the vocabulary"},
        {"merges.txt", "\xf0\x9f\xa9\xbb x\n", "not in the vocabulary"},
        {"merges.txt", "", "merges.txt: found 0 merges, expected about 48896 for 49408 tokens"},
        {"merges.txt", "#version: 0.2\ni n\n", "merges.txt: found 1 merges, expected about 48896"},
        {"tokenizer_config.json", "{\"tokenizer_class\": \"BertTokenizer\"}",
         "found BertTokenizer, expected CLIPTokenizer"},
        {"tokenizer_config.json", "{\"additional_special_tokens\": [\"<cat>\"]}", "expected none"},
        {"tokenizer_config.json", "{\"model_max_length\": 1}", "model_max_length: found 1"},
        {"tokenizer_config.json", "{\"model_max_length\": \"77\"}", "model_max_length: found 0"},
        {"tokenizer_config.json", "{\"padding_side\": \"left\"}",
         "padding_side: found left, expected right"},
        {"special_tokens_map.json", "{\"padding_side\": \"left\"}", "padding_side: found left"},
        {"tokenizer_config.json", "{\"truncation_side\": \"left\"}",
         "truncation_side: found left, expected right"},
        {"tokenizer_config.json", "{\"split_special_tokens\": true}",
         "split_special_tokens: found true, expected false"},
        {"tokenizer_config.json", "{\"mask_token\": \"<mask>\"}",
         "mask_token: found the token \"<mask>\", expected no further special token"},
        {"tokenizer_config.json", "{\"image_token\": {\"content\": \"a</w>\"}}",
         "image_token: found the token \"a</w>\""},
        {"special_tokens_map.json", "{\"cls_token\": \"a</w>\"}",
         "cls_token: found the token \"a</w>\""},
        {"special_tokens_map.json",
         "{\"sep_token\": {\"content\": \"<|endoftext|>\", \"normalized\": false}}",
         "sep_token: found the token \"<|endoftext|>\""}, /* would be found before clean-up */
        {"special_tokens_map.json", "{\"pad_token\": \"<pad>\"}",
         "special token \"<pad>\", expected one of the vocabulary"},
        {"special_tokens_map.json", "{\"bos_token\": 7}", "bos_token: found no text"},
        {"special_tokens_map.json", "{\"bos_token\": \"\"}", "special token \"\""},
        {"special_tokens_map.json", "{\"eos_token\": {\"content\": \"a\", \"single_word\": true}}",
         "single_word true"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"5\": {\"content\": \"a\"}}}",
         "found id 5, expected 64"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_all();
        put(bad[i].name, bad[i].text);
        expect_refusal(bad[i].message);
    }
    put_all();
    put("merges.txt", NULL);
    put("tokenizer.json", "{}");
    expect_refusal("tokenizer.json: normalizer/type: found nothing");
    put("tokenizer.json", NULL);
}

/* Cut, doubled, swapped and flipped pieces of real files: opened or refused, never worse. */
static void hostile_files_are_survived(void **state)
{
    (void)state;
    static const char *const name[] = {"merges.txt", "vocab.json", "tokenizer_config.json"};
    int refused = 0, opened = 0;
    uint32_t at = 1000000;
    for (int turn = 0; turn < 60; turn++) {
        const char *victim = name[turn % 3];
        char *text, path[512];
        size_t n;
        Tokenizer *t;
        put_all();
        if (turn % 2) put("vocab.json", NULL);
        snprintf(path, sizeof path, BASE "/%s", victim);
        assert_int_equal(file_read(&text, &n, path, 1 << 24), OK);
        for (uint32_t k = random_below(key, at++, 20) + 1; k; k--, at += 2)
            text[random_below(key, at, (uint32_t)n)] = (char)random_below(key, at + 1, 256);
        if (turn % 4 == 3) n = random_below(key, at++, (uint32_t)n);
        put_bytes(victim, text, n);
        free(text);
        Status s = tokenizer_open(&t, folder);
        assert_true(s == OK || s == ERR_INPUT);
        s ? refused++ : opened++;
        if (s) continue;
        int ids[LENGTH];
        assert_int_equal(tokenizer_encode(t, "Chest X-ray, \xe8\x82\xba <|endoftext|> it's 2.5 cm!",
                                          ids, LENGTH),
                         OK);
        for (int i = 0; i < LENGTH; i++) assert_in_range(ids[i], 0, tokenizer_size(t) - 1);
        tokenizer_close(&t);
    }
    assert_true(refused > 10);
}

/* For tests/parity/tokenizer.py: the ids of each string in a file, which a 0 ends, in a line. */
static int print_ids(const char *path, const char *files)
{
    Tokenizer *t;
    char *text;
    size_t size;
    int32_t ids[LENGTH];
    if (tokenizer_open(&t, files) || file_read(&text, &size, path, 1 << 28)) {
        fprintf(stderr, "%s\n", status_message());
        return 1;
    }
    for (size_t at = 0; at < size; at += strlen(text + at) + 1) {
        if (tokenizer_encode(t, text + at, ids, LENGTH)) fprintf(stderr, "%s\n", status_message());
        for (int i = 0; i < LENGTH; i++) printf("%d ", ids[i]);
        printf("\n");
    }
    free(text);
    tokenizer_close(&t);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1) return print_ids(argv[1], argc > 2 ? argv[2] : BASE);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_the_goldens),
        cmocka_unit_test(opens_from_merges_alone),
        cmocka_unit_test(windows_line_ends_change_nothing),
        cmocka_unit_test(decoder_has_the_last_word),
        cmocka_unit_test(harmless_settings_open),
        cmocka_unit_test(says_the_longest_prompt),
        cmocka_unit_test(broken_text_is_replaced),
        cmocka_unit_test(long_text_is_read_or_refused),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(hostile_files_are_survived),
    };
    key = (RandomKey){.seed = (uint32_t)time(NULL), .stream = STREAM_TEST};
    printf("seed %u\n", key.seed);
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dir_remove(folder);
    return failed;
}
