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
#include "weights/json_config.h"
#include "weights/safetensors.h"

/* All files that a model needs are there, and model_index.json (where there is one) names classes
 * that we know. */
Status model_folder_check(const char *root);

/* Config and weights of one model: of a folder that holds both, or of a single weights file, which
 * has no config: *config is then NULL. */
Status model_find(char **config, char **weights, const char *path);

/* What tells the sizes of such a model: its config.json where it has one, else its weights' shapes.
 */
typedef struct {
    JsonConfig json; /* open if value is set */
    SafeFile file;   /* open if not */
} ModelSource;       /* starts as {0} */

Status model_source_open(ModelSource *m, const char *path);
void model_source_close(ModelSource *m); /* accepts {0} */
#endif
