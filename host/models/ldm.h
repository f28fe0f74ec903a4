/* ldm.h - a latent diffusion model in diffusers' folder layout: tokenizer, text encoder, UNet,
 * autoencoder (tiny or KL), noise schedule.
 *
 * Films are [n, h, w, channels] in [0, 1], on the host. Of grey ones the autoencoder sees three
 * equal channels, and the mean of its three, each held to [0, 1], comes back. Latents are
 * [n, h/scale, w/scale, channels] on the host, standardised per channel as the autoencoder's
 * config.json says (autoencoder.h). AutoencoderKL's latent is the mean of its distribution. A
 * film's latent does not depend on what else is in its batch.
 */
#ifndef LDM_H
#define LDM_H
#include "base/log.h"
#include "models/autoencoder.h"
#include "models/clip_text.h"
#include "models/diffusion.h"
#include "models/params.h"
#include "models/unet.h"
#include "weights/tokenizer.h"

typedef struct {
    bool train_unet, train_text; /* with gradient blocks */
    bool random; /* new weights for UNet and text encoder, by `seed`; else from the folder */
    uint32_t seed;
    int lora_rank;     /* > 0: the UNet gets an adapter with gradients, to be trained */
    bool bare;         /* memory without values: for a counting device */
    const char *lora;  /* a LoRA file to merge into the weights; NULL: none */
    double lora_scale;
    Log *log; /* for what the folder says and no pipeline heeds; NULL: unsaid */
} LdmUse;

typedef struct {
    Device *device; /* borrowed */
    char *folder;   /* owned */
    UnetConfig unet_config;
    ClipTextConfig text_config;
    AutoencoderConfig vae_config; /* with the latents' statistics */
    ParamStore unet, text, vae;
    ParamStore lora; /* the UNet's adapter; empty without lora_rank */
    NoiseSchedule schedule;
    Tokenizer *tokenizer; /* owned */
} Ldm; /* starts as {0}; does not move while open */

Status ldm_open(Ldm *m, Device *d, const char *folder, LdmUse use);
void ldm_close(Ldm *m);

/* What ldm_open and training at that size would refuse, found in a moment from configs and headers
 * of weights: those that must be there. */
typedef enum { LDM_NO_WEIGHTS, LDM_AUTOENCODER, LDM_ALL_WEIGHTS } LdmWeights;
Status ldm_check(const char *folder, int size, LdmWeights there);
/* Floats of its parts, of a LoRA of that rank (0: none) and of one film's latent, in a moment. */
typedef struct {
    size_t unet, text, vae, lora, latent;
} LdmSize;
Status ldm_size(LdmSize *z, const char *folder, int size, int lora_rank);
/* Pixels a latent, each way: heights and widths of films are multiples of it. */
int ldm_scale(const Ldm *m);

typedef struct {
    int h, w, channels; /* channels 1: grey, or 3 */
} FilmShape;
static inline FilmShape film_square(int size) { return (FilmShape){size, size, 1}; }

size_t ldm_latent_count(const Ldm *m, FilmShape shape); /* floats of one film's latent */
int ldm_tokens(const Ldm *m);                    /* of a prompt, 77 */

Status ldm_encode(Ldm *m, const float *films, int n, FilmShape shape, float *latents);
/* The same, and how far a sample of the latent lies from it: latents + deviation * standard normal
 * noise is what diffusers calls a sample. 0 where the autoencoder is tiny. */
Status ldm_encode_moments(Ldm *m, const float *films, int n, FilmShape shape, float *latents,
                          float *deviation);
Status ldm_decode(Ldm *m, const float *latents, int n, FilmShape shape, float *films);

/* Takes the device memory of decoding one film, and gives it back: fails as ldm_decode() would. */
Status ldm_try_decode(Ldm *m, FilmShape shape);

/* Refuses a prompt (NULL: none) that is not UTF-8; warns of one with more tokens than the text encoder
 * sees. */
Status ldm_check_prompts(const Ldm *m, const char *const *prompt, int n, Log *log);
Status ldm_tokenize(Ldm *m, const char *const *prompt, int n, int32_t *ids); /* [n, tokens] */
Status ldm_embed(Ldm *m, const int32_t *ids, int n, float *context); /* [n, tokens, width] */

/* Sets the statistics from n raw latents (per channel, over all positions) and standardises those.
 */
void ldm_standardise(Ldm *m, float *latents, int n, int size);
/* Standardises latents that were encoded before ldm_standardise. */
void ldm_restandardise(const Ldm *m, float *latents, int n, int size);

/* The whole folder, written beside and renamed when complete. unet and text: host blocks in the
 * stores' layouts; NULL: as they are in the stores. */
Status ldm_save(const Ldm *m, const char *folder, const float *unet, const float *text);
#endif
