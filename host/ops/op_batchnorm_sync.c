/* op_batchnorm_sync.c - batch normalisation of a batch that several ranks have parts of. Two pairs of
 * nodes: the first of each computes this rank's sums and gathers everyone's, the second does the
 * rest from them.
 *
 *   moments [ranks * c * 2]      mean and variance of each rank's rows
 *   y, stats, running averages   from all of them
 *   sums [ranks * 2 * c]         each rank's dgain and dbias; this rank's slices are its gradients
 *   dx                           from all of them
 *
 * A rank's loss is of its own rows, as without other ranks; dx is the gradient of the sum of all
 * ranks' losses. So gradients of parameters, summed over ranks and divided by their number, are those
 * of the mean of the losses.
 */
#include "comm/comm.h"
#include "kernels.h"
#include "ops/op.h"
#include "ops/ops.h"

static int channels_of(const Tensor *x) { return last_dim(x); }

/* This rank's part of a vector with one of each. */
static float *own(const Tensor *all)
{
    const BatchSyncArgs *a = all->args;
    return (float *)all->data + tensor_count(all) / (size_t)a->ranks * (size_t)a->rank;
}

static Status gather(const Tensor *all, const char *what)
{
    const BatchSyncArgs *a = all->args;
    if (a->ranks == 1) return OK;
    return comm_all_gather(a->comm, what, all->data, own(all),
                           tensor_bytes(all) / (size_t)a->ranks);
}

static Status moments_cpu(const Tensor *m, Stream *s)
{
    const Tensor *x = m->src[0];
    TRY(cpu_batchnorm_moments(own(m), x->data, rows_of(x), channels_of(x), s));
    return gather(m, "batch statistics");
}

static Status moments_cuda(const Tensor *m, Stream *s)
{
    const Tensor *x = m->src[0];
    TRY(cuda_batchnorm_moments(own(m), x->data, rows_of(x), channels_of(x), x->dtype, s));
    return gather(m, "batch statistics");
}

static Status sync_cpu(const Tensor *y, Stream *s)
{
    const BatchSyncArgs *a = y->args;
    Tensor *const *src = y->src;
    return cpu_batchnorm_sync_fwd(y->data, y->side[0]->data, src[3]->data, src[4]->data,
                                  src[5]->data, a->ranks, src[0]->data, src[1]->data, src[2]->data,
                                  rows_of(y), channels_of(y), a->norm.eps, a->norm.momentum,
                                  a->norm.relu, s);
}

static Status sync_cuda(const Tensor *y, Stream *s)
{
    const BatchSyncArgs *a = y->args;
    Tensor *const *src = y->src;
    return cuda_batchnorm_sync_fwd(y->data, y->side[0]->data, src[3]->data, src[4]->data,
                                   src[5]->data, a->ranks, src[0]->data, src[1]->data, src[2]->data,
                                   rows_of(y), channels_of(y), a->norm.eps, a->norm.momentum,
                                   a->norm.relu, y->dtype, s);
}

static Status sums_cpu(const Tensor *sums, Stream *s)
{
    const BatchSyncArgs *a = sums->args;
    Tensor *const *src = sums->src;
    TRY(cpu_batchnorm_sums(own(sums), src[0]->data, src[1]->data, src[2]->data, src[3]->data,
                           src[4]->data, rows_of(src[1]), channels_of(src[1]), a->norm.relu, s));
    return gather(sums, "gradients of batch statistics");
}

static Status sums_cuda(const Tensor *sums, Stream *s)
{
    const BatchSyncArgs *a = sums->args;
    Tensor *const *src = sums->src;
    TRY(cuda_batchnorm_sums(own(sums), src[0]->data, src[1]->data, src[2]->data, src[3]->data,
                            src[4]->data, rows_of(src[1]), channels_of(src[1]), a->norm.relu,
                            src[1]->dtype, s));
    return gather(sums, "gradients of batch statistics");
}

