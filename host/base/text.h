/* text.h - small helpers on strings. */
#ifndef TEXT_H
#define TEXT_H
#include "base/status.h"
#include <stddef.h>

/* The candidate nearest to `word` by edit distance, or NULL if none is near enough to be a
 * likely slip (at most a third of the word's length, and at least one). */
const char *text_nearest(const char *word, const char *const *candidates, int n);

/* Whole-string numbers in the C locale, whatever the user's locale is: false on anything else. */
bool text_to_double(double *out, const char *s);
bool text_to_long(long *out, const char *s);

/* Control characters become '?': a text from a file can neither break a line nor steer a terminal. */
void text_tame(char *s);

/* Where the first byte is that is no UTF-8: the length of s where all of it is. */
size_t text_not_utf8(const char *s);

/* The parts of s between '|'s, without the blanks around them: at least one; any may be empty. One
 * block: free(*part). */
int text_parts(char ***part, const char *s);

/* A growing string: heap, always 0-terminated; starts as {0}, freed with free(t.s). */
typedef struct { char *s; size_t n, cap; } Text;
enum { TEXT_COLUMNS = 100 }; /* of a line of help */
void text_add(Text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Broken between words where a line would be longer than TEXT_COLUMNS; a '\n' stays one. The first line
 * starts at column `at`, the others at `indent`. */
void text_add_wrapped(Text *t, const char *s, size_t at, size_t indent);
/* "  name", then from that column on, of this line or the next, what it means, wrapped; a '\n'. */
void text_add_help(Text *t, const char *name, size_t column, const char *meaning);
void text_add_html(Text *t, const char *raw);  /* & < > " ' escaped */
#endif
