/* op_groupnorm.c - groupnorm, with the activation that follows it. The gradient is one node: dx,
 * sides dgain and dbias. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static Status groupnorm_cpu(const Tensor *y, Stream *s)
{
    const GroupnormArgs *a = y->args;
    size_t n = (size_t)y->dim[0];
    return cpu_groupnorm_fwd(y->data, y->side[0]->data, y->src[0]->data, y->src[1]->data,
                             y->src[2]->data, n, rows_of(y) / n, last_dim(y), a->groups, a->eps,
                             a->act, s);
}

static Status groupnorm_cuda(const Tensor *y, Stream *s)
{
    const GroupnormArgs *a = y->args;
    size_t n = (size_t)y->dim[0];
    return cuda_groupnorm_fwd(y->data, y->side[0]->data, y->src[0]->data, y->src[1]->data,
                              y->src[2]->data, n, rows_of(y) / n, last_dim(y), a->groups, a->eps,
                              a->act, y->dtype, s);
}

static Status groupnorm_dx_cpu(const Tensor *dx, Stream *s)
{
    const GroupnormArgs *a = dx->args;
    Tensor *const *src = dx->src;
    size_t n = (size_t)dx->dim[0];
    return cpu_groupnorm_dx(dx->data, dx->side[0]->data, dx->side[1]->data, src[0]->data,
                            src[1]->data, src[2]->data, src[3]->data, src[4]->data, n,
                            rows_of(dx) / n, last_dim(dx), a->groups, a->eps, a->act, s);
}

static Status groupnorm_dx_cuda(const Tensor *dx, Stream *s)
{
    const GroupnormArgs *a = dx->args;
    Tensor *const *src = dx->src;
    size_t n = (size_t)dx->dim[0];
    return cuda_groupnorm_dx(dx->data, dx->side[0]->data, dx->side[1]->data, src[0]->data,
                             src[1]->data, src[2]->data, src[3]->data, src[4]->data, n,
                             rows_of(dx) / n, last_dim(dx), a->groups, a->eps, a->act, dx->dtype,
                             s);
}

const OpDef op_groupnorm_dx = {
    .name = "groupnorm_dx", .cpu = groupnorm_dx_cpu, .cuda = CUDA_RUN(groupnorm_dx_cuda)};

static void groupnorm_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0], *gain = y->src[1], *bias = y->src[2];
    Tensor *dx =
        graph_node(g, &op_groupnorm_dx, y->ndim, y->dim, 5,
                   (Tensor *[]){dy, x, gain, bias, y->side[0]}, y->args, sizeof(GroupnormArgs));
    Tensor *dgain = graph_side(g, dx, 1, gain->dim), *dbias = graph_side(g, dx, 1, bias->dim);
    grad_add(g, x, dx);
    grad_add(g, gain, dgain);
    grad_add(g, bias, dbias);
}

const OpDef op_groupnorm = {.name = "groupnorm",
                            .cpu = groupnorm_cpu,
                            .cuda = CUDA_RUN(groupnorm_cuda),
                            .vjp = groupnorm_vjp};

Tensor *groupnorm(Graph *g, Tensor *x, Tensor *gain, Tensor *bias, int groups, float eps, Act act)
{
    if (!x || !gain || !bias) return NULL;
    int c = last_dim(x);
    if (x->ndim < 2 || groups < 1 || c % groups) {
        char shape[64];
        return graph_fail(g, "groupnorm: %d groups do not divide %s", groups,
                          tensor_shape_text(x, shape));
    }
    if (!op_is_vector(gain, c)) return op_shapes_differ(g, "groupnorm", x, gain);
    if (!op_is_vector(bias, c)) return op_shapes_differ(g, "groupnorm", x, bias);
    GroupnormArgs args = {groups, eps, act};
    Tensor *y = graph_node(g, &op_groupnorm, x->ndim, x->dim, 3, (Tensor *[]){x, gain, bias}, &args,
                           sizeof args);
    graph_side(g, y, 3, (int[]){x->dim[0], groups, 2});
    return y;
}
