/* clip_text.h - CLIPTextModel of transformers: token ids to the vectors that the UNet attends to.
 */
#ifndef CLIP_TEXT_H
#define CLIP_TEXT_H
#include "models/layers.h"

typedef struct {
    int vocab_size, max_position_embeddings;
    int hidden_size, intermediate_size;
    int num_hidden_layers, num_attention_heads;
    bool quick_gelu; /* hidden_act: quick_gelu (Stable Diffusion 1), else gelu (2) */
    float layer_norm_eps;
} ClipTextConfig;

/* From a config.json as transformers writes it; keys that are not there have its defaults. */
Status clip_text_config_read(ClipTextConfig *c, const char *path);

/* ids I32[n,t], t <= max_position_embeddings -> last_hidden_state[n,t,hidden_size], after the final
 * norm. No padding mask: Stable Diffusion attends to all tokens. */
Tensor *clip_text(Graph *g, ParamStore *s, const ClipTextConfig *c, Tensor *ids);

/* How the names in a weights file relate to ours: with or without "text_model."; position_ids are
 * ignored. */
Status clip_text_names(ParamFile *how, const char *path);
Status clip_text_load(ParamStore *s, const char *path);
#endif
