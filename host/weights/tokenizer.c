/* tokenizer.c - special tokens, Unicode clean-up, cutting into words.
 *
 * The order of work follows transformers' CLIPTokenizer (tokenizers library), since published
 * models were trained on its output: (1) special tokens marked "normalized": false are found in
 * the raw text, (2) the text between them is composed and lower-cased, (3) the other special
 * tokens, treated likewise, are found in that, (4) what is left is cut into words.
 */
#include "weights/tokenizer.h"
#include "base/file.h"
#include "base/text.h"
#include "weights/bpe.h"
#include "weights/json_text.h"
#include "weights/tokenizer_json.h"
#include "weights/tokenizer_unicode.h"
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_VOCAB_BYTES = 1 << 26, MAX_MERGES_BYTES = 1 << 26, MAX_CONFIG_BYTES = 1 << 20 };
enum { JSON_DEPTH = 8, MAX_SPECIALS = 64 };

typedef struct {
    char *text;  /* owned */
    Codes clean; /* owned: as it looks after clean-up */
    int32_t id;
    bool normalized;
    int seen; /* SpecialForms in which it was given: only a new one changes the flag */
} Special;

/* How a config gives a token: its text alone, or an object with its flag; all: a list's, which no role
 * changes. */
typedef enum { AS_TEXT = 1, AS_PLAIN = 2, AS_NORMALIZED = 4, AS_ALL = 7 } SpecialForm;


struct Tokenizer {
    Bpe bpe;
    Special special[MAX_SPECIALS];
    int n_special;
    int32_t start, end, pad;
    int longest; /* model_max_length, 0: not said */
};

/* ---- encoding -------------------------------------------------------------------------- */

typedef struct {
    const Tokenizer *t;
    int32_t *ids; /* the caller's; NULL: they are only counted */
    int n, limit;
    unsigned char *word;    /* [4 * codes] scratch of one piece of text, */
    int32_t *tokens, *rank; /* [4 * codes] as are these                  */
} Encoder;

static void emit(Encoder *e, int32_t id)
{
    if (e->n == e->limit) return;
    if (e->ids) e->ids[e->n] = id;
    e->n++;
}

static void encode_word(Encoder *e, const int32_t *code, int n)
{
    utf8proc_ssize_t bytes = 0;
    if (e->n == e->limit) return;
    for (int i = 0; i < n; i++) bytes += utf8proc_encode_char(code[i], e->word + bytes);
    int m = bpe_word(&e->t->bpe, e->tokens, e->rank, e->word, (int)bytes);
    for (int i = 0; i < m; i++) emit(e, e->tokens[i]);
}

static bool starts_with(const int32_t *code, int n, const char *ascii)
{
    int i = 0;
    for (; ascii[i]; i++)
        if (i == n || code[i] != ascii[i]) return false;
    return true;
}

