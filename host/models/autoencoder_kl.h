/* autoencoder_kl.h - AutoencoderKL of diffusers: images to the mean and log-variance of a latent,
 * and back; Stable Diffusion's autoencoder.
 *
 * Any DownEncoderBlock2D / UpDecoderBlock2D layout; what diffusers has beyond that is refused by
 * the name of its key. Images are in [-1, 1], both ways; decoded ones are not clamped. Latents are as
 * the encoder gives them: whoever wants them scaled uses the config's scaling_factor.
 */
#ifndef AUTOENCODER_KL_H
#define AUTOENCODER_KL_H
#include "models/layers.h"

enum { KL_MAX_BLOCKS = 8, KL_MAX_LATENT = 64 };

typedef enum { KL_SILU, KL_RELU, KL_GELU } KlActivation;

typedef struct {
    int in_channels, out_channels, latent_channels;
    int n_block; /* resolutions, the finest first: a latent is 2^(n_block-1) pixels wide */
    int channels[KL_MAX_BLOCKS];
    int layers_per_block; /* resnets of an encoder's block; the decoder's have one more */
    int norm_num_groups;
    KlActivation activation;
    bool quant_conv, post_quant_conv, mid_attention;
    float scaling_factor; /* a model's latent = ours * scaling */
    /* shift_factor, latents_mean or latents_std was given: Stable Diffusion has no use for these */
    bool has_shift;
} KlConfig;

/* From a config.json as diffusers writes it; keys that are not there have diffusers' defaults. */
Status kl_config_read(KlConfig *c, const char *path);

typedef struct {
    Tensor *mean, *logvar; /* [n, h', w', latent_channels]; logvar clamped to -30..20 */
} KlMoments;

/* sample[n,h,w,in] of any size that leaves a pixel: each of the n_block-1 halvings rounds down.
 * latent[n,h,w,latent] -> [n, h*2^(n_block-1), w*2^(n_block-1), out]. recompute: each resnet and
 * each attention is a recompute segment. */
KlMoments autoencoder_kl_encode(Graph *g, ParamStore *s, const KlConfig *c, Tensor *sample,
                                bool recompute);
Tensor *autoencoder_kl_decode(Graph *g, ParamStore *s, const KlConfig *c, Tensor *latent,
                              bool recompute);

/* Names that one half alone has in a weights file, for ParamFile.skip. */
#define KL_ENCODER "encoder.,quant_conv."
#define KL_DECODER "decoder.,post_quant_conv."
#endif
