/* test_tokenizer_json.c - the same vocabulary as one tokenizer.json, in the forms that transformers
 * 4 and 5 write: ids are those of vocab.json and merges.txt and of the goldens, with either padding
 * token; what would give other ids is refused by name.
 */
#include "base/file.h"
#include "base/text.h"
#include "weights/json_text.h"
#include "weights/tokenizer.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define BASE SOURCE_DIR "/samples/base/tokenizer"
enum { LENGTH = 77 };

static char folder[] = "/tmp/eq-tokjson-XXXXXX";

#define WORDS "'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|[^\\\\s\\\\p{L}\\\\p{N}]+"

/* Everything but vocabulary and merges; %s: the cutting pattern, an added token. */
static const char skeleton[] =
    "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [%s"
    "{\"id\": 49406, \"content\": \"<|startoftext|>\", \"normalized\": true, \"lstrip\": false},"
    "{\"id\": 49407, \"content\": \"<|endoftext|>\", \"normalized\": false}],"
    "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"},"
    "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"\\\\s+\"}, \"content\": \" \"},"
    "{\"type\": \"Lowercase\"}]},"
    "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\","
    "\"pattern\": {\"Regex\": \"%s\"}, \"behavior\": \"Removed\", \"invert\": true},"
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}]},"
    "\"decoder\": {\"type\": \"ByteLevel\"},"
    "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": \"<|endoftext|>\","
    "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"</w>\", \"fuse_unk\": false}}";

static const char *const pattern[] = {"<\\\\|startoftext\\\\|>|<\\\\|endoftext\\\\|>|" WORDS,
                                      WORDS};

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(file_write(path, text, strlen(text)), OK);
}

/* merges.txt as a list of pairs, or of texts */
static json_t *merges(bool pairs)
{
    json_t *list = json_array();
    char *text, *rest;
    size_t n;
    assert_int_equal(file_read(&text, &n, BASE "/merges.txt", 1 << 24), OK);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *space = strchr(line, ' ');
        if (!strncmp(line, "#version", 8)) continue;
        assert_non_null(space);
        if (!pairs) json_array_append_new(list, json_string(line));
        else
            json_array_append_new(list,
                                  json_pack("[s%,s]", line, (size_t)(space - line), space + 1));
    }
    free(text);
    return list;
}

static json_t *make(bool newer, bool bang)
{
    char text[4096];
    const char *added = "{\"id\": 0, \"content\": \"!\", \"normalized\": false},";
    snprintf(text, sizeof text, skeleton, bang ? added : "", pattern[!newer]);
    json_t *all = json_loads(text, 0, NULL), *vocab;
    assert_non_null(all);
    assert_int_equal(json_file_object(&vocab, BASE "/vocab.json", 1 << 24, 4), OK);
    json_object_set_new(json_object_get(all, "model"), "vocab", vocab);
    json_object_set_new(json_object_get(all, "model"), "merges", merges(newer));
    return all;
}

static void write_json(const json_t *all)
{
    char *text = json_dumps(all, JSON_COMPACT);
    assert_non_null(text);
    put("tokenizer.json", text);
    free(text);
}

static void check_variant(const json_t *variant, bool newer)
{
    bool bang = !strcmp(json_string_value(json_object_get(variant, "pad")), "!");
    const json_t *rows = json_object_get(variant, "rows"), *row;
    json_t *all = make(newer, bang);
    Tokenizer *t;
    size_t i;
    /* the goldens' folder has <|endoftext|> normalized where the padding is "!" */
    if (bang)
        json_object_set_new(json_array_get(json_object_get(all, "added_tokens"), 2), "normalized",
                            json_true());
    write_json(all);
    json_decref(all);
    put("tokenizer_config.json",
        bang ? "{\"tokenizer_class\": \"CLIPTokenizer\", \"pad_token\": \"!\"}"
             : "{\"tokenizer_class\": \"CLIPTokenizer\", \"pad_token\": \"<|endoftext|>\"}");
    if (tokenizer_open(&t, folder)) fail_msg("%s", status_message());
    assert_int_equal(tokenizer_size(t), 49408);
    assert_int_equal(tokenizer_pad(t), bang ? 0 : 49407);
    json_array_foreach((json_t *)rows, i, row)
    {
        const char *text = json_string_value(json_array_get(row, 0));
        const json_t *want = json_array_get(row, 1);
        int n = (int)json_array_size(want), ids[LENGTH];
        assert_int_equal(tokenizer_encode(t, text, ids, LENGTH), OK);
        for (int k = 0; k < LENGTH; k++) {
            int id =
                k < n ? (int)json_integer_value(json_array_get(want, (size_t)k)) : tokenizer_pad(t);
            if (ids[k] != id) fail_msg("\"%s\": id %d is %d, expected %d", text, k, ids[k], id);
        }
    }
    tokenizer_close(&t);
}

