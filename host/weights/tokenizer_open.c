/* tokenizer_open.c - a tokenizer from its folder: vocabulary, merges and special tokens, as
 * transformers reads them; what would give other ids than ours is refused by name.
 */
#include "base/file.h"
#include "base/text.h"
#include "weights/json_text.h"
#include "weights/tokenizer.h"
#include "weights/tokenizer_json.h"
#include "weights/tokenizer_parts.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VOCAB_BYTES = 1 << 26, MAX_MERGES_BYTES = 1 << 26, MAX_CONFIG_BYTES = 1 << 20 };
enum { JSON_DEPTH = 8 };

/* How a config gives a token: its text alone, or an object with its flag; all: a list's, which no role
 * changes. */
typedef enum { AS_TEXT = 1, AS_PLAIN = 2, AS_NORMALIZED = 4, AS_ALL = 7 } SpecialForm;

typedef struct {
    const char *folder;
    json_t *vocab, *config, *map, *old; /* owned; the last three NULL where the file is absent */
    json_t *added;         /* owned: of tokenizer.json, else NULL */
    const json_t *decoder; /* added_tokens_decoder of config, which outranks map, old and added */
} Loader;

static Status load_json(json_t **out, const char *folder, const char *name, size_t limit)
{
    char *path = path_join(folder, name);
    *out = NULL;
    Status s = file_exists(path) ? json_file_object(out, path, limit, JSON_DEPTH) : OK;
    free(path);
    return s;
}

/* Its place, or the first free one. */
static int find_special(const Tokenizer *t, const char *text)
{
    int at = 0;
    while (at < t->n_special && strcmp(t->special[at].text, text)) at++;
    return at;
}

/* Adds a token, or changes whether the one of this text is found before or after clean-up. */
static Status add_special(Tokenizer *t, const Loader *l, const char *text, SpecialForm form,
                          bool listed)
{
    const json_t *id = json_object_get(l->vocab, text);
    int at = find_special(t, text);
    if (!id || !*text)
        return FAIL(ERR_INPUT,
                    "%s: found the special token \"%.80s\", expected one of the vocabulary",
                    l->folder, text);
    if (at == TOKENIZER_MAX_SPECIALS)
        return FAIL(ERR_INPUT, "%s: found more than %d special tokens, expected fewer", l->folder,
                    TOKENIZER_MAX_SPECIALS);
    Special *s = &t->special[at];
    if (at < t->n_special) {
        if (listed || !(s->seen & form)) s->normalized = form == AS_NORMALIZED;
        s->seen |= listed ? AS_ALL : form;
        return OK;
    }
    *s = (Special){.text = strdup(text),
                   .id = (int32_t)json_integer_value(id),
                   .normalized = form == AS_NORMALIZED,
                   .seen = listed ? AS_ALL : form};
    t->n_special++;
    return unicode_clean(&s->clean, text, strlen(text));
}

/* A token in a config is its text, or an object with more to say. */
static Status read_special(const char **text, SpecialForm *form, const Loader *l,
                           const json_t *value, const char *key)
{
    const json_t *flag = json_object_get(value, "normalized");
    *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    *form = !json_is_object(value) ? AS_TEXT : json_is_false(flag) ? AS_PLAIN : AS_NORMALIZED;
    if (!*text)
        return FAIL(ERR_INPUT, "%s: %s: found no text, expected a token of the vocabulary",
                    l->folder, key);
    static const char *const off[] = {"single_word", "lstrip", "rstrip"};
    for (int i = 0; i < 3; i++)
        if (json_is_true(json_object_get(value, off[i])))
            return FAIL(ERR_INPUT, "%s: %s: found %s true, expected false", l->folder, key, off[i]);
    return OK;
}

static Status same_id(const Loader *l, const char *list, const char *text, long long found)
{
    long long id = json_integer_value(json_object_get(l->vocab, text));
    if (found == id) return OK;
    return FAIL(ERR_INPUT, "%s: %s \"%.80s\": found id %lld, expected %lld as in the vocabulary",
                l->folder, list, text, found, id);
}

/* Has the folder a role for the token? An object in tokenizer_config.json does not count. */
static bool has_role(const Loader *l, const char *text)
{
    static const char *const role[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof role / sizeof *role; i++) {
        const json_t *v = json_object_get(l->map, role[i]);
        if (!v) v = json_object_get(l->config, role[i]);
        else if (json_is_object(v)) v = json_object_get(v, "content");
        if (json_is_string(v) && !strcmp(json_string_value(v), text)) return true;
    }
    return false;
}

