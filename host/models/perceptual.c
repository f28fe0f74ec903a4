/* perceptual.c - the perceptual distance from the ops there are.
 *
 * Scaling to length 1 is a layer normalisation of [f, -f]: its mean is 0 and its variance f.f / c.
 * So each of its 2c elements is sqrt(c) times one of u or -u, and the mean square error over them
 * is |u(x) - u(y)|^2.
 */
#include "models/perceptual.h"
#include "weights/model_folder.h"
#include <stdlib.h>

static const float EPS = 1e-4f; /* holds gradients where nothing is seen; features are some 1 */
static const char LAST_LAYERS[] = "fc.,AuxLogits.";

static Tensor *filled(Graph *g, int n, float value)
{
    return graph_node(g, &op_fill, 1, &n, 0, NULL, &value, sizeof value);
}

/* [n,h,w,c] -> [n,h,w,2c]: sqrt(c) * (u, -u) */
static Tensor *unit_length(Graph *g, Tensor *f)
{
    if (!f) return NULL;
    int c = f->dim[3];
    Tensor *both = concat(g, 2, (Tensor *[]){f, scale_shift(g, f, -1, 0)});
    return layernorm(g, both, filled(g, 2 * c, 1), filled(g, 2 * c, 0), EPS / (float)c);
}

static InceptionOut look(Graph *g, Perceptual *p, Tensor *film)
{
    return inception_v3(g, &p->store, &p->config, scale_shift(g, film, 2, -1), NULL, false);
}

Tensor *perceptual_loss(Graph *g, Perceptual *p, Tensor *x, Tensor *target, Tensor *weight)
{
    InceptionOut a = look(g, p, x), b = look(g, p, target);
    Tensor *sum = NULL;
    for (int i = 0; i < INCEPTION_TAPS; i++) {
        Tensor *d =
            weighted_mse(g, unit_length(g, a.tap[i]), unit_length(g, b.tap[i]), weight);
        sum = i ? add(g, sum, d) : d;
    }
    return sum;
}

Status perceptual_open(Perceptual *p, Device *d, const char *path)
{
    const ParamFile how = {.skip = LAST_LAYERS};
    char *config = NULL, *weights = NULL;
    *p = (Perceptual){0};
    TRY(inception_config_read(&p->config, path));
    p->config.aux = p->config.transform_input = false;
    Graph *g = graph_new();
    int dim[] = {1, INCEPTION_LEAST_PX, INCEPTION_LEAST_PX, 3};
    look(g, p, graph_leaf(g, KIND_INPUT, DTYPE_F32, "film", 4, dim));
    Status s = graph_status(g);
    graph_free(g);
    TRY(s);
    params_freeze(&p->store, "");
    TRY(model_find(&config, &weights, path));
    s = inception_check_head(weights);
    if (d && !s) s = params_alloc(&p->store, d, false);
    if (!s) s = params_load(&p->store, weights, &how);
    free(config);
    free(weights);
    return s;
}

void perceptual_close(Perceptual *p)
{
    params_free(&p->store);
}
