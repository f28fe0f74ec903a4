/* op_cast.c - the same values stored as another type; recorded only where activations are bf16. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"
#include <string.h>

/* On a CPU everything is fp32; an executor that compares devices runs it so. */
static Status cast_cpu(const Tensor *y, Stream *s)
{
    (void)s;
    memcpy(y->data, y->src[0]->data, tensor_count(y) * sizeof(float));
    return OK;
}

static Status cast_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cuda_cast(y->data, y->dtype, x->data, x->dtype, tensor_count(y), s);
}

static void cast_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    grad_add(g, y->src[0], cast(g, dy, y->src[0]->dtype));
}

const OpDef op_cast = {
    .name = "cast", .cpu = cast_cpu, .cuda = CUDA_RUN(cast_cuda), .vjp = cast_vjp};

Tensor *cast(Graph *g, Tensor *x, Dtype dtype)
{
    if (!x || x->dtype == dtype) return x;
    if (x->op == &op_cast && x->src[0]->dtype == DTYPE_BF16) return x->src[0];
    if (x->dtype == DTYPE_I32 || dtype == DTYPE_I32)
        return graph_fail(g, "cast: found integers, expected fp32 or bf16");
    return graph_typed(graph_node(g, &op_cast, x->ndim, x->dim, 1, &x, NULL, 0), dtype);
}
