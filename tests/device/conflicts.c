/* conflicts.c - how often the fast kernels' warps meet in a bank of shared memory: wavefronts over
 * the fewest that could carry the bytes, for each kernel's ldmatrix, loads and stores.
 *
 * The counts follow from the code and the shape alone. ldmatrix, which feeds the tensor cores,
 * never meets a conflict (1), nor does what is stored in bf16. Results of products and attention
 * leave by way of shared memory, once a tile: eight lanes read 16 bytes each from rows that, at
 * some widths, start in the same banks; gated results are half as wide, so that sixteen lanes read
 * 8 bytes each from two rows that overlap. fp32 products turn their tiles as they store them, two
 * words to a bank.
 */
#include "arrays.h"
#include "hostcuda/hostcuda.h"
#include "kernels_matrix.h"
#include "kernels_point.h"
#include <stdio.h>

enum { SEED = 1 };
typedef struct {
    double load, store; /* at most; 0: there are none */
} Limit;
static int failed;
static Stream *stream;

static void require(Status s)
{
    if (!s && !cudaStreamSynchronize(cuda_stream_handle(stream))) return;
    printf("%s\n", status_message());
    exit(1);
}

/* Of what ran since the last call. */
static void judge(const char *what, Dtype type, int size, Limit most, bool matrix)
{
    double load = hostcuda_ratio(HOSTCUDA_SHARED_LOAD).ratio;
    double store = hostcuda_ratio(HOSTCUDA_SHARED_STORE).ratio;
    double fed = hostcuda_ratio(HOSTCUDA_LDMATRIX).ratio;
    bool ok = load <= most.load && store <= most.store && fed == matrix;
    printf("%s%s, %s, %d: loads %.3f, stores %.3f, ldmatrix %.3f\n", ok ? "" : "FAILED ", what,
           type == DTYPE_BF16 ? "bf16" : "fp32", size, load, store, fed);
    failed += !ok;
    hostcuda_clear();
}

static void attention(Dtype type, int dh, int tq, int tk, bool causal, Limit fwd, Limit bwd)
{
    AttentionShape a = {1, tq, tk, 1, dh, causal};
    size_t n = (size_t)(tq * dh), m = (size_t)(tk * dh);
    Array q = array_normal(n, type, SEED, 1), k = array_normal(m, type, SEED, 2);
    Array v = array_normal(m, type, SEED, 3), dy = array_normal(n, type, SEED, 4);
    Array y = array_empty(n, type), lse = array_empty((size_t)tq, DTYPE_F32);
    Array dq = array_empty(n, type), dk = array_empty(m, type), dv = array_empty(m, type);
    require(
        cuda_attention_fwd(y.device, lse.device, q.device, k.device, v.device, &a, type, stream));
    judge("attention, head", type, dh, fwd, type == DTYPE_BF16);
    require(cuda_attention_bwd(dq.device, dk.device, dv.device, dy.device, y.device, lse.device,
                               q.device, k.device, v.device, &a, type, stream));
    judge("attention's gradient, head", type, dh, bwd, type == DTYPE_BF16);
    for (Array *each[] = {&q, &k, &v, &dy, &y, &lse, &dq, &dk, &dv}, **i = each; i < each + 9; i++)
        array_free(*i);
}

static void convolution(Dtype type, int c, Limit fwd, Limit dx, Limit dw)
{
    ConvShape s = {1, 9, 11, c, c + 8, 3, 3, 1, 1, 1, 1, 1};
    size_t pixels = 9 * 11, n = pixels * (size_t)s.c, m = pixels * (size_t)s.k;
    Array x = array_normal(n, type, SEED, 1), dy = array_normal(m, type, SEED, 2);
    Array w = array_normal((size_t)(9 * s.c * s.k), type, SEED, 3);
    Array y = array_empty(m, type), d = array_empty(n, type), g = array_empty(w.count, DTYPE_F32);
    require(cuda_conv2d_fwd(y.device, x.device, w.device, NULL, &s, type, stream));
    judge("convolution, channels", type, c, fwd, type == DTYPE_BF16);
    require(cuda_conv2d_dx(d.device, dy.device, w.device, &s, type, stream));
    judge("convolution's dx, channels", type, c, dx, type == DTYPE_BF16);
    require(cuda_conv2d_dw(g.device, NULL, dy.device, x.device, &s, type, stream));
    judge("convolution's dw, channels", type, c, dw, type == DTYPE_BF16);
    for (Array *each[] = {&x, &dy, &w, &y, &d, &g}, **i = each; i < each + 6; i++) array_free(*i);
}

