/* json_text.c - a guard in front of jansson. */
#include "weights/json_text.h"
#include "base/file.h"
#include "base/text.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUES = 1 << 22 }; /* jansson needs about 100 bytes for each */

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* Where the first object ends, with bounded stack and no allocation. Whether what lies between
 * is JSON is jansson's question. */
static Status scan(size_t *end, const char *text, size_t size, const char *path, int max_depth)
{
    size_t at = 0, values = 0;
    int depth = 0;
    while (at < size && is_space(text[at])) at++;
    if (at == size || text[at] != '{')
        return FAIL(ERR_INPUT, "%s: JSON byte %zu: found %s, expected {", path, at,
                    at == size ? "the end" : "something else");
    for (; at < size; at++) {
        char c = text[at];
        if (c == '"') {
            for (at++; at < size && text[at] != '"'; at++) at += text[at] == '\\';
            if (at >= size)
                return FAIL(ERR_INPUT, "%s: JSON byte %zu: found the end, expected a closing quote",
                            path, size);
        } else if (c == '{' || c == '[') {
            if (++depth > max_depth)
                return FAIL(ERR_INPUT, "%s: JSON byte %zu: nested deeper than the expected %d",
                            path, at, max_depth);
        } else if (c == '}' || c == ']') {
            depth--;
        }
        if ((c == ',' || c == '{' || c == '[') && ++values > MAX_VALUES)
            return FAIL(ERR_INPUT, "%s: JSON byte %zu: found more than the expected %d values",
                        path, at, MAX_VALUES);
        if (!depth) {
            *end = at + 1;
            return OK;
        }
    }
    return FAIL(ERR_INPUT, "%s: JSON byte %zu: found the end, expected a closing } or ]", path,
                size);
}

Status json_text_object(json_t **out, size_t *end, const char *text, size_t size, const char *path,
                        int max_depth)
{
    json_error_t error;
    *out = NULL;
    TRY(scan(end, text, size, path, max_depth));
    *out = json_loadb(text, *end, JSON_REJECT_DUPLICATES, &error);
    if (*out) return OK;
    if (json_error_code(&error) == json_error_out_of_memory)
        return FAIL(ERR_SPACE, "%s: no memory for its %zu bytes of JSON", path, *end);
    return FAIL(ERR_INPUT, "%s: JSON byte %d: found %s, expected valid JSON", path, error.position,
                error.text);
}

/* Python's words, and the texts that they become: no longer in quotes than the word, and of no file
 * (DEL). */
static const struct {
    const char *word, *text;
} python[] = {{"-Infinity", "\x7f-"}, {"Infinity", "\x7f+"}, {"NaN", "\x7f"}};
enum { N_PYTHON = sizeof python / sizeof *python };

/* Python's whole numbers have no end, jansson's have 64 bits: a larger one becomes a real in as many
 * characters, 123e+3 for 123456. Gives the number's length. */
static size_t shorten_number(char *text)
{
    size_t n = strspn(text, "+-.0123456789Ee"), digits = strspn(text, "0123456789");
    if (digits == n && (n > 19 || (n == 19 && memcmp(text, "9223372036854775807", 19) > 0)))
        memcpy(text + n - 3, "e+3", 3);
    return n;
}

static void make_readable(char *text, size_t size)
{
    for (size_t at = 0; at < size; at++) {
        if (text[at] == '"')
            for (at++; at < size && text[at] != '"'; at++) at += text[at] == '\\';
        if (at >= size) break; /* a string that does not end */
        if (text[at] >= '0' && text[at] <= '9') at += shorten_number(text + at) - 1;
        for (int i = 0; i < N_PYTHON; i++) {
            size_t n = strlen(python[i].word), m = strlen(python[i].text);
            if (at + n > size || memcmp(text + at, python[i].word, n)) continue;
            memset(text + at, ' ', n);
            memcpy(text + at + 1, python[i].text, m);
            text[at] = text[at + m + 1] = '"';
            at += n - 1;
            break;
        }
    }
}

const char *json_text_python(const json_t *v)
{
    for (int i = 0; json_is_string(v) && i < N_PYTHON; i++)
        if (!strcmp(json_string_value(v), python[i].text)) return python[i].word;
    return NULL;
}

char *json_text_dump(const json_t *v, size_t flags)
{
    char *all = json_dumps(v, flags | JSON_REAL_PRECISION(9));
    Text out = {0};
    CHECK(all);
    for (const char *at = all; *at; at++) {
        int i = 0;
        size_t n = 0;
        for (; *at == '"' && i < N_PYTHON; i++) {
            n = strlen(python[i].text);
            if (!strncmp(at + 1, python[i].text, n) && at[n + 1] == '"') break;
        }
        if (*at != '"' || i == N_PYTHON) {
            text_add(&out, "%c", *at);
            continue;
        }
        text_add(&out, "%s", python[i].word);
        at += n + 1;
    }
    free(all);
    return out.s;
}

Status json_file_object(json_t **out, const char *path, size_t limit_bytes, int max_depth)
{
    char *text;
    size_t size, end = 0;
    *out = NULL;
    TRY(file_read(&text, &size, path, limit_bytes));
    make_readable(text, size);
    Status s = json_text_object(out, &end, text, size, path, max_depth);
    while (!s && end < size && is_space(text[end])) end++;
    if (!s && end < size) {
        s = FAIL(ERR_INPUT, "%s: JSON byte %zu: found more text, expected the end", path, end);
        json_decref(*out);
        *out = NULL;
    }
    free(text);
    return s;
}
