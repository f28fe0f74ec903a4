/* op_linear.c - linear layers, and the column sum that is a bias's gradient. */
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static double linear_cost(const Tensor *y, const Tensor *w)
{
    return 2.0 * (double)rows_of(y) * (double)tensor_count(w);
}

Status linear_forward(const Tensor *y, const Tensor *x, const Tensor *w, const Tensor *b, Stream *s)
{
    return (x->ndim == 2 ? cpu_vector_linear_fwd : cpu_linear_fwd)(
        y->data, x->data, w->data, b ? b->data : NULL, rows_of(x), w->dim[1], w->dim[0], s);
}

/* linear: y from x, w, b */
static Status linear_cpu(const Tensor *y, Stream *s)
{
    return linear_forward(y, y->src[0], y->src[1], y->src[2], s);
}
static Status linear_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0], *w = y->src[1], *b = y->src[2];
    return cuda_linear_fwd(y->data, x->data, w->data, b ? b->data : NULL, rows_of(x), w->dim[1],
                           w->dim[0], y->dtype, s);
}
static double linear_flops(const Tensor *y) { return linear_cost(y, y->src[1]); }

/* linear_dx: dx from dy, w */
static Status linear_dx_cpu(const Tensor *dx, Stream *s)
{
    const Tensor *dy = dx->src[0], *w = dx->src[1];
    return cpu_linear_dx(dx->data, dy->data, w->data, rows_of(dx), w->dim[1], w->dim[0], s);
}
static Status linear_dx_cuda(const Tensor *dx, Stream *s)
{
    const Tensor *dy = dx->src[0], *w = dx->src[1];
    return cuda_linear_dx(dx->data, dy->data, w->data, rows_of(dx), w->dim[1], w->dim[0], dx->dtype,
                          s);
}
static double linear_dx_flops(const Tensor *dx) { return linear_cost(dx, dx->src[1]); }

/* linear_dw: dw, and as its side db where there is one, from dy, x */
static Status linear_dw_cpu(const Tensor *dw, Stream *s)
{
    const Tensor *dy = dw->src[0], *x = dw->src[1], *db = dw->side[0];
    return cpu_linear_dw(dw->data, db ? db->data : NULL, dy->data, x->data, rows_of(x), dw->dim[1],
                         dw->dim[0], s);
}
static Status linear_dw_cuda(const Tensor *dw, Stream *s)
{
    const Tensor *dy = dw->src[0], *x = dw->src[1], *db = dw->side[0];
    return cuda_linear_dw(dw->data, db ? db->data : NULL, dy->data, x->data, rows_of(x), dw->dim[1],
                          dw->dim[0], dy->dtype, s);
}
static double linear_dw_flops(const Tensor *dw) { return linear_cost(dw->src[0], dw); }

/* column_sum: [k] from [...,k] */
static Status column_sum_cpu(const Tensor *y, Stream *s)
{
    return cpu_column_sum(y->data, y->src[0]->data, rows_of(y->src[0]), y->dim[0], s);
}

static Status column_sum_cuda(const Tensor *y, Stream *s)
{
    const Tensor *x = y->src[0];
    return cuda_column_sum(y->data, x->data, rows_of(x), y->dim[0], x->dtype, s);
}

static void linear_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    Tensor *x = y->src[0], *w = y->src[1], *b = y->src[2];
    if (x->trainable)
        grad_add(g, x,
                 graph_node(g, &op_linear_dx, x->ndim, x->dim, 2, (Tensor *[]){dy, w}, NULL, 0));
    if (w->trainable) {
        Tensor *dw = graph_node(g, &op_linear_dw, 2, w->dim, 2, (Tensor *[]){dy, x}, NULL, 0);
        if (b && b->trainable) grad_add(g, b, graph_side(g, dw, 1, b->dim));
        grad_add(g, w, graph_typed(dw, DTYPE_F32));
    } else if (b && b->trainable) {
        Tensor *db = graph_node(g, &op_column_sum, 1, b->dim, 1, &dy, NULL, 0);
        grad_add(g, b, graph_typed(db, DTYPE_F32));
    }
}

const OpDef op_linear = {.name = "linear",
                         .cpu = linear_cpu,
                         .cuda = CUDA_RUN(linear_cuda),
                         .vjp = linear_vjp,
                         .flops = linear_flops};
const OpDef op_linear_dx = {.name = "linear_dx",
                            .cpu = linear_dx_cpu,
                            .cuda = CUDA_RUN(linear_dx_cuda),
                            .flops = linear_dx_flops};
const OpDef op_linear_dw = {.name = "linear_dw",
                            .cpu = linear_dw_cpu,
                            .cuda = CUDA_RUN(linear_dw_cuda),
                            .flops = linear_dw_flops};
const OpDef op_column_sum = {
    .name = "column_sum", .cpu = column_sum_cpu, .cuda = CUDA_RUN(column_sum_cuda)};

Tensor *linear(Graph *g, Tensor *x, Tensor *w, Tensor *b)
{
    char sx[64], sw[64];
    if (!x || !w) return NULL;
    if (w->ndim != 2 || last_dim(x) != w->dim[1])
        return graph_fail(g,
                          "linear: input %s and weight %s do not fit, expected [...,c] and [k,c]",
                          tensor_shape_text(x, sx), tensor_shape_text(w, sw));
    if (b && (b->ndim != 1 || b->dim[0] != w->dim[0]))
        return graph_fail(g, "linear: bias %s, expected [%d]", tensor_shape_text(b, sx), w->dim[0]);
    int dim[MAX_DIM];
    for (int i = 0; i < x->ndim; i++) dim[i] = x->dim[i];
    dim[x->ndim - 1] = w->dim[0];
    return graph_node(g, &op_linear, x->ndim, dim, 3, (Tensor *[]){x, w, b}, NULL, 0);
}