/* added_tokens.json of old transformers: the special tokens again, or what would need more rows. */
static Status read_old_list(Tokenizer *t, const Loader *l)
{
    const char *text;
    json_t *id;
    json_object_foreach(l->decoder ? NULL : l->old, text, id)
    {
        if (strcmp(text, BPE_START) && strcmp(text, BPE_END))
            return FAIL(ERR_INPUT,
                        "%s/added_tokens.json: found the token \"%.80s\", expected %s and %s",
                        l->folder, text, BPE_START, BPE_END);
        TRY(add_special(t, l, text, has_role(l, text) ? AS_PLAIN : AS_NORMALIZED, true));
        TRY(same_id(l, "added_tokens.json", text, json_integer_value(id)));
    }
    return OK;
}

static Status read_list(Tokenizer *t, const Loader *l)
{
    json_t *list = (json_t *)(l->decoder ? l->decoder : l->added), *entry;
    const char *key, *text;
    SpecialForm form;
    json_object_foreach(list, key, entry)
    {
        long id = -1;
        TRY(read_special(&text, &form, l, entry, "added_tokens_decoder"));
        TRY(add_special(t, l, text, form, true));
        text_to_long(&id, key);
        TRY(same_id(l, "added_tokens_decoder", text, id));
    }
    return OK;
}

static Status read_role(int32_t *id, Tokenizer *t, const Loader *l, const char *key,
                        const char *otherwise)
{
    const json_t *value = l->decoder ? NULL : json_object_get(l->map, key);
    const char *text = otherwise;
    SpecialForm form = AS_TEXT;
    if (!value || json_is_null(value)) value = json_object_get(l->config, key);
    if (value && !json_is_null(value)) TRY(read_special(&text, &form, l, value, key));
    TRY(add_special(t, l, text, form, false));
    *id = (int32_t)json_integer_value(json_object_get(l->vocab, text));
    return OK;
}

/* Roles that CLIP has not make a token special as well: where it is that already, in the same form,
 * nothing changes. */
