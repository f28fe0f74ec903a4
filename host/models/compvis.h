/* compvis.h - where a parameter of ours lies in a single-file checkpoint of Stable Diffusion.
 *
 *   model.diffusion_model.     UNet: input_blocks, middle_block, output_blocks in one count each
 *   first_stage_model.         AutoencoderKL: up blocks in the reverse order
 *   cond_stage_model.transformer.    CLIP's text encoder of SD 1, under today's names
 *   cond_stage_model.model.          OpenCLIP's of SD 2: query, key and value in one matrix
 */
#ifndef COMPVIS_H
#define COMPVIS_H
#include "models/autoencoder_kl.h"
#include "models/clip_text.h"
#include "models/unet.h"

/* The name in the checkpoint, "" where the parameter has no counterpart there. */
void compvis_unet_name(char out[PARAM_NAME], const char *name, const UnetConfig *c);
void compvis_vae_name(char out[PARAM_NAME], const char *name, const KlConfig *c);
void compvis_text_name(char out[PARAM_NAME], const char *name);
/* third: which third of the tensor it is; -1: all of it */
void compvis_openclip_name(char out[PARAM_NAME], int *third, const char *name);
#endif
