/* cublaslt.c - a libcublasLt.so for tests. Layouts, leading dimensions, epilogues and attributes
 * are read as cublasLt.h defines them; what the real library would refuse is refused. It offers two
 * plans for each product: the second wants workspace, and writes all of it. */
#include "fake.h"
#include <cublasLt.h>

typedef struct {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    int32_t turned_a, turned_b;
    uint32_t epilogue;
    const void *bias;
} Desc;
typedef struct {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
} Layout;
typedef struct {
    uint64_t workspace;
    uint32_t reduction, alignment[4];
} Preference;

enum { MAGIC = 0x6c74, WORKSPACE = 4096 };
static int calls;

EXPORTED int fake_cublaslt_calls(void) { return calls; }

EXPORTED size_t cublasLtGetVersion(void) { return 130100; }
EXPORTED const char *cublasLtGetStatusName(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_SUCCESS         ? "CUBLAS_STATUS_SUCCESS"
           : s == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
           : s == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
                                              : "CUBLAS_STATUS_EXECUTION_FAILED";
}

EXPORTED cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    if (fake_fails("cublasLtCreate")) return CUBLAS_STATUS_NOT_INITIALIZED;
    *h = malloc(1);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
    free(h);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- descriptors ---- */

EXPORTED cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d,
                                                 cublasComputeType_t compute, cudaDataType_t scale)
{
    Desc *r = calloc(1, sizeof *r);
    *r = (Desc){compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, NULL};
    *d = (cublasLtMatmulDesc_t)r;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    free(d);
    return CUBLAS_STATUS_SUCCESS;
}
static cublasStatus_t take(void *to, size_t size, const void *value, size_t bytes)
{
    if (bytes != size || !value) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                                       cublasLtMatmulDescAttributes_t what,
                                                       const void *value, size_t bytes)
{
    Desc *d = (Desc *)desc;
    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return take(&d->turned_a, 4, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return take(&d->turned_b, 4, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return take(&d->epilogue, 4, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return take(&d->bias, sizeof(void *), value, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

EXPORTED cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType type,
                                                   uint64_t rows, uint64_t cols, int64_t ld)
{
    Layout *r = calloc(1, sizeof *r);
    *r = (Layout){type, rows, cols, ld};
    *l = (cublasLtMatrixLayout_t)r;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    free(l);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
    Preference *r = calloc(1, sizeof *r);
    *r = (Preference){0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
    *p = (cublasLtMatmulPreference_t)r;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    free(p);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t what,
    const void *value, size_t bytes)
{
    Preference *p = (Preference *)preference;
    switch (what) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return take(&p->workspace, 8, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return take(&p->reduction, 4, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return take(&p->alignment[what - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], 4, value,
                    bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

/* ---- products ---- */

typedef struct {
    Desc d;
    Layout a, b, out; /* C is laid out as `out` */
    uint64_t m, n, k;
} Problem;

static bool layout_is_right(const Layout *l)
{
    return (l->type == CUDA_R_32F || l->type == CUDA_R_16BF) && l->ld >= (int64_t)l->rows;
}

static cublasStatus_t read_problem(Problem *p, const Desc *d, const Layout *a, const Layout *b,
                                   const Layout *c, const Layout *out)
{
    *p = (Problem){*d, *a, *b, *out, out->rows, out->cols, d->turned_a ? a->rows : a->cols};
    bool shapes = (d->turned_a ? a->cols : a->rows) == p->m &&
                  (d->turned_b ? b->cols : b->rows) == p->k &&
                  (d->turned_b ? b->rows : b->cols) == p->n && c->rows == p->m && c->cols == p->n;
    bool layouts = layout_is_right(a) && layout_is_right(b) && layout_is_right(c) &&
                   layout_is_right(out) && c->ld == out->ld;
    if (!shapes || !layouts) return CUBLAS_STATUS_INVALID_VALUE;
    bool types = a->type == b->type && c->type == out->type &&
                 (a->type == CUDA_R_16BF || out->type == CUDA_R_32F) &&
                 d->compute == CUBLAS_COMPUTE_32F && d->scale == CUDA_R_32F;
    bool plain = d->epilogue == CUBLASLT_EPILOGUE_DEFAULT;
    /* A bias has the type of D; this fake knows fp32 ones. */
    bool bias = d->epilogue == CUBLASLT_EPILOGUE_BIAS && d->bias && out->type == CUDA_R_32F;
    return types && (plain || bias) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

EXPORTED cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
    cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out, cublasLtMatmulPreference_t preference,
    int wanted, cublasLtMatmulHeuristicResult_t *found, int *n)
{
    const Preference *limit = (const Preference *)preference;
    Problem p;
    *n = 0;
    if (fake_fails("cublasLtMatmulAlgoGetHeuristic") || !h) return CUBLAS_STATUS_NOT_SUPPORTED;
    cublasStatus_t s = read_problem(&p, (const Desc *)d, (const Layout *)a, (const Layout *)b,
                                    (const Layout *)c, (const Layout *)out);
    if (s) return s;
    for (int i = 0; i < 4; i++)
        if (limit->alignment[i] > 16) return CUBLAS_STATUS_NOT_SUPPORTED; /* we promise no more */
    if (limit->reduction & ~(uint32_t)CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
        return CUBLAS_STATUS_NOT_SUPPORTED; /* sums in other types than fp32 */
    for (int i = 0; i < wanted && i < 3; i++) {
        cublasLtMatmulHeuristicResult_t *r = &found[(*n)++];
        memset(r, 0, sizeof *r);
        r->state = i < 2 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
        r->workspaceSize = i == 1 ? WORKSPACE : 0;
        if (r->workspaceSize > limit->workspace) r->state = CUBLAS_STATUS_NOT_SUPPORTED;
        uint64_t algo[] = {MAGIC, r->workspaceSize, p.m, p.n, p.k};
        memcpy(&r->algo, algo, sizeof algo);
    }
    return CUBLAS_STATUS_SUCCESS;
}

typedef struct {
    Problem p;
    const void *a, *b, *added; /* added: C, or NULL */
    void *out, *workspace;
    uint64_t workspace_bytes;
} Job;

static size_t place(const Layout *l, bool turned, uint64_t row, uint64_t col)
{
    return (size_t)(turned ? row * (uint64_t)l->ld + col : col * (uint64_t)l->ld + row);
}

static void work(void *data)
{
    const Job *j = data;
    const Problem *p = &j->p;
    bool half = p->a.type == CUDA_R_16BF, half_out = p->out.type == CUDA_R_16BF;
    memset(j->workspace, 0xab, (size_t)j->workspace_bytes);
    for (uint64_t col = 0; col < p->n; col++)
        for (uint64_t row = 0; row < p->m; row++) {
            double sum = 0;
            for (uint64_t i = 0; i < p->k; i++)
                sum += fake_load(j->a, half, place(&p->a, p->d.turned_a, row, i)) *
                       fake_load(j->b, half, place(&p->b, p->d.turned_b, i, col));
            if (j->added) sum += fake_load(j->added, half_out, place(&p->out, false, row, col));
            if (p->d.epilogue == CUBLASLT_EPILOGUE_BIAS) sum += fake_load(p->d.bias, false, row);
            fake_store(j->out, half_out, place(&p->out, false, row, col), sum * fake_scale());
        }
}

static bool in_memory(const void *p, const Layout *l)
{
    size_t n = (size_t)(l->cols - 1) * (size_t)l->ld + (size_t)l->rows;
    return fake_aligned(p, 16) && hostcuda_contains(p, n * (l->type == CUDA_R_16BF ? 2 : 4));
}

#ifndef WITHOUT_MATMUL
EXPORTED cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d,
                                       const void *alpha, const void *a, cublasLtMatrixLayout_t la,
                                       const void *b, cublasLtMatrixLayout_t lb, const void *beta,
                                       const void *c, cublasLtMatrixLayout_t lc, void *out,
                                       cublasLtMatrixLayout_t lout,
                                       const cublasLtMatmulAlgo_t *algo, void *workspace,
                                       size_t workspace_bytes, cudaStream_t stream)
{
    Job *j = malloc(sizeof *j); /* a recording may run it at any time */
    uint64_t chosen[5];
    if (fake_fails("cublasLtMatmul") || !h) return CUBLAS_STATUS_EXECUTION_FAILED;
    cublasStatus_t s = read_problem(&j->p, (const Desc *)d, (const Layout *)la, (const Layout *)lb,
                                    (const Layout *)lc, (const Layout *)lout);
    if (s) return s;
    memcpy(chosen, algo, sizeof chosen);
    const uint64_t fits[] = {MAGIC, chosen[1], j->p.m, j->p.n, j->p.k};
    bool bias = j->p.d.epilogue == CUBLASLT_EPILOGUE_BIAS, adds = *(const float *)beta != 0;
    if (memcmp(chosen, fits, sizeof fits) || workspace_bytes < chosen[1] ||
        *(const float *)alpha != 1 || (adds ? *(const float *)beta != 1 : c != out) ||
        !in_memory(a, &j->p.a) || !in_memory(b, &j->p.b) || !in_memory(out, &j->p.out) ||
        !in_memory(c, &j->p.out) ||
        (chosen[1] && !hostcuda_contains(workspace, chosen[1])) ||
        (bias && !hostcuda_contains(j->p.d.bias, j->p.m * 4)))
        return CUBLAS_STATUS_INVALID_VALUE;
    j->a = a, j->b = b, j->added = adds ? c : NULL,
    j->out = out, j->workspace = workspace, j->workspace_bytes = chosen[1];
    calls++;
    return cudaLaunchHostFunc(stream, work, j) ? CUBLAS_STATUS_EXECUTION_FAILED
                                               : CUBLAS_STATUS_SUCCESS;
}
#endif
