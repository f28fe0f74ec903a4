/* op_gaussian.c - the diagonal Gaussian of a variational autoencoder: clamp (its log-variance),
 * sample_gaussian, gaussian_kl. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

/* ---- clamp ------------------------------------------------------------------------------- */

static Status clamp_cpu(const Tensor *y, Stream *s)
{
    const ClampArgs *a = y->args;
    return cpu_clamp_fwd(y->data, y->src[0]->data, a->least, a->most, tensor_count(y), s);
}

static Status clamp_cuda(const Tensor *y, Stream *s)
{
    const ClampArgs *a = y->args;
    return cuda_clamp_fwd(y->data, y->src[0]->data, a->least, a->most, tensor_count(y), y->dtype,
                          s);
}

static Status clamp_dx_cpu(const Tensor *dx, Stream *s)
{
    const ClampArgs *a = dx->args;
    return cpu_clamp_dx(dx->data, dx->src[0]->data, dx->src[1]->data, a->least, a->most,
                        tensor_count(dx), s);
}

static Status clamp_dx_cuda(const Tensor *dx, Stream *s)
{
    const ClampArgs *a = dx->args;
    return cuda_clamp_dx(dx->data, dx->src[0]->data, dx->src[1]->data, a->least, a->most,
                         tensor_count(dx), dx->dtype, s);
}

const OpDef op_clamp_dx = {
    .name = "clamp_dx", .cpu = clamp_dx_cpu, .cuda = CUDA_RUN(clamp_dx_cuda)};

static void clamp_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0];
    grad_add(g, x,
             graph_node(g, &op_clamp_dx, x->ndim, x->dim, 2, (Tensor *[]){x, dy}, y->args,
                        sizeof(ClampArgs)));
}

const OpDef op_clamp = {
    .name = "clamp", .cpu = clamp_cpu, .cuda = CUDA_RUN(clamp_cuda), .vjp = clamp_vjp};

Tensor *clamp(Graph *g, Tensor *x, float least, float most)
{
    if (!x) return NULL;
    ClampArgs a = {least, most};
    return graph_node(g, &op_clamp, x->ndim, x->dim, 1, &x, &a, sizeof a);
}

/* ---- sample_gaussian ----------------------------------------------------------------------- */

static Status sample_gaussian_cpu(const Tensor *y, Stream *s)
{
    return cpu_sample_gaussian_fwd(y->data, y->src[0]->data, y->src[1]->data, y->src[2]->data,
                                   tensor_count(y), s);
}

static Status sample_gaussian_cuda(const Tensor *y, Stream *s)
{
    return cuda_sample_gaussian_fwd(y->data, y->src[0]->data, y->src[1]->data, y->src[2]->data,
                                    tensor_count(y), y->dtype, s);
}

static Status sample_gaussian_dlogvar_cpu(const Tensor *dv, Stream *s)
{
    return cpu_sample_gaussian_dlogvar(dv->data, dv->src[0]->data, dv->src[1]->data,
                                       dv->src[2]->data, tensor_count(dv), s);
}

static Status sample_gaussian_dlogvar_cuda(const Tensor *dv, Stream *s)
{
    return cuda_sample_gaussian_dlogvar(dv->data, dv->src[0]->data, dv->src[1]->data,
                                        dv->src[2]->data, tensor_count(dv), dv->dtype, s);
}

const OpDef op_sample_gaussian_dlogvar = {.name = "sample_gaussian_dlogvar",
                                          .cpu = sample_gaussian_dlogvar_cpu,
                                          .cuda = CUDA_RUN(sample_gaussian_dlogvar_cuda)};

static void sample_gaussian_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *logvar = y->src[1];
    grad_add(g, y->src[0], dy);
    if (logvar->trainable)
        grad_add(g, logvar,
                 graph_node(g, &op_sample_gaussian_dlogvar, y->ndim, y->dim, 3,
                            (Tensor *[]){dy, logvar, y->src[2]}, NULL, 0));
}

