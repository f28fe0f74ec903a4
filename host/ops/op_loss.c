/* op_loss.c - weighted_mse and weighted_l1 for images and noise, cross_entropy for classification,
 * each a scalar [1]. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

/* A mean over elements of an error of x from its target, weighted over samples. */
static Tensor *weighted(Graph *g, const OpDef *op, Tensor *x, Tensor *target, Tensor *weight)
{
    if (!x || !target || !weight) return NULL;
    if (!op_alike(x, target)) return op_shapes_differ(g, op->name, x, target);
    char shape[64];
    if (weight->ndim != 1 || weight->dim[0] != x->dim[0])
        return graph_fail(g, "%s: weights %s, expected [%d]", op->name,
                          tensor_shape_text(weight, shape), x->dim[0]);
    if (target->trainable || weight->trainable)
        return graph_fail(g, "%s: gradients flow into x only, target and weight must be constants",
                          op->name);
    return graph_node(g, op, 1, (int[]){1}, 3, (Tensor *[]){x, target, weight}, NULL, 0);
}

#define WEIGHTED_LOSS(f)                                                                           \
    static Status f##_dx_cpu(const Tensor *dx, Stream *s)                                          \
    {                                                                                              \
        Tensor *const *src = dx->src;                                                              \
        return cpu_##f##_dx(dx->data, src[0]->data, src[1]->data, src[2]->data, src[3]->data,      \
                            dx->dim[0], per_sample(dx), s);                                        \
    }                                                                                              \
    static Status f##_dx_cuda(const Tensor *dx, Stream *s)                                         \
    {                                                                                              \
        Tensor *const *src = dx->src;                                                              \
        return cuda_##f##_dx(dx->data, src[0]->data, src[1]->data, src[2]->data, src[3]->data,     \
                             dx->dim[0], per_sample(dx), dx->dtype, s);                            \
    }                                                                                              \
    const OpDef op_##f##_dx = {                                                                    \
        .name = #f "_dx", .cpu = f##_dx_cpu, .cuda = CUDA_RUN(f##_dx_cuda)};                       \
    static Status f##_cpu(const Tensor *y, Stream *s)                                              \
    {                                                                                              \
        const Tensor *x = y->src[0];                                                               \
        return cpu_##f##_fwd(y->data, x->data, y->src[1]->data, y->src[2]->data, x->dim[0],        \
                             per_sample(x), s);                                                    \
    }                                                                                              \
    static Status f##_cuda(const Tensor *y, Stream *s)                                             \
    {                                                                                              \
        const Tensor *x = y->src[0];                                                               \
        return cuda_##f##_fwd(y->data, x->data, y->src[1]->data, y->src[2]->data, x->dim[0],       \
                              per_sample(x), x->dtype, s);                                         \
    }                                                                                              \
    static void f##_vjp(Graph *g, Tensor *y, Tensor *dy)                                           \
    {                                                                                              \
        Tensor *x = y->src[0];                                                                     \
        grad_add(g, x,                                                                             \
                 graph_node(g, &op_##f##_dx, x->ndim, x->dim, 4,                                   \
                            (Tensor *[]){dy, x, y->src[1], y->src[2]}, NULL, 0));                  \
    }                                                                                              \
    const OpDef op_##f = {                                                                         \
        .name = #f, .cpu = f##_cpu, .cuda = CUDA_RUN(f##_cuda), .vjp = f##_vjp};                   \
    Tensor *f(Graph *g, Tensor *x, Tensor *target, Tensor *weight)                                 \
    {                                                                                              \
        return weighted(g, &op_##f, x, target, weight);                                            \
    }
WEIGHTED_LOSS(weighted_mse)
WEIGHTED_LOSS(weighted_l1)

static Status cross_entropy_dx_cpu(const Tensor *dx, Stream *s)
{
    Tensor *const *src = dx->src;
    return cpu_cross_entropy_dx(dx->data, src[0]->data, src[1]->data, src[2]->data,
                                src[3] ? src[3]->data : NULL, dx->dim[0], dx->dim[1],
                                ((const CrossEntropyArgs *)dx->args)->smoothing, s);
}

static Status cross_entropy_dx_cuda(const Tensor *dx, Stream *s)
{
    Tensor *const *src = dx->src;
    return cuda_cross_entropy_dx(dx->data, src[0]->data, src[1]->data, src[2]->data,
                                 src[3] ? src[3]->data : NULL, dx->dim[0], dx->dim[1],
                                 ((const CrossEntropyArgs *)dx->args)->smoothing, dx->dtype, s);
}

const OpDef op_cross_entropy_dx = {.name = "cross_entropy_dx",
                                   .cpu = cross_entropy_dx_cpu,
                                   .cuda = CUDA_RUN(cross_entropy_dx_cuda)};

static Status cross_entropy_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cpu_cross_entropy_fwd(y->data, y->side[0]->data, x->data, y->src[1]->data,
                                 y->src[2] ? y->src[2]->data : NULL, x->dim[0], x->dim[1],
                                 ((const CrossEntropyArgs *)y->args)->smoothing, s);
}

static Status cross_entropy_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cuda_cross_entropy_fwd(y->data, y->side[0]->data, x->data, y->src[1]->data,
                                  y->src[2] ? y->src[2]->data : NULL, x->dim[0], x->dim[1],
                                  ((const CrossEntropyArgs *)y->args)->smoothing, x->dtype, s);
}

/* Typed: the probabilities it is made from are fp32, whatever the logits are. */
static void cross_entropy_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0];
    Tensor *src[] = {dy, y->side[0], y->src[1], y->src[2]};
    grad_add(g, x,
             graph_typed(graph_node(g, &op_cross_entropy_dx, 2, x->dim, 4, src, y->args,
                                    sizeof(CrossEntropyArgs)),
                         x->dtype));
}

const OpDef op_cross_entropy = {.name = "cross_entropy",
                                .cpu = cross_entropy_cpu,
                                .cuda = CUDA_RUN(cross_entropy_cuda),
                                .vjp = cross_entropy_vjp};

Tensor *cross_entropy(Graph *g, Tensor *logits, Tensor *label, Tensor *weight, float smoothing)
{
    if (!logits || !label) return NULL;
    char sx[64], sl[64];
    if (logits->ndim != 2 || label->dtype != DTYPE_I32 || label->ndim != 1 ||
        label->dim[0] != logits->dim[0])
        return graph_fail(g, "cross_entropy: logits %s and labels %s%s, expected [n,k] and I32 [n]",
                          tensor_shape_text(logits, sx), label->dtype == DTYPE_I32 ? "I32 " : "",
                          tensor_shape_text(label, sl));
    if (weight && (weight->ndim != 1 || weight->dim[0] != logits->dim[1] || weight->trainable))
        return graph_fail(g, "cross_entropy: weights %s%s, expected constants [%d]",
                          weight->trainable ? "trainable " : "", tensor_shape_text(weight, sx),
                          logits->dim[1]);
    if (!(smoothing >= 0 && smoothing < 1))
        return graph_fail(g, "cross_entropy: smoothing %g, expected 0 to below 1",
                          (double)smoothing);
    CrossEntropyArgs a = {smoothing};
    Tensor *y = graph_node(g, &op_cross_entropy, 1, (int[]){1}, 3,
                           (Tensor *[]){logits, label, weight}, &a, sizeof a);
    if (y) graph_side(g, y, 2, logits->dim);
    return y;
}
