/* op_join.c - concat and slice along the last dimension; pad, the gradient of slice. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

/* ---- concat ------------------------------------------------------------------------------- */

static Status concat_cpu(const Tensor *y, Stream *s)
{
    const float *x[MAX_SRC];
    int c[MAX_SRC], n = 0;
    for (; n < MAX_SRC && y->src[n]; n++) {
        x[n] = y->src[n]->data;
        c[n] = last_dim(y->src[n]);
    }
    return cpu_concat(y->data, x, c, n, rows_of(y), s);
}

static Status concat_cuda(const Tensor *y, Stream *s)
{
    const void *x[MAX_SRC];
    int c[MAX_SRC], n = 0;
    for (; n < MAX_SRC && y->src[n]; n++) {
        x[n] = y->src[n]->data;
        c[n] = last_dim(y->src[n]);
    }
    return cuda_concat(y->data, x, c, n, rows_of(y), y->dtype, s);
}

static void concat_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    for (int i = 0, from = 0; i < MAX_SRC && y->src[i]; from += last_dim(y->src[i++]))
        if (y->src[i]->trainable) grad_add(g, y->src[i], slice(g, dy, from, last_dim(y->src[i])));
}

const OpDef op_concat = {
    .name = "concat", .cpu = concat_cpu, .cuda = CUDA_RUN(concat_cuda), .vjp = concat_vjp};

Tensor *concat(Graph *g, int n, Tensor *const *x)
{
    if (n < 1 || n > MAX_SRC)
        return graph_fail(g, "concat: %d parts, expected 1 to %d", n, MAX_SRC);
    int dim[MAX_DIM], width = 0;
    for (int i = 0; i < n; i++) {
        if (!x[i]) return NULL;
        if (x[i]->dtype != x[0]->dtype) return graph_fail(g, "concat: parts of two storage types");
        bool fits = x[i]->ndim == x[0]->ndim;
        for (int k = 0; fits && k < x[0]->ndim - 1; k++) fits = x[i]->dim[k] == x[0]->dim[k];
        if (!fits) return op_shapes_differ(g, "concat", x[0], x[i]);
        width += last_dim(x[i]);
    }
    for (int k = 0; k < x[0]->ndim; k++) dim[k] = x[0]->dim[k];
    dim[x[0]->ndim - 1] = width;
    return graph_node(g, &op_concat, x[0]->ndim, dim, n, x, NULL, 0);
}

/* ---- slice -------------------------------------------------------------------------------- */

static Tensor *along_last(Graph *g, const OpDef *op, Tensor *x, int width, int from)
{
    int dim[MAX_DIM];
    for (int k = 0; k < x->ndim; k++) dim[k] = x->dim[k];
    dim[x->ndim - 1] = width;
    return graph_node(g, op, x->ndim, dim, 1, &x, &(SliceArgs){from}, sizeof(SliceArgs));
}

static Status pad_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    int from = ((const SliceArgs *)y->args)->from;
    return cpu_pad(y->data, x->data, rows_of(y), last_dim(y), from, last_dim(x), s);
}

static Status pad_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    int from = ((const SliceArgs *)y->args)->from;
    return cuda_pad(y->data, x->data, rows_of(y), last_dim(y), from, last_dim(x), y->dtype, s);
}

const OpDef op_pad = {.name = "pad", .cpu = pad_cpu, .cuda = CUDA_RUN(pad_cuda)};

static Status slice_cpu(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    int from = ((const SliceArgs *)y->args)->from;
    return cpu_slice(y->data, x->data, rows_of(y), last_dim(x), from, last_dim(y), s);
}

static Status slice_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    int from = ((const SliceArgs *)y->args)->from;
    return cuda_slice(y->data, x->data, rows_of(y), last_dim(x), from, last_dim(y), y->dtype, s);
}

static void slice_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    int from = ((const SliceArgs *)y->args)->from;
    grad_add(g, y->src[0], along_last(g, &op_pad, dy, last_dim(y->src[0]), from));
}

const OpDef op_slice = {
    .name = "slice", .cpu = slice_cpu, .cuda = CUDA_RUN(slice_cuda), .vjp = slice_vjp};

Tensor *slice(Graph *g, Tensor *x, int from, int count)
{
    if (!x) return NULL;
    char shape[64];
    if (from < 0 || count < 1 || count > last_dim(x) - from)
        return graph_fail(g, "slice: %d columns from %d of %s", count, from,
                          tensor_shape_text(x, shape));
    return along_last(g, &op_slice, x, count, from);
}
