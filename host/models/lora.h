/* lora.h - low-rank changes of a model's weights: W + scale * (alpha / rank) * B A.
 *
 * Files are safetensors with, for a module M of the UNet (or of the text encoder),
 *
 *   unet.M.lora_A.weight [rank, in]    unet.M.lora_B.weight [out, rank]    text_encoder.M...
 *
 * as diffusers and PEFT write them; in place of lora_A and lora_B also .lora.down/.up,
 * .lora_linear_layer.down/.up, and processor.to_q_lora.down/.up of old diffusers; without a prefix,
 * of the UNet. Kohya's lora_unet_M.lora_down/.lora_up (lora_te_M..., lora_te1_M...), M with _ for each dot. Of
 * convolutions A is [rank, in, h, w] and B [out, rank, 1, 1]. alpha is a tensor M.alpha, or the
 * metadata's lora_adapter_metadata, else the rank. What else a file holds is refused by name.
 *
 * Training keeps W fixed and A and B in a store of their own: see ParamStore.adapter.
 */
#ifndef LORA_H
#define LORA_H
#include "models/params.h"

/* Adds a file's changes to the stores' values, in memory. Nothing has changed if it fails on what
 * the file says; if a sum leaves fp32 (ERR_NUMERIC), the modules before it have. */
Status lora_merge(ParamStore *unet, ParamStore *text, const char *path, double scale);

/* Adds trained changes (alpha = rank) to s, whose adapter they are. value: a host block of the
 * adapter's layout, NULL: its own. */
Status lora_merge_adapter(ParamStore *s, const float *value);

/* Writes the adapter of a UNet as pytorch_lora_weights.safetensors; value as above. */
Status lora_save(const ParamStore *adapter, const float *value, const char *path);
#endif