static void test_goldens(void **state)
{
    (void)state;
    json_t *golden;
    assert_int_equal(
        json_file_object(&golden, SOURCE_DIR "/tests/golden/tokenizer/golden.json", 1 << 24, 8),
        OK);
    const json_t *variants = json_object_get(golden, "variants");
    for (size_t i = 0; i < json_array_size(variants); i++)
        for (int newer = 0; newer < 2; newer++) check_variant(json_array_get(variants, i), newer);
    json_decref(golden);
}

/* One value of the file changed, and what the error must say. */
static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *where, *key, *json, *said;
    } bad[] = {
        {"model", "type", "\"WordPiece\"", "model/type: found \"WordPiece\""},
        {"model", "dropout", "0.1", "model/dropout: found 0.1"},
        {"model", "end_of_word_suffix", "null", "model/end_of_word_suffix: found null"},
        {"model", "byte_fallback", "true", "model/byte_fallback"},
        {"model", "ignore_merges", "true", "model/ignore_merges"},
        {"model", "vocab", "[]", "model/vocab: found []"},
        {"model", "merges", "{}", "model/merges: found {}"},
        {"model", "merges", "[7]", "model/merges: found 7, expected two symbols"},
        {"model", "merges", "[[\"a\"]]", "model/merges"},
        {"model", "merges", "[\"a b\\nc d\"]", "model/merges"},
        {"model", "merges", "[\"qqq zzz\"]", "tokenizer.json:1: found the token \"qqq\""},
        {"pre_tokenizer", "type", "\"ByteLevel\"", "pre_tokenizer/type"},
        {"pre_tokenizer", "pretokenizers", "[]", "pre_tokenizer/pretokenizers/0/type"},
        {"normalizer", "normalizers", "[{\"type\": \"NFD\"}]", "normalizer/normalizers/0/type"},
        {NULL, "padding", "{\"direction\": \"Left\"}", "padding/direction: found \"Left\""},
        {NULL, "truncation", "{\"direction\": \"Left\"}", "truncation/direction: found \"Left\""},
        {NULL, "normalizer", "null", "normalizer/type: found nothing"},
        {NULL, "added_tokens", "[{\"content\": \"x\"}]", "added_tokens"},
        {NULL, "added_tokens", "[{\"id\": 49408, \"content\": \"<cat>\"}]", "\"<cat>\""},
        {NULL, "added_tokens", "[{\"id\": 5, \"content\": \"a\"}]", "found id 5, expected 64"},
        {NULL, "added_tokens",
         "[{\"id\": 49407, \"content\": \"<|endoftext|>\", \"lstrip\": true}]", "lstrip true"},
    };
    json_t *all = make(true, false);
    put("tokenizer_config.json", "{}");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Tokenizer *t;
        json_t *copy = json_deep_copy(all),
               *in = bad[i].where ? json_object_get(copy, bad[i].where) : copy;
        json_object_set_new(in, bad[i].key, json_loads(bad[i].json, JSON_DECODE_ANY, NULL));
        write_json(copy);
        json_decref(copy);
        assert_int_equal(tokenizer_open(&t, folder), ERR_INPUT);
        assert_null(t);
        if (!strstr(status_message(), bad[i].said))
            fail_msg("no \"%s\" in: %s", bad[i].said, status_message());
        assert_null(strchr(status_message(), '\n'));
    }
    json_decref(all);
}

