/* tokenizer_unicode.h - text as CLIP's tokenizers see it: characters, their kinds, composed and in
 * lower case, by the rules of the library whose ids models were published with. */
#ifndef TOKENIZER_UNICODE_H
#define TOKENIZER_UNICODE_H
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t *at;
    int n;
} Codes; /* Unicode code points */

/* A copy in valid UTF-8, each maximal broken piece replaced by U+FFFD. Heap. */
char *unicode_valid(const char *text);

/* Composed (NFC), then lower case, of n bytes of valid UTF-8. Owned by the caller. */
Status unicode_clean(Codes *out, const char *text, size_t n);

typedef enum { KIND_SPACE, KIND_LETTER, KIND_NUMBER, KIND_OTHER } CharKind;
CharKind unicode_kind(int32_t c);
#endif
