/* distance.h - how far two sets of images are from each other, in a network's features. */
#ifndef DISTANCE_H
#define DISTANCE_H
#include "base/status.h"
#include <stdint.h>

/* Kernel inception distance (Binkowski et al., ICLR 2018): the unbiased estimate of the squared
 * maximum mean discrepancy under k(x, y) = (x.y / d + 1)^3, over all pairs. Zero on average, so at
 * times negative, where both sets come from one distribution, at any size: why it is preferred to
 * FID for few images. */
typedef struct {
    double value;
    double std_error; /* over random halves, see below; NaN below 4 images in a set */
    int n_x, n_y;
} Kid;

/* x [n_x, d] and y [n_y, d]; at least two images each. The standard error is the deviation of the
 * estimate over KID_HALVES random halves drawn without replacement: of half the size, and
 * overlapping just so much that their deviation is that of the whole. Holds (n_x + n_y)^2 doubles;
 * ERR_SPACE where that is not to be had. The result does not depend on the number of threads. */
enum { KID_HALVES = 200 };
Status kid(Kid *k, const float *x, int n_x, const float *y, int n_y, int d, uint32_t seed);
#endif
