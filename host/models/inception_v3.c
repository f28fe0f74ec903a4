/* inception_v3.c - Inception-V3 (torchvision's).
 *
 * Every unit is conv without bias, batch norm (eps 1e-3, momentum 0.1), relu. Blocks A to E
 * concatenate branches; MODEL_SPECS has them as a table. Average pools count the padding.
 */
#include "models/inception_v3.h"
#include "base/random.h"
#include <math.h>

typedef struct {
    Graph *g;
    ParamStore *s;
    const InceptionConfig *c;
    bool train;
    float deviation; /* of the first values of convolutions */
} Net;

typedef struct {
    int rows, cols, stride, pad_rows, pad_cols;
} Window;

static const Window one = {1, 1, 1, 0, 0}, three = {3, 3, 1, 1, 1}, three_valid = {3, 3, 1, 0, 0},
                    half = {3, 3, 2, 0, 0}, five = {5, 5, 1, 2, 2}, five_valid = {5, 5, 1, 0, 0},
                    row7 = {1, 7, 1, 0, 3}, col7 = {7, 1, 1, 3, 0}, row3 = {1, 3, 1, 0, 1},
                    col3 = {3, 1, 1, 1, 0};

/* transform_input: ImageNet's deviations and means of red, green, blue, in units of 2p - 1 */
static const float input_scale[] = {0.229f / 0.5f, 0.224f / 0.5f, 0.225f / 0.5f},
                   input_shift[] = {-0.03f, -0.088f, -0.188f}; /* (mean - 0.5) / 0.5 */

int inception_scaled(double width, int channels)
{
    return 8 * (int)ceil(channels * width / 8 - 1e-9);
}

/* relu(bn(conv(x))) with `channels` published filters */
static Tensor *unit(Net *m, const char *name, Tensor *x, int channels, Window w)
{
    if (!x) return NULL;
    Graph *g = m->g;
    ParamStore *s = m->s;
    int k = inception_scaled(m->c->width, channels), single = 1;
    graph_scope_push(g, "%s", name);
    Tensor *filter = param(g, s, "conv.weight", LAYOUT_OIHW, 4,
                           (int[]){k, w.rows, w.cols, x->dim[3]}, INIT_TRUNCATED, m->deviation);
    x = conv2d(g, x, filter, NULL,
               (ConvArgs){w.stride, w.pad_rows, w.pad_cols, w.pad_rows, w.pad_cols});
    graph_scope_push(g, "bn");
    Tensor *gain = param(g, s, "weight", LAYOUT_SAME, 1, &k, INIT_ONE, 0);
    Tensor *bias = param(g, s, "bias", LAYOUT_SAME, 1, &k, INIT_ZERO, 0);
    Tensor *mean = param_state(g, s, "running_mean", 1, &k, INIT_ZERO, false);
    Tensor *var = param_state(g, s, "running_var", 1, &k, INIT_ONE, false);
    param_state(g, s, "num_batches_tracked", 1, &single, INIT_ZERO, true);
    if (m->train && m->c->sync)
        x = batchnorm_sync(g, x, gain, bias, mean, var, 1e-3f, 0.1f, true, m->c->sync);
    else x = batchnorm(g, x, gain, bias, mean, var, 1e-3f, 0.1f, m->train, true);
    graph_scope_pop(g);
    graph_scope_pop(g);
    return x;
}

static Tensor *join(Net *m, int n, Tensor *const *x)
{
    graph_scope_pop(m->g); /* of the block */
    return concat(m->g, n, x);
}

static Tensor *pooled(Net *m, Tensor *x, int channels)
{
    return unit(m, "branch_pool", avgpool(m->g, x, 3, 1, 1), channels, one);
}

static Tensor *block_a(Net *m, const char *name, Tensor *x, int pool)
{
    graph_scope_push(m->g, "%s", name);
    Tensor *a = unit(m, "branch1x1", x, 64, one);
    Tensor *b = unit(m, "branch5x5_2", unit(m, "branch5x5_1", x, 48, one), 64, five);
    Tensor *c = unit(m, "branch3x3dbl_2", unit(m, "branch3x3dbl_1", x, 64, one), 96, three);
    c = unit(m, "branch3x3dbl_3", c, 96, three);
    Tensor *d = pooled(m, x, pool);
    return join(m, 4, (Tensor *[]){a, b, c, d});
}

static Tensor *block_b(Net *m, const char *name, Tensor *x)
{
    graph_scope_push(m->g, "%s", name);
    Tensor *a = unit(m, "branch3x3", x, 384, half);
    Tensor *b = unit(m, "branch3x3dbl_2", unit(m, "branch3x3dbl_1", x, 64, one), 96, three);
    b = unit(m, "branch3x3dbl_3", b, 96, half);
    return join(m, 3, (Tensor *[]){a, b, maxpool(m->g, x, 3, 2, 0)});
}

static Tensor *block_c(Net *m, const char *name, Tensor *x, int c7)
{
    graph_scope_push(m->g, "%s", name);
    Tensor *a = unit(m, "branch1x1", x, 192, one);
    Tensor *b = unit(m, "branch7x7_2", unit(m, "branch7x7_1", x, c7, one), c7, row7);
    b = unit(m, "branch7x7_3", b, 192, col7);
    Tensor *c = unit(m, "branch7x7dbl_2", unit(m, "branch7x7dbl_1", x, c7, one), c7, col7);
    c = unit(m, "branch7x7dbl_4", unit(m, "branch7x7dbl_3", c, c7, row7), c7, col7);
    c = unit(m, "branch7x7dbl_5", c, 192, row7);
    Tensor *d = pooled(m, x, 192);
    return join(m, 4, (Tensor *[]){a, b, c, d});
}