const OpDef op_sample_gaussian = {.name = "sample_gaussian",
                                  .cpu = sample_gaussian_cpu,
                                  .cuda = CUDA_RUN(sample_gaussian_cuda),
                                  .vjp = sample_gaussian_vjp};

Tensor *sample_gaussian(Graph *g, Tensor *mean, Tensor *logvar, Tensor *noise)
{
    if (!mean || !logvar || !noise) return NULL;
    if (!op_alike(mean, logvar)) return op_shapes_differ(g, "sample_gaussian", mean, logvar);
    if (!op_alike(mean, noise)) return op_shapes_differ(g, "sample_gaussian", mean, noise);
    if (noise->trainable) return graph_fail(g, "sample_gaussian: noise must be a constant");
    return graph_node(g, &op_sample_gaussian, mean->ndim, mean->dim, 3,
                      (Tensor *[]){mean, logvar, noise}, NULL, 0);
}

/* ---- gaussian_kl --------------------------------------------------------------------------- */

static Status gaussian_kl_cpu(const Tensor *y, Stream *s)
{
    const Tensor *mean = y->src[0];
    return cpu_gaussian_kl_fwd(y->data, mean->data, y->src[1]->data, y->src[2]->data, mean->dim[0],
                               per_sample(mean), s);
}

static Status gaussian_kl_cuda(const Tensor *y, Stream *s)
{
    const Tensor *mean = y->src[0];
    return cuda_gaussian_kl_fwd(y->data, mean->data, y->src[1]->data, y->src[2]->data, mean->dim[0],
                                per_sample(mean), mean->dtype, s);
}

/* gaussian_kl_dx: dmean, and as its side dlogvar, from dloss, mean, logvar, weight */
static Status gaussian_kl_dx_cpu(const Tensor *dm, Stream *s)
{
    Tensor *const *src = dm->src;
    return cpu_gaussian_kl_dx(dm->data, dm->side[0]->data, src[0]->data, src[1]->data, src[2]->data,
                              src[3]->data, dm->dim[0], per_sample(dm), s);
}

static Status gaussian_kl_dx_cuda(const Tensor *dm, Stream *s)
{
    Tensor *const *src = dm->src;
    return cuda_gaussian_kl_dx(dm->data, dm->side[0]->data, src[0]->data, src[1]->data,
                               src[2]->data, src[3]->data, dm->dim[0], per_sample(dm), dm->dtype,
                               s);
}

const OpDef op_gaussian_kl_dx = {
    .name = "gaussian_kl_dx", .cpu = gaussian_kl_dx_cpu, .cuda = CUDA_RUN(gaussian_kl_dx_cuda)};

static void gaussian_kl_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *mean = y->src[0], *logvar = y->src[1];
    Tensor *dmean = graph_node(g, &op_gaussian_kl_dx, mean->ndim, mean->dim, 4,
                               (Tensor *[]){dy, mean, logvar, y->src[2]}, NULL, 0);
    Tensor *dlogvar = graph_typed(graph_side(g, dmean, logvar->ndim, logvar->dim), logvar->dtype);
    grad_add(g, mean, dmean);
    grad_add(g, logvar, dlogvar);
}

const OpDef op_gaussian_kl = {.name = "gaussian_kl",
                              .cpu = gaussian_kl_cpu,
                              .cuda = CUDA_RUN(gaussian_kl_cuda),
                              .vjp = gaussian_kl_vjp};

Tensor *gaussian_kl(Graph *g, Tensor *mean, Tensor *logvar, Tensor *weight)
{
    if (!mean || !logvar || !weight) return NULL;
    char shape[64];
    if (!op_alike(mean, logvar)) return op_shapes_differ(g, "gaussian_kl", mean, logvar);
    if (!op_is_vector(weight, mean->dim[0]) || weight->trainable)
        return graph_fail(g, "gaussian_kl: weights %s%s, expected constants [%d]",
                          weight->trainable ? "trainable " : "", tensor_shape_text(weight, shape),
                          mean->dim[0]);
    return graph_node(g, &op_gaussian_kl, 1, (int[]){1}, 3, (Tensor *[]){mean, logvar, weight},
                      NULL, 0);
}
