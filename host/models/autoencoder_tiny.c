/* autoencoder_tiny.c - TAESD and TAEF2, encoder and decoder.
 *
 *   block(x)  = relu(conv(relu(conv(relu(conv(x))))) + x); with a pool branch, x := x + pool(x)
 * before pool(x)   = conv1x1(relu(groupnorm(conv1x1(x), 4 groups, eps 1e-5))) encoder   conv,
 * blocks; 3 x { conv of stride 2 without bias, blocks }; conv to the latent decoder   3 tanh(x/3),
 * conv, relu; 3 x { blocks, nearest x2, conv without bias }; block; conv to the image
 *
 * Layers are numbered through as in torch.nn.Sequential, the relu and upsample layers of the
 * decoder counted.
 */
#include "models/autoencoder_tiny.h"
#include <stdio.h>

enum { POOL_WIDENS = 4, POOL_GROUPS = 4 };

typedef struct {
    Graph *g;
    ParamStore *s;
    const TinyConfig *c;
    int layer; /* number of the next one */
} Tiny;

static Tensor *pool_branch(Tiny *t, Tensor *x)
{
    int width = t->c->width, wide = POOL_WIDENS * width;
    Tensor *h = layer_conv_args(t->g, t->s, "pool.0", x, wide, 1, false, (ConvArgs){.stride = 1});
    h = layer_groupnorm(t->g, t->s, "pool.1", h, POOL_GROUPS, 1e-5f, ACT_RELU);
    return layer_conv_args(t->g, t->s, "pool.3", h, width, 1, false, (ConvArgs){.stride = 1});
}

static Tensor *block(Tiny *t, Tensor *x, bool pool)
{
    Graph *g = t->g;
    int width = t->c->width;
    graph_scope_push(g, "%d", t->layer++);
    if (pool) x = add(g, x, pool_branch(t, x));
    Tensor *h = relu(g, layer_conv(g, t->s, "conv.0", x, width, 3, 1));
    h = relu(g, layer_conv(g, t->s, "conv.2", h, width, 3, 1));
    h = layer_conv(g, t->s, "conv.4", h, width, 3, 1);
    x = relu(g, add(g, h, x));
    graph_scope_pop(g);
    return x;
}

static Tensor *conv(Tiny *t, Tensor *x, int k, int stride, bool bias)
{
    char name[16];
    snprintf(name, sizeof name, "%d", t->layer++);
    return layer_conv_args(t->g, t->s, name, x, k, 3, bias, (ConvArgs){stride, 1, 1, 1, 1});
}

Tensor *autoencoder_tiny_encode(Graph *g, ParamStore *s, const TinyConfig *c, Tensor *x)
{
    char text[64];
    if (!x) return NULL;
    if (x->ndim != 4 || x->dim[3] != 3 || x->dim[1] % TINY_SCALE || x->dim[2] % TINY_SCALE)
        return graph_fail(g, "sample %s: expected [n,h,w,3] with h and w multiples of %d",
                          tensor_shape_text(x, text), TINY_SCALE);
    Tiny t = {.g = g, .s = s, .c = c};
    x = cast(g, x, g->act);
    graph_scope_push(g, "encoder.layers");
    for (int i = 0; i < TINY_STAGES; i++) {
        x = conv(&t, x, c->width, i ? 2 : 1, i == 0);
        for (int j = 0; j < c->encoder_blocks[i]; j++)
            x = block(&t, x, c->pool && i == TINY_STAGES - 1);
    }
    x = conv(&t, x, c->latent_channels, 1, true);
    graph_scope_pop(g);
    return cast(g, x, DTYPE_F32);
}

Tensor *autoencoder_tiny_decode(Graph *g, ParamStore *s, const TinyConfig *c, Tensor *x)
{
    char text[64];
    if (!x) return NULL;
    if (x->ndim != 4 || x->dim[3] != c->latent_channels)
        return graph_fail(g, "latent %s: expected [n,h,w,%d]", tensor_shape_text(x, text),
                          c->latent_channels);
    Tiny t = {.g = g, .s = s, .c = c};
    graph_scope_push(g, "decoder.layers");
    x = relu(g, conv(&t, soft_clamp(g, cast(g, x, g->act)), c->width, 1, true));
    t.layer++; /* the relu */
    for (int i = 0; i < TINY_STAGES; i++) {
        bool last = i == TINY_STAGES - 1;
        for (int j = 0; j < c->decoder_blocks[i]; j++) x = block(&t, x, c->pool && i == 0);
        if (!last) {
            x = upsample2(g, x);
            t.layer++;
        }
        x = conv(&t, x, last ? 3 : c->width, 1, last);
    }
    graph_scope_pop(g);
    return cast(g, x, DTYPE_F32);
}
