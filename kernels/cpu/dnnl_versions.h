/* dnnl_versions.h - how descriptors are made: oneDNN 2 and 3 differ there, and nowhere else knows of it. */
#ifndef DNNL_VERSIONS_H
#define DNNL_VERSIONS_H
#include "prims.h"
#include <oneapi/dnnl/dnnl.h>

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t Desc;
typedef const_dnnl_memory_desc_t DescRef;
#define REF(d) (d)
#define desc_by_tag dnnl_memory_desc_create_with_tag
#define desc_by_strides dnnl_memory_desc_create_with_strides
static inline void desc_free(Desc *d)
{
    if (*d) dnnl_memory_desc_destroy(*d);
}
#else
typedef dnnl_memory_desc_t Desc;
typedef const dnnl_memory_desc_t *DescRef;
#define REF(d) (&(d))
#define desc_by_tag dnnl_memory_desc_init_by_tag
#define desc_by_strides dnnl_memory_desc_init_by_strides
static inline void desc_free(Desc *d) { (void)d; }
#endif

/* Of a convolution without bias; the backward passes want it, though it is never run. */
static inline dnnl_status_t forward_desc(dnnl_primitive_desc_t *pd, const ConvShape *a, DescRef x, DescRef w,
                                  DescRef y, dnnl_primitive_attr_t attr, dnnl_engine_t engine)
{
    const dnnl_dims_t stride = {a->stride, a->stride}, low = {a->top, a->left},
                      high = {a->bottom, a->right};
    const dnnl_alg_kind_t how = dnnl_convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
    const dnnl_dims_t dense = {0, 0};
    return dnnl_convolution_forward_primitive_desc_create(
        pd, engine, dnnl_forward_training, how, x, w, NULL, y, stride, dense, low, high, attr);
#else
    dnnl_convolution_desc_t c;
    dnnl_status_t code = dnnl_convolution_forward_desc_init(&c, dnnl_forward_training, how, x, w,
                                                            NULL, y, stride, low, high);
    return code ? code : dnnl_primitive_desc_create(pd, &c, attr, engine, NULL);
#endif
}

/* Of dx, or of the weights' gradient. */
static inline dnnl_status_t backward_desc(dnnl_primitive_desc_t *pd, bool dw, const ConvShape *a, DescRef x,
                                   DescRef w, DescRef y, dnnl_primitive_desc_t forward,
                                   dnnl_primitive_attr_t attr, dnnl_engine_t engine)
{
    const dnnl_dims_t stride = {a->stride, a->stride}, low = {a->top, a->left},
                      high = {a->bottom, a->right};
    const dnnl_alg_kind_t how = dnnl_convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
    const dnnl_dims_t dense = {0, 0};
    return dw ? dnnl_convolution_backward_weights_primitive_desc_create(
                    pd, engine, how, x, w, NULL, y, stride, dense, low, high, forward, attr)
              : dnnl_convolution_backward_data_primitive_desc_create(
                    pd, engine, how, x, w, y, stride, dense, low, high, forward, attr);
#else
    dnnl_convolution_desc_t c;
    dnnl_status_t code = dw ? dnnl_convolution_backward_weights_desc_init(&c, how, x, w, NULL, y,
                                                                          stride, low, high)
                            : dnnl_convolution_backward_data_desc_init(&c, how, x, w, y, stride,
                                                                       low, high);
    return code ? code : dnnl_primitive_desc_create(pd, &c, attr, engine, forward);
#endif
}

static inline dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, DescRef x, DescRef w, DescRef y,
                                 dnnl_primitive_attr_t attr, dnnl_engine_t engine)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(pd, engine, x, w, NULL, y, attr);
#else
    dnnl_matmul_desc_t m;
    dnnl_status_t code = dnnl_matmul_desc_init(&m, x, w, NULL, y);
    return code ? code : dnnl_primitive_desc_create(pd, &m, attr, engine, NULL);
#endif
}
#endif
