/* op_diffusion.c - mix_samples (noising and velocity targets) and the DDIM step. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static Status mix_samples_dx_cpu(const Tensor *dx, Stream *s)
{
    return cpu_mix_samples_dx(dx->data, dx->src[0]->data, dx->src[1]->data, *(const int *)dx->args,
                              dx->dim[0], per_sample(dx), s);
}

static Status mix_samples_dx_cuda(const Tensor *dx, Stream *s)
{
    return cuda_mix_samples_dx(dx->data, dx->src[0]->data, dx->src[1]->data, *(const int *)dx->args,
                               dx->dim[0], per_sample(dx), dx->dtype, s);
}

const OpDef op_mix_samples_dx = {
    .name = "mix_samples_dx", .cpu = mix_samples_dx_cpu, .cuda = CUDA_RUN(mix_samples_dx_cuda)};

static Status mix_samples_cpu(const Tensor *y, Stream *s)
{
    return cpu_mix_samples_fwd(y->data, y->src[0]->data, y->src[1]->data, y->src[2]->data,
                               y->dim[0], per_sample(y), s);
}

static Status mix_samples_cuda(const Tensor *y, Stream *s)
{
    return cuda_mix_samples_fwd(y->data, y->src[0]->data, y->src[1]->data, y->src[2]->data,
                                y->dim[0], per_sample(y), y->dtype, s);
}

static void mix_samples_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    for (int which = 0; which < 2; which++)
        if (y->src[which]->trainable)
            grad_add(g, y->src[which],
                     graph_node(g, &op_mix_samples_dx, y->ndim, y->dim, 2,
                                (Tensor *[]){dy, y->src[2]}, &which, sizeof which));
}

const OpDef op_mix_samples = {.name = "mix_samples",
                              .cpu = mix_samples_cpu,
                              .cuda = CUDA_RUN(mix_samples_cuda),
                              .vjp = mix_samples_vjp};

Tensor *mix_samples(Graph *g, Tensor *a, Tensor *b, Tensor *c)
{
    if (!a || !b || !c) return NULL;
    if (!op_alike(a, b)) return op_shapes_differ(g, "mix_samples", a, b);
    char shape[64];
    if (c->ndim != 2 || c->dim[0] != a->dim[0] || c->dim[1] != 2 || c->trainable)
        return graph_fail(g, "mix_samples: coefficients %s%s, expected constants [%d,2]",
                          c->trainable ? "trainable " : "", tensor_shape_text(c, shape), a->dim[0]);
    return graph_node(g, &op_mix_samples, a->ndim, a->dim, 3, (Tensor *[]){a, b, c}, NULL, 0);
}

static Status ddim_step_cpu(const Tensor *y, Stream *s)
{
    const DdimArgs *a = y->args;
    return cpu_ddim_step(y->data, y->src[0]->data, y->src[1]->data,
                         y->src[3] ? y->src[3]->data : NULL, y->src[2]->data, tensor_count(y),
                         a->guided, (int)a->prediction, a->guidance, s);
}

static Status ddim_step_cuda(const Tensor *y, Stream *s)
{
    const DdimArgs *a = y->args;
    return cuda_ddim_step(y->data, y->src[0]->data, y->src[1]->data,
                          y->src[3] ? y->src[3]->data : NULL, y->src[2]->data, tensor_count(y),
                          a->guided, (int)a->prediction, a->guidance, y->dtype, s);
}

const OpDef op_ddim_step = {
    .name = "ddim_step", .cpu = ddim_step_cpu, .cuda = CUDA_RUN(ddim_step_cuda)};

static Status ddim_step_drawn_cpu(const Tensor *y, Stream *s)
{
    const DdimArgs *a = y->args;
    return cpu_ddim_step_drawn(y->data, y->src[0]->data, y->src[1]->data, y->src[3]->data,
                               y->src[2]->data, y->dim[0], per_sample(y), a->guided,
                               (int)a->prediction, a->guidance, s);
}

static Status ddim_step_drawn_cuda(const Tensor *y, Stream *s)
{
    const DdimArgs *a = y->args;
    return cuda_ddim_step_drawn(y->data, y->src[0]->data, y->src[1]->data, y->src[3]->data,
                                y->src[2]->data, y->dim[0], per_sample(y), a->guided,
                                (int)a->prediction, a->guidance, y->dtype, s);
}

const OpDef op_ddim_step_drawn = {.name = "ddim_step_drawn",
                                  .cpu = ddim_step_drawn_cpu,
                                  .cuda = CUDA_RUN(ddim_step_drawn_cuda)};

/* [n,count] of integers */
static bool is_key(const Tensor *t, int n, int count)
{
    return t->dtype == DTYPE_I32 && t->ndim == 2 && t->dim[0] == n && t->dim[1] == count;
}

