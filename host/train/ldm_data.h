/* ldm_data.h - what the training of a latent diffusion model draws from: films as cached latents,
 * prompts as cached token ids and embeddings; and the batches drawn, a pure function of (seed,
 * step).
 */
#ifndef LDM_DATA_H
#define LDM_DATA_H
#include "base/log.h"
#include "comm/comm.h"
#include "config/config.h"
#include "models/ldm.h"

typedef struct {
    const char *path;    /* of the film, borrowed */
    const char *prompts; /* templates parted by '|', borrowed */
} LdmFilm;

typedef struct {
    int n, size;
    size_t per, channels; /* floats of a latent; its channels */
    float *latent;        /* owned: [n, per] */
    int *list;            /* owned: [n] film i's list of prompts */
} LdmFilms;

typedef struct {
    const char *templates; /* borrowed of a film */
    int *index;            /* owned: [n] its prompts in the table; what stands twice is drawn twice as often */
    int n;
} PromptList;

typedef struct {
    LdmFilms train, prior, val;
    PromptList *list; /* owned: [n_list] distinct ones, one a class */
    int n_list;
    char **prompt;
    int n_prompt;   /* owned: distinct prompts; 0 is the empty one */
    int32_t *ids;   /* owned: [n_prompt, tokens] */
    float *context; /* owned: [n_prompt, tokens, width]; NULL when the text encoder is trained */
    int tokens, width;
} LdmData; /* starts as {0} */

/* Reads and encodes every film once. Standardises m by the training films' latents where the folder
 * had no statistics and `standardise` is set. cache: file that keeps the training films' latents
 * between runs of the same identity; NULL: none. The ranks of comm (NULL: alone) share the films,
 * and come to the same Status; rank 0 writes the file. */
Status ldm_data_open(LdmData *d, Ldm *m, const LdmFilm *train, int n_train, const LdmFilm *prior,
                     int n_prior, const LdmFilm *val, int n_val, int size, bool standardise,
                     bool embed, const char *cache, const char *identity, Comm *comm, Log *log);
/* On a counting device: the shapes that films of these numbers would have, and the arithmetic and the
 * memory of their encoding; no values. *flops: of all. */
Status ldm_data_measure(LdmData *d, Ldm *m, const int n[3] /* train, prior, val */, int size,
                        bool embed, double *flops);
void ldm_data_close(LdmData *d);

/* One micro-batch on the host; buffers owned. */
typedef struct {
    int n;
    float *latent, *noise; /* [n, per] */
    float *time;           /* [n] */
    float *mix, *target;   /* [n, 2]: by (latent, noise) they give x_t and what is wanted */
    float *weight;         /* [n] */
    int32_t *ids;          /* [n, tokens] */
    float *context;        /* [n, tokens, width] */
} LdmBatch;

void ldm_batch_new(LdmBatch *b, const LdmData *d, int n);
void ldm_batch_free(LdmBatch *b);

/* Micro-batch `micro`, counted over all ranks, of update `step` (from 1). The last
 * round(n * prior_share) samples are prior films. */
void ldm_batch_draw(LdmBatch *b, const LdmData *d, const NoiseSchedule *s, const LdmSettings *set,
                    uint32_t seed, long step, int micro);
/* Validation films first..first+n-1 (wrapping weights to 0 beyond the end): the same noise and
 * times every time. */
void ldm_batch_validation(LdmBatch *b, const LdmData *d, const NoiseSchedule *s,
                          const LdmSettings *set, uint32_t seed, int first);
#endif