static void gated_linear(Dtype type, int rows, int c, int k, Limit most)
{
    size_t n = (size_t)rows;
    Array x = array_normal(n * (size_t)c, type, SEED, 1);
    Array w = array_normal((size_t)(k * c), type, SEED, 2);
    Array y = array_empty(n * (size_t)k / 2, type);
    require(cuda_linear_geglu_fwd(y.device, x.device, w.device, NULL, n, c, k, type, stream));
    judge("linear layer and GEGLU, columns", type, k, most, type == DTYPE_BF16);
    for (Array *each[] = {&x, &w, &y}, **i = each; i < each + 3; i++) array_free(*i);
}

static void group_norm(Dtype type, int c, int rows, Limit fwd, Limit bwd)
{
    size_t n = (size_t)(rows * c);
    Array x = array_normal(n, type, SEED, 1), dy = array_normal(n, type, SEED, 2);
    Array gain = array_normal((size_t)c, DTYPE_F32, SEED, 3);
    Array bias = array_normal((size_t)c, DTYPE_F32, SEED, 4);
    Array y = array_empty(n, type), dx = array_empty(n, type), stats = array_empty(64, DTYPE_F32);
    Array dgain = array_empty((size_t)c, DTYPE_F32), dbias = array_empty((size_t)c, DTYPE_F32);
    require(cuda_groupnorm_fwd(y.device, stats.device, x.device, gain.device, bias.device, 1,
                               (size_t)rows, c, 32, 1e-5f, ACT_SILU, type, stream));
    judge("group norm, channels", type, c, fwd, false);
    require(cuda_groupnorm_dx(dx.device, dgain.device, dbias.device, dy.device, x.device,
                              gain.device, bias.device, stats.device, 1, (size_t)rows, c, 32, 1e-5f,
                              ACT_SILU, type, stream));
    judge("group norm's gradient, channels", type, c, bwd, false);
    for (Array *each[] = {&x, &dy, &gain, &bias, &y, &dx, &stats, &dgain, &dbias}, **i = each;
         i < each + 9; i++)
        array_free(*i);
}

int main(void)
{
    static const struct {
        int size;
        Limit fwd, bwd;
    } head[] = {{8, {1, 1}, {1, 1}},  {16, {2, 1}, {1.28, 1}},   {40, {1, 1}, {1, 1}},
                {64, {1, 1}, {1, 1}}, {80, {1.6, 1}, {1.33, 1}}, {160, {1.2, 1}, {1.15, 1}}};
    const Limit free = {1, 1}, product = {1.6, 1}, none = {0, 0};
    if (cuda_stream_new(&stream)) abort();
    hostcuda_set_check(0); /* the tests of ops have it on */
    hostcuda_set_stats(1);
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        attention(DTYPE_BF16, head[i].size, 72, 77, false, head[i].fwd, head[i].bwd);
    attention(DTYPE_BF16, 64, 77, 77, true, free, free);
    attention(DTYPE_F32, 40, 72, 77, false, free, free);
    convolution(DTYPE_BF16, 72, product, product, none);
    convolution(DTYPE_F32, 24, (Limit){1, 2}, (Limit){1, 1.5}, free);
    gated_linear(DTYPE_BF16, 200, 72, 64, (Limit){2, 1});
    gated_linear(DTYPE_BF16, 200, 72, 320, (Limit){2, 1});
    gated_linear(DTYPE_F32, 70, 24, 72, (Limit){1, 2});
    group_norm(DTYPE_BF16, 320, 70, free, free);
    group_norm(DTYPE_F32, 320, 70, free, free);
    group_norm(DTYPE_BF16, 320, 5000, (Limit){1.08, 1}, free); /* merging blocks' float2 */
    cuda_stream_free(stream);
    printf("%d failed\n", failed);
    return failed != 0;
}
