/* lib_cublaslt.cu - linear layers and 1x1 convolutions by cuBLASLt.
 *
 * It counts columns first: our row-major [rows, c] is its c x rows with leading dimension c.
 * Letters as in product.h, D = op(A) . op(B):
 *
 *   FWD  y^T  = w . x^T      k x rows, A = w^T (c x k, transposed), B = x  (c x rows)
 *   DX   dx^T = w^T . dy^T   c x rows, A = w   (c x k),             B = dy (k x rows)
 *   DW   dw^T = x^T . dy     c x k,    A = x   (c x rows),          B = dy (k x rows, transposed)
 *
 * and FWD + r, a residual, as C with beta 1. Sums are fp32. Its bias has the type of its result,
 * ours is fp32: so there is one with fp32 only. It adds C before an activation, we after: none.
 * Splits of the inner sum are summed in fp32 by a kernel of their own, in order.
 */
#include "base/library.h"
#include "device.cuh"
#include "product.h"
#include <cstdio>
#include <cstdlib>
#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

/* clang-format off */
#define FUNCTIONS(X) \
    X(cublasLtCreate) X(cublasLtDestroy) X(cublasLtGetVersion) X(cublasLtGetStatusName) \
    X(cublasLtMatmul) X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmulDescCreate) \
    X(cublasLtMatmulDescDestroy) X(cublasLtMatmulDescSetAttribute) X(cublasLtMatrixLayoutCreate) \
    X(cublasLtMatrixLayoutDestroy) X(cublasLtMatmulPreferenceCreate) \
    X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatmulPreferenceSetAttribute)
/* clang-format on */

#define MEMBER(f) decltype(&::f) f;
static struct { FUNCTIONS(MEMBER) } lt;

static Status need(void)
{
#define NAME(f) #f,
    static const char *const names[] = {FUNCTIONS(NAME)};
    static const char *const files[] = {
#if CUDART_VERSION >= 13000
        "libcublasLt.so.13",
        "libcublasLt.so.12",
#else
        "libcublasLt.so.12",
        "libcublasLt.so.13",
#endif
        NULL
    };
    static SharedLibrary loaded;
    return library_need(&loaded, (void **)&lt, names, sizeof names / sizeof *names, files,
                        "no cuBLASLt");
}

static Status said(cublasStatus_t s, const char *doing)
{
    if (s == CUBLAS_STATUS_SUCCESS) return OK;
    return FAIL(s == CUBLAS_STATUS_ALLOC_FAILED ? ERR_SPACE : ERR_DEVICE, "cuBLASLt %s: %s", doing,
                lt.cublasLtGetStatusName(s));
}

static Status version(size_t *number)
{
    TRY(need());
    *number = lt.cublasLtGetVersion();
    return OK;
}

static Status open(void **context, void *)
{
    *context = NULL;
    TRY(need());
    return said(lt.cublasLtCreate((cublasLtHandle_t *)context), "start");
}

static void close(void *context)
{
    if (context) lt.cublasLtDestroy((cublasLtHandle_t)context);
}

/* ---- plans -------------------------------------------------------------------------------- */

struct LtPlan {
    cublasLtMatmulDesc_t product; /* owned, as all of them */
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
};

static void forget(void *plan)
{
    LtPlan *m = (LtPlan *)plan;
    if (!m) return;
    if (m->product) lt.cublasLtMatmulDescDestroy(m->product);
    if (m->a) lt.cublasLtMatrixLayoutDestroy(m->a);
    if (m->b) lt.cublasLtMatrixLayoutDestroy(m->b);
    if (m->d) lt.cublasLtMatrixLayoutDestroy(m->d);
    free(m);
}

static Status set(LtPlan *m, cublasLtMatmulDescAttributes_t what, const void *value, size_t bytes)
{
    return said(lt.cublasLtMatmulDescSetAttribute(m->product, what, value, bytes), "plan");
}

