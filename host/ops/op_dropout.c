/* op_dropout.c - dropout. Nodes of one graph and stream draw from ranges of elements that do not
 * overlap, in the order of recording; a node that is computed again, or its gradient, draws the
 * same numbers, for the range is part of its args. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static Status dropout_cpu(const Tensor *y, Stream *s)
{
    const DropoutArgs *a = y->args;
    return cpu_dropout_fwd(y->data, y->src[0]->data, y->src[1]->data, (size_t)y->dim[0],
                           per_sample(y), a->rate, a->stream, a->element, s);
}

static Status dropout_cuda(const Tensor *y, Stream *s)
{
    const DropoutArgs *a = y->args;
    return cuda_dropout_fwd(y->data, y->src[0]->data, y->src[1]->data, (size_t)y->dim[0],
                            per_sample(y), a->rate, a->stream, a->element, y->dtype, s);
}

static void dropout_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    grad_add(g, y->src[0],
             graph_node(g, &op_dropout, y->ndim, y->dim, 2, (Tensor *[]){dy, y->src[1]}, y->args,
                        sizeof(DropoutArgs)));
}

const OpDef op_dropout = {
    .name = "dropout", .cpu = dropout_cpu, .cuda = CUDA_RUN(dropout_cuda), .vjp = dropout_vjp};

/* The first element, a multiple of 4, behind all that this stream's nodes draw. */
static size_t next_element(const Graph *g, uint32_t stream)
{
    size_t next = 0;
    for (int i = 0; i < g->n; i++) {
        const Tensor *t = g->node[i];
        if (t->op != &op_dropout) continue;
        const DropoutArgs *a = t->args;
        size_t end = a->element + (per_sample(t) + 3) / 4 * 4;
        if (a->stream == stream && end > next) next = end;
    }
    return next;
}

Tensor *dropout(Graph *g, Tensor *x, Tensor *rng, float rate, uint32_t stream)
{
    if (!x || !rng) return NULL;
    if (rng->dtype != DTYPE_I32 || rng->ndim != 1 || rng->dim[0] != 3)
        return graph_fail(g, "dropout: expected an I32[3] of seed, step, first sample");
    if (!(rate >= 0 && rate < 1))
        return graph_fail(g, "dropout: rate %g, expected 0 or more, below 1", rate);
    size_t element = next_element(g, stream);
    if (element + per_sample(x) > UINT32_MAX) return graph_fail(g, "dropout: too large");
    DropoutArgs args = {rate, stream, (uint32_t)element};
    return graph_node(g, &op_dropout, x->ndim, x->dim, 2, (Tensor *[]){x, rng}, &args, sizeof args);
}
