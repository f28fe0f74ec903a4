/* unet.c - UNet2DConditionModel.
 *
 * conv_in; down blocks, each layer's output pushed on a stack of skips; mid block; up blocks, each
 * layer reading concat(hidden, popped skip); GroupNorm, act, conv_out. All blocks see the time
 * through temb = linear_2(act(linear_1(sinusoids(t)))) and the text through cross-attention; act is
 * SiLU in all published models.
 *
 * Easy to get wrong: the GroupNorm before a transformer has eps 1e-6 whatever norm_eps says; the
 * skip after an attention layer is the attention's output; an upsampler's conv comes after the
 * nearest upsampling, which is to the size of the next skip: x2, or a pixel less or more where a
 * level's size was odd.
 */
#include "models/unet.h"

typedef struct {
    Graph *g;
    ParamStore *s;
    const UnetConfig *c;
    Tensor *time, *context; /* act(temb) [n or times, time_dim]; text [n, t, d] */
    Tensor *at;             /* I32 [n, 1]: which of the times is whose; NULL: sample i has time i */
    bool recompute;
} Unet;

static void segment_begin(Unet *u)
{
    if (u->recompute) graph_recompute_begin(u->g);
}

static void segment_end(Unet *u)
{
    if (u->recompute) graph_recompute_end(u->g);
}

static Tensor *activate(Graph *g, UnetActivation act, Tensor *x)
{
    static Tensor *(*const function[])(Graph *, Tensor *) = {
        [UNET_SILU] = silu, [UNET_GELU] = gelu, [UNET_RELU] = relu, [UNET_MISH] = mish};
    return act == UNET_IDENTITY ? x : function[act](g, x);
}

static Tensor *norm_act(Unet *u, const char *name, Tensor *x)
{
    const UnetConfig *c = u->c;
    bool fused = c->act == UNET_SILU;
    x = layer_groupnorm(u->g, u->s, name, x, c->norm_num_groups, c->norm_eps,
                        fused ? ACT_SILU : ACT_NONE);
    return fused ? x : activate(u->g, c->act, x);
}

/* A linear layer of each sample's time: [n, k]. */
static Tensor *of_time(Unet *u, const char *name, int k)
{
    Tensor *v = layer_linear(u->g, u->s, name, u->time, k, true);
    if (!u->at || !v) return v;
    return reshape(u->g, embedding(u->g, u->at, v), 2, (int[]){u->at->dim[0], k});
}

/* h = conv1(act(norm1(x))) + time; (shortcut(x) + conv2(act(norm2(h)))) / scale */
static Tensor *resnet(Unet *u, int index, Tensor *x, int k, float scale)
{
    if (!x) return NULL;
    graph_scope_push(u->g, "resnets.%d", index);
    segment_begin(u);
    Tensor *h = layer_conv(u->g, u->s, "conv1", norm_act(u, "norm1", x), k, 3, 1);
    h = add_channel(u->g, h, of_time(u, "time_emb_proj", k));
    h = layer_conv(u->g, u->s, "conv2", norm_act(u, "norm2", h), k, 3, 1);
    if (x->dim[3] != k) x = layer_conv(u->g, u->s, "conv_shortcut", x, k, 1, 1);
    Tensor *y = add(u->g, x, h);
    if (scale != 1) y = scale_shift(u->g, y, 1 / scale, 0);
    segment_end(u);
    graph_scope_pop(u->g);
    return y;
}

/* x + to_out(attention(to_q(h), to_k(source), to_v(source))), h = norm(x); source NULL: h */
static Tensor *attend(Unet *u, const char *name, const char *norm, Tensor *x, Tensor *source,
                      int heads)
{
    if (!x) return NULL;
    int d = x->dim[2];
    Tensor *h = layer_layernorm(u->g, u->s, norm, x, 1e-5f);
    if (!source) source = h;
    graph_scope_push(u->g, "%s", name);
    Tensor *q = layer_adapted(u->g, u->s, "to_q", h, d, false);
    Tensor *k = layer_adapted(u->g, u->s, "to_k", source, d, false);
    Tensor *v = layer_adapted(u->g, u->s, "to_v", source, d, false);
    h = layer_adapted(u->g, u->s, "to_out.0", attention(u->g, q, k, v, heads, false), d, true);
    graph_scope_pop(u->g);
    return add(u->g, x, h);
}

