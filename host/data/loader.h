/* loader.h - batches of films from a pool of threads, in an order that is fixed beforehand.
 *
 * Batch b of epoch e holds the same films, augmented the same way, whatever the number of
 * threads, and can be the first one that is asked for. Each film comes once per epoch; the last
 * batch is filled up with black films of label -1. Shuffled, position i of epoch e shows item
 * random_permute({seed, STREAM_SHUFFLE, e}, i); else item i.
 *
 * Several loaders may share the batches: an epoch's come in groups of `group`, the last one perhaps
 * smaller, and each loader gives (and decodes) its own `each` of a group, from the `from`-th on.
 *
 * Films are decoded once and kept while they fit in cache_bytes (one byte a pixel for films that
 * are prepared at this size, else four); a film of another size is fitted (image_fit). Not
 * thread-safe for its caller. A film that cannot be read fails the batch that it belongs to.
 */
#ifndef LOADER_H
#define LOADER_H
#include "data/augment.h"
#include <stddef.h>

typedef struct {
    const char *path;   /* borrowed; unused where there are pixels            */
    const float *pixel; /* borrowed: [size, size], or NULL                    */
    int label;          /* 0 or more                                          */
    uint64_t id;        /* the sample of its random keys: the same film, the same id */
} LoaderItem;

typedef struct {
    int size, batch, n_threads;
    bool shuffle;
    Augment augment; /* {0}: none */
    uint32_t seed;
    size_t cache_bytes;
    uint32_t first_epoch; /* where to start; first_batch counts this loader's own of the epoch */
    int first_batch;
    int group, from, each; /* of which batches; all 0: of all */
    uint32_t n_epochs; /* ends before epoch n_epochs; 0: never */
} LoaderSettings;

typedef struct {        /* borrowed from the loader until the next call */
    const float *pixel; /* [batch, size, size] */
    const int *label;   /* [batch]; -1 behind the last film */
    const int *item;    /* [batch]; index of the item, -1 behind the last film */
    int n;              /* films; 0 after the last epoch */
    uint32_t epoch;
    int index; /* of the batch within the epoch */
} Batch;

typedef struct Loader Loader;

/* The items are copied, what they point to is not. */
Status loader_open(Loader **l, const LoaderItem *item, int n, const LoaderSettings *s);
Status loader_next(Loader *l, Batch *b);
void loader_close(Loader *l);        /* at any time; accepts NULL */
#endif
