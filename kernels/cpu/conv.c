/* conv.c - two-dimensional convolution: forward by dots.c, backward by oneDNN, as a matrix product
 * where the filter is one pixel. */
#include "dots.h"
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
    return dots_conv(y, x, w, b, a, dots_lanes(), s);
}

Status cpu_conv2d_dx(float *dx, const float *dy, const float *w, const ConvShape *a, Stream *s)
{
    if (pointwise(a)) return cpu_linear_dx(dx, dy, w, pixels(a), a->c, a->k, s);
    return prim_conv_dx(a, dx, dy, w, s);
}

/* oneDNN's kernels for AVX2 chain a weight's products with all pixels in one fp32 number: over
 * 100,000 pixels with a mean that the sum cancels, a gradient was off by 1.5e-4. So more pixels
 * than WHOLE are taken in parts of about PART, whole images or rows of one, added up in order. */
enum { WHOLE = 4096, PART = 2048 };

/* Cuts an image down to what rows top..bottom-1 of its result read; returns the first row of x. */
static int take_rows(ConvShape *a, int top, int bottom)
{
    int from = top * a->stride - a->top, to = (bottom - 1) * a->stride - a->top + a->r;
    int first = from > 0 ? from : 0;
    a->top = first - from;
    a->bottom = to > a->h ? to - a->h : 0;
    a->h = to - a->bottom - first;
    return first;
}

Status cpu_conv2d_dw(float *dw, float *db, const float *dy, const float *x, const ConvShape *a,
                     Stream *s)
{
    if (pointwise(a)) return cpu_linear_dw(dw, db, dy, x, pixels(a), a->c, a->k, s);
    int rows = conv_out(a->h, a->top, a->bottom, a->r, a->stride);
    int columns = conv_out(a->w, a->left, a->right, a->s, a->stride), image = rows * columns;
    size_t all = (size_t)a->n * (size_t)image;
    if (db) TRY(cpu_column_sum(db, dy, all, a->k, s));
    bool blank = a->top >= a->r || a->bottom >= a->r; /* rows of the result that read no x */
    if (all <= WHOLE || blank) return prim_conv_dw(a, dw, dy, x, false, s);
    int images = image < PART ? PART / image : 1, cuts = (image + PART - 1) / PART;
    int height = (rows + cuts - 1) / cuts;
    for (int n = 0; n < a->n; n += images)
        for (int row = 0; row < rows; row += height) {
            ConvShape part = *a;
            part.n = a->n - n < images ? a->n - n : images;
            int end = rows - row < height ? rows : row + height;
            int first = cuts > 1 ? take_rows(&part, row, end) : 0;
            size_t in = ((size_t)n * (size_t)a->h + (size_t)first) * (size_t)a->w;
            size_t out = ((size_t)n * (size_t)rows + (size_t)row) * (size_t)columns;
            TRY(prim_conv_dw(&part, dw, dy + out * (size_t)a->k, x + in * (size_t)a->c, n || row,
                             s));
        }
    return OK;
}
