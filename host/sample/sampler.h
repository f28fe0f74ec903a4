/* sampler.h - DDIM with classifier-free guidance, text-to-image and image-to-image.
 *
 * A film is a function of (weights, seed, sample id, source film, prompts, settings), whatever else
 * is in its batch. Start noise is Philox(seed, STREAM_START, 0, id), that of step i Philox(seed,
 * STREAM_STEP, i, id), both drawn where the device needs them. The model's weights must not change
 * while a Sampler of it is open.
 */
#ifndef SAMPLER_H
#define SAMPLER_H
#include "exec/exec.h"
#include "models/ldm.h"

typedef struct {
    bool image_to_image;
    double strength, guidance, eta;
    int steps;
    Spacing spacing;
    bool noise_given; /* requests bring the noise of their steps (eta > 0) */
} SamplerSettings;

typedef struct {
    uint64_t id; /* sample id: keys its noise */
    const char *prompt, *negative;
    const float *source; /* a film, or NULL: text-to-image */
    const float *noise;  /* start noise [h/8, w/8, channels], or NULL: by Philox */
    /* where set.noise_given [sampler_steps(), h/8, w/8, channels], else NULL: by Philox */
    const float *step_noise;
    /* shaped as noise: which sample of AutoencoderKL's distribution the source is; NULL: its mean */
    const float *encode_noise;
} SampleRequest;

typedef struct Sampler Sampler;

/* Fails (ERR_USAGE) where strength * steps is below 1: nothing would change; ERR_SPACE, without advice,
 * where a batch or its decoding does not fit. m is borrowed. */
Status sampler_open(Sampler **s, Ldm *m, FilmShape shape, int batch, SamplerSettings set,
                    uint32_t seed);
void sampler_close(Sampler *s); /* accepts NULL */

const Exec *sampler_exec(const Sampler *s); /* of a step, for its FLOPs, bytes and times */
int sampler_steps(const Sampler *s); /* that a film runs: fewer than `steps` from a film */

/* n <= batch films [n, h, w, channels] in [0, 1]; ERR_STOPPED on a signal; grey that is no number stays
 * so and is the caller's to refuse. */
Status sampler_run(Sampler *s, const SampleRequest *r, int n, float *films);
#endif
