/* kernels.h - the border between C and the kernels: every launcher, its shapes and its rules. */
#ifndef KERNELS_H
#define KERNELS_H
#include "kernels_base.h"
#include "kernels_matrix.h" /* convolution, linear layers, attention            */
#include "kernels_point.h"  /* elementwise, norms                               */
#include "kernels_shape.h"  /* joins, pools, lookups, diffusion arithmetic      */
#include "kernels_train.h"  /* losses, optimizers                               */
#endif
