/* product.h - a convolution or linear layer that several can compute: our kernels in their cuts,
 * and libraries. product.cu chooses. C, so that tests can ask a library for a plan alone.
 *
 * A library is loaded when first asked, never linked: where it is not there, or fails, our kernel
 * runs. Plans are made outside of recordings; their runs may be recorded.
 */
#ifndef PRODUCT_H
#define PRODUCT_H
#include "gemm_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One product of gemm.cuh: out, a, b, bias and after as gemm_conv() takes them. */
typedef struct {
    GemmPass pass;
    void *out;
    const void *a, *b;
    const float *bias;
    ConvShape shape;
    Dtype type;
    bool rows;       /* a linear layer: its rows are the shape's w */
    ConvAfter after; /* {0}: nothing */
    const void *a2;  /* of gemm_joined(), its c1 in a; or NULL */
    int c1;
    bool upsampled; /* of gemm_upsampled() */
    bool geglu;     /* of gemm_geglu() */
} Product;

/* By whoever kernels_choice.h says. */
Status product_run(const Product *p, Stream *s);
struct Choices;
void choices_free(struct Choices *c); /* of a stream that ends; accepts NULL */

/* ---- libraries ---------------------------------------------------------------------------- */

/* y[rows,k] = x[rows,c] . w: no filter, stride or padding. */
static inline bool product_is_matrix(const ConvShape *a)
{
    return a->r == 1 && a->s == 1 && a->stride == 1 && !a->top && !a->left && !a->bottom &&
           !a->right;
}
static inline size_t product_rows(const ConvShape *a)
{
    return (size_t)a->n * (size_t)a->h * (size_t)a->w;
}

enum { MOST_WORKSPACE = 32 << 20 }; /* bytes of scratch that a library may ask for */

typedef struct {
    const char *name, *title; /* "cublaslt", "cuBLASLt" */
    int most;                 /* plans that are worth measuring */
    /* The which-th plan for p's shape, from 0 in the library's own order of speed; *workspace bytes
     * of it. ERR_BUG: it does not take such shapes; ERR_DEVICE: it has no such plan. */
    Status (*plan)(void **plan, size_t *workspace, const Product *p, int which, void *context);
    Status (*run)(void *plan, size_t workspace_bytes, const Product *p, void *workspace,
                  void *context, void *stream);
    void (*forget)(void *plan);                   /* accepts NULL */
    Status (*open)(void **context, void *stream); /* on the current GPU, for one stream */
    void (*close)(void *context);                 /* accepts NULL */
    Status (*version)(size_t *number);            /* loads it; 91900 is 9.19.0 */
} Library;

extern const Library library_cublaslt, library_cudnn;

/* For tests: a context of cuDNN that makes plans for a GPU which is described (cuDNN's JSON of
 * device properties) and not there. It runs none. */
Status cudnn_open_described(void **context, const char *json);

#ifdef __cplusplus
}
#endif
#endif
