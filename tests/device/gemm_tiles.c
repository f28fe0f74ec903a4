/* gemm_tiles.c - every tile of the tensor-core products, in each pass, whether or not small shapes
 * would choose it: several tiles with tails in all directions, splits, strides, thin channels.
 *
 * In fp32 the cuts that are predicted where one side is thin, and one of them run.
 *
 * Values are small whole numbers, so that all sums are exact and the result has one right value.
 *
 *   test_gemm_tiles [SEED]
 */
#include "../../kernels/cuda/gemm_plan.h"
#include "arrays.h"
#include "hostcuda/hostcuda.h"
#include <stdio.h>
#include <time.h>

static uint32_t seed;
static int failed, passed;

/* out += a . b with all products that the convolution sums. */
static void products(float *out, GemmPass pass, const float *a, const float *b, const ConvShape *s)
{
    int p = conv_out(s->h, s->top, s->bottom, s->r, s->stride);
    int q = conv_out(s->w, s->left, s->right, s->s, s->stride);
    for (int y = 0; y < s->n * p * q; y++)
        for (int t = 0; t < s->r * s->s; t++) {
            int h = y / q % p * s->stride + t / s->s - s->top;
            int w = y % q * s->stride + t % s->s - s->left, x = (y / (p * q) * s->h + h) * s->w + w;
            if (h < 0 || h >= s->h || w < 0 || w >= s->w) continue;
            for (int k = 0; k < s->k; k++)
                for (int c = 0; c < s->c; c++) {
                    size_t at_x = (size_t)x * (size_t)s->c + (size_t)c;
                    size_t at_y = (size_t)y * (size_t)s->k + (size_t)k;
                    size_t at_w = (size_t)(k * s->r * s->s + t) * (size_t)s->c + (size_t)c;
                    if (pass == GEMM_FWD) out[at_y] += a[at_x] * b[at_w];
                    if (pass == GEMM_DX) out[at_x] += a[at_y] * b[at_w];
                    if (pass == GEMM_DW) out[at_w] += a[at_y] * b[at_x];
                }
        }
}