Tensor *ddim_step(Graph *g, Tensor *x, Tensor *pred, Tensor *noise, Tensor *coef, DdimArgs a)
{
    if (!x || !pred || !coef) return NULL;
    bool fits = x->ndim == pred->ndim && x->dtype == pred->dtype &&
                pred->dim[0] == (a.guided ? 2 : 1) * x->dim[0];
    for (int k = 1; fits && k < x->ndim; k++) fits = x->dim[k] == pred->dim[k];
    if (!fits) return op_shapes_differ(g, a.guided ? "ddim_step, guided" : "ddim_step", x, pred);
    bool drawn = noise && is_key(noise, x->dim[0], 3);
    if (noise && !drawn && !op_alike(x, noise)) return op_shapes_differ(g, "ddim_step", x, noise);
    char shape[64];
    if (coef->ndim != 1 || coef->dim[0] != 6)
        return graph_fail(g, "ddim_step: coefficients %s, expected [6]",
                          tensor_shape_text(coef, shape));
    const OpDef *op = drawn ? &op_ddim_step_drawn : &op_ddim_step;
    return graph_node(g, op, x->ndim, x->dim, 4, (Tensor *[]){x, pred, coef, noise}, &a,
                      sizeof a);
}

static Status noise_samples_cpu(const Tensor *y, Stream *s)
{
    Tensor *const *src = y->src;
    const NoiseArgs *a = y->args;
    return cpu_noise_samples(y->data, y->side[0]->data, src[0]->data, src[1]->data, src[2]->data,
                             src[3]->data, a->offset, a->stream, y->dim[0], per_sample(y),
                             last_dim(y), s);
}

static Status noise_samples_cuda(const Tensor *y, Stream *s)
{
    Tensor *const *src = y->src;
    const NoiseArgs *a = y->args;
    return cuda_noise_samples(y->data, y->side[0]->data, src[0]->data, src[1]->data, src[2]->data,
                              src[3]->data, a->offset, a->stream, y->dim[0], per_sample(y),
                              last_dim(y), y->dtype, s);
}

const OpDef op_noise_samples = {
    .name = "noise_samples", .cpu = noise_samples_cpu, .cuda = CUDA_RUN(noise_samples_cuda)};

Tensor *noise_samples(Graph *g, Tensor *x, Tensor *key, Tensor *mix, Tensor *target, NoiseArgs a)
{
    if (!x || !key || !mix || !target) return NULL;
    char shape[64];
    int n = x->dim[0];
    if (x->trainable) return graph_fail(g, "noise_samples: samples must be constants");
    if (!is_key(key, n, 4))
        return graph_fail(g, "noise_samples: keys %s, expected I32 [%d,4]",
                          tensor_shape_text(key, shape), n);
    if (mix->ndim != 2 || mix->dim[0] != n || mix->dim[1] != 2)
        return graph_fail(g, "noise_samples: factors %s, expected [%d,2]",
                          tensor_shape_text(mix, shape), n);
    if (!op_alike(mix, target))
        return op_shapes_differ(g, "noise_samples", mix, target);
    Tensor *y = graph_node(g, &op_noise_samples, x->ndim, x->dim, 4,
                           (Tensor *[]){x, key, mix, target}, &a, sizeof a);
    if (y) graph_typed(graph_side(g, y, x->ndim, x->dim), x->dtype);
    return y;
}
