/* op_batchnorm.c - batch normalisation, with the relu that follows it: in training an op that
 * updates the running statistics, elsewhere one that reads them. The gradient is one node: dx,
 * sides dgain and dbias. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static Status batchnorm_cpu(const Tensor *y, Stream *s)
{
    const BatchnormArgs *a = y->args;
    Tensor *const *src = y->src;
    return cpu_batchnorm_fwd(y->data, y->side[0]->data, src[3]->data, src[4]->data, src[0]->data,
                             src[1]->data, src[2]->data, rows_of(y), last_dim(y), a->eps, a->relu,
                             s);
}

static Status batchnorm_cuda(const Tensor *y, Stream *s)
{
    const BatchnormArgs *a = y->args;
    Tensor *const *src = y->src;
    return cuda_batchnorm_fwd(y->data, y->side[0]->data, src[3]->data, src[4]->data, src[0]->data,
                              src[1]->data, src[2]->data, rows_of(y), last_dim(y), a->eps, a->relu,
                              y->dtype, s);
}

static Status batchnorm_train_cpu(const Tensor *y, Stream *s)
{
    const BatchnormArgs *a = y->args;
    Tensor *const *src = y->src;
    return cpu_batchnorm_train_fwd(y->data, y->side[0]->data, src[3]->data, src[4]->data,
                                   src[0]->data, src[1]->data, src[2]->data, rows_of(y),
                                   last_dim(y), a->eps, a->momentum, a->relu, s);
}

static Status batchnorm_train_cuda(const Tensor *y, Stream *s)
{
    const BatchnormArgs *a = y->args;
    Tensor *const *src = y->src;
    return cuda_batchnorm_train_fwd(y->data, y->side[0]->data, src[3]->data, src[4]->data,
                                    src[0]->data, src[1]->data, src[2]->data, rows_of(y),
                                    last_dim(y), a->eps, a->momentum, a->relu, y->dtype, s);
}

static Status batchnorm_dx_cpu(const Tensor *dx, Stream *s)
{
    const BatchnormArgs *a = dx->args;
    Tensor *const *src = dx->src;
    return cpu_batchnorm_dx(dx->data, dx->side[0]->data, dx->side[1]->data, src[0]->data,
                            src[1]->data, src[2]->data, src[3]->data, src[4]->data, rows_of(dx),
                            last_dim(dx), a->train, a->relu, s);
}

static Status batchnorm_dx_cuda(const Tensor *dx, Stream *s)
{
    const BatchnormArgs *a = dx->args;
    Tensor *const *src = dx->src;
    return cuda_batchnorm_dx(dx->data, dx->side[0]->data, dx->side[1]->data, src[0]->data,
                             src[1]->data, src[2]->data, src[3]->data, src[4]->data, rows_of(dx),
                             last_dim(dx), a->train, a->relu, dx->dtype, s);
}

const OpDef op_batchnorm_dx = {
    .name = "batchnorm_dx", .cpu = batchnorm_dx_cpu, .cuda = CUDA_RUN(batchnorm_dx_cuda)};

static void batchnorm_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0], *gain = y->src[1], *bias = y->src[2];
    Tensor *dx =
        graph_node(g, &op_batchnorm_dx, y->ndim, y->dim, 5,
                   (Tensor *[]){dy, x, gain, bias, y->side[0]}, y->args, sizeof(BatchnormArgs));
    Tensor *dgain = graph_side(g, dx, 1, gain->dim), *dbias = graph_side(g, dx, 1, bias->dim);
    grad_add(g, x, dx);
    grad_add(g, gain, dgain);
    grad_add(g, bias, dbias);
}

const OpDef op_batchnorm = {.name = "batchnorm",
                            .cpu = batchnorm_cpu,
                            .cuda = CUDA_RUN(batchnorm_cuda),
                            .vjp = batchnorm_vjp};
const OpDef op_batchnorm_train = {.name = "batchnorm_train",
                                  .cpu = batchnorm_train_cpu,
                                  .cuda = CUDA_RUN(batchnorm_train_cuda),
                                  .vjp = batchnorm_vjp,
                                  .effect = true};

bool batchnorm_fits(Graph *g, Tensor *const src[5])
{
    for (int i = 1; i < 5; i++)
        if (!op_is_vector(src[i], last_dim(src[0])))
            return op_shapes_differ(g, "batchnorm", src[0], src[i]) != NULL;
    if (src[3]->kind == KIND_STATE && src[4]->kind == KIND_STATE) return true;
    return graph_fail(g, "batchnorm: the running statistics are no state") != NULL;
}

Tensor *batchnorm_too_few(Graph *g)
{
    return graph_fail(
        g, "batchnorm: one value a channel has no variance; expected 2 or more to train on");
}

Tensor *batchnorm(Graph *g, Tensor *x, Tensor *gain, Tensor *bias, Tensor *mean, Tensor *var,
                  float eps, float momentum, bool train, bool relu)
{
    if (!x || !gain || !bias || !mean || !var) return NULL;
    Tensor *src[] = {x, gain, bias, mean, var};
    if (!batchnorm_fits(g, src)) return NULL;
    if (train && rows_of(x) < 2) return batchnorm_too_few(g);
    BatchnormArgs args = {eps, momentum, train, relu};
    Tensor *y = graph_node(g, train ? &op_batchnorm_train : &op_batchnorm, x->ndim, x->dim, 5, src,
                           &args, sizeof args);
    graph_side(g, y, 2, (int[]){last_dim(x), 2});
    return y;
}