static Status check_roles(const Tokenizer *t, const Loader *l, const json_t *file)
{
    static const char *const ours[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    const char *key, *text;
    json_t *value;
    json_object_foreach((json_t *)file, key, value)
    {
        SpecialForm form;
        size_t n = strlen(key);
        int i = 0;
        while (i < 4 && strcmp(key, ours[i])) i++;
        if (i < 4 || n < 6 || strcmp(key + n - 6, "_token")) continue;
        if (!json_is_string(value) && !json_is_object(value)) continue; /* "add_bos_token": false */
        TRY(read_special(&text, &form, l, value, key));
        int at = find_special(t, text);
        if (at == t->n_special || !(t->special[at].seen & form))
            return FAIL(ERR_INPUT,
                        "%s: %s: found the token \"%.80s\", expected no further special token",
                        l->folder, key, text);
    }
    return OK;
}

/* What gives other ids than text with its padding behind it. */
static Status check_sides(const Loader *l, const json_t *file)
{
    static const char *const side[] = {"padding_side", "truncation_side"};
    for (int i = 0; i < 2; i++) {
        const json_t *v = json_object_get(file, side[i]);
        const char *text = json_string_value(v);
        if (v && !json_is_null(v) && (!text || strcmp(text, "right")))
            return FAIL(ERR_INPUT, "%s: %s: found %.80s, expected right", l->folder, side[i],
                        text ? text : "no text");
    }
    if (json_is_true(json_object_get(file, "split_special_tokens")))
        return FAIL(ERR_INPUT, "%s: split_special_tokens: found true, expected false", l->folder);
    return OK;
}

static Status check_config(const Loader *l)
{
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    const json_t *class = json_object_get(l->config, "tokenizer_class");
    const char *name = json_string_value(class);
    if (class && (!name || strncmp(name, "CLIPTokenizer", 13)))
        return FAIL(ERR_INPUT, "%s: tokenizer_class: found %.80s, expected CLIPTokenizer",
                    l->folder, name ? name : "no text");
    for (int i = 0; i < 4; i++) {
        const json_t *list = json_object_get(i % 2 ? l->map : l->config, lists[i / 2]);
        if (json_array_size(list) || json_object_size(list))
            return FAIL(ERR_INPUT, "%s: %s: found tokens, expected none", l->folder, lists[i / 2]);
    }
    TRY(check_sides(l, l->config));
    return l->decoder ? OK : check_sides(l, l->map);
}

/* A million and more is transformers' way of saying none. */
static Status read_longest(Tokenizer *t, const Loader *l)
{
    const json_t *v = json_object_get(l->config, "model_max_length");
    double n = json_number_value(v);
    if (!v || json_is_null(v) || n >= 1e6) return OK;
    if (!(n >= 2) || n != floor(n))
        return FAIL(ERR_INPUT,
                    "%s/tokenizer_config.json: model_max_length: found %g, expected a whole number "
                    "of 2 or more",
                    l->folder, n);
    t->longest = (int)n;
    return OK;
}

enum { VOCAB, MERGES, JSON, N_FILES };

/* Vocabulary and merges of vocab.json and merges.txt. */
static Status open_pair(Bpe *b, json_t **vocab, const Loader *l, char *const path[N_FILES])
{
    char *merges = NULL;
    size_t size;
    TRY(load_json(vocab, l->folder, "vocab.json", MAX_VOCAB_BYTES));
    TRY(file_read(&merges, &size, path[MERGES], MAX_MERGES_BYTES));
    Status s = bpe_open(b, vocab, path[VOCAB], merges, size, path[MERGES]);
    free(merges);
    return s;
}

/* transformers 5 reads tokenizer.json where it is there; 4 may read the older files beside it. */
static Status check_pair(const Tokenizer *t, const Loader *l, char *const path[N_FILES])
{
    Bpe other = {0};
    json_t *vocab = NULL;
    Status s = open_pair(&other, &vocab, l, path);
    if (!s && !(json_equal(vocab, l->vocab) && bpe_equal(&other, &t->bpe)))
        s = FAIL(ERR_INPUT,
                 "%s: found another vocabulary or other merges than in vocab.json and merges.txt "
                 "beside it, expected the same, or one of the two kinds alone",
                 path[JSON]);
    bpe_close(&other);
    json_decref(vocab);
    return s;
}

static Status open_bpe(Tokenizer *t, Loader *l, char *const path[N_FILES])
{
    bool pair = file_exists(path[MERGES]);
    if (!file_exists(path[JSON]) && !pair)
        return FAIL(ERR_INPUT,
                    "%s: found no such file, expected CLIP's merges.txt and vocab.json, or "
                    "tokenizer.json",
                    path[MERGES]);
    if (!file_exists(path[JSON])) return open_pair(&t->bpe, &l->vocab, l, path);
    char *merges;
    size_t size;
    TRY(tokenizer_json_read(&l->vocab, &merges, &size, &l->added, path[JSON]));
    Status s = bpe_open(&t->bpe, &l->vocab, path[JSON], merges, size, path[JSON]);
    free(merges);
    return s || !pair ? s : check_pair(t, l, path);
}

static Status load(Tokenizer *t, Loader *l)
{
    static const char *const name[N_FILES] = {"vocab.json", "merges.txt", "tokenizer.json"};
    int32_t unknown;
    Status s;
    char *path[N_FILES];
    for (int i = 0; i < N_FILES; i++) path[i] = path_join(l->folder, name[i]);
    TRY_OR(done, s, open_bpe(t, l, path));
    TRY_OR(done, s, load_json(&l->config, l->folder, "tokenizer_config.json", MAX_CONFIG_BYTES));
    TRY_OR(done, s, load_json(&l->map, l->folder, "special_tokens_map.json", MAX_CONFIG_BYTES));
    TRY_OR(done, s, load_json(&l->old, l->folder, "added_tokens.json", MAX_CONFIG_BYTES));
    l->decoder = json_object_get(l->config, "added_tokens_decoder");
    TRY_OR(done, s, check_config(l));
    TRY_OR(done, s, read_longest(t, l));
    TRY_OR(done, s, read_old_list(t, l));
    TRY_OR(done, s, read_list(t, l));
    TRY_OR(done, s, read_role(&t->start, t, l, "bos_token", BPE_START));
    TRY_OR(done, s, read_role(&t->end, t, l, "eos_token", BPE_END));
    TRY_OR(done, s, read_role(&unknown, t, l, "unk_token", BPE_END));
    TRY_OR(done, s, read_role(&t->pad, t, l, "pad_token", BPE_END));
    TRY_OR(done, s, check_roles(t, l, l->config));
    if (!l->decoder) s = check_roles(t, l, l->map);
done:
    for (int i = 0; i < N_FILES; i++) free(path[i]);
    return s;
}

Status tokenizer_open(Tokenizer **t, const char *folder)
{
    Loader l = {.folder = folder};
    *t = calloc(1, sizeof **t);
    CHECK(*t);
    Status s = load(*t, &l);
    json_decref(l.vocab);
    json_decref(l.config);
    json_decref(l.map);
    json_decref(l.old);
    json_decref(l.added);
    if (s) tokenizer_close(t);
    return s;
}

void tokenizer_close(Tokenizer **t)
{
    if (!*t) return;
    bpe_close(&(*t)->bpe);
    for (int i = 0; i < (*t)->n_special; i++) {
        free((*t)->special[i].text);
        free((*t)->special[i].clean.at);
    }
    free(*t);
    *t = NULL;
}
