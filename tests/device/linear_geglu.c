/* linear_geglu.c - linear layers that gate their own result: every forward tile of the tensor-core
 * products with and without splits, rows and columns with tails, thin and aligned; fp32; and what
 * the launcher chooses. Against the plain formulas in double.
 *
 *   test_linear_geglu [SEED]
 */
#include "../../kernels/cuda/gemm_plan.h"
#include "arrays.h"
#include <math.h>
#include <stdio.h>
#include <time.h>

enum { GUARD = 64 }; /* values behind the result, which stay NaN */

static uint32_t seed;
static int failed, passed;

/* plan NULL: the launcher's own. k: columns of the layer, twice those of the result. */
static void run(int rows, int c, int k, bool bias, const GemmPlan *plan, Dtype type, Stream *stream)
{
    size_t d = (size_t)k / 2, count = (size_t)rows * d;
    ConvShape s = {1, 1, rows, c, k, 1, 1, 1, 0, 0, 0, 0};
    Array x = array_normal((size_t)(rows * c), type, seed, 1);
    Array w = array_normal((size_t)(k * c), type, seed, 2);
    Array b = array_normal((size_t)k, DTYPE_F32, seed, 3);
    Array y = array_empty(count + GUARD, type);
    float *own = bias ? b.device : NULL;
    Status st = plan ? gemm_geglu(y.device, x.device, w.device, own, &s, plan, type, stream)
                     : cuda_linear_geglu_fwd(y.device, x.device, w.device, own, (size_t)rows, c, k,
                                             type, stream);
    bool ok = !st && !cudaStreamSynchronize(cuda_stream_handle(stream));
    if (!ok) printf("%s %s\n", status_message(), cudaGetErrorString(cudaGetLastError()));
    array_load(&y);
    double sum_error = 8 * 0x1p-24 * (1 + sqrt(c)) * 4 * sqrt(c); /* of value and gate */
    for (size_t i = 0; i < count && ok; i++) {
        double half[2];
        for (size_t h = 0; h < 2; h++) {
            size_t column = i % d + h * d;
            half[h] = bias ? (double)b.value[column] : 0;
            for (int e = 0; e < c; e++)
                half[h] += (double)x.value[i / d * (size_t)c + (size_t)e] *
                           (double)w.value[column * (size_t)c + (size_t)e];
        }
        double below = 0.5 * erfc(-half[1] / sqrt(2)), want = half[0] * half[1] * below;
        /* |gelu| <= |gate|, |gelu'| <= 1.13; normcdff and two products round to a few 2^-24 */
        double bound =
            sum_error * (fabs(half[1]) + 1.13 * fabs(half[0])) + 8 * 0x1p-24 * fabs(want);
        if (type == DTYPE_BF16) bound += 0x1p-8 * fabs(want);
        if (!(fabs((double)y.value[i] - want) <= bound)) {
            printf("element %zu is %.9g, expected %.9g\n", i, (double)y.value[i], want);
            ok = false;
        }
    }
    for (size_t i = count; i < count + GUARD && ok; i++) {
        ok = isnan(y.value[i]);
        if (!ok) printf("element %zu behind the end was written\n", i - count);
    }
    if (!ok)
        printf("FAILED %s: %d rows, %d to %d columns, bias %d, tile %d, %d splits\n",
               type == DTYPE_BF16 ? "bf16" : "fp32", rows, c, k, bias, plan ? (int)plan->tile : -1,
               plan ? plan->splits : 0);
    failed += !ok;
    passed += ok;
    Array *all[] = {&x, &w, &b, &y};
    for (int i = 0; i < 4; i++) array_free(all[i]);
}

int main(int argc, char **argv)
{
    static const struct {
        int m, n;
    } size[] = {
#define SIZE(m, n, wm, wn, stages, blocks, rate) {m, n},
        GEMM_TILES(SIZE)
#undef SIZE
    };
    Stream *stream;
    seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("seed %u (give it as an argument to repeat)\n", seed);
    if (cuda_stream_new(&stream)) abort();
    for (GemmTile tile = 0; tile < TILE_COUNT; tile++) {
        int m = size[tile].m, n = size[tile].n;
        if (gemm_has_tile(GEMM_FWD, tile, false)) {
            run(m + 3, 40, n + 16, true, &(GemmPlan){tile, 1}, DTYPE_BF16, stream);
            run(m / 2, 72, n + 10, false, &(GemmPlan){tile, 1}, DTYPE_BF16, stream);
            run(m + 1, 104, n + 6, true, &(GemmPlan){tile, 3}, DTYPE_BF16, stream);
        }
        if (gemm_has_tile(GEMM_FWD, tile, true)) {
            run(m + 5, 37, n + 14, true, &(GemmPlan){tile, 1}, DTYPE_BF16, stream);
            run(m - 7, 43, n + 8, true, &(GemmPlan){tile, 2}, DTYPE_BF16, stream);
        }
    }
    for (Dtype type = DTYPE_F32; type <= DTYPE_BF16; type++) {
        run(70, 40, 336, true, NULL, type, stream);
        run(9, 520, 56, true, NULL, type, stream);
        run(33, 21, 2, false, NULL, type, stream);
        run(5, 24, 6, true, NULL, type, stream);
    }
    run(19, 50, 74, true, &(GemmPlan){TILE_64x64, 3}, DTYPE_F32, stream);
    ConvShape odd = {1, 1, 8, 8, 7, 1, 1, 1, 0, 0, 0, 0};
    bool refused = gemm_geglu(NULL, NULL, NULL, NULL, &odd, NULL, DTYPE_F32, stream) == ERR_BUG;
    if (!refused) printf("FAILED 7 columns are not refused\n");
    failed += !refused;
    passed += refused;
    cuda_stream_free(stream);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
