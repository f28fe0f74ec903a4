/* bpe.c - loading and applying merges.
 *
 * Files spell a byte as one printable character: bytes that print in Latin-1 as themselves, the
 * other 68, in order, as U+0100 upwards. A symbol that ends a word carries "</w>".
 */
#include "weights/bpe.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIP_MERGES = 48894, BYTE_TOKENS = 512, MOST_SPECIAL = 64 };

/* ---- bytes as characters --------------------------------------------------------------- */

static bool prints(int byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173); }

/* The 256 bytes in the vocabulary's order: those that print first. */
static int byte_at(int place)
{
    for (int pass = 0; pass < 2; pass++)
        for (int b = 0; b < 256; b++)
            if (prints(b) == !pass && !place--) return b;
    return -1;
}

static void byte_symbol(char text[8], int byte, bool end)
{
    int code = byte;
    if (!prints(byte)) {
        code = 256;
        for (int b = 0; b < byte; b++) code += !prints(b);
    }
    const char *mark = end ? "</w>" : "";
    if (code < 128) snprintf(text, 8, "%c%s", code, mark);
    else snprintf(text, 8, "%c%c%s", 0xc0 | code >> 6, 0x80 | (code & 63), mark);
}

/* ---- vocabulary ------------------------------------------------------------------------ */

static Status check_vocab(Bpe *b, const json_t *vocab, const char *path)
{
    size_t n = json_object_size(vocab);
    const char *token;
    json_t *value;
    Status s = OK;
    if (n > BPE_MAX_TOKENS)
        return FAIL(ERR_INPUT, "%s: found %zu tokens, expected at most %d", path, n,
                    BPE_MAX_TOKENS);
    char *seen = calloc(n + 1, 1);
    CHECK(seen);
    json_object_foreach((json_t *)vocab, token, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= (json_int_t)n)
            s = FAIL(ERR_INPUT, "%s: token \"%.80s\": found %s, expected an id of 0..%zu", path,
                     token, json_is_integer(value) ? "an id out of range" : "no whole number",
                     n - 1);
        else if (seen[id]++)
            s = FAIL(ERR_INPUT,
                     "%s: token \"%.80s\": found id %lld a second time, expected each id once",
                     path, token, (long long)id);
        else if (strlen(token) > BPE_MAX_TOKEN_BYTES)
            s = FAIL(ERR_INPUT, "%s: id %lld: found a token of %zu bytes, expected at most %d",
                     path, (long long)id, strlen(token), BPE_MAX_TOKEN_BYTES);
        if (s) break;
    }
    free(seen);
    b->size = (int)n;
    return s;
}

static Status find_bytes(Bpe *b, const json_t *vocab, const char *path)
{
    for (int end = 0; end < 2; end++)
        for (int byte = 0; byte < 256; byte++) {
            char symbol[8];
            byte_symbol(symbol, byte, end);
            const json_t *id = json_object_get(vocab, symbol);
            if (!id)
                return FAIL(ERR_INPUT,
                            "%s: found no token \"%s\", expected one for each of the 256 bytes",
                            path, symbol);
            b->byte[end][byte] = (int32_t)json_integer_value(id);
        }
    return OK;
}

static void add_token(json_t *vocab, const char *token)
{
    if (!json_object_get(vocab, token))
        json_object_set_new(vocab, token, json_integer((json_int_t)json_object_size(vocab)));
}

/* ---- merges ---------------------------------------------------------------------------- */

typedef struct {
    const char *path;
    char *at;
    int line;
} Lines;

/* The next line, cut at its end without CR; NULL behind the last. */
static char *next_line(Lines *l)
{
    if (!l->at || !*l->at) return NULL;
    char *line = l->at, *end = strchr(line, '\n');
    l->at = end ? end + 1 : NULL;
    l->line++;
    if (end && end > line && end[-1] == '\r') end[-1] = 0;
    if (end) *end = 0;
    return line;
}

