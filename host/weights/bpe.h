/* bpe.h - the merge table of a byte-pair encoding and the words it makes tokens of. */
#ifndef BPE_H
#define BPE_H
#include "base/status.h"
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t pair;     /* left << 32 | right */
    int32_t  rank, id; /* rank -1: a free slot */
} BpeMerge;

typedef struct {
    BpeMerge *merge;         /* owned: hash table, open addressing */
    size_t    capacity;      /* power of two */
    int32_t   byte[2][256];  /* token of a byte inside a word, at its end */
    int       size;          /* tokens in the vocabulary */
} Bpe;                       /* starts as {0} */

enum { BPE_MAX_TOKENS = 1 << 20, BPE_MAX_TOKEN_BYTES = 512 };

/* vocab: token -> id, checked to be the ids 0..n-1 once each. merges: text of `size` bytes, one
 * "left right" a line, best first; it is cut up. The vocabulary must be about the bytes and the
 * merges. *vocab may be NULL: it is then made from the merges and owned by the caller. The paths are
 * for errors. */
Status bpe_open(Bpe *b, json_t **vocab, const char *vocab_path, char *merges, size_t size,
                const char *merges_path);
void   bpe_close(Bpe *b);
bool   bpe_equal(const Bpe *a, const Bpe *b); /* the same tokens of every word */

/* The tokens of a word of n bytes: ids and rank (working space) have room for n; returns how many.
 */
int bpe_word(const Bpe *b, int32_t *ids, int32_t *rank, const unsigned char *word, int n);

#define BPE_START "<|startoftext|>"
#define BPE_END   "<|endoftext|>"
#endif
