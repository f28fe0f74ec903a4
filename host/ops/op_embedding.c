/* op_embedding.c - rows of a table by number, and the sinusoidal embedding of diffusion time. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static Status embedding_dw_cpu(const Tensor *dtable, Stream *s)
{
    const Tensor *ids = dtable->src[0];
    return cpu_embedding_dw(dtable->data, ids->data, dtable->src[1]->data, tensor_count(ids),
                            dtable->dim[0], dtable->dim[1], s);
}

static Status embedding_dw_cuda(const Tensor *dtable, Stream *s)
{
    const Tensor *ids = dtable->src[0], *dy = dtable->src[1];
    return cuda_embedding_dw(dtable->data, ids->data, dy->data, tensor_count(ids), dtable->dim[0],
                             dtable->dim[1], dy->dtype, s);
}

const OpDef op_embedding_dw = {
    .name = "embedding_dw", .cpu = embedding_dw_cpu, .cuda = CUDA_RUN(embedding_dw_cuda)};

static Status embedding_cpu(const Tensor *y, Stream *s)
{
    const Tensor *ids = y->src[0], *table = y->src[1];
    return cpu_embedding_fwd(y->data, ids->data, table->data, tensor_count(ids), table->dim[0],
                             table->dim[1], s);
}

static Status embedding_cuda(const Tensor *y, Stream *s)
{
    const Tensor *ids = y->src[0], *table = y->src[1];
    return cuda_embedding_fwd(y->data, ids->data, table->data, tensor_count(ids), table->dim[0],
                              table->dim[1], y->dtype, s);
}

static void embedding_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *table = y->src[1];
    Tensor *src[] = {y->src[0], dy};
    grad_add(g, table,
             graph_typed(graph_node(g, &op_embedding_dw, 2, table->dim, 2, src, NULL, 0),
                         DTYPE_F32));
}

const OpDef op_embedding = {.name = "embedding",
                            .cpu = embedding_cpu,
                            .cuda = CUDA_RUN(embedding_cuda),
                            .vjp = embedding_vjp};

Tensor *embedding(Graph *g, Tensor *ids, Tensor *table)
{
    if (!ids || !table) return NULL;
    char si[64], st[64];
    if (ids->dtype != DTYPE_I32 || ids->ndim != 2 || table->ndim != 2)
        return graph_fail(g, "embedding: ids %s%s and table %s, expected I32 [n,t] and [v,d]",
                          ids->dtype == DTYPE_I32 ? "I32 " : "", tensor_shape_text(ids, si),
                          tensor_shape_text(table, st));
    return graph_node(g, &op_embedding, 3, (int[]){ids->dim[0], ids->dim[1], table->dim[1]}, 2,
                      (Tensor *[]){ids, table}, NULL, 0);
}

static Status timestep_embedding_cpu(const Tensor *y, Stream *s)
{
    const TimestepArgs *a = y->args;
    return cpu_timestep_embedding(y->data, y->src[0]->data, y->dim[0], a->dim, a->flip, a->shift,
                                  s);
}

static Status timestep_embedding_cuda(const Tensor *y, Stream *s)
{
    const TimestepArgs *a = y->args;
    return cuda_timestep_embedding(y->data, y->src[0]->data, y->dim[0], a->dim, a->flip, a->shift,
                                   y->dtype, s);
}

const OpDef op_timestep_embedding = {.name = "timestep_embedding",
                                     .cpu = timestep_embedding_cpu,
                                     .cuda = CUDA_RUN(timestep_embedding_cuda)};

Tensor *timestep_embedding(Graph *g, Tensor *t, int dim, bool flip, float shift)
{
    if (!t) return NULL;
    char shape[64];
    if (t->ndim != 1 || dim < 2 || dim % 2 || (float)(dim / 2) <= shift)
        return graph_fail(
            g,
            "timestep_embedding: times %s, width %d, shift %g, expected [n], even, below width/2",
            tensor_shape_text(t, shape), dim, (double)shift);
    TimestepArgs a = {dim, flip, shift};
    return graph_node(g, &op_timestep_embedding, 2, (int[]){t->dim[0], dim}, 1, &t, &a, sizeof a);
}
