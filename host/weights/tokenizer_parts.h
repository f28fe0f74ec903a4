/* tokenizer_parts.h - what a tokenizer is made of: tokenizer_open.c fills it, tokenizer.c uses it. */
#ifndef TOKENIZER_PARTS_H
#define TOKENIZER_PARTS_H
#include "weights/bpe.h"
#include "weights/tokenizer_unicode.h"

enum { TOKENIZER_MAX_SPECIALS = 64 };

typedef struct {
    char *text;  /* owned */
    Codes clean; /* owned: as it looks after clean-up */
    int32_t id;
    bool normalized;
    int seen; /* SpecialForms in which it was given: only a new one changes the flag */
} Special;

struct Tokenizer {
    Bpe bpe;
    Special special[TOKENIZER_MAX_SPECIALS];
    int n_special;
    int32_t start, end, pad;
    int longest; /* model_max_length, 0: not said */
};
#endif