/* Cuts a line into its two symbols. joined: both together, the merge's own token. */
static Status cut(const Lines *l, char *line, char **right, char joined[BPE_MAX_TOKEN_BYTES + 1])
{
    char *space = strchr(line, ' ');
    if (!space || space == line || !space[1] || strchr(space + 1, ' '))
        return FAIL(ERR_INPUT, "%s:%d: found \"%.80s\", expected two symbols with a space between",
                    l->path, l->line, line);
    *space = 0;
    *right = space + 1;
    if (snprintf(joined, BPE_MAX_TOKEN_BYTES + 1, "%s%s", line, *right) > BPE_MAX_TOKEN_BYTES)
        return FAIL(ERR_INPUT, "%s:%d: found a token of more than %d bytes, expected fewer",
                    l->path, l->line, BPE_MAX_TOKEN_BYTES);
    return OK;
}

static size_t slot_of(const Bpe *b, uint64_t pair)
{
    uint64_t mixed = pair * 0x9e3779b97f4a7c15u;
    size_t at = (size_t)(mixed >> 32) & (b->capacity - 1);
    while (b->merge[at].rank >= 0 && b->merge[at].pair != pair) at = (at + 1) & (b->capacity - 1);
    return at;
}

static Status token_id(int32_t *id, const json_t *vocab, const Lines *l, const char *token)
{
    const json_t *value = json_object_get(vocab, token);
    if (!value)
        return FAIL(
            ERR_INPUT,
            "%s:%d: found the token \"%.80s\" that is not in the vocabulary, expected one that is",
            l->path, l->line, token);
    *id = (int32_t)json_integer_value(value);
    return OK;
}

static Status add_merge(Bpe *b, json_t *vocab, const Lines *l, char *line, int rank,
                        bool make_vocab)
{
    char *right = line, joined[BPE_MAX_TOKEN_BYTES + 1];
    int32_t a = 0, c = 0, id = 0;
    TRY(cut(l, line, &right, joined));
    TRY(token_id(&a, vocab, l, line));
    TRY(token_id(&c, vocab, l, right));
    if (make_vocab) add_token(vocab, joined);
    TRY(token_id(&id, vocab, l, joined));
    BpeMerge m = {(uint64_t)(uint32_t)a << 32 | (uint32_t)c, rank, id};
    size_t at = slot_of(b, m.pair);
    if (b->merge[at].rank >= 0)
        return FAIL(ERR_INPUT,
                    "%s:%d: found the merge \"%.80s %.80s\" a second time, expected each once",
                    l->path, l->line, line, right);
    b->merge[at] = m;
    return OK;
}

static Status table_new(Bpe *b, size_t n_lines)
{
    b->capacity = 16;
    while (b->capacity < 2 * n_lines) b->capacity *= 2;
    b->merge = malloc(b->capacity * sizeof *b->merge);
    if (!b->merge) return FAIL(ERR_SPACE, "no memory for %zu merges", n_lines);
    for (size_t i = 0; i < b->capacity; i++) b->merge[i].rank = -1;
    return OK;
}

static Status read_merges(Bpe *b, json_t *vocab, char *text, size_t size, const char *path,
                          bool make_vocab)
{
    Lines l = {.path = path, .at = text};
    size_t n_lines = 1;
    if (memchr(text, 0, size)) return FAIL(ERR_INPUT, "%s: found a NUL byte, expected text", path);
    for (size_t i = 0; i < size; i++) n_lines += text[i] == '\n';
    if (n_lines > BPE_MAX_TOKENS)
        return FAIL(ERR_INPUT, "%s: found %zu lines, expected at most %d", path, n_lines,
                    BPE_MAX_TOKENS);
    TRY(table_new(b, n_lines));
    int rank = 0;
    for (char *line; (line = next_line(&l));) {
        if (!*line || (l.line == 1 && strstr(line, "#version"))) continue;
        if (make_vocab && rank == CLIP_MERGES) break; /* CLIP's own file goes on, unused */
        TRY(add_merge(b, vocab, &l, line, rank++, make_vocab));
    }
    int expected = b->size - BYTE_TOKENS;
    if (!make_vocab && expected - rank > MOST_SPECIAL)
        return FAIL(ERR_INPUT,
                    "%s: found %d merges, expected about %d for %d tokens in the vocabulary: cut "
                    "short?",
                    path, rank, expected, b->size);
    return OK;
}

