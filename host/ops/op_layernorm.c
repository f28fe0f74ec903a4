/* op_layernorm.c - layernorm over the last dimension. The gradient is one node: dx, sides dgain
 * and dbias. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static Status layernorm_cpu(const Tensor *y, Stream *s)
{
    return cpu_layernorm_fwd(y->data, y->side[0]->data, y->src[0]->data, y->src[1]->data,
                             y->src[2]->data, rows_of(y), last_dim(y),
                             ((const LayernormArgs *)y->args)->eps, s);
}

static Status layernorm_cuda(const Tensor *y, Stream *s)
{
    return cuda_layernorm_fwd(y->data, y->side[0]->data, y->src[0]->data, y->src[1]->data,
                              y->src[2]->data, rows_of(y), last_dim(y),
                              ((const LayernormArgs *)y->args)->eps, y->dtype, s);
}

static Status layernorm_dx_cpu(const Tensor *dx, Stream *s)
{
    Tensor *const *src = dx->src;
    return cpu_layernorm_dx(dx->data, dx->side[0]->data, dx->side[1]->data, src[0]->data,
                            src[1]->data, src[2]->data, src[3]->data, rows_of(dx), last_dim(dx), s);
}

static Status layernorm_dx_cuda(const Tensor *dx, Stream *s)
{
    Tensor *const *src = dx->src;
    return cuda_layernorm_dx(dx->data, dx->side[0]->data, dx->side[1]->data, src[0]->data,
                             src[1]->data, src[2]->data, src[3]->data, rows_of(dx), last_dim(dx),
                             dx->dtype, s);
}

const OpDef op_layernorm_dx = {
    .name = "layernorm_dx", .cpu = layernorm_dx_cpu, .cuda = CUDA_RUN(layernorm_dx_cuda)};

static void layernorm_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0], *gain = y->src[1], *bias = y->src[2];
    Tensor *dx = graph_node(g, &op_layernorm_dx, y->ndim, y->dim, 4,
                            (Tensor *[]){dy, x, gain, y->side[0]}, NULL, 0);
    Tensor *dgain = graph_side(g, dx, 1, gain->dim), *dbias = graph_side(g, dx, 1, bias->dim);
    grad_add(g, x, dx);
    grad_add(g, gain, dgain);
    grad_add(g, bias, dbias);
}

const OpDef op_layernorm = {.name = "layernorm",
                            .cpu = layernorm_cpu,
                            .cuda = CUDA_RUN(layernorm_cuda),
                            .vjp = layernorm_vjp};

Tensor *layernorm(Graph *g, Tensor *x, Tensor *gain, Tensor *bias, float eps)
{
    if (!x || !gain || !bias) return NULL;
    if (!op_is_vector(gain, last_dim(x))) return op_shapes_differ(g, "layernorm", x, gain);
    if (!op_is_vector(bias, last_dim(x))) return op_shapes_differ(g, "layernorm", x, bias);
    LayernormArgs args = {eps};
    Tensor *y = graph_node(g, &op_layernorm, x->ndim, x->dim, 3, (Tensor *[]){x, gain, bias}, &args,
                           sizeof args);
    graph_side(g, y, 2, (int[]){(int)rows_of(x), 2});
    return y;
}
