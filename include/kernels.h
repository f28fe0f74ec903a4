/* kernels.h - the border between C and the kernels: every launcher, its shapes and its rules. */
#ifndef KERNELS_H
#define KERNELS_H
#include "kernels_base.h"
#include "kernels_matrix.h" /* convolution, linear layers, attention            */
#include "kernels_point.h"  /* elementwise, norms, pools, joins, lookups        */
#include "kernels_train.h"  /* losses, diffusion arithmetic, optimizers         */
#endif
