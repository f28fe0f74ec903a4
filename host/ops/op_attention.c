/* op_attention.c - multi-head attention on tokens whose heads lie side by side in the last
 * dimension. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static AttentionShape attention_shape(const Tensor *q, const Tensor *k, const AttentionArgs *a)
{
    return (AttentionShape){q->dim[0], q->dim[1], k->dim[1], a->heads, q->dim[2] / a->heads,
                            a->causal};
}

/* Of one product of all queries with the keys that they see. */
static double product_cost(const Tensor *q, const Tensor *k, const AttentionArgs *a)
{
    double tq = q->dim[1], tk = k->dim[1], pairs = tq * tk;
    if (a->causal) pairs = tq <= tk ? tq * (tq + 1) / 2 : tk * (tk + 1) / 2 + (tq - tk) * tk;
    return 2.0 * q->dim[0] * pairs * q->dim[2];
}

/* attention: y, and as its side lse, from q, k, v */
static Status attention_cpu(const Tensor *y, Stream *s)
{
    const Tensor *q = y->src[0], *k = y->src[1], *v = y->src[2];
    AttentionShape a = attention_shape(q, k, y->args);
    return cpu_attention_fwd(y->data, y->side[0]->data, q->data, k->data, v->data, &a, s);
}
static Status attention_cuda(const Tensor *y, Stream *s)
{
    const Tensor *q = y->src[0], *k = y->src[1], *v = y->src[2];
    AttentionShape a = attention_shape(q, k, y->args);
    return cuda_attention_fwd(y->data, y->side[0]->data, q->data, k->data, v->data, &a, y->dtype,
                              s);
}
static double attention_flops(const Tensor *y)
{
    return 2 * product_cost(y->src[0], y->src[1], y->args);
}

/* attention_bwd: dq, and as its sides dk and dv, from q, k, v, y, lse, dy */
static Status attention_bwd_cpu(const Tensor *dq, Stream *s)
{
    Tensor *const *in = dq->src;
    AttentionShape a = attention_shape(in[0], in[1], dq->args);
    return cpu_attention_bwd(dq->data, dq->side[0]->data, dq->side[1]->data, in[5]->data,
                             in[3]->data, in[4]->data, in[0]->data, in[1]->data, in[2]->data, &a,
                             s);
}
static Status attention_bwd_cuda(const Tensor *dq, Stream *s)
{
    Tensor *const *in = dq->src;
    AttentionShape a = attention_shape(in[0], in[1], dq->args);
    return cuda_attention_bwd(dq->data, dq->side[0]->data, dq->side[1]->data, in[5]->data,
                              in[3]->data, in[4]->data, in[0]->data, in[1]->data, in[2]->data, &a,
                              dq->dtype, s);
}
static double attention_bwd_flops(const Tensor *dq)
{
    return 5 * product_cost(dq->src[0], dq->src[1], dq->args);
}

static void attention_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *q = y->src[0], *k = y->src[1], *v = y->src[2];
    Tensor *src[] = {q, k, v, y, y->side[0], dy};
    Tensor *dq =
        graph_node(g, &op_attention_bwd, 3, q->dim, 6, src, y->args, sizeof(AttentionArgs));
    Tensor *dk = graph_typed(graph_side(g, dq, 3, k->dim), k->dtype);
    Tensor *dv = graph_typed(graph_side(g, dq, 3, v->dim), v->dtype);
    grad_add(g, q, dq);
    grad_add(g, k, dk);
    grad_add(g, v, dv);
}

const OpDef op_attention = {.name = "attention",
                            .cpu = attention_cpu,
                            .cuda = CUDA_RUN(attention_cuda),
                            .vjp = attention_vjp,
                            .flops = attention_flops};
const OpDef op_attention_bwd = {.name = "attention_bwd",
                                .cpu = attention_bwd_cpu,
                                .cuda = CUDA_RUN(attention_bwd_cuda),
                                .flops = attention_bwd_flops};

Tensor *attention(Graph *g, Tensor *q, Tensor *k, Tensor *v, int heads, bool causal)
{
    char sq[64], sk[64], sv[64];
    if (!q || !k || !v) return NULL;
    if (q->ndim != 3 || k->ndim != 3 || !tensor_same_shape(k, v) || q->dim[0] != k->dim[0] ||
        q->dim[2] != k->dim[2])
        return graph_fail(
            g, "attention: q %s, k %s, v %s do not fit, expected [n,tq,d], [n,tk,d], [n,tk,d]",
            tensor_shape_text(q, sq), tensor_shape_text(k, sk), tensor_shape_text(v, sv));
    if (heads < 1 || q->dim[2] % heads)
        return graph_fail(g, "attention: width %d in %d heads", q->dim[2], heads);
    AttentionArgs a = {heads, causal};
    Tensor *y = graph_node(g, &op_attention, 3, q->dim, 3, (Tensor *[]){q, k, v}, &a, sizeof a);
    graph_side(g, y, 3, (int[]){q->dim[0], heads, q->dim[1]});
    return y;
}
