/* random.h - counter-based random numbers (Philox4x32-10; Salmon et al., SC 2011).
 *
 * A draw is a pure function of (seed, stream, step, sample, element); there is no "next
 * number". So a result does not depend on batch size, thread count, order or restarts.
 * Philox key = (seed, stream), counter = (element / 4, step, sample low, sample high); element
 * i is word i % 4 of its block.
 */
#ifndef RANDOM_H
#define RANDOM_H
#include <stddef.h>
#include <stdint.h>

/* What a draw is for. Values are part of every file format and result: append only. */
typedef enum {
    STREAM_INIT = 1,      /* weights; sample = parameter's hash                     */
    STREAM_SHUFFLE,       /* order of the training samples; step = epoch            */
    STREAM_TIMESTEP,      /* diffusion time of a training sample                    */
    STREAM_NOISE,         /* noise of a training sample                             */
    STREAM_NOISE_OFFSET,
    STREAM_CAPTION,       /* caption dropout and choice of template                 */
    STREAM_DROPOUT,
    STREAM_AUGMENT,
    STREAM_LATENT,        /* sample of an autoencoder's posterior                   */
    STREAM_START,         /* start noise of a synthetic image                       */
    STREAM_STEP,          /* noise of a sampling step, eta > 0; step = index        */
    STREAM_SOURCE,        /* choice of source films                                 */
    STREAM_SPLIT,         /* assignment of patients to splits                       */
    STREAM_BOOTSTRAP,     /* sample = replicate                                     */
    STREAM_PERMUTE,       /* permutation tests; sample = replicate                  */
    STREAM_TEST
} RandomStream;

typedef struct {
    uint32_t seed, stream, step;
    uint64_t sample;
} RandomKey;

void philox4x32_10(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

uint32_t random_bits(RandomKey k, uint32_t element);
double   random_uniform(RandomKey k, uint32_t element);             /* [0, 1), 32 bits          */
uint32_t random_below(RandomKey k, uint32_t element, uint32_t n);   /* 0 .. n-1, n > 0          */
double   random_normal(RandomKey k, uint32_t element);              /* mean 0, deviation 1      */
void     random_normals(float *out, size_t n, RandomKey k);         /* elements 0 .. n-1        */

/* Where position i of 0..n-1 goes in a keyed permutation: O(1), no table. */
uint32_t random_permute(RandomKey k, uint32_t i, uint32_t n);
#endif
