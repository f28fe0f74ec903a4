/* clip_text.c - CLIPTextModel.
 *
 *   x = token[ids] + position[0..t-1]
 *   each layer: x += out(attention(q, k, v of norm1(x), causal)); x += fc2(act(fc1(norm2(x))))
 *   final_layer_norm(x)
 *
 * First values are those of transformers: normals of deviation 0.02 for the tables, smaller by
 * depth for what is added to x.
 */
#include "models/clip_text.h"
#include <math.h>
#include <string.h>

typedef struct {
    Graph *g;
    ParamStore *s;
    const ClipTextConfig *c;
} Clip;

static Tensor *dense(Clip *m, const char *name, Tensor *x, int k, float deviation)
{
    if (!x) return NULL;
    graph_scope_push(m->g, "%s", name);
    Tensor *w =
        param(m->g, m->s, "weight", LAYOUT_SAME, 2, (int[]){k, x->dim[2]}, INIT_NORMAL, deviation);
    Tensor *b = param(m->g, m->s, "bias", LAYOUT_SAME, 1, &k, INIT_ZERO, 0);
    Tensor *y = linear(m->g, x, w, b);
    graph_scope_pop(m->g);
    return y;
}

static Tensor *layer(Clip *m, int index, Tensor *x)
{
    const ClipTextConfig *c = m->c;
    int d = c->hidden_size;
    float root = 1 / sqrtf((float)d), by_depth = root / sqrtf(2 * (float)c->num_hidden_layers);
    graph_scope_push(m->g, "layers.%d", index);
    Tensor *h = layer_layernorm(m->g, m->s, "layer_norm1", x, c->layer_norm_eps);
    Tensor *q = dense(m, "self_attn.q_proj", h, d, by_depth);
    Tensor *k = dense(m, "self_attn.k_proj", h, d, by_depth);
    Tensor *v = dense(m, "self_attn.v_proj", h, d, by_depth);
    h = attention(m->g, q, k, v, c->num_attention_heads, true);
    x = add(m->g, x, dense(m, "self_attn.out_proj", h, d, root));
    h = layer_layernorm(m->g, m->s, "layer_norm2", x, c->layer_norm_eps);
    h = dense(m, "mlp.fc1", h, c->intermediate_size, root * sqrtf(0.5f));
    h = c->quick_gelu ? quick_gelu(m->g, h) : gelu(m->g, h);
    x = add(m->g, x, dense(m, "mlp.fc2", h, d, by_depth));
    graph_scope_pop(m->g);
    return x;
}

Tensor *clip_text(Graph *g, ParamStore *s, const ClipTextConfig *c, Tensor *ids)
{
    char text[64];
    if (!ids) return NULL;
    if (ids->ndim != 2 || ids->dtype != DTYPE_I32 || ids->dim[1] > c->max_position_embeddings)
        return graph_fail(g, "input_ids %s: expected integers [n,t] with t up to %d",
                          tensor_shape_text(ids, text), c->max_position_embeddings);
    Clip m = {.g = g, .s = s, .c = c};
    int d = c->hidden_size;
    graph_scope_push(g, "text_model");
    Tensor *token = param(g, s, "embeddings.token_embedding.weight", LAYOUT_SAME, 2,
                          (int[]){c->vocab_size, d}, INIT_NORMAL, 0.02f);
    Tensor *position = param(g, s, "embeddings.position_embedding.weight", LAYOUT_SAME, 2,
                             (int[]){c->max_position_embeddings, d}, INIT_NORMAL, 0.02f);
    Tensor *x = add_rows(g, embedding(g, ids, token), position);
    graph_scope_push(g, "encoder");
    for (int i = 0; i < c->num_hidden_layers; i++) x = layer(&m, i, x);
    graph_scope_pop(g);
    x = layer_layernorm(g, s, "final_layer_norm", x, c->layer_norm_eps);
    graph_scope_pop(g);
    return cast(g, x, DTYPE_F32);
}

static const char top[] = "text_model.";

static void without_top(char file_name[PARAM_NAME], const char *name)
{
    strcpy(file_name, strncmp(name, top, sizeof top - 1) ? name : name + sizeof top - 1);
}

Status clip_text_names(ParamFile *how, const char *path)
{
    SafeFile f = {0};
    TRY(st_open(&f, path));
    bool bare = st_find(&f, "embeddings.token_embedding.weight") != NULL;
    st_close(&f);
    *how = (ParamFile){.rename = bare ? without_top : NULL,
                       .skip = "text_model.embeddings.position_ids,embeddings.position_ids"};
    return OK;
}

Status clip_text_load(ParamStore *s, const char *path)
{
    ParamFile how;
    TRY(clip_text_names(&how, path));
    return params_load(s, path, &how);
}
