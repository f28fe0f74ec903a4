/* duplicates.h - films that are the same picture.
 *
 * Near duplicates: 64-bit difference hashes at most 4 bits apart and a correlation above 0.995
 * of the films at 64 x 64 pixels. The hash compares neighbours in the rows of an 8 x 9
 * reduction. Thumbnails are kept in 8 bits, which moves a correlation by about 1e-5.
 */
#ifndef DUPLICATES_H
#define DUPLICATES_H
#include "data/image.h"

enum { THUMB = 64, NEAR_BITS = 4 };
#define NEAR_CORRELATION 0.995

typedef struct {
    char hash[HASH_TEXT]; /* SHA-256 of size and pixels: equal pictures, equal hash */
    uint64_t difference;  /* difference hash */
    uint8_t thumb[THUMB * THUMB];
} Fingerprint;

Status fingerprint_make(Fingerprint *f, const Image *im);

double fingerprint_correlation(const Fingerprint *a, const Fingerprint *b); /* 0 if one is flat */

typedef struct {
    int a, b, bits;
    double correlation;
} NearPair; /* a < b */

/* All near-duplicate pairs of n films that are not NULL, in order of (a, b). *pair: heap. */
Status near_pairs(NearPair **pair, int *n_pair, const Fingerprint *const *film, int n);

/* Sets that grow together (union-find over 0..n-1); the smallest member stands for its set. */
int *union_new(int n); /* heap */
int union_find(int *parent, int i);
void union_join(int *parent, int i, int j);
#endif
