/* pattern.h - one piece of a file name by a regular expression (PCRE2, UTF-8). */
#ifndef PATTERN_H
#define PATTERN_H
#include "base/status.h"

typedef struct Pattern Pattern;

/* Refuses (ERR_USAGE) what does not compile or has fewer than `groups` groups. origin: for the
 * message. */
Status pattern_new(Pattern **p, const char *regex, int groups, const char *origin);
void pattern_free(Pattern *p); /* accepts NULL */

/* What the group matched in s, on the heap; NULL if s does not match or the group is empty. */
char *pattern_take(const Pattern *p, const char *s, int group);
#endif
