/* unet.h - UNet2DConditionModel of diffusers: predicts noise (or v) from a noisy latent, its time
 * and the text.
 *
 * Any layout of the Stable Diffusion family: Down/UpBlock2D with or without cross-attention, the
 * mid block with or without it or absent, both projection kinds, layers, transformers and heads per
 * block, activations, sizes of the first and the last kernel. What the family has beyond that is
 * refused by the name of its key. MODEL_SPECS has the forward pass with shapes.
 */
#ifndef UNET_H
#define UNET_H
#include "models/layers.h"

enum { UNET_MAX_BLOCKS = 8 };

typedef enum { UNET_SILU, UNET_GELU, UNET_RELU, UNET_MISH, UNET_IDENTITY } UnetActivation;
typedef enum {
    UNET_MID_ATTENTION, /* resnet, transformer, resnet */
    UNET_MID_RESNET,    /* one resnet */
    UNET_MID_NONE
} UnetMid;

typedef struct {
    int in_channels, out_channels;
    int n_block; /* resolutions, the finest first */
    int channels[UNET_MAX_BLOCKS];
    int layers[UNET_MAX_BLOCKS];          /* resnets of a down block; its up block has one more */
    int transformers[UNET_MAX_BLOCKS];    /* transformer blocks in one attention, down and mid */
    int up_transformers[UNET_MAX_BLOCKS]; /* of up blocks; the deepest first, as published */
    int heads[UNET_MAX_BLOCKS];           /* attention_head_dim of the published configs */
    bool down_attention[UNET_MAX_BLOCKS]; /* CrossAttnDownBlock2D */
    bool up_attention[UNET_MAX_BLOCKS];   /* CrossAttnUpBlock2D; the deepest first, as published */
    int cross_attention_dim;              /* width of the text */
    bool use_linear_projection;
    int norm_num_groups;
    float norm_eps;
    UnetMid mid;
    float mid_scale; /* of the mid block: the sum of its resnets is divided by it */
    UnetActivation act, time_act,
        post_act;                        /* of resnets and time MLP; of temb; after the time MLP */
    int time_dim;                        /* width of temb */
    int conv_in_kernel, conv_out_kernel; /* odd */
    bool center_input_sample;            /* 2 sample - 1 goes in */
    bool flip_sin_to_cos;
    float freq_shift;
    int downsample_padding; /* 1: all sides; 0: right and bottom */
} UnetConfig;

/* From a config.json as diffusers writes it; keys that are not there have diffusers' defaults. */
Status unet_config_read(UnetConfig *c, const char *path);

/* sample[n,h,w,in], timestep[n], context[n,t,cross_attention_dim] -> [n,h,w,out], any h and w from
 * unet_least_side on: of a size that 2^(n_block-1) does not divide, the up blocks restore what the
 * down blocks rounded. recompute: each resnet and each attention is a recompute segment. */
Tensor *unet(Graph *g, ParamStore *s, const UnetConfig *c, Tensor *sample, Tensor *timestep,
             Tensor *context, bool recompute);
/* The same where the samples' times are among a few: timestep[times], of which sample i has number
 * at[i, 0] (I32 [n, 1]; NULL: i). All that depends on the time alone is computed for each of them, in
 * sampling once for all steps (graph_hold(timestep)). */
Tensor *unet_at(Graph *g, ParamStore *s, const UnetConfig *c, Tensor *sample, Tensor *timestep,
                Tensor *at, Tensor *context, bool recompute);
int unet_least_side(const UnetConfig *c); /* the coarsest level has one latent left */
#endif
