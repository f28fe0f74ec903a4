/* conv_after.c - convolutions that go on: with a vector of each image, an activation and a
 * residual; and behind an upsampling they replace. Against the plain formulas in double.
 *
 *   test_conv_after [SEED]
 */
#include "../../kernels/cuda/gemm_plan.h"
#include "arrays.h"
#include <math.h>
#include <stdio.h>
#include <time.h>

static uint32_t seed;
static int failed, passed;

/* y[pixel, k] of a convolution in double; up: of x seen twice as large. */
static double convolved(const Array *x, const Array *w, const ConvShape *s, bool up, int image,
                        int p, int q, int k)
{
    double sum = 0;
    int h = s->h << up, width = s->w << up;
    for (int t = 0; t < s->r * s->s; t++) {
        int i = p * s->stride + t / s->s - s->top, j = q * s->stride + t % s->s - s->left;
        if (i < 0 || i >= h || j < 0 || j >= width) continue;
        size_t from = (size_t)((image * s->h + (i >> up)) * s->w + (j >> up)) * (size_t)s->c;
        size_t filter = (size_t)(k * s->r * s->s + t) * (size_t)s->c;
        for (int c = 0; c < s->c; c++)
            sum += (double)x->value[from + (size_t)c] * (double)w->value[filter + (size_t)c];
    }
    return sum;
}

typedef enum { CONV, SPLIT, JOINED, LINEAR, UPSAMPLED } What;

/* Channels from `first` on, `c` of them, of x[pixels, all]. */
static Array channels(const Array *x, int all, int first, int c)
{
    Array part = array_empty(x->count / (size_t)all * (size_t)c, x->type);
    for (size_t i = 0; i < part.count; i++)
        part.value[i] = x->value[i / (size_t)c * (size_t)all + (size_t)first + i % (size_t)c];
    array_store(&part);
    return part;
}

static void run(What what, Dtype type, ConvShape s, Act act, bool residual, Stream *stream)
{
    bool up = what == UPSAMPLED;
    int p = conv_out(s.h << up, s.top, s.bottom, s.r, s.stride);
    int q = conv_out(s.w << up, s.left, s.right, s.s, s.stride);
    size_t k = (size_t)s.k, taps = (size_t)(s.r * s.s * s.c), count = (size_t)(s.n * p * q) * k;
    Array x = array_normal((size_t)(s.n * s.h * s.w * s.c), type, seed, 1);
    Array w = array_whole(k * taps, type, 1, seed, 2); /* whole: filters fold exactly */
    Array b = array_normal(k, DTYPE_F32, seed, 3), v = array_normal((size_t)s.n * k, type, seed, 4);
    Array r = array_normal(count, type, seed, 5), y = array_empty(count, type);
    Array w4 = array_empty(16 * k * (size_t)s.c, type);
    int c1 = s.c / 16 * 8 + (s.c % 8 != 0);
    Array x1 = channels(&x, s.c, 0, c1 ? c1 : 1), x2 = channels(&x, s.c, c1, s.c - c1);
    ConvAfter after = {v.device, residual ? r.device : NULL, act};
    Status st;
    if (what == CONV)
        st =
            cuda_conv2d_after_fwd(y.device, x.device, w.device, b.device, &after, &s, type, stream);
    else if (what == SPLIT) /* small shapes would not choose it */
        st = gemm_conv(GEMM_FWD, y.device, x.device, w.device, b.device, &after, &s,
                       &(GemmPlan){TILE_64x64, 2}, type, stream);
    else if (what == JOINED)
        st = cuda_conv2d_join_fwd(y.device, x1.device, x2.device, c1, w.device, b.device, &after,
                                  &s, type, stream);
    else if (what == LINEAR)
        st = cuda_linear_after_fwd(y.device, x.device, w.device, b.device, &after, (size_t)s.w, s.c,
                                   s.k, type, stream);
    else {
        st = cuda_upsample2_fold(w4.device, w.device, s.c, s.k, type, stream);
        if (!st)
            st = cuda_upsample2_conv2d_fwd(y.device, x.device, w4.device, b.device, &after, &s,
                                           type, stream);
    }
    bool ok = !st && !cudaStreamSynchronize(cuda_stream_handle(stream));
    if (!ok) printf("%s %s\n", status_message(), cudaGetErrorString(cudaGetLastError()));
    array_load(&y);
    double top = sqrt((double)taps) * 4, bound = 8 * 0x1p-24 * (1 + sqrt((double)taps)) * top;
    for (size_t i = 0; i < count && ok; i++) {
        int pixel = (int)(i / k), image = pixel / (p * q), to = (int)(i % k);
        double want = convolved(&x, &w, &s, up, image, pixel / q % p, pixel % q, to);
        want += (double)b.value[to] + (double)v.value[(size_t)image * k + (size_t)to];
        if (act == ACT_RELU) want = fmax(want, 0);
        if (act == ACT_SILU) want /= 1 + exp(-want);
        if (residual) want += (double)r.value[i];
        double more = type == DTYPE_BF16 ? 0x1p-8 * fabs(want) : 0; /* rounded once */
        if (!(fabs((double)y.value[i] - want) <= bound + more)) {
            printf("element %zu is %.9g, expected %.9g\n", i, (double)y.value[i], want);
            ok = false;
        }
    }
    if (!ok)
        printf("FAILED %s %s: n %d h %d w %d c %d k %d r %d s %d stride %d, act %d, residual %d\n",
               (const char *[]){"conv", "split", "joined", "linear", "upsampled"}[what],
               type == DTYPE_BF16 ? "bf16" : "f32", s.n, s.h, s.w, s.c, s.k, s.r, s.s, s.stride,
               act, residual);
    failed += !ok;
    passed += ok;
    Array *all[] = {&x, &w, &b, &v, &r, &y, &w4, &x1, &x2};
    for (int i = 0; i < 9; i++) array_free(all[i]);
}

