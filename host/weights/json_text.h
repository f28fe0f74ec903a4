/* json_text.h - JSON from files nobody vouches for.
 *
 * A scan bounds nesting and the number of values before anything is built, then jansson parses
 * with duplicate keys refused. Errors say where: "path: JSON byte 17: ...".
 */
#ifndef JSON_TEXT_H
#define JSON_TEXT_H
#include "base/status.h"
#include <jansson.h>

/* Parses the object that text starts with (after white space). *end gets the offset behind its
 * closing brace, so that the caller can judge what follows. *out is owned by the caller. */
Status json_text_object(json_t **out, size_t *end, const char *text, size_t size, const char *path,
                        int max_depth);

/* A whole file that is one object and nothing else. Python's bare -Infinity, Infinity and NaN, which
 * JSON has not, are read as texts of their own, which no reader takes for a number; whole numbers of
 * more than 64 bits are read as reals. */
Status json_file_object(json_t **out, const char *path, size_t limit_bytes, int max_depth);
/* Such a text's word, "NaN"; NULL where v is anything else. */
const char *json_text_python(const json_t *v);
/* As json_dumps with 9 digits, such texts as Python writes them; heap, never NULL. */
char *json_text_dump(const json_t *v, size_t flags);
#endif
