/* test_library_cases.c - cases of convolutions and linear layers, alone and with what is fused behind
 * them, computed by cuBLASLt and cuDNN wherever these take them, against the twins.
 */
#include "cuda/library_tests.h"
#include "ref/ref.h"

extern const RefFamily ref_matrix, ref_after;

/* Runs the cases whose names begin so, in fp32 and bf16, by a library. Returns in how many of *n it
 * computed something. */
static int cases_by(const char *library, const RefFamily *family, const char *name, int *n)
{
    int (*count)(void) = strcmp(library, "cudnn") ? cublaslt_calls : cudnn_calls;
    bool *seen = calloc((size_t)op_table_count, sizeof *seen);
    int by_library = 0;
    setenv("EQ_KERNELS", library, 1);
    *n = 0;
    for (int i = 0; i < family->n_case; i++) {
        const OpCase *c = &family->cases[i];
        if (strncmp(c->name, name, strlen(name))) continue;
        for (Dtype act = DTYPE_F32; act <= DTYPE_BF16; act++, ++*n) {
            int before = count();
            NEED(!ref_check(c, "cuda", act, 1, seen));
            by_library += count() > before;
        }
    }
    free(seen);
    NEED(*n > 0);
    return by_library;
}

static void cases_of_cublaslt(void)
{
    int n;
    NEED(cases_by("cublaslt", &ref_matrix, "linear", &n) == n);
    NEED(cases_by("cublaslt", &ref_matrix, "conv_1x1", &n) == n - 4); /* a stride, a padding */
    NEED(cases_by("cublaslt", &ref_after, "linear_residual", &n) == n);
    NEED(cases_by("cublaslt", &ref_after, "linear_relu_residual", &n) == 0);
    NEED(cases_by("cublaslt", &ref_after, "linear_silu", &n) == 0);
    NEED(cases_by("cublaslt", &ref_after, "after_residual", &n) == 1); /* bf16: there is a bias */
    NEED(cases_by("cublaslt", &ref_after, "geglu", &n) == 0); /* ours alone */
    NEED(cases_by("cublaslt", &ref_after, "grad_linear", &n) == n);
}

static void cases_of_cudnn(void)
{
    int n;
    NEED(cases_by("cudnn", &ref_matrix, "linear", &n) == n);
    NEED(cases_by("cudnn", &ref_matrix, "conv", &n) == n);
    NEED(cases_by("cudnn", &ref_after, "after", &n) == n);
    NEED(cases_by("cudnn", &ref_after, "linear", &n) == n);
    NEED(cases_by("cudnn", &ref_after, "grad", &n) == n);
    NEED(cases_by("cudnn", &ref_after, "geglu", &n) == 0); /* ours alone */
    NEED(cases_by("cudnn", &ref_after, "join", &n) == 0);
    NEED(cases_by("cudnn", &ref_after, "upsampled", &n) == 0);
}

/* Convolutions of two tensors and of images before their upsampling, and, where nothing takes gradients,
 * linear layers that gate their result: our cuts, measured. */
static void cuts_of_our_own(void)
{
    bool *seen = calloc((size_t)op_table_count, sizeof *seen);
    int n = 0;
    char path[600], *text;
    setenv("EQ_AUTOTUNE", "on", 1);
    for (int i = 0; i < ref_after.n_case; i++) {
        const OpCase *c = &ref_after.cases[i];
        if (strncmp(c->name, "join", 4) && strncmp(c->name, "upsampled", 9) &&
            strncmp(c->name, "geglu", 5))
            continue;
        NEED(!ref_check(c, "cuda", DTYPE_BF16, 1, seen));
        n++;
    }
    snprintf(path, sizeof path, "%s/cache/kernels-hostcuda-sm-90.json", folder);
    OKAY(file_read(&text, &(size_t){0}, path, 1 << 20));
    NEED(strstr(text, " join 8\"") && strstr(text, " up 5x7x16-24\"") && !strstr(text, "ours"));
    NEED(strstr(text, "rows 40-336 geglu\""));
    for (char *at = text; (at = strstr(at, "\"kernel\"")); at++) n--;
    NEED(n == 0); /* a key for each case */
    free(text);
    free(seen);
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : NULL;
    int failed = 0;
    clean_environment();
    failed += run_alone("cublaslt", cases_of_cublaslt, only);
    if (HAVE_CUDNN) failed += run_alone("cudnn", cases_of_cudnn, only);
    failed += run_alone("cuts of our own", cuts_of_our_own, only);
    return failed != 0;
}
