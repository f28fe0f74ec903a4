/* pattern.c - regular expressions for patient names. */
#include "data/pattern.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct Pattern {
    pcre2_code *code;
};

Status pattern_new(Pattern **p, const char *regex, int groups, const char *origin)
{
    int error;
    size_t at;
    uint32_t there = 0;
    *p = NULL;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &at, NULL);
    if (!code) {
        char what[128];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)what, sizeof what);
        return FAIL(ERR_USAGE, "%s: character %zu of \"%s\": %s", origin, at, regex, what);
    }
    pcre2_pattern_info(code, PCRE2_INFO_CAPTURECOUNT, &there);
    if ((int)there < groups) {
        pcre2_code_free(code);
        return FAIL(ERR_USAGE, "%s: \"%s\" has %u groups, expected %d in (parentheses)", origin,
                    regex, there, groups);
    }
    *p = malloc(sizeof **p);
    CHECK(*p);
    (*p)->code = code;
    return OK;
}

void pattern_free(Pattern *p)
{
    if (p) pcre2_code_free(p->code);
    free(p);
}

char *pattern_take(const Pattern *p, const char *s, int group)
{
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(p->code, NULL);
    CHECK(m);
    char *found = NULL;
    int n =
        pcre2_match(p->code, (PCRE2_SPTR)s, strlen(s), 0, 0, m, NULL); /* <= 0 also for bad UTF-8 */
    if (n > group) {
        const size_t *place = pcre2_get_ovector_pointer(m);
        size_t from = place[2 * group], to = place[2 * group + 1];
        if (from != PCRE2_UNSET && to > from) found = strndup(s + from, to - from);
    }
    pcre2_match_data_free(m);
    return found;
}
