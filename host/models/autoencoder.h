/* autoencoder.h - the autoencoder of a latent diffusion model, of either kind: AutoencoderTiny or
 * AutoencoderKL, told apart by config.json's _class_name.
 *
 * Films have three channels in [0, 1], both ways, whatever the network itself takes; decoded ones
 * are not clamped. Latents are as the network gives them; `mean` and `std` are what a diffusion
 * model standardises them with.
 */
#ifndef AUTOENCODER_H
#define AUTOENCODER_H
#include "models/autoencoder_kl.h"
#include "models/autoencoder_tiny.h"

enum { MAX_LATENT = KL_MAX_LATENT };

typedef struct {
    bool is_kl;
    TinyConfig tiny; /* of the one */
    KlConfig kl;     /* or the other */
    int latent_channels;
    int scale; /* pixels a latent, each way: films' heights and widths are multiples of it */
    /* Tiny: latents_mean and latents_std where the config has them. KL: scaling_factor alone, always,
     * as diffusers' Stable Diffusion pipelines have it. */
    bool standardised;
    float mean[MAX_LATENT], std[MAX_LATENT]; /* a channel's; 0 and 1 if not standardised */
} AutoencoderConfig;

/* path: a folder, or for AutoencoderTiny also a single file. */
Status autoencoder_config_read(AutoencoderConfig *c, const char *path);
/* Every parameter of the store, from the same path. */
Status autoencoder_load(ParamStore *s, const AutoencoderConfig *c, const char *path);

/* film[n,h,w,3] -> mean and logvar [n,h/scale,w/scale,latent_channels]; a tiny one has no
 * logvar: NULL. */
KlMoments autoencoder_encode(Graph *g, ParamStore *s, const AutoencoderConfig *c, Tensor *film,
                             bool recompute /* of KL only */);
Tensor *autoencoder_decode(Graph *g, ParamStore *s, const AutoencoderConfig *c, Tensor *latent,
                           bool recompute);

/* Writes `folder`, which must be new: what else lies in `base`, and the weights under diffusers'
 * names, values (a host block of s's layout) or NULL: the store's. Whole or not at all. */
Status autoencoder_save(const char *folder, const char *base, const ParamStore *s,
                        const float *values);
#endif
