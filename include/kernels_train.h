/* kernels_train.h - launchers, see kernels.h. */
#ifndef KERNELS_TRAIN_H
#define KERNELS_TRAIN_H
#include "kernels_base.h"
#endif