static Tensor *block_d(Net *m, const char *name, Tensor *x)
{
    graph_scope_push(m->g, "%s", name);
    Tensor *a = unit(m, "branch3x3_2", unit(m, "branch3x3_1", x, 192, one), 320, half);
    Tensor *b = unit(m, "branch7x7x3_2", unit(m, "branch7x7x3_1", x, 192, one), 192, row7);
    b = unit(m, "branch7x7x3_4", unit(m, "branch7x7x3_3", b, 192, col7), 192, half);
    return join(m, 3, (Tensor *[]){a, b, maxpool(m->g, x, 3, 2, 0)});
}

static Tensor *block_e(Net *m, const char *name, Tensor *x)
{
    graph_scope_push(m->g, "%s", name);
    Tensor *a = unit(m, "branch1x1", x, 320, one);
    Tensor *b = unit(m, "branch3x3_1", x, 384, one);
    Tensor *b1 = unit(m, "branch3x3_2a", b, 384, row3), *b2 = unit(m, "branch3x3_2b", b, 384, col3);
    Tensor *c = unit(m, "branch3x3dbl_2", unit(m, "branch3x3dbl_1", x, 448, one), 384, three);
    Tensor *c1 = unit(m, "branch3x3dbl_3a", c, 384, row3),
           *c2 = unit(m, "branch3x3dbl_3b", c, 384, col3);
    Tensor *d = pooled(m, x, 192);
    return join(m, 6, (Tensor *[]){a, b1, b2, c1, c2, d});
}

static Tensor *head(Net *m, Tensor *x, float deviation)
{
    if (!x) return NULL;
    int k = m->c->num_classes, c = x->dim[1];
    graph_scope_push(m->g, "fc");
    Tensor *w =
        param(m->g, m->s, "weight", LAYOUT_SAME, 2, (int[]){k, c}, INIT_TRUNCATED, deviation);
    Tensor *b = param(m->g, m->s, "bias", LAYOUT_SAME, 1, &k, INIT_UNIFORM, 1 / sqrtf((float)c));
    graph_scope_pop(m->g);
    return cast(m->g, linear(m->g, x, w, b), DTYPE_F32);
}

static Tensor *auxiliary(Net *m, Tensor *x)
{
    graph_scope_push(m->g, "AuxLogits");
    x = unit(m, "conv0", avgpool(m->g, x, 5, 3, 0), 128, one);
    m->deviation = 0.01f;
    x = unit(m, "conv1", x, 768, five_valid);
    m->deviation = 0.1f;
    x = head(m, global_avgpool(m->g, x), 0.001f);
    graph_scope_pop(m->g);
    return x;
}

static bool image_fits(Graph *g, const InceptionConfig *c, const Tensor *x)
{
    char text[64];
    if (x->ndim != 4 || x->dim[3] != 3 || x->dim[1] < INCEPTION_LEAST_PX ||
        x->dim[2] < INCEPTION_LEAST_PX)
        graph_fail(g, "image %s: expected [n,h,w,3] with h and w of %d or more",
                   tensor_shape_text(x, text), INCEPTION_LEAST_PX);
    else if (c->aux && (x->dim[1] < INCEPTION_LEAST_AUX_PX || x->dim[2] < INCEPTION_LEAST_AUX_PX))
        graph_fail(g,
                   "image %s: the auxiliary head needs %d px or more, its 5x5 convolution has no "
                   "room below",
                   tensor_shape_text(x, text), INCEPTION_LEAST_AUX_PX);
    return !g->error[0];
}

InceptionOut inception_v3(Graph *g, ParamStore *s, const InceptionConfig *c, Tensor *x, Tensor *rng,
                          bool train)
{
    InceptionOut out = {0};
    if (!x || !image_fits(g, c, x)) return out;
    Net net = {.g = g, .s = s, .c = c, .train = train, .deviation = 0.1f}, *m = &net;
    if (c->transform_input) x = channel_affine(g, x, input_scale, input_shift);
    x = cast(g, x, g->act);
    x = unit(m, "Conv2d_1a_3x3", x, 32, half);
    x = unit(m, "Conv2d_2a_3x3", x, 32, three_valid);
    out.tap[0] = unit(m, "Conv2d_2b_3x3", x, 64, three);
    x = maxpool(g, out.tap[0], 3, 2, 0);
    x = unit(m, "Conv2d_3b_1x1", x, 80, one);
    x = maxpool(g, unit(m, "Conv2d_4a_3x3", x, 192, three_valid), 3, 2, 0);
    x = block_a(m, "Mixed_5b", x, 32);
    x = block_a(m, "Mixed_5c", x, 64);
    out.tap[1] = x = block_a(m, "Mixed_5d", x, 64);
    x = block_b(m, "Mixed_6a", x);
    x = block_c(m, "Mixed_6b", x, 128);
    x = block_c(m, "Mixed_6c", x, 160);
    x = block_c(m, "Mixed_6d", x, 160);
    out.tap[2] = x = block_c(m, "Mixed_6e", x, 192);
    if (c->aux) out.aux_logits = auxiliary(m, x);
    x = block_d(m, "Mixed_7a", x);
    x = block_e(m, "Mixed_7b", x);
    x = block_e(m, "Mixed_7c", x);
    x = global_avgpool(g, x);
    out.features = cast(g, x, DTYPE_F32);
    if (rng && c->dropout > 0) x = dropout(g, x, rng, c->dropout, STREAM_DROPOUT);
    out.logits = head(m, x, 0.1f);
    return g->error[0] ? (InceptionOut){0} : out;
}
