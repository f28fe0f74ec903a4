/* tokenizer_json.c - what a tokenizer.json says, compared with what CLIP's must say.
 *
 * The file describes a pipeline (normalizer, pre_tokenizer, model, post_processor) of which ours is
 * one fixed instance, so everything that decides ids is compared; merges are taken out as the lines
 * of a merges.txt. decoder does not touch ids, truncation and padding only by their side: the caller
 * cuts and pads, on the right.
 */
#include "weights/tokenizer_json.h"
#include "base/text.h"
#include "weights/json_text.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1 << 26, DEPTH = 12, SHOWN = 90 };

/* A value that must be as CLIP has it; "a/b/0" is member 0 of member b of member a. */
typedef struct {
    const char *at, *json;
    bool optional; /* absent is as good */
} Must;

#define WORDS "'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|[^\\\\s\\\\p{L}\\\\p{N}]+"

static const Must must[] = {
    {"normalizer/type", "\"Sequence\"", false},
    {"normalizer/normalizers/0/type", "\"NFC\"", false},
    {"normalizer/normalizers/1/type", "\"Replace\"", false},
    {"normalizer/normalizers/1/pattern/Regex", "\"\\\\s+\"", false},
    {"normalizer/normalizers/1/content", "\" \"", false},
    {"normalizer/normalizers/2/type", "\"Lowercase\"", false},
    {"normalizer/normalizers/3", "null", true},
    {"pre_tokenizer/type", "\"Sequence\"", false},
    {"pre_tokenizer/pretokenizers/0/type", "\"Split\"", false},
    {"pre_tokenizer/pretokenizers/0/behavior", "\"Removed\"", false},
    {"pre_tokenizer/pretokenizers/0/invert", "true", false},
    {"pre_tokenizer/pretokenizers/1/type", "\"ByteLevel\"", false},
    {"pre_tokenizer/pretokenizers/1/add_prefix_space", "false", false},
    {"pre_tokenizer/pretokenizers/2", "null", true},
    {"model/type", "\"BPE\"", true},
    {"model/dropout", "null", true},
    {"model/continuing_subword_prefix", "\"\"", true},
    {"model/end_of_word_suffix", "\"</w>\"", false},
    {"model/byte_fallback", "false", true},
    {"model/ignore_merges", "false", true},
    {"truncation/direction", "\"Right\"", true},
    {"padding/direction", "\"Right\"", true},
};

/* Either form of the cutting pattern; they differ where special tokens are not found as such. */
static const char *const patterns[] = {
    "\"<\\\\|startoftext\\\\|>|<\\\\|endoftext\\\\|>|" WORDS "\"", "\"" WORDS "\""};

static const json_t *value_at(const json_t *v, const char *at)
{
    while (v && *at) {
        char key[64];
        size_t n = strcspn(at, "/");
        CHECK(n < sizeof key);
        memcpy(key, at, n);
        key[n] = 0;
        v = json_is_array(v) ? json_array_get(v, (size_t)atoi(key)) : json_object_get(v, key);
        at += n + (at[n] == '/');
    }
    return v;
}

static bool same(const json_t *v, const char *json)
{
    json_t *expected = json_loads(json, JSON_DECODE_ANY, NULL);
    CHECK(expected);
    bool equal = json_equal(v, expected);
    json_decref(expected);
    return equal;
}

static Status differs(const char *path, const char *at, const json_t *v, const char *expected)
{
    char *found = v ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    Status s = FAIL(ERR_INPUT, "%s: %s: found %.*s, expected %s", path, at, SHOWN,
                    found ? found : "nothing", expected);
    free(found);
    return s;
}

static Status check_pipeline(const json_t *all, const char *path)
{
    static const char pattern[] = "pre_tokenizer/pretokenizers/0/pattern/Regex";
    for (size_t i = 0; i < sizeof must / sizeof *must; i++) {
        const json_t *v = value_at(all, must[i].at);
        if (!v && must[i].optional) continue;
        if (!v || !same(v, must[i].json)) return differs(path, must[i].at, v, must[i].json);
    }
    const json_t *v = value_at(all, pattern);
    for (int i = 0; v && i < 2; i++)
        if (same(v, patterns[i])) return OK;
    return differs(path, pattern, v, "CLIP's");
}

/* Merges are pairs or, in older files, texts with a space between. */
static Status take_merges(char **text, size_t *size, const json_t *all, const char *path)
{
    const json_t *list = value_at(all, "model/merges");
    if (!json_is_array(list)) return differs(path, "model/merges", list, "a list");
    Text t = {0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *merge = json_array_get(list, i);
        const char *both = json_string_value(merge),
                   *left = json_string_value(json_array_get(merge, 0)),
                   *right = json_string_value(json_array_get(merge, 1));
        bool pair = left && right && json_array_size(merge) == 2;
        if ((!both && !pair) || strchr(both ? both : left, '\n') ||
            (!both && strchr(right, '\n'))) {
            free(t.s);
            return differs(path, "model/merges", merge, "two symbols");
        }
        if (both) text_add(&t, "%s\n", both);
        else text_add(&t, "%s %s\n", left, right);
    }
    text_add(&t, "%s", "");
    *text = t.s;
    *size = t.n;
    return OK;
}

static Status take_added(json_t **added, const json_t *all, const char *path)
{
    const json_t *list = json_object_get(all, "added_tokens");
    json_t *by_id = json_object(), *entry;
    size_t i;
    CHECK(by_id);
    json_array_foreach((json_t *)list, i, entry)
    {
        char id[24];
        const json_t *number = json_object_get(entry, "id");
        if (!json_is_integer(number)) {
            json_decref(by_id);
            return differs(path, "added_tokens", entry, "tokens with an id");
        }
        snprintf(id, sizeof id, "%lld", (long long)json_integer_value(number));
        json_object_set(by_id, id, entry);
    }
    *added = by_id;
    return OK;
}

Status tokenizer_json_read(json_t **vocab, char **merges, size_t *size, json_t **added,
                           const char *path)
{
    json_t *all;
    Status s;
    *vocab = *added = NULL;
    *merges = NULL;
    TRY(json_file_object(&all, path, MAX_BYTES, DEPTH));
    TRY_OR(done, s, check_pipeline(all, path));
    json_t *tokens = (json_t *)value_at(all, "model/vocab");
    if (!json_is_object(tokens)) {
        s = differs(path, "model/vocab", tokens, "a table of tokens");
        goto done;
    }
    TRY_OR(done, s, take_added(added, all, path));
    TRY_OR(done, s, take_merges(merges, size, all, path));
    *vocab = json_incref(tokens);
done:
    if (s) {
        json_decref(*added);
        *added = NULL;
    }
    json_decref(all);
    return s;
}