Status bpe_open(Bpe *b, json_t **vocab, const char *vocab_path, char *merges, size_t size,
                const char *merges_path)
{
    Bpe r = {0};
    Status s;
    bool make_vocab = !*vocab;
    const char *path = make_vocab ? merges_path : vocab_path;
    *b = r;
    if (make_vocab) {
        *vocab = json_object();
        CHECK(*vocab);
        for (int i = 0; i < BYTE_TOKENS; i++) {
            char symbol[8];
            byte_symbol(symbol, byte_at(i % 256), i >= 256);
            add_token(*vocab, symbol);
        }
    } else {
        TRY_OR(done, s, check_vocab(&r, *vocab, path));
    }
    TRY_OR(done, s, find_bytes(&r, *vocab, path));
    TRY_OR(done, s, read_merges(&r, *vocab, merges, size, merges_path, make_vocab));
    if (make_vocab) {
        add_token(*vocab, BPE_START);
        add_token(*vocab, BPE_END);
        r.size = (int)json_object_size(*vocab);
    }
    *b = r;
    r = (Bpe){0};
done:
    bpe_close(&r);
    return s;
}

void bpe_close(Bpe *b)
{
    free(b->merge);
    *b = (Bpe){0};
}

static bool has_merges(const Bpe *a, const Bpe *b)
{
    bool same = true;
    for (size_t i = 0; i < b->capacity && same; i++) {
        const BpeMerge *m = &b->merge[i], *found = &a->merge[slot_of(a, m->pair)];
        same = m->rank < 0 || (found->rank == m->rank && found->id == m->id);
    }
    return same;
}

bool bpe_equal(const Bpe *a, const Bpe *b)
{
    return a->size == b->size && !memcmp(a->byte, b->byte, sizeof a->byte) && has_merges(a, b) &&
           has_merges(b, a);
}

/* ---- use ------------------------------------------------------------------------------- */

static int32_t rank_of(const Bpe *b, const int32_t *ids)
{
    const BpeMerge *m = &b->merge[slot_of(b, (uint64_t)(uint32_t)ids[0] << 32 | (uint32_t)ids[1])];
    return m->rank >= 0 ? m->rank : INT32_MAX;
}

static void drop(int32_t *v, int at, int n)
{
    memmove(v + at, v + at + 1, (size_t)(n - at - 1) * sizeof *v);
}

/* Merges the leftmost pair of the best rank, again and again. rank[i] is that of ids[i], ids[i +
 * 1]; words are short, so looking through all of them each time beats a heap. */
int bpe_word(const Bpe *b, int32_t *ids, int32_t *rank, const unsigned char *word, int n)
{
    for (int i = 0; i < n; i++) ids[i] = b->byte[i == n - 1][word[i]];
    for (int i = 0; i + 1 < n; i++) rank[i] = rank_of(b, ids + i);
    while (n > 1) {
        int at = 0;
        for (int i = 1; i + 1 < n; i++)
            if (rank[i] < rank[at]) at = i;
        if (rank[at] == INT32_MAX) break;
        ids[at] =
            b->merge[slot_of(b, (uint64_t)(uint32_t)ids[at] << 32 | (uint32_t)ids[at + 1])].id;
        drop(ids, at + 1, n);
        drop(rank, at, n - 1);
        n--;
        if (at) rank[at - 1] = rank_of(b, ids + at - 1);
        if (at + 1 < n) rank[at] = rank_of(b, ids + at);
    }
    return n;
}
