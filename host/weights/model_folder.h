/* model_folder.h - where a model in diffusers' layout keeps its parts.
 *
 *   model_index.json                              which class each part is
 *   unet/          config.json  weights
 *   vae/           config.json  weights
 *   text_encoder/  config.json  weights
 *   tokenizer/     vocab.json  merges.txt  tokenizer_config.json  special_tokens_map.json,
 *                  or tokenizer.json  tokenizer_config.json
 *   scheduler/     scheduler_config.json
 *
 * weights: diffusion_pytorch_model.safetensors or model.safetensors; where neither is there, an
 * index of shards (.safetensors.index.json), or the half-precision variant (.fp16.safetensors, or
 * its index). Which it was, errors and logs say by the file's path.
 *
 * Errors name the missing file and what lies there instead: weights under another name, pickles.
 * Strings are owned by the caller.
 */
#ifndef MODEL_FOLDER_H
#define MODEL_FOLDER_H
#include "weights/json_config.h"
#include "weights/safetensors.h"

/* All files that a model needs are there, and model_index.json (where there is one) names a pipeline
 * and classes that we know. trained false: UNet and text encoder may lack their weights. */
Status model_folder_check(const char *root, bool trained);

/* The weights file in this folder, or the index of its shards. */
Status model_weights(char **weights, const char *folder);

/* Is this a file of weights, in whatever form, by its name? */
bool model_is_weights(const char *name);

/* Config and weights of one model: of a folder that holds both, or of a single weights file, which
 * has no config: *config is then NULL. */
Status model_find(char **config, char **weights, const char *path);

/* What tells the sizes of such a model: a folder's config.json (weights need not be there), or the
 * shapes in a single file. */
typedef struct {
    JsonConfig json; /* open if value is set */
    SafeFile file;   /* open if not */
} ModelSource;       /* starts as {0} */

Status model_source_open(ModelSource *m, const char *path);
void model_source_close(ModelSource *m); /* accepts {0} */
#endif
