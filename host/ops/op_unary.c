/* op_unary.c - functions of one element. The gradient reads y where y tells the slope (then x
 * need not be kept), x elsewhere. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

#define UNARY(X)                                                                                   \
    X(silu, y->src[0])                                                                             \
    X(gelu, y->src[0])                                                                             \
    X(quick_gelu, y->src[0])                                                                       \
    X(mish, y->src[0])                                                                             \
    X(relu, y)                                                                                     \
    X(soft_clamp, y)

#define UNARY_OP(f, kept)                                                                          \
    static Status f##_cpu(const Tensor *y, Stream *s)                                              \
    {                                                                                              \
        return cpu_##f##_fwd(y->data, y->src[0]->data, tensor_count(y), s);                        \
    }                                                                                              \
    static Status f##_cuda(const Tensor *y, Stream *s)                                             \
    {                                                                                              \
        return cuda_##f##_fwd(y->data, y->src[0]->data, tensor_count(y), y->dtype, s);             \
    }                                                                                              \
    static Status f##_dx_cpu(const Tensor *dx, Stream *s)                                          \
    {                                                                                              \
        return cpu_##f##_dx(dx->data, dx->src[0]->data, dx->src[1]->data, tensor_count(dx), s);    \
    }                                                                                              \
    static Status f##_dx_cuda(const Tensor *dx, Stream *s)                                         \
    {                                                                                              \
        return cuda_##f##_dx(dx->data, dx->src[0]->data, dx->src[1]->data, tensor_count(dx),       \
                             dx->dtype, s);                                                        \
    }                                                                                              \
    const OpDef op_##f##_dx = {                                                                    \
        .name = #f "_dx", .cpu = f##_dx_cpu, .cuda = CUDA_RUN(f##_dx_cuda)};                       \
    static void f##_vjp(Graph *g, Tensor *y, Tensor *dy)                                           \
    {                                                                                              \
        Tensor *src[] = {kept, dy};                                                                \
        grad_add(g, y->src[0], graph_node(g, &op_##f##_dx, y->ndim, y->dim, 2, src, NULL, 0));     \
    }                                                                                              \
    const OpDef op_##f = {                                                                         \
        .name = #f, .cpu = f##_cpu, .cuda = CUDA_RUN(f##_cuda), .vjp = f##_vjp};                   \
    Tensor *f(Graph *g, Tensor *x)                                                                 \
    {                                                                                              \
        return x ? graph_node(g, &op_##f, x->ndim, x->dim, 1, &x, NULL, 0) : NULL;                 \
    }

UNARY(UNARY_OP)
