/* ref_margin.c - how far a graph's values stand from where its gradients jump. */
#include "ref/ref.h"
#include <math.h>

/* Of one node: the least distance, and the mean square that it is compared with. */
typedef struct {
    double least, square;
    size_t n;
} Margin;

static void note(Margin *m, double value, double distance)
{
    m->square += value * value;
    m->n++;
    if (distance > 0) m->least = fmin(m->least, distance);
}

static void of_relu(Margin *m, const Tensor *y)
{
    const Tensor *x = y->src[0];
    for (size_t i = 0; i < tensor_count(x); i++) note(m, ref_data(x)[i], fabs(ref_data(x)[i]));
}

/* Groups of `per` channels in each of n images. */
static void of_norm(Margin *m, const Tensor *y, size_t n, size_t per)
{
    size_t c = (size_t)last_dim(y), count = tensor_count(y), groups = c / per;
    const double *x = ref_data(y->src[0]), *gain = ref_data(y->src[1]), *bias = ref_data(y->src[2]);
    for (size_t i = 0; i < count; i++) {
        const double *st = ref_data(y->side[0]) + 2 * (i / (count / n) * groups + i % c / per);
        double z = (x[i] - st[0]) * st[1] * gain[i % c] + bias[i % c];
        note(m, z, fabs(z));
    }
}

static void of_window(Margin *m, const Tensor *y, int n, int p, int q, int c)
{
    const Tensor *x = y->src[0];
    const PoolArgs *a = y->args;
    double first = -INFINITY, second = -INFINITY;
    for (int r = 0; r < a->size; r++)
        for (int s = 0; s < a->size; s++) {
            int row = p * a->stride - a->pad + r, column = q * a->stride - a->pad + s;
            if (row < 0 || row >= x->dim[1] || column < 0 || column >= x->dim[2]) continue;
            size_t at = ((size_t)n * (size_t)x->dim[1] + (size_t)row) * (size_t)x->dim[2];
            double v = ref_data(x)[(at + (size_t)column) * (size_t)x->dim[3] + (size_t)c];
            second = fmax(second, fmin(first, v));
            first = fmax(first, v);
        }
    note(m, first, first - second);
}

static void of_maxpool(Margin *m, const Tensor *y)
{
    for (int n = 0; n < y->dim[0]; n++)
        for (int p = 0; p < y->dim[1]; p++)
            for (int q = 0; q < y->dim[2]; q++)
                for (int c = 0; c < y->dim[3]; c++) of_window(m, y, n, p, q, c);
}

static Margin of_node(const Tensor *y)
{
    Margin m = {INFINITY, 0, 0};
    if (y->op == &op_relu) of_relu(&m, y);
    if (y->op == &op_maxpool) of_maxpool(&m, y);
    if (y->op == &op_batchnorm || y->op == &op_batchnorm_train)
        if (((const BatchnormArgs *)y->args)->relu) of_norm(&m, y, 1, 1);
    if (y->op == &op_groupnorm) {
        const GroupnormArgs *a = y->args;
        if (a->act == ACT_RELU)
            of_norm(&m, y, (size_t)y->dim[0], (size_t)(last_dim(y) / a->groups));
    }
    return m;
}

double ref_margin(const Graph *g)
{
    double least = INFINITY;
    for (int i = 0; i < g->n; i++) {
        const Tensor *y = g->node[i];
        if (!y->live || !y->op) continue;
        Margin m = of_node(y);
        if (m.n) least = fmin(least, m.least / sqrt(m.square / (double)m.n));
    }
    return least;
}