static int contraction(const int32_t *code, int n)
{
    static const char *const known[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (int i = 0; i < 7; i++)
        if (starts_with(code, n, known[i])) return (int)strlen(known[i]);
    return 0;
}

/* The names of the special tokens are cut at their letters, where the tokens were not found. */
static int marker(const int32_t *code, int n)
{
    return starts_with(code, n, BPE_START) ? (int)strlen(BPE_START)
           : starts_with(code, n, BPE_END) ? (int)strlen(BPE_END)
                                           : 0;
}

static void encode_words(Encoder *e, const int32_t *code, int n)
{
    for (int at = 0, m; at < n; at += m) {
        CharKind kind = unicode_kind(code[at]);
        m = 1;
        if (kind == KIND_SPACE) continue;
        if ((m = marker(code + at, n - at))) {
            encode_word(e, code + at, 2);
            encode_word(e, code + at + 2, m - 4);
            encode_word(e, code + at + m - 2, 2);
            continue;
        }
        if (!(m = contraction(code + at, n - at)))
            for (m = 1; kind != KIND_NUMBER && at + m < n && unicode_kind(code[at + m]) == kind;)
                m++;
        encode_word(e, code + at, m);
    }
}

/* The longest special token of the later kind at this place, or NULL. */
static const Special *clean_special(const Tokenizer *t, const int32_t *code, int n)
{
    const Special *best = NULL;
    for (int i = 0; i < t->n_special; i++) {
        const Special *s = &t->special[i];
        if (s->normalized && s->clean.n && s->clean.n <= n &&
            (!best || s->clean.n > best->clean.n) &&
            !memcmp(s->clean.at, code, (size_t)s->clean.n * sizeof *code))
            best = s;
    }
    return best;
}

static Status encode_piece(Encoder *e, const char *text, size_t n)
{
    Codes c;
    if (!n || e->n == e->limit) return OK;
    TRY(unicode_clean(&c, text, n));
    size_t room = 4 * (size_t)c.n + 1;
    e->word = malloc(room);
    e->tokens = malloc(room * sizeof *e->tokens);
    e->rank = malloc(room * sizeof *e->rank);
    CHECK(e->word && e->tokens && e->rank);
    int from = 0;
    for (int at = 0; at < c.n;) {
        const Special *s = clean_special(e->t, c.at + at, c.n - at);
        if (!s) {
            at++;
            continue;
        }
        encode_words(e, c.at + from, at - from);
        emit(e, s->id);
        from = at += s->clean.n;
    }
    encode_words(e, c.at + from, c.n - from);
    free(e->word);
    free(e->tokens);
    free(e->rank);
    free(c.at);
    return OK;
}

static const Special *raw_special(const Tokenizer *t, const char *text)
{
    const Special *best = NULL;
    for (int i = 0; i < t->n_special; i++) {
        const Special *s = &t->special[i];
        if (!s->normalized && !strncmp(text, s->text, strlen(s->text)) &&
            (!best || strlen(s->text) > strlen(best->text)))
            best = s;
    }
    return best;
}

static Status encode(Encoder *e, const char *text)
{
    size_t bytes = strlen(text);
    if (bytes > TOKENIZER_MAX_TEXT)
        return FAIL(ERR_INPUT, "prompt: found %zu bytes, expected at most %d", bytes,
                    TOKENIZER_MAX_TEXT);
    char *valid = unicode_valid(text), *from = valid;
    Status s = OK;
    for (char *at = valid; *at && !s;) {
        const Special *special = raw_special(e->t, at);
        if (!special) {
            at++;
            continue;
        }
        s = encode_piece(e, from, (size_t)(at - from));
        emit(e, special->id);
        from = at += strlen(special->text);
    }
    if (!s) s = encode_piece(e, from, strlen(from));
    free(valid);
    return s;
}

Status tokenizer_encode(const Tokenizer *t, const char *text, int32_t *ids, int length)
{
    CHECK(length >= 2);
    Encoder e = {.t = t, .ids = ids, .n = 1, .limit = length - 1};
    ids[0] = t->start;
    Status s = encode(&e, text);
    ids[e.n] = t->end;
    for (int i = e.n + 1; i < length; i++) ids[i] = t->pad;
    return s;
}

Status tokenizer_count(int *n, const Tokenizer *t, const char *text)
{
    Encoder e = {.t = t, .limit = INT_MAX};
    Status s = encode(&e, text);
    *n = e.n;
    return s;
}

int tokenizer_size(const Tokenizer *t) { return t->bpe.size; }
int tokenizer_longest(const Tokenizer *t) { return t->longest; }
int32_t tokenizer_pad(const Tokenizer *t) { return t->pad; }

/* ---- loading --------------------------------------------------------------------------- */

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

/* Adds a token, or changes whether the one of this text is found before or after clean-up. */
static Status add_special(Tokenizer *t, const Loader *l, const char *text, SpecialForm form,
                          bool listed)
{
    const json_t *id = json_object_get(l->vocab, text);
    int at = 0;
    if (!id || !*text)
        return FAIL(ERR_INPUT,
                    "%s: found the special token \"%.80s\", expected one of the vocabulary",
                    l->folder, text);
    while (at < t->n_special && strcmp(t->special[at].text, text)) at++;
    if (at == MAX_SPECIALS)
        return FAIL(ERR_INPUT, "%s: found more than %d special tokens, expected fewer", l->folder,
                    MAX_SPECIALS);
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
        TRY(add_special(t, l, text, AS_PLAIN, true));
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
    return OK;
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
