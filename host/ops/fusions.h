/* fusions.h - which nodes are computed together on a device that has kernels for it (graph/fuse.h). */
#ifndef FUSIONS_H
#define FUSIONS_H
#include "graph/fuse.h"

/* What follows a convolution or a linear layer: a vector of each image, an activation, a residual,
 * in this order, each at most once; or, of a linear layer of which no gradient is taken, GEGLU. What
 * stands before a convolution: nearest upsampling by 2, a concatenation of two. */
extern const FusionRule fusion_table[];
extern const int fusion_count;

/* Upsampling and convolution become one that reads folded filters. Folding them costs as much as the
 * rest saves where the result has about so many pixels, unless the filters are held. */
enum { FOLD_PAYS = 512 };
#endif
