/* model_folder.h - where a model in diffusers' layout keeps its parts.
 *
 *   model_index.json                              which class each part is
 *   unet/          config.json  diffusion_pytorch_model.safetensors
 *   vae/           config.json  diffusion_pytorch_model.safetensors
 *   text_encoder/  config.json  model.safetensors
 *   tokenizer/     vocab.json  merges.txt  tokenizer_config.json  special_tokens_map.json
 *   scheduler/     scheduler_config.json
 *
 * Errors name the missing file and what lies there instead: weights in shards, in half precision
 * under another name, as pickles. Strings are owned by the caller.
 */
#ifndef MODEL_FOLDER_H
#define MODEL_FOLDER_H
#include "base/status.h"

typedef enum {
    PART_UNET,
    PART_VAE,
    PART_TEXT_ENCODER,
    PART_TOKENIZER,
    PART_SCHEDULER,
    N_PARTS
} ModelPart;

/* What model_index.json says of each part. */
typedef struct {
    const char *vae, *scheduler; /* "AutoencoderTiny", "DDIMScheduler" */
} ModelClasses;

/* All files that a model needs are there, and model_index.json (where there is one) names classes
 * that we know. */
Status model_folder_check(const char *root);

/* ROOT/unet, ROOT/unet/config.json, ROOT/unet/diffusion_pytorch_model.safetensors; CHECKs that the
 * part has a config or weights. */
char *model_part_folder(const char *root, ModelPart part);
char *model_part_config(const char *root, ModelPart part);
char *model_part_weights(const char *root, ModelPart part);

/* Config and weights of one model: of a folder that holds both, or of a single weights file, which
 * has no config: *config is then NULL. */
Status model_find(char **config, char **weights, const char *path);

Status model_index_write(const char *root, const ModelClasses *classes);
Status model_copy_tokenizer(const char *to_root, const char *from_root);
#endif
