/* kernels_matrix.h - launchers, see kernels.h. */
#ifndef KERNELS_MATRIX_H
#define KERNELS_MATRIX_H
#include "kernels_base.h"
#endif