static Tensor *transformer_block(Unet *u, int index, Tensor *x, int heads)
{
    if (!x) return NULL;
    int d = x->dim[2];
    graph_scope_push(u->g, "transformer_blocks.%d", index);
    x = attend(u, "attn1", "norm1", x, NULL, heads);
    x = attend(u, "attn2", "norm2", x, u->context, heads);
    Tensor *h = layer_layernorm(u->g, u->s, "norm3", x, 1e-5f);
    h = geglu(u->g, layer_linear(u->g, u->s, "ff.net.0.proj", h, 8 * d, true));
    x = add(u->g, x, layer_linear(u->g, u->s, "ff.net.2", h, d, true));
    graph_scope_pop(u->g);
    return x;
}

/* x + proj_out(blocks(proj_in(norm(x)))), pixels as tokens between the projections */
static Tensor *transformer(Unet *u, int index, Tensor *x, int n_block, int heads)
{
    if (!x) return NULL;
    int d = x->dim[3], tokens[] = {x->dim[0], x->dim[1] * x->dim[2], d},
        image[] = {x->dim[0], x->dim[1], x->dim[2], d};
    bool flat = u->c->use_linear_projection;
    graph_scope_push(u->g, "attentions.%d", index);
    segment_begin(u);
    Tensor *h = layer_groupnorm(u->g, u->s, "norm", x, u->c->norm_num_groups, 1e-6f, ACT_NONE);
    if (!flat) h = layer_conv(u->g, u->s, "proj_in", h, d, 1, 1);
    h = reshape(u->g, h, 3, tokens);
    if (flat) h = layer_linear(u->g, u->s, "proj_in", h, d, true);
    for (int i = 0; i < n_block; i++) h = transformer_block(u, i, h, heads);
    if (flat) h = layer_linear(u->g, u->s, "proj_out", h, d, true);
    h = reshape(u->g, h, 4, image);
    if (!flat) h = layer_conv(u->g, u->s, "proj_out", h, d, 1, 1);
    x = add(u->g, x, h);
    segment_end(u);
    graph_scope_pop(u->g);
    return x;
}

typedef struct {
    Tensor *x[UNET_MAX_BLOCKS * 16];
    int n;
} Skips;

static Tensor *push(Graph *g, Skips *k, Tensor *x)
{
    if (k->n == (int)(sizeof k->x / sizeof *k->x))
        return graph_fail(g, "more layers than %d skips", k->n);
    return k->x[k->n++] = x;
}

static Tensor *down_block(Unet *u, int i, Tensor *x, Skips *skips)
{
    const UnetConfig *c = u->c;
    graph_scope_push(u->g, "down_blocks.%d", i);
    for (int j = 0; j < c->layers[i]; j++) {
        x = resnet(u, j, x, c->channels[i], 1);
        if (c->down_attention[i]) x = transformer(u, j, x, c->transformers[i], c->heads[i]);
        x = push(u->g, skips, x);
    }
    if (i < c->n_block - 1) {
        int near = c->downsample_padding;
        x = layer_conv_args(u->g, u->s, "downsamplers.0.conv", x, c->channels[i], 3, true,
                            (ConvArgs){2, near, near, 1, 1});
        x = push(u->g, skips, x);
    }
    graph_scope_pop(u->g);
    return x;
}

static Tensor *mid_block(Unet *u, Tensor *x)
{
    const UnetConfig *c = u->c;
    int last = c->n_block - 1;
    if (c->mid == UNET_MID_NONE) return x;
    graph_scope_push(u->g, "mid_block");
    x = resnet(u, 0, x, c->channels[last], c->mid_scale);
    if (c->mid == UNET_MID_ATTENTION) {
        x = transformer(u, 0, x, c->transformers[last], c->heads[last]);
        x = resnet(u, 1, x, c->channels[last], c->mid_scale);
    }
    graph_scope_pop(u->g);
    return x;
}

