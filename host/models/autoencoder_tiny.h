/* autoencoder_tiny.h - TAESD and its successors: images of 8 x 8 pixels a latent, without
 * attention.
 *
 * One architecture, two published weights: TAESD (4 latent channels, Stable Diffusion's latents
 * after their scaling) and TAEF2 (32 channels, with a pool branch in the deepest blocks). Images
 * are in [0, 1], both ways; decoded ones are not clamped. diffusers wraps the same network for [-1,
 * 1].
 */
#ifndef AUTOENCODER_TINY_H
#define AUTOENCODER_TINY_H
#include "models/layers.h"

enum { TINY_STAGES = 4 };

typedef struct {
    int latent_channels;
    int width;                       /* channels of every layer: 64 published */
    int encoder_blocks[TINY_STAGES]; /* finest first: 1 3 3 3 published  */
    int decoder_blocks[TINY_STAGES]; /* deepest first: 3 3 3 1 published */
    bool pool;                       /* x += pool(x) in the deepest stage's blocks */
} TinyConfig;

enum { TINY_SCALE = 1 << (TINY_STAGES - 1) }; /* pixels a latent, each way */

/* A folder with config.json (diffusers' AutoencoderTiny and, ours, "pool": true) and its weights,
 * or one safetensors file, with diffusers' names or the original ones (then it holds either half),
 * whose config follows from its shapes. */
Status tiny_config_read(TinyConfig *c, const char *path);

/* sample[n,h,w,3] -> latent[n,h/8,w/8,latent_channels], h and w multiples of 8; and back. */
Tensor *autoencoder_tiny_encode(Graph *g, ParamStore *s, const TinyConfig *c, Tensor *sample);
Tensor *autoencoder_tiny_decode(Graph *g, ParamStore *s, const TinyConfig *c, Tensor *latent);

/* How the names in a weights file relate to those that s has registered, which may be one half
 * only. */
Status tiny_names(ParamFile *how, const ParamStore *s, const char *weights_file);
/* From either kind of path. */
Status autoencoder_tiny_load(ParamStore *s, const char *path);
#endif