static bool check(GemmPass pass, const ConvShape *s, const GemmPlan *plan, Dtype type,
                  Stream *stream)
{
    size_t p = (size_t)conv_out(s->h, s->top, s->bottom, s->r, s->stride);
    size_t q = (size_t)conv_out(s->w, s->left, s->right, s->s, s->stride);
    size_t x = (size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c;
    size_t y = (size_t)s->n * p * q * (size_t)s->k, w = (size_t)(s->k * s->r * s->s * s->c);
    size_t count = pass == GEMM_FWD ? y : pass == GEMM_DX ? x : w;
    Array a = array_whole(pass == GEMM_FWD ? x : y, type, 2, seed, 1);
    Array b = array_whole(pass == GEMM_DW ? x : w, type, 1, seed, 2);
    Array bias = array_whole((size_t)s->k, DTYPE_F32, 3, seed, 3);
    Array out = array_empty(count, pass == GEMM_DW ? DTYPE_F32 : type);
    Array want = array_whole(count, out.type, 0, seed, 4); /* zeros */
    bool ok = true;

    for (size_t i = 0; i < count && pass == GEMM_FWD; i++)
        want.value[i] = bias.value[i % (size_t)s->k];
    products(want.value, pass, a.value, b.value, s);
    array_store(&want); /* the exact answer, rounded once */
    Status st = gemm_conv(pass, out.device, a.device, b.device,
                          pass == GEMM_FWD ? bias.device : NULL, NULL, s, plan, type, stream);
    if (st || cudaStreamSynchronize(cuda_stream_handle(stream))) {
        printf("%s %s\n", status_message(), cudaGetErrorString(cudaGetLastError()));
        ok = false;
    }
    array_load(&out);
    for (size_t i = 0; i < count && ok; i++)
        if (!(out.value[i] == want.value[i])) {
            printf("element %zu is %g, expected %g\n", i, out.value[i], want.value[i]);
            ok = false;
        }
    array_free(&a);
    array_free(&b);
    array_free(&bias);
    array_free(&out);
    array_free(&want);
    return ok;
}

static void run(GemmPass pass, ConvShape s, GemmPlan plan, Stream *stream)
{
    bool ok = check(pass, &s, &plan, DTYPE_BF16, stream);
    if (!ok)
        printf("FAILED pass %d, tile %d, %d splits: n %d h %d w %d c %d k %d r %d s %d stride %d, "
               "padding %d %d %d %d\n",
               pass, plan.tile, plan.splits, s.n, s.h, s.w, s.c, s.k, s.r, s.s, s.stride, s.top,
               s.left, s.bottom, s.right);
    failed += !ok;
    passed += ok;
}

/* Gradients fill the GPU whatever the tile; forward sums are cut less (gemm_host.cu). */
static void thin_fp32(Stream *stream)
{
    static const int splits[] = {4, 16, 22};
    const ConvShape small = {1, 20, 20, 40, 8, 3, 3, 1, 1, 1, 1, 1};
    for (GemmPass pass = GEMM_FWD; pass <= GEMM_DW; pass++) {
        int c = pass == GEMM_DX ? 4 : 320, k = pass == GEMM_DX ? 320 : 4, n;
        ConvShape s = {1, 64, 64, c, k, 3, 3, 1, 1, 1, 1, 1};
        GemmPlan best[MOST_PLANS];
        bool ok = !gemm_plans(&n, pass, &s, 0, false, DTYPE_F32, best) &&
                  best[0].splits == splits[pass];
        if (!ok) printf("FAILED pass %d of fp32: %d splits\n", pass, best[0].splits);
        failed += !ok;
        passed += ok;
    }
    bool ok = check(GEMM_DW, &small, NULL, DTYPE_F32, stream);
    if (!ok) printf("FAILED gradient of weights in fp32\n");
    failed += !ok;
    passed += ok;
}

int main(int argc, char **argv)
{
    static const struct { int m, n; } size[] = {
#define SIZE(m, n, wm, wn, stages, blocks, rate) {m, n},
        GEMM_TILES(SIZE)
#undef SIZE
    };
    Stream *stream;
    seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("seed %u (give it as an argument to repeat)\n", seed);
    if (cuda_stream_new(&stream)) abort();
    hostcuda_set_stats(1);
    for (GemmPass pass = GEMM_FWD; pass <= GEMM_DW; pass++)
        for (GemmTile tile = 0; tile < TILE_COUNT; tile++) {
            int m = size[tile].m, n = size[tile].n;
            if (gemm_has_tile(pass, tile, false)) {
                /* More rows, columns and slices than one tile's, by a little. */
                int c = pass == GEMM_DX ? n + 8 : pass == GEMM_DW ? n / 8 + 8 : 24;
                int k = pass == GEMM_FWD ? n + 8 : pass == GEMM_DW ? m + 8 : 24;
                int w = pass == GEMM_DW ? 9 : m / 9 + 1;
                run(pass, (ConvShape){1, 9, w, c, k, 3, 3, 1, 1, 1, 1, 1}, (GemmPlan){tile, 1},
                    stream);
                run(pass, (ConvShape){2, 7, w + 1, c, k, 3, 2, 2, 0, 1, 1, 0}, (GemmPlan){tile, 3},
                    stream);
            }
            if (gemm_has_tile(pass, tile, true)) {
                run(pass, (ConvShape){2, 7, 13, 3, 9, 3, 3, 2, 0, 0, 1, 1}, (GemmPlan){tile, 1},
                    stream);
                run(pass, (ConvShape){1, 6, 13, 8, 4, 1, 7, 1, 0, 3, 0, 3}, (GemmPlan){tile, 2},
                    stream);
                run(pass, (ConvShape){1, 5, 15, 4, 72, 3, 3, 1, 1, 1, 1, 1}, (GemmPlan){tile, 1},
                    stream);
            }
        }
    thin_fp32(stream);
    HostcudaStats s = hostcuda_ratio(HOSTCUDA_LDMATRIX);
    if (!(s.ratio == 1)) { /* a permutation of chunks that lets banks collide */
        printf("FAILED ldmatrix: %.2f wavefronts for one\n", s.ratio);
        failed++;
    }
    cuda_stream_free(stream);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