static Status describe(LtPlan *m, const Product *p)
{
    const ConvShape *s = &p->shape;
    uint64_t rows = product_rows(s), c = (uint64_t)s->c, k = (uint64_t)s->k;
    bool fwd = p->pass == GEMM_FWD, dw = p->pass == GEMM_DW;
    cudaDataType_t in = p->type == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F,
                   out = dw ? CUDA_R_32F : in;
    cublasOperation_t turned = CUBLAS_OP_T;
    uint64_t left = fwd ? k : c;
    TRY(said(lt.cublasLtMatmulDescCreate(&m->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "plan"));
    if (fwd) TRY(set(m, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned));
    if (dw) TRY(set(m, CUBLASLT_MATMUL_DESC_TRANSB, &turned, sizeof turned));
    if (p->bias) {
        uint32_t bias = CUBLASLT_EPILOGUE_BIAS;
        const void *any = (const void *)16; /* as aligned as a bias is */
        TRY(set(m, CUBLASLT_MATMUL_DESC_EPILOGUE, &bias, sizeof bias));
        TRY(set(m, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &any, sizeof any));
    }
    TRY(said(lt.cublasLtMatrixLayoutCreate(&m->a, in, c, dw ? rows : k, (int64_t)c), "plan"));
    TRY(said(lt.cublasLtMatrixLayoutCreate(&m->b, in, fwd ? c : k, rows, (int64_t)(fwd ? c : k)),
             "plan"));
    return said(lt.cublasLtMatrixLayoutCreate(&m->d, out, left, dw ? k : rows, (int64_t)left),
                "plan");
}

/* Sums that are split are kept in fp32; pointers are aligned to 16 bytes, as the border says. */
static Status limit(cublasLtMatmulPreference_t preference)
{
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    uint64_t room = MOST_WORKSPACE;
    uint32_t splits = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, bytes = 16;
    TRY(said(lt.cublasLtMatmulPreferenceSetAttribute(
                 preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room),
             "plan"));
    TRY(said(lt.cublasLtMatmulPreferenceSetAttribute(
                 preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &splits, sizeof splits),
             "plan"));
    for (cublasLtMatmulPreferenceAttributes_t which : aligned)
        TRY(said(lt.cublasLtMatmulPreferenceSetAttribute(preference, which, &bytes, sizeof bytes),
                 "plan"));
    return OK;
}

enum { MOST = 3 };

static Status choose(LtPlan *m, size_t *workspace, int which, void *context,
                     cublasLtMatmulPreference_t preference)
{
    cublasLtMatmulHeuristicResult_t found[MOST];
    int n = 0;
    TRY(limit(preference));
    TRY(said(lt.cublasLtMatmulAlgoGetHeuristic((cublasLtHandle_t)context, m->product, m->a, m->b,
                                               m->d, m->d, preference, MOST, found, &n),
             "plan"));
    if (which >= n || found[which].state != CUBLAS_STATUS_SUCCESS)
        return FAIL(ERR_DEVICE, "cuBLASLt: has %d plans for this shape", n);
    m->algo = found[which].algo;
    *workspace = found[which].workspaceSize;
    return OK;
}

static Status plan(void **out, size_t *workspace, const Product *p, int which, void *context)
{
    cublasLtMatmulPreference_t preference = NULL;
    Status s;
    *out = NULL;
    if (!product_is_matrix(&p->shape)) return FAIL(ERR_BUG, "cuBLASLt: no convolutions");
    if (p->bias && p->type != DTYPE_F32) return FAIL(ERR_BUG, "cuBLASLt: no fp32 bias with bf16");
    if (p->after.v || p->after.act)
        return FAIL(ERR_BUG, "cuBLASLt: no activation, nor a vector for all rows");
    if (which >= MOST) return FAIL(ERR_DEVICE, "cuBLASLt: plans are numbered to %d", MOST - 1);
    LtPlan *m = (LtPlan *)calloc(1, sizeof *m);
    if (!m) return FAIL(ERR_SPACE, "no memory for a plan");
    s = describe(m, p);
    if (!s) s = said(lt.cublasLtMatmulPreferenceCreate(&preference), "plan");
    if (!s) s = choose(m, workspace, which, context, preference);
    if (preference) lt.cublasLtMatmulPreferenceDestroy(preference);
    if (s) forget(m);
    else *out = m;
    return s;
}

static Status run(void *plan, size_t workspace_bytes, const Product *p, void *workspace,
                  void *context, void *stream)
{
    LtPlan *m = (LtPlan *)plan;
    const float one = 1, beta = p->after.r ? 1 : 0;
    const void *added = p->after.r ? p->after.r : p->out;
    if (p->bias) TRY(set(m, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias));
    return said(lt.cublasLtMatmul((cublasLtHandle_t)context, m->product, &one, p->b, m->a, p->a,
                                  m->b, &beta, added, m->d, p->out, m->d, &m->algo, workspace,
                                  workspace_bytes, (cudaStream_t)stream),
                "product");
}

#else
#define ABSENT "no cuBLASLt: this program was built without its headers"
#include "library_absent.h"
#endif

const Library library_cublaslt = {"cublaslt", "cuBLASLt", MOST,  plan,   run,
                                  forget,     open,       close, version};
