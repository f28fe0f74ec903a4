/* layers.c - an op with its parameters under the names PyTorch gives them. */
#include "models/layers.h"
#include <math.h>

static float one_over_root(int fan_in) { return 1 / sqrtf((float)fan_in); }

static Tensor *vector(Graph *g, ParamStore *s, const char *name, int k, ParamInit init, float scale)
{
    return param(g, s, name, LAYOUT_SAME, 1, &k, init, scale);
}

Tensor *layer_conv_args(Graph *g, ParamStore *s, const char *name, Tensor *x, int k, int size,
                        bool bias, ConvArgs a)
{
    if (!x) return NULL;
    int c = x->dim[x->ndim - 1];
    float scale = one_over_root(c * size * size);
    graph_scope_push(g, "%s", name);
    Tensor *w =
        param(g, s, "weight", LAYOUT_OIHW, 4, (int[]){k, size, size, c}, INIT_UNIFORM, scale);
    Tensor *b = bias ? vector(g, s, "bias", k, INIT_UNIFORM, scale) : NULL;
    Tensor *y = conv2d(g, x, w, b, a);
    graph_scope_pop(g);
    return y;
}

Tensor *layer_conv(Graph *g, ParamStore *s, const char *name, Tensor *x, int k, int size,
                   int stride)
{
    int pad = (size - 1) / 2;
    return layer_conv_args(g, s, name, x, k, size, true, (ConvArgs){stride, pad, pad, pad, pad});
}

Tensor *layer_linear(Graph *g, ParamStore *s, const char *name, Tensor *x, int k, bool bias)
{
    if (!x) return NULL;
    int c = x->dim[x->ndim - 1];
    graph_scope_push(g, "%s", name);
    Tensor *w =
        param(g, s, "weight", LAYOUT_SAME, 2, (int[]){k, c}, INIT_UNIFORM, one_over_root(c));
    Tensor *b = bias ? vector(g, s, "bias", k, INIT_UNIFORM, one_over_root(c)) : NULL;
    Tensor *y = linear(g, x, w, b);
    graph_scope_pop(g);
    return y;
}

Tensor *layer_adapted(Graph *g, ParamStore *s, const char *name, Tensor *x, int k, bool bias)
{
    Tensor *y = layer_linear(g, s, name, x, k, bias);
    if (!y || !s->adapter) return y;
    int r = s->adapter_rank, c = x->dim[x->ndim - 1];
    graph_scope_push(g, "%s", name);
    Tensor *a = param(g, s->adapter, "lora_A.weight", LAYOUT_SAME, 2, (int[]){r, c}, INIT_NORMAL,
                      1 / (float)r);
    Tensor *b = param(g, s->adapter, "lora_B.weight", LAYOUT_SAME, 2, (int[]){k, r}, INIT_ZERO, 0);
    graph_scope_pop(g);
    return add(g, y, linear(g, linear(g, x, a, NULL), b, NULL));
}

Tensor *layer_groupnorm(Graph *g, ParamStore *s, const char *name, Tensor *x, int groups, float eps,
                        Act act)
{
    if (!x) return NULL;
    int c = x->dim[x->ndim - 1];
    graph_scope_push(g, "%s", name);
    Tensor *gain = vector(g, s, "weight", c, INIT_ONE, 0),
           *bias = vector(g, s, "bias", c, INIT_ZERO, 0);
    Tensor *y = groupnorm(g, x, gain, bias, groups, eps, act);
    graph_scope_pop(g);
    return y;
}

Tensor *layer_layernorm(Graph *g, ParamStore *s, const char *name, Tensor *x, float eps)
{
    if (!x) return NULL;
    int c = x->dim[x->ndim - 1];
    graph_scope_push(g, "%s", name);
    Tensor *gain = vector(g, s, "weight", c, INIT_ONE, 0),
           *bias = vector(g, s, "bias", c, INIT_ZERO, 0);
    Tensor *y = layernorm(g, x, gain, bias, eps);
    graph_scope_pop(g);
    return y;
}
