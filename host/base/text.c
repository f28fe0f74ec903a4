/* text.c - edit distance, number parsing, parts of strings, growing strings. */
#include "base/text.h"
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { LONGEST = 64 };

static int least(int a, int b) { return a < b ? a : b; }

/* Letters inserted, left out, replaced, or swapped with their neighbour. */
static int edit_distance(const char *a, const char *b)
{
    int n = (int)strlen(b), row[3][LONGEST + 1]; /* row[i % 3][j]: of the first i and j letters */
    if (n > LONGEST) return LONGEST;
    for (int j = 0; j <= n; j++) row[0][j] = j;
    int i = 1;
    for (; a[i - 1]; i++) {
        int *now = row[i % 3], *above = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= n; j++) {
            now[j] = least(above[j - 1] + (a[i - 1] != b[j - 1]), least(above[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
    }
    return row[(i + 2) % 3][n];
}

const char *text_nearest(const char *word, const char *const *candidates, int n)
{
    int limit = (int)strlen(word) / 3, best = limit < 1 ? 2 : limit + 1;
    const char *nearest = NULL;
    for (int i = 0; i < n; i++) {
        int d = edit_distance(word, candidates[i]);
        if (d < best) {
            best = d;
            nearest = candidates[i];
        }
    }
    return nearest;
}

bool text_to_double(double *out, const char *s)
{
    char *end;
    locale_t c = newlocale(LC_ALL_MASK, "C", NULL);
    CHECK(c);
    double v = strtod_l(s, &end, c);
    freelocale(c);
    if (end == s || *end || !isfinite(v)) return false;
    *out = v;
    return true;
}

bool text_to_long(long *out, const char *s)
{
    char *end;
    errno = 0;
    long v = strtol(s, &end, 10);
    if (end == s || *end || errno) return false;
    *out = v;
    return true;
}

void text_tame(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
}

size_t text_not_utf8(const char *s)
{
    size_t at = 0, n = strlen(s);
    utf8proc_int32_t c;
    while (at < n) {
        utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)s + at,
                                                 (utf8proc_ssize_t)(n - at), &c);
        if (used <= 0) break;
        at += (size_t)used;
    }
    return at;
}

int text_parts(char ***part, const char *s)
{
    size_t size = strlen(s) + 1, n = 1;
    for (const char *c = s; *c; c++) n += *c == '|';
    char **list = malloc(n * sizeof *list + size);
    CHECK(list);
    char *rest = memcpy(list + n, s, size);
    for (size_t i = 0; i < n; i++) {
        char *one = strsep(&rest, "|");
        one += strspn(one, " ");
        for (size_t k = strlen(one); k && one[k - 1] == ' '; k--) one[k - 1] = 0;
        list[i] = one;
    }
    *part = list;
    return (int)n;
}

static void reserve(Text *t, size_t more)
{
    if (t->n + more + 1 <= t->cap) return;
    size_t cap = 2 * (t->n + more + 1);
    char *s = realloc(t->s, cap);
    CHECK(s);
    t->s = s;
    t->cap = cap;
}

void text_add(Text *t, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    size_t n = (size_t)vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    reserve(t, n);
    vsnprintf(t->s + t->n, n + 1, fmt, again);
    va_end(again);
    t->n += n;
}

void text_add_wrapped(Text *t, const char *s, size_t at, size_t indent)
{
    while (*s) {
        size_t blank = strspn(s, " "), word = strcspn(s + blank, " \n");
        if (*s == '\n' || (word && at > indent && at + blank + word > TEXT_COLUMNS)) {
            text_add(t, "\n%*s", (int)indent, "");
            at = indent;
            s += *s == '\n' ? 1 : blank;
        } else {
            if (word) text_add(t, "%.*s", (int)(blank + word), s);
            at += blank + word;
            s += blank + word;
        }
    }
}

void text_add_help(Text *t, const char *name, size_t column, const char *meaning)
{
    size_t at = strlen(name) + 2;
    text_add(t, "  %s", name);
    text_add(t, at < column ? "%*s" : "\n%*s", (int)(at < column ? column - at : column), "");
    text_add_wrapped(t, meaning, column, column);
    text_add(t, "\n");
}

void text_add_html(Text *t, const char *raw)
{
    for (; *raw; raw++) {
        const char *safe = *raw == '&'    ? "&amp;"
                           : *raw == '<'  ? "&lt;"
                           : *raw == '>'  ? "&gt;"
                           : *raw == '"'  ? "&quot;"
                           : *raw == '\'' ? "&#39;"
                                          : NULL;
        if (safe) text_add(t, "%s", safe);
        else text_add(t, "%c", *raw);
    }
}