static Tensor *up_block(Unet *u, int i, Tensor *x, Skips *skips)
{
    const UnetConfig *c = u->c;
    int level = c->n_block - 1 - i;
    graph_scope_push(u->g, "up_blocks.%d", i);
    for (int j = 0; x && j <= c->layers[level]; j++) {
        x = concat(u->g, 2, (Tensor *[]){x, skips->x[--skips->n]});
        x = resnet(u, j, x, c->channels[level], 1);
        if (c->up_attention[i]) x = transformer(u, j, x, c->up_transformers[i], c->heads[level]);
    }
    if (x && level > 0) {
        const Tensor *next = skips->x[skips->n - 1];
        x = upsample(u->g, x, next->dim[1], next->dim[2]);
        x = layer_conv(u->g, u->s, "upsamplers.0.conv", x, c->channels[level], 3, 1);
    }
    graph_scope_pop(u->g);
    return x;
}

int unet_least_side(const UnetConfig *c)
{
    return c->downsample_padding ? 1 : 1 << (c->n_block - 1); /* halved down, not up */
}

static bool inputs_fit(Graph *g, const UnetConfig *c, const Tensor *sample, const Tensor *t,
                       const Tensor *at, const Tensor *context)
{
    char text[64];
    int least = unet_least_side(c), n = sample->dim[0];
    if (sample->ndim != 4 || sample->dim[3] != c->in_channels || sample->dim[1] < least ||
        sample->dim[2] < least)
        graph_fail(g, "sample %s: expected [n,h,w,%d] with h and w of %d or more",
                   tensor_shape_text(sample, text), c->in_channels, least);
    if (t->ndim != 1 || (t->dim[0] != n && !at))
        graph_fail(g, "timestep %s: expected [%d]", tensor_shape_text(t, text), n);
    if (at && (at->dtype != DTYPE_I32 || at->ndim != 2 || at->dim[0] != n || at->dim[1] != 1))
        graph_fail(g, "at %s: expected I32 [%d,1]", tensor_shape_text(at, text), n);
    if (context->ndim != 3 || context->dim[0] != n || context->dim[2] != c->cross_attention_dim)
        graph_fail(g, "encoder_hidden_states %s: expected [%d,tokens,%d]",
                   tensor_shape_text(context, text), n, c->cross_attention_dim);
    return !g->error[0];
}

Tensor *unet_at(Graph *g, ParamStore *s, const UnetConfig *c, Tensor *sample, Tensor *timestep,
                Tensor *at, Tensor *context, bool recompute)
{
    if (!sample || !timestep || !context || !inputs_fit(g, c, sample, timestep, at, context))
        return NULL;
    sample = cast(g, sample, g->act);
    Unet u = {.g = g,
              .s = s,
              .c = c,
              .context = cast(g, context, g->act),
              .at = at,
              .recompute = recompute};
    Skips skips = {.n = 0};
    int width = c->channels[0];

    Tensor *time = timestep_embedding(g, timestep, width, c->flip_sin_to_cos, c->freq_shift);
    time = layer_linear(g, s, "time_embedding.linear_1", time, c->time_dim, true);
    time = activate(g, c->act, time);
    time = layer_linear(g, s, "time_embedding.linear_2", time, c->time_dim, true);
    time = activate(g, c->time_act, activate(g, c->post_act, time));
    u.time = activate(g, c->act, time);

    if (c->center_input_sample) sample = scale_shift(g, sample, 2, -1);
    Tensor *x = push(g, &skips, layer_conv(g, s, "conv_in", sample, width, c->conv_in_kernel, 1));
    for (int i = 0; i < c->n_block; i++) x = down_block(&u, i, x, &skips);
    x = mid_block(&u, x);
    for (int i = 0; i < c->n_block; i++) x = up_block(&u, i, x, &skips);
    x = layer_conv(g, s, "conv_out", norm_act(&u, "conv_norm_out", x), c->out_channels,
                   c->conv_out_kernel, 1);
    return cast(g, x, DTYPE_F32);
}

Tensor *unet(Graph *g, ParamStore *s, const UnetConfig *c, Tensor *sample, Tensor *timestep,
             Tensor *context, bool recompute)
{
    return unet_at(g, s, c, sample, timestep, NULL, context, recompute);
}