static void take_away(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

enum { FEW = 100, END = 512 + FEW + 1, LESS = 27, BANG = 0 };

/* tokenizer.json with CLIP's first few merges alone, which is quicker. */
static json_t *make_small(void)
{
    json_t *all = make(true, false), *model = json_object_get(all, "model"), *vocab = json_object(),
           *list = json_array(), *id, *token;
    const char *text;
    size_t i;
    json_object_foreach(json_object_get(model, "vocab"), text, id)
        if (json_integer_value(id) < END - 1) json_object_set(vocab, text, id);
    json_object_set_new(vocab, "<|startoftext|>", json_integer(END - 1));
    json_object_set_new(vocab, "<|endoftext|>", json_integer(END));
    for (i = 0; i < FEW; i++)
        json_array_append(list, json_array_get(json_object_get(model, "merges"), i));
    json_object_set_new(model, "vocab", vocab);
    json_object_set_new(model, "merges", list);
    json_array_foreach(json_object_get(all, "added_tokens"), i, token)
        json_object_set_new(token, "id", json_integer(END - 1 + (int)i));
    return all;
}

/* The same as merges.txt. */
static void write_merges(const json_t *all)
{
    json_t *list = json_object_get(json_object_get(all, "model"), "merges"), *merge;
    Text text = {0};
    size_t i;
    json_array_foreach(list, i, merge)
        text_add(&text, "%s %s\n", json_string_value(json_array_get(merge, 0)),
                 json_string_value(json_array_get(merge, 1)));
    put("merges.txt", text.s);
    free(text.s);
}

static void write_vocab(const json_t *all)
{
    char *text = json_dumps(json_object_get(json_object_get(all, "model"), "vocab"), 0);
    put("vocab.json", text);
    free(text);
}

static void expect_open(Status want, const char *said)
{
    Tokenizer *t;
    Status s = tokenizer_open(&t, folder);
    if (s != want || (s && !strstr(status_message(), said)))
        fail_msg("%d, expected %d: %s", s, want, s ? status_message() : "");
    tokenizer_close(&t);
}

/* tokenizer.json beside vocab.json and merges.txt: all agree, or none is read. */
static void test_both_kinds(void **state)
{
    (void)state;
    json_t *all = make_small(), *other = json_deep_copy(all),
           *model = json_object_get(other, "model"), *list = json_object_get(model, "merges"),
           *vocab = json_object_get(model, "vocab");
    put("tokenizer_config.json", "{}");
    write_json(all);
    write_merges(all);
    expect_open(OK, ""); /* the vocabulary follows from the merges */
    write_vocab(all);
    expect_open(OK, "");

    json_t *last = json_incref(json_array_get(list, FEW - 1));
    json_array_remove(list, FEW - 1);
    json_array_insert(list, FEW - 2, last); /* two ranks change places */
    write_json(other);
    expect_open(ERR_INPUT, "/tokenizer.json: found another vocabulary or other merges than in "
                           "vocab.json and merges.txt beside it, expected the same");
    take_away("merges.txt"); /* vocab.json alone is not read by anyone */
    expect_open(OK, "");
    write_merges(all);
    json_array_remove(list, FEW - 2);
    json_array_append(list, last);
    json_object_set_new(vocab, "in", json_integer(513));
    json_object_set_new(vocab, "th", json_integer(512));
    write_json(other);
    expect_open(ERR_INPUT, "found another vocabulary or other merges");
    take_away("merges.txt");
    take_away("vocab.json");
    expect_open(OK, "");
    json_decref(last);
    json_decref(all);
    json_decref(other);
}

/* The first ids behind the start; the padding is the last of them. */
static void expect_ids(const char *text, int first, int last)
{
    Tokenizer *t;
    int ids[LENGTH];
    if (tokenizer_open(&t, folder)) fail_msg("%s", status_message());
    assert_int_equal(tokenizer_encode(t, text, ids, LENGTH), OK);
    if (ids[1] != first || ids[LENGTH - 1] != last)
        fail_msg("%s: found %d .. %d, expected %d .. %d", text, ids[1], ids[LENGTH - 1], first,
                 last);
    tokenizer_close(&t);
}

/* Which file says what special tokens are, as transformers 5.24 was found to have it: END in capitals
 * is a token only where its flag is "normalized". */
static void test_special_tokens(void **state)
{
    (void)state;
    static const char capitals[] = "<|EndOfText|>";
    json_t *all = make_small();
    write_json(all); /* END: not normalized */
    put("tokenizer_config.json",
        "{\"eos_token\": {\"content\": \"<|endoftext|>\", \"normalized\": true}}");
    expect_ids(capitals, LESS, END); /* tokenizer.json's flag goes first */
    put("special_tokens_map.json", "{\"pad_token\": \"!\"}");
    expect_ids(capitals, LESS, BANG); /* the map names roles beside tokenizer.json too, */
    put("tokenizer_config.json", "{\"added_tokens_decoder\": {\"613\": {\"content\": "
                                 "\"<|endoftext|>\", \"normalized\": true}}}");
    expect_ids(capitals, END, END); /* but all give way to added_tokens_decoder, */
    put("tokenizer_config.json",
        "{\"added_tokens_decoder\": {}, \"pad_token\": \"!\", \"eos_token\": "
        "{\"content\": \"<|endoftext|>\", \"normalized\": true}, \"unk_token\": "
        "{\"content\": \"<|endoftext|>\", \"normalized\": true}}");
    expect_ids(capitals, END, BANG); /* an empty one too */
    put("tokenizer_config.json", "{}");
    put("added_tokens.json", "{\"<|endoftext|>\": 613, \"<|startoftext|>\": 612}");
    expect_ids(capitals, LESS, BANG);
    put("added_tokens.json", "{\"<|endoftext|>\": 5}");
    expect_open(ERR_INPUT, "added_tokens.json \"<|endoftext|>\": found id 5, expected 613");
    put("added_tokens.json", "{\"<cat>\": 49408}");
    expect_open(ERR_INPUT,
                "added_tokens.json: found the token \"<cat>\", expected <|startoftext|> and");
    take_away("added_tokens.json");
    /* without a list, the last form that was not there before: text, object, object with the flag */
    static const struct {
        const char *eos, *unk, *pad;
        int first;
    } role[] = {{"0", "1", "0", END},  {"1", "0", "1", LESS}, {"T", "1", "T", END},
                {"1", "T", "0", LESS}, {"T", "0", "1", END},  {"0", "0", "T", LESS}};
    take_away("special_tokens_map.json");
    take_away("tokenizer.json");
    write_vocab(all);
    write_merges(all);
    /* added_tokens.json alone: "normalized" where no role makes the token special; an object of
     * tokenizer_config.json does not, one of the map does */
    static const struct {
        const char *config, *map;
        int first;
    } old[] = {{"{}", "{}", END},
               {"{\"pad_token\": \"<|endoftext|>\"}", "{}", LESS},
               {"{\"eos_token\": {\"content\": \"<|endoftext|>\"}}", "{}", END},
               {"{}", "{\"unk_token\": {\"content\": \"<|endoftext|>\"}}", LESS},
               {"{\"unk_token\": \"<|endoftext|>\"}", "{\"unk_token\": \"!\"}", END},
               {"{}", "{\"bos_token\": \"<|startoftext|>\"}", END}};
    put("added_tokens.json", "{\"<|endoftext|>\": 613}");
    for (size_t i = 0; i < sizeof old / sizeof *old; i++) {
        put("tokenizer_config.json", old[i].config);
        put("special_tokens_map.json", old[i].map);
        expect_ids(capitals, old[i].first, END);
    }
    take_away("added_tokens.json");
    take_away("special_tokens_map.json");
    for (size_t i = 0; i < sizeof role / sizeof *role; i++) {
        char text[3][128], config[512];
        const char *const form[] = {role[i].eos, role[i].unk, role[i].pad};
        for (int k = 0; k < 3; k++)
            snprintf(text[k], sizeof text[k],
                     *form[k] == 'T' ? "\"<|endoftext|>\""
                                     : "{\"content\": \"<|endoftext|>\", \"normalized\": %s}",
                     *form[k] == '1' ? "true" : "false");
        snprintf(config, sizeof config, "{\"eos_token\": %s, \"unk_token\": %s, \"pad_token\": %s}",
                 text[0], text[1], text[2]);
        put("tokenizer_config.json", config);
        expect_ids(capitals, role[i].first, END);
    }
    take_away("vocab.json");
    take_away("merges.txt");
    json_decref(all);
}

static int open_folder(void **state)
{
    (void)state;
    return !mkdtemp(folder);
}

static int close_folder(void **state)
{
    (void)state;
    return dir_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens),
                                       cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_both_kinds),
                                       cmocka_unit_test(test_special_tokens)};
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
