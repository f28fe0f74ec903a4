/* tokenizer_unicode.c - utf8proc, with the few characters that published tokenizers treat
 * otherwise.
 *
 * The tokenizers library (0.23) has three tables of different age: its normalizer's is older than
 * Unicode 12, so that later marks stand still; its classes are those of Unicode 16, its lower case
 * that of Unicode 17, both beyond utf8proc's. Below is all that differs from utf8proc 2.8 (Unicode
 * 15), found by asking both for every character (tests/golden/tokenizer/differences.py).
 */
#include "weights/tokenizer_unicode.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct {
    int32_t first, last;
} Range;

/* Neither moved, nor composed, nor decomposed. */
static const Range alone[] = {
    {0x7fd, 0x7fd}, {0x898, 0x89f}, {0x8ca, 0x8d3}, {0x9fe, 0x9fe}, {0xc3c, 0xc3c},
    {0xd3b, 0xd3c}, {0xeba, 0xeba}, {0x1715, 0x1715}, {0x1abf, 0x1ace}, {0x1df6, 0x1dfa},
    {0xa82c, 0xa82c}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff},
    {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b},
    {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11938, 0x11938},
    {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
    {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
};
static const Range letters[] = {
    {0x1c89, 0x1c8a}, {0xa7cb, 0xa7cd}, {0xa7da, 0xa7dc}, {0x105c0, 0x105f3}, {0x10d4a, 0x10d65},
    {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x11380, 0x11389}, {0x1138b, 0x1138b},
    {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7}, {0x113d1, 0x113d1},
    {0x113d3, 0x113d3}, {0x11bc0, 0x11be0}, {0x13460, 0x143fa}, {0x16100, 0x1611d},
    {0x16d40, 0x16d6c}, {0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed}, {0x1e5f0, 0x1e5f0},
    {0x2ebf0, 0x2ee5d},
};
static const Range numbers[] = {
    {0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9}, {0x16130, 0x16139},
    {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9}, {0x1e5f1, 0x1e5fa},
};
static const struct {
    int32_t first, last, step; /* lower case is so much further */
} lowers[] = {
    {0x1c89, 0x1c89, 1}, {0xa7cb, 0xa7cb, -42343}, {0xa7cc, 0xa7cc, 1}, {0xa7ce, 0xa7ce, 1},
    {0xa7d2, 0xa7d2, 1}, {0xa7d4, 0xa7d4, 1}, {0xa7da, 0xa7da, 1}, {0xa7dc, 0xa7dc, -42561},
    {0x10d50, 0x10d65, 32}, {0x16ea0, 0x16eb8, 27},
};
#define COUNT(list) (sizeof(list) / sizeof *(list))

static bool within(int32_t c, const Range *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (c >= r[i].first && c <= r[i].last) return true;
    return false;
}

char *unicode_valid(const char *text)
{
    const utf8proc_uint8_t *in = (const utf8proc_uint8_t *)text;
    utf8proc_ssize_t left = (utf8proc_ssize_t)strlen(text);
    char *copy = malloc(3 * (size_t)left + 1), *out = copy;
    CHECK(copy);
    while (left) {
        utf8proc_int32_t code;
        utf8proc_ssize_t n = utf8proc_iterate(in, left, &code);
        if (n > 0) {
            memcpy(out, in, (size_t)n);
            out += n;
        } else {
            /* A broken sequence ends before the first byte that cannot continue it. */
            int need = in[0] >= 0xc2 && in[0] < 0xe0   ? 1
                       : in[0] >= 0xe0 && in[0] < 0xf0 ? 2
                       : in[0] >= 0xf0 && in[0] < 0xf5 ? 3
                                                       : 0;
            int low = in[0] == 0xe0 ? 0xa0 : in[0] == 0xf0 ? 0x90 : 0x80;
            int high = in[0] == 0xed ? 0x9f : in[0] == 0xf4 ? 0x8f : 0xbf;
            for (n = 1; n <= need && n < left && in[n] >= low && in[n] <= high; n++)
                low = 0x80, high = 0xbf;
            memcpy(out, "\xef\xbf\xbd", 3);
            out += 3;
        }
        in += n;
        left -= n;
    }
    *out = 0;
    return copy;
}

static bool is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

CharKind unicode_kind(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    if (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) return KIND_LETTER;
    if (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO) return KIND_NUMBER;
    if (is_space(c)) return KIND_SPACE;
    return within(c, letters, COUNT(letters))   ? KIND_LETTER
           : within(c, numbers, COUNT(numbers)) ? KIND_NUMBER
                                                : KIND_OTHER;
}

static int32_t lower_case(int32_t c)
{
    for (size_t i = 0; i < COUNT(lowers); i++)
        if (c >= lowers[i].first && c <= lowers[i].last) return c + lowers[i].step;
    return utf8proc_tolower(c);
}

/* NFC of n bytes into code, which has room for all decomposed; those that stand alone part the
 * text. */
static utf8proc_ssize_t compose(int32_t *code, const utf8proc_uint8_t *in, utf8proc_ssize_t n,
                                utf8proc_ssize_t room)
{
    const utf8proc_option_t nfc = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_ssize_t m = 0, at = 0, from = 0, bytes;
    for (utf8proc_int32_t c; at <= n; at += bytes) {
        bytes = at < n ? utf8proc_iterate(in + at, n - at, &c) : 1;
        bool cut = at < n && within(c, alone, COUNT(alone));
        if (at < n && !cut) continue;
        utf8proc_ssize_t k = utf8proc_decompose(in + from, at - from, code + m, room - m, nfc);
        m += utf8proc_normalize_utf32(code + m, k, nfc);
        if (cut) code[m++] = c;
        from = at + bytes;
    }
    return m;
}

Status unicode_clean(Codes *out, const char *text, size_t n)
{
    const utf8proc_option_t nfc = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    const utf8proc_uint8_t *in = (const utf8proc_uint8_t *)text;
    *out = (Codes){0};
    utf8proc_ssize_t m = utf8proc_decompose(in, (utf8proc_ssize_t)n, NULL, 0, nfc);
    if (m < 0) return FAIL(ERR_INPUT, "prompt: found text that cannot be composed, expected UTF-8");
    int32_t *code = malloc(((size_t)m + n + 1) * sizeof *code);
    CHECK(code);
    m = compose(code, in, (utf8proc_ssize_t)n, m + (utf8proc_ssize_t)n);
    int32_t *lower = malloc((2 * (size_t)m + 1) * sizeof *lower);
    CHECK(lower);
    for (utf8proc_ssize_t i = 0; i < m; i++) {
        bool dotted = code[i] == 0x130; /* the one capital whose lower case is two characters */
        lower[out->n++] = dotted ? 'i' : lower_case(code[i]);
        if (dotted) lower[out->n++] = 0x307;
    }
    free(code);
    out->at = lower;
    return OK;
}
