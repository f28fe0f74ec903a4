/* cudnn_plans.c - does the real cuDNN take our graphs of operations? It makes plans, kernels
 * compiled, for GPUs that are described and not there; the driver is tests/cuda/fake/driver.c.
 * Nothing is run.
 *
 *   cudnn_plans        a few; 77 where this machine has no cuDNN
 *   cudnn_plans all    every convolution and linear layer of `equipoise bench kernels`: slow
 */
#include "../../kernels/cuda/product.h"
#include "app/bench.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

#define GPU(version, sm, shared, l2, name)                                                         \
    "{\"deviceVer\":" #version ",\"driverVer\":13000,\"cudaDeviceId\":0,"                          \
    "\"totalGlobalMem\":80000000000,\"maxGridSize\":[2147483647,65535,65535],"                     \
    "\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,\"multiProcessorCount\":" #sm ","      \
    "\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":" #shared  \
    ",\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,"      \
    "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,"    \
    "\"supportCoopLaunch\":1,\"smClockRateKHz\":1410000,\"memClockRateKHz\":1512000,"              \
    "\"l2CacheSize\":" #l2 ",\"deviceName\":\"" name "\"}"
static const char *const gpu[] = {GPU(800, 108, 166912, 41943040, "NVIDIA A100-SXM4-80GB"),
                                  GPU(900, 132, 232448, 62914560, "NVIDIA H200")};
static int made, refused;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* after: of each that is to follow a letter, v, s (SiLU), u (ReLU), r. */
static bool try_plan(void *context, GemmPass pass, Dtype type, bool bias, const ConvShape *s,
                     const char *after)
{
    static const char *const name[] = {"fwd", "dx", "dw"};
    static const float some;
    Product p = {.pass = pass, .bias = bias ? &some : NULL, .shape = *s, .type = type};
    p.after = (ConvAfter){strchr(after, 'v') ? &some : NULL, strchr(after, 'r') ? &some : NULL,
                          strchr(after, 's')   ? ACT_SILU
                          : strchr(after, 'u') ? ACT_RELU
                                               : ACT_NONE};
    void *plan;
    size_t workspace;
    double start = now_ms();
    Status st = library_cudnn.plan(&plan, &workspace, &p, 0, context);
    printf("%s %s%s %dx%dx%dx%d-%d %dx%d/%d %s: ", name[pass], type == DTYPE_BF16 ? "bf16" : "fp32",
           bias ? " bias" : "", s->n, s->h, s->w, s->c, s->k, s->r, s->s, s->stride, after);
    if (st) printf("no plan: %s\n", status_message());
    else printf("plan in %.0f ms, %zu bytes of workspace\n", now_ms() - start, workspace);
    fflush(stdout);
    made += !st;
    refused += st != OK;
    if (!st) library_cudnn.forget(plan);
    return !st;
}

static int all(void *context)
{
    for (int i = 0; i < bench_shape_count; i++) {
        const BenchShape *b = &bench_shape[i];
        ConvShape s = {8, b->h, b->w, b->c, b->k, b->r, b->s, b->stride, 0, 0, 0, 0};
        if (b->op == BENCH_LINEAR) s = (ConvShape){1, 1, 8 * b->h, b->c, b->k, 1, 1, 1, 0, 0, 0, 0};
        else if (b->op != BENCH_CONV) continue;
        if (b->op == BENCH_CONV && !b->valid)
            s.top = s.bottom = b->r / 2, s.left = s.right = b->s / 2;
        for (Dtype type = DTYPE_F32; type <= DTYPE_BF16; type++)
            for (GemmPass pass = GEMM_FWD; pass <= GEMM_DW; pass++)
                try_plan(context, pass, type, pass == GEMM_FWD, &s, "");
    }
    printf("%d plans, %d not\n", made, refused);
    return 0;
}

int main(int argc, char **argv)
{
    static const ConvShape plain = {4, 32, 32, 64, 64, 3, 3, 1, 1, 1, 1, 1},
                           down = {4, 32, 32, 64, 128, 3, 3, 2, 0, 0, 1, 1},
                           rows = {1, 1, 4096, 320, 320, 1, 1, 1, 0, 0, 0, 0};
    size_t v;
    bool good = true;
    if (library_cudnn.version(&v)) {
        printf("not run: %s\n", status_message());
        return 77;
    }
    printf("cuDNN %zu\n", v);
    for (int i = 1; i >= 0; i--) {
        void *context;
        if (cudnn_open_described(&context, gpu[i])) {
            printf("FAILED: %s\n", status_message());
            return 1;
        }
        printf("%s\n", i ? "H200" : "A100");
        if (argc > 1 && !strcmp(argv[1], "all")) {
            all(context);
            continue;
        }
        good &= try_plan(context, GEMM_FWD, DTYPE_BF16, true, &plain, "");
        good &= try_plan(context, GEMM_DX, DTYPE_BF16, false, &plain, "");
        good &= try_plan(context, GEMM_DW, DTYPE_BF16, false, &plain, "");
        good &= try_plan(context, GEMM_FWD, DTYPE_BF16, true, &down, "");
        good &= try_plan(context, GEMM_FWD, DTYPE_BF16, true, &rows, "");
        good &= try_plan(context, GEMM_FWD, DTYPE_F32, true, &plain, "");
        good &= try_plan(context, GEMM_DW, DTYPE_F32, false, &plain, "");
        for (int k = 0; k < 6; k++)
            good &= try_plan(context, GEMM_FWD, DTYPE_BF16, true, k < 5 ? &plain : &rows,
                             (const char *[]){"v", "s", "u", "r", "vsr", "r"}[k]);
        library_cudnn.close(context);
    }
    return !good;
}
