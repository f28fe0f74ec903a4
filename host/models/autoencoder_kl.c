/* autoencoder_kl.c - AutoencoderKL, encoder and decoder.
 *
 * encoder  conv_in; down blocks: resnets, and but for the last a convolution of stride 2; mid
 *          block; GroupNorm, SiLU, conv_out to mean and log-variance; quant_conv 1x1
 * decoder  post_quant_conv 1x1; conv_in; mid block; up blocks: resnets, and but for the last
 *          nearest x2 and a convolution; GroupNorm, SiLU, conv_out
 * mid      resnet, attention with one head over all pixels, resnet
 *
 * Easy to get wrong: the halving convolution pads right and bottom only; every norm has eps 1e-6;
 * the last activation is SiLU whatever act_fn says; decoder.up_blocks.0 is the deepest.
 */
#include "models/autoencoder_kl.h"

static const float NORM_EPS = 1e-6f;

typedef struct {
    Graph *g;
    ParamStore *s;
    const KlConfig *c;
    bool recompute;
} Kl;

static void segment_begin(const Kl *k)
{
    if (k->recompute) graph_recompute_begin(k->g);
}

static void segment_end(const Kl *k)
{
    if (k->recompute) graph_recompute_end(k->g);
}

static Tensor *norm(const Kl *k, const char *name, Tensor *x, Act act)
{
    return layer_groupnorm(k->g, k->s, name, x, k->c->norm_num_groups, NORM_EPS, act);
}

static Tensor *norm_act(const Kl *k, const char *name, Tensor *x)
{
    static const Act fused[] = {
        [KL_SILU] = ACT_SILU, [KL_RELU] = ACT_RELU, [KL_GELU] = ACT_NONE};
    x = norm(k, name, x, fused[k->c->activation]);
    return k->c->activation == KL_GELU ? gelu(k->g, x) : x;
}

static Tensor *conv(const Kl *k, const char *name, Tensor *x, int channels, int size)
{
    return layer_conv(k->g, k->s, name, x, channels, size, 1);
}

/* shortcut(x) + conv2(act(norm2(conv1(act(norm1(x)))))) */
static Tensor *resnet(const Kl *k, int index, Tensor *x, int channels)
{
    if (!x) return NULL;
    graph_scope_push(k->g, "resnets.%d", index);
    segment_begin(k);
    Tensor *h = conv(k, "conv1", norm_act(k, "norm1", x), channels, 3);
    h = conv(k, "conv2", norm_act(k, "norm2", h), channels, 3);
    if (x->dim[3] != channels) x = conv(k, "conv_shortcut", x, channels, 1);
    Tensor *y = add(k->g, x, h);
    segment_end(k);
    graph_scope_pop(k->g);
    return y;
}

/* x + to_out(attention(to_q(h), to_k(h), to_v(h))), h = norm(x), pixels as tokens */
static Tensor *attend(const Kl *k, Tensor *x)
{
    if (!x) return NULL;
    Graph *g = k->g;
    int d = x->dim[3], tokens[] = {x->dim[0], x->dim[1] * x->dim[2], d},
        image[] = {x->dim[0], x->dim[1], x->dim[2], d};
    graph_scope_push(g, "attentions.0");
    segment_begin(k);
    Tensor *h = reshape(g, norm(k, "group_norm", x, ACT_NONE), 3, tokens);
    Tensor *q = layer_linear(g, k->s, "to_q", h, d, true);
    Tensor *key = layer_linear(g, k->s, "to_k", h, d, true);
    Tensor *v = layer_linear(g, k->s, "to_v", h, d, true);
    h = layer_linear(g, k->s, "to_out.0", attention(g, q, key, v, 1, false), d, true);
    x = add(g, x, reshape(g, h, 4, image));
    segment_end(k);
    graph_scope_pop(g);
    return x;
}

static Tensor *mid_block(const Kl *k, Tensor *x)
{
    int channels = k->c->channels[k->c->n_block - 1];
    graph_scope_push(k->g, "mid_block");
    x = resnet(k, 0, x, channels);
    if (k->c->mid_attention) x = attend(k, x);
    x = resnet(k, 1, x, channels);
    graph_scope_pop(k->g);
    return x;
}

static Tensor *down_block(const Kl *k, int i, Tensor *x)
{
    int channels = k->c->channels[i];
    graph_scope_push(k->g, "down_blocks.%d", i);
    for (int j = 0; j < k->c->layers_per_block; j++) x = resnet(k, j, x, channels);
    if (i < k->c->n_block - 1)
        x = layer_conv_args(k->g, k->s, "downsamplers.0.conv", x, channels, 3, true,
                            (ConvArgs){.stride = 2, .bottom = 1, .right = 1});
    graph_scope_pop(k->g);
    return x;
}

static Tensor *up_block(const Kl *k, int i, Tensor *x)
{
    int level = k->c->n_block - 1 - i, channels = k->c->channels[level];
    graph_scope_push(k->g, "up_blocks.%d", i);
    for (int j = 0; j <= k->c->layers_per_block; j++) x = resnet(k, j, x, channels);
    if (level > 0) x = conv(k, "upsamplers.0.conv", upsample2(k->g, x), channels, 3);
    graph_scope_pop(k->g);
    return x;
}

KlMoments autoencoder_kl_encode(Graph *g, ParamStore *s, const KlConfig *c, Tensor *x,
                                bool recompute)
{
    char text[64];
    KlMoments m = {0};
    Kl k = {g, s, c, recompute};
    int step = 1 << (c->n_block - 1), z = c->latent_channels;
    if (!x) return m;
    if (x->ndim != 4 || x->dim[3] != c->in_channels || x->dim[1] < step || x->dim[2] < step) {
        graph_fail(g, "sample %s: expected [n,h,w,%d] with h and w of %d or more",
                   tensor_shape_text(x, text), c->in_channels, step);
        return m;
    }
    x = cast(g, x, g->act);
    graph_scope_push(g, "encoder");
    x = conv(&k, "conv_in", x, c->channels[0], 3);
    for (int i = 0; i < c->n_block; i++) x = down_block(&k, i, x);
    x = norm(&k, "conv_norm_out", mid_block(&k, x), ACT_SILU);
    x = conv(&k, "conv_out", x, 2 * z, 3);
    graph_scope_pop(g);
    if (c->quant_conv) x = conv(&k, "quant_conv", x, 2 * z, 1);
    x = cast(g, x, DTYPE_F32);
    if (!x) return m;
    m.mean = slice(g, x, 0, z);
    m.logvar = clamp(g, slice(g, x, z, z), -30, 20);
    return m;
}

Tensor *autoencoder_kl_decode(Graph *g, ParamStore *s, const KlConfig *c, Tensor *x, bool recompute)
{
    char text[64];
    Kl k = {g, s, c, recompute};
    if (!x) return NULL;
    if (x->ndim != 4 || x->dim[3] != c->latent_channels)
        return graph_fail(g, "latent %s: expected [n,h,w,%d]", tensor_shape_text(x, text),
                          c->latent_channels);
    x = cast(g, x, g->act);
    if (c->post_quant_conv) x = conv(&k, "post_quant_conv", x, c->latent_channels, 1);
    graph_scope_push(g, "decoder");
    x = conv(&k, "conv_in", x, c->channels[c->n_block - 1], 3);
    x = mid_block(&k, x);
    for (int i = 0; i < c->n_block; i++) x = up_block(&k, i, x);
    x = norm(&k, "conv_norm_out", x, ACT_SILU);
    x = conv(&k, "conv_out", x, c->out_channels, 3);
    graph_scope_pop(g);
    return cast(g, x, DTYPE_F32);
}
