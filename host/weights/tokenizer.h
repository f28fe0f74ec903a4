/* tokenizer.h - CLIP's byte-pair encoding: text to token ids, as transformers' CLIPTokenizer does.
 *
 * Text is brought to Unicode's composed form (NFC) and lower case, then cut into words:
 * 's 't 're 've 'm 'll 'd, runs of letters, single digits, runs of anything else but white space.
 * Each word's UTF-8 bytes become symbols, the last one marked as the word's end, and neighbours
 * are merged by the rank of their pair until no pair is known. Special tokens
 * (<|startoftext|>, <|endoftext|>, the padding token) are recognised inside the text.
 *
 * Unicode data are utf8proc's (version 15 with Debian 12's). Known differences from transformers
 * 5.23: letters and digits that came after Unicode 15 are cut as symbols, and combining marks that
 * came with Unicode 12 or later are put in canonical order, which its older normaliser does not do.
 *
 * Invalid UTF-8 is read as U+FFFD. An open Tokenizer may be used by several threads.
 */
#ifndef TOKENIZER_H
#define TOKENIZER_H
#include "base/status.h"
#include <stdint.h>

typedef struct Tokenizer Tokenizer;

enum { TOKENIZER_MAX_TEXT = 1 << 14 }; /* bytes; a prompt keeps 75 tokens */

/* folder holds tokenizer.json, or merges.txt and vocab.json, or both: tokenizer.json goes first, as in
 * transformers 5, and must agree with the others, which transformers 4 may read. Without vocab.json
 * the vocabulary follows from the merges (256 bytes, 256 bytes that end a word, the merges, start,
 * end). Special tokens are those of tokenizer_config.json's added_tokens_decoder or else tokenizer.json's
 * added_tokens, and the roles in tokenizer_config.json or, going first where there is no
 * added_tokens_decoder, special_tokens_map.json. Everything in the files is checked. */
Status tokenizer_open(Tokenizer **t, const char *folder);
void   tokenizer_close(Tokenizer **t);

int     tokenizer_size(const Tokenizer *t);   /* must equal the rows of the embedding */
int     tokenizer_longest(const Tokenizer *t); /* model_max_length; 0: not said */
int32_t tokenizer_pad(const Tokenizer *t);    /* differs between models: worth a line in the log */

/* ids[length], length >= 2: start, at most length - 2 ids of the text, end, padding. */
Status tokenizer_encode(const Tokenizer *t, const char *text, int32_t *ids, int length);
/* How many ids the text has, start and end not counted: what does not fit is left out by encode. */
Status tokenizer_count(int *n, const Tokenizer *t, const char *text);
#endif