int main(int argc, char **argv)
{
    Stream *stream;
    seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("seed %u (give it as an argument to repeat)\n", seed);
    if (cuda_stream_new(&stream)) abort();
    for (Dtype type = DTYPE_F32; type <= DTYPE_BF16; type++) {
        run(CONV, type, (ConvShape){3, 5, 6, 16, 72, 3, 3, 1, 1, 1, 1, 1}, ACT_SILU, true, stream);
        run(SPLIT, type, (ConvShape){3, 5, 6, 8, 9, 3, 3, 1, 1, 1, 1, 1}, ACT_SILU, true, stream);
        run(JOINED, type, (ConvShape){2, 5, 7, 24, 16, 3, 3, 1, 1, 1, 1, 1}, ACT_NONE, true,
            stream);
        run(JOINED, type, (ConvShape){1, 9, 8, 56, 72, 1, 1, 1, 0, 0, 0, 0}, ACT_NONE, false,
            stream);
        run(JOINED, type, (ConvShape){2, 5, 4, 5, 6, 3, 3, 2, 1, 1, 1, 1}, ACT_RELU, false, stream);
        run(CONV, type, (ConvShape){2, 5, 7, 40, 8, 3, 3, 2, 1, 1, 1, 1}, ACT_RELU, true, stream);
        run(CONV, type, (ConvShape){2, 5, 4, 32, 9, 3, 3, 1, 1, 1, 1, 1}, ACT_NONE, false, stream);
        run(CONV, type, (ConvShape){2, 6, 5, 3, 9, 3, 3, 1, 1, 1, 1, 1}, ACT_SILU, true, stream);
        run(LINEAR, type, (ConvShape){1, 1, 70, 72, 40, 1, 1, 1, 0, 0, 0, 0}, ACT_RELU, true,
            stream);
        run(UPSAMPLED, type, (ConvShape){2, 5, 7, 16, 24, 3, 3, 1, 1, 1, 1, 1}, ACT_NONE, false,
            stream);
        run(UPSAMPLED, type, (ConvShape){2, 3, 4, 72, 8, 3, 3, 1, 1, 1, 1, 1}, ACT_RELU, true,
            stream);
        run(UPSAMPLED, type, (ConvShape){1, 4, 3, 3, 5, 3, 3, 1, 1, 1, 1, 1}, ACT_SILU, false,
            stream);
    }
    cuda_stream_free(stream);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
