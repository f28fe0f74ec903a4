/* tokenizer.c - special tokens, Unicode clean-up, cutting into words.
 *
 * The order of work follows transformers' CLIPTokenizer (tokenizers library), since published
 * models were trained on its output: (1) special tokens marked "normalized": false are found in
 * the raw text, (2) the text between them is composed and lower-cased, (3) the other special
 * tokens, treated likewise, are found in that, (4) what is left is cut into words.
 */
#include "weights/tokenizer.h"
#include "weights/tokenizer_parts.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

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
