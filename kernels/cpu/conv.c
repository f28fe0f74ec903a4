/* conv.c - two-dimensional convolution: oneDNN's, or a matrix product where the filter is one
 * pixel. */
#include "prims.h"

/* A 1x1 filter over every pixel is a linear layer over the pixels: no reordered weights. */
static bool pointwise(const ConvShape *a)
{
    return a->r == 1 && a->s == 1 && a->stride == 1 && !a->top && !a->left && !a->bottom &&
           !a->right;
}
static size_t pixels(const ConvShape *a) { return (size_t)a->n * (size_t)a->h * (size_t)a->w; }

Status cpu_conv2d_fwd(float *y, const float *x, const float *w, const float *b, const ConvShape *a,
                      Stream *s)
{
    if (pointwise(a)) return cpu_linear_fwd(y, x, w, b, pixels(a), a->c, a->k, s);
    bool together;
    TRY(prim_conv_by_image(a, b != NULL, &together, s));
    if (together) return prim_conv(PASS_FWD, a, (float *)x, (float *)w, (float *)b, y, s);
    ConvShape one = *a; /* an image must not depend on its company */
    one.n = 1;
    size_t in = pixels(&one) * (size_t)a->c;
    size_t out = (size_t)conv_out(a->h, a->top, a->bottom, a->r, a->stride) *
                 (size_t)conv_out(a->w, a->left, a->right, a->s, a->stride) * (size_t)a->k;
    for (size_t i = 0; i < (size_t)a->n; i++)
        TRY(prim_conv(PASS_FWD, &one, (float *)x + i * in, (float *)w, (float *)b, y + i * out, s));
    return OK;
}

Status cpu_conv2d_dx(float *dx, const float *dy, const float *w, const ConvShape *a, Stream *s)
{
    if (pointwise(a)) return cpu_linear_dx(dx, dy, w, pixels(a), a->c, a->k, s);
    return prim_conv(PASS_DX, a, dx, (float *)w, NULL, (float *)dy, s);
}

Status cpu_conv2d_dw(float *dw, float *db, const float *dy, const float *x, const ConvShape *a,
                     Stream *s)
{
    if (pointwise(a)) return cpu_linear_dw(dw, db, dy, x, pixels(a), a->c, a->k, s);
    return prim_conv(PASS_DW, a, (float *)x, dw, db, (float *)dy, s);
}