static Status sync_dx_cpu(const Tensor *dx, Stream *s)
{
    const BatchSyncArgs *a = dx->args;
    Tensor *const *src = dx->src;
    return cpu_batchnorm_sync_dx(dx->data, src[5]->data, a->ranks, src[0]->data, src[1]->data,
                                 src[2]->data, src[3]->data, src[4]->data, rows_of(dx),
                                 channels_of(dx), a->norm.relu, s);
}

static Status sync_dx_cuda(const Tensor *dx, Stream *s)
{
    const BatchSyncArgs *a = dx->args;
    Tensor *const *src = dx->src;
    return cuda_batchnorm_sync_dx(dx->data, src[5]->data, a->ranks, src[0]->data, src[1]->data,
                                  src[2]->data, src[3]->data, src[4]->data, rows_of(dx),
                                  channels_of(dx), a->norm.relu, dx->dtype, s);
}

const OpDef op_batchnorm_sums = {.name = "batchnorm_sums",
                                 .cpu = sums_cpu,
                                 .cuda = CUDA_RUN(sums_cuda),
                                 .joint = true};
const OpDef op_batchnorm_sync_dx = {
    .name = "batchnorm_sync_dx", .cpu = sync_dx_cpu, .cuda = CUDA_RUN(sync_dx_cuda)};

static void sync_vjp(Graph *g, Tensor *y, Tensor *dy)
{
    const BatchSyncArgs *a = y->args;
    Tensor *x = y->src[0], *gain = y->src[1], *bias = y->src[2], *stats = y->side[0];
    int c = channels_of(x), all = 2 * c * a->ranks, from = 2 * c * a->rank;
    Tensor *sums = graph_node(g, &op_batchnorm_sums, 1, &all, 5,
                              (Tensor *[]){dy, x, gain, bias, stats}, a, sizeof *a);
    if (!sums) return;
    if (gain->trainable) grad_add(g, gain, slice(g, sums, from, c));
    if (bias->trainable) grad_add(g, bias, slice(g, sums, from + c, c));
    if (!x->trainable) return;
    grad_add(g, x,
             graph_node(g, &op_batchnorm_sync_dx, x->ndim, x->dim, 6,
                        (Tensor *[]){dy, x, gain, bias, stats, sums}, a, sizeof *a));
}

/* Without a gradient of its own: op_batchnorm_sync's is that of both. */
const OpDef op_batchnorm_moments = {.name = "batchnorm_moments",
                                    .cpu = moments_cpu,
                                    .cuda = CUDA_RUN(moments_cuda),
                                    .joint = true};
const OpDef op_batchnorm_sync = {.name = "batchnorm_sync",
                                 .cpu = sync_cpu,
                                 .cuda = CUDA_RUN(sync_cuda),
                                 .vjp = sync_vjp,
                                 .effect = true};

Tensor *batchnorm_sync(Graph *g, Tensor *x, Tensor *gain, Tensor *bias, Tensor *mean, Tensor *var,
                       float eps, float momentum, bool relu, Comm *comm)
{
    if (!x || !gain || !bias || !mean || !var) return NULL;
    BatchSyncArgs args = {{eps, momentum, true, relu}, comm_size(comm), comm_rank(comm), comm};
    Tensor *src[6] = {x, gain, bias, mean, var};
    int all = 2 * channels_of(x) * args.ranks;
    if (!batchnorm_fits(g, src)) return NULL;
    if (rows_of(x) * (size_t)args.ranks < 2) return batchnorm_too_few(g);
    src[5] = graph_node(g, &op_batchnorm_moments, 1, &all, 1, &x, &args, sizeof args);
    Tensor *y = graph_node(g, &op_batchnorm_sync, x->ndim, x->dim, 6, src, &args, sizeof args);
    graph_side(g, y, 2, (int[]){channels_of(x), 2});
    return y;
}
