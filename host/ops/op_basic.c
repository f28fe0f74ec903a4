/* op_basic.c - add and fill: the two ops that the reverse pass itself needs; and reshape. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static Status add_cpu(const Tensor *y, Stream *s)
{
    return cpu_add(y->data, y->src[0]->data, y->src[1]->data, tensor_count(y), s);
}

static Status add_cuda(const Tensor *y, Stream *s)
{
    return cuda_add(y->data, y->src[0]->data, y->src[1]->data, tensor_count(y), y->dtype, s);
}

static void add_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    grad_add(g, y->src[0], dy);
    grad_add(g, y->src[1], dy);
}

const OpDef op_add = {
    .name = "add", .cpu = add_cpu, .cuda = CUDA_RUN(add_cuda), .vjp = add_vjp};

Tensor *add(Graph *g, Tensor *a, Tensor *b)
{
    if (!a || !b) return NULL;
    if (!op_alike(a, b)) return op_shapes_differ(g, "add", a, b);
    return graph_node(g, &op_add, a->ndim, a->dim, 2, (Tensor *[]){a, b}, NULL, 0);
}

static Status fill_cpu(const Tensor *y, Stream *s)
{
    return cpu_fill(y->data, *(const float *)y->args, tensor_count(y), s);
}

static Status fill_cuda(const Tensor *y, Stream *s)
{
    return cuda_fill(y->data, *(const float *)y->args, tensor_count(y), y->dtype, s);
}

const OpDef op_fill = {.name = "fill", .cpu = fill_cpu, .cuda = CUDA_RUN(fill_cuda)};

static void reshape_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    grad_add(g, y->src[0], reshape(g, dy, y->src[0]->ndim, y->src[0]->dim));
}

const OpDef op_reshape = {.name = "reshape", .vjp = reshape_vjp};

Tensor *reshape(Graph *g, Tensor *x, int ndim, const int *dim)
{
    if (!x) return NULL;
    size_t count = 1;
    for (int i = 0; i < ndim; i++) count *= (size_t)dim[i];
    if (count != tensor_count(x)) {
        char shape[64];
        return graph_fail(g, "reshape: %s does not have %zu elements", tensor_shape_text(x, shape),
                          count);
    }
    return graph_view(g, &op_reshape, x, ndim, dim);
}
