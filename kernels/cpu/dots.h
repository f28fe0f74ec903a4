/* dots.h - convolutions and linear layers forward, summed in lanes. */
#ifndef DOTS_H
#define DOTS_H
#include "cpu.h"
#include "kernels_matrix.h"

/* y[n,p,q,k] = x[n,h,w,c] * w[k,r,s,c] + b[k] (NULL: without). lanes: 8, or 16, which is for
 * vectors of 512 bits and falls back to 8 where a filter's line does not fill them. Uses the
 * stream's scratch. ERR_BUG for a filter that is larger than the image with its border. */
Status dots_conv(float *y, const float *x, const float *w, const float *b, const ConvShape *a,
                 int lanes, Stream *s);

int dots_lanes(void); /* what suits this processor */
#endif
