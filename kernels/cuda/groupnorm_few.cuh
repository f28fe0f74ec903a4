/* groupnorm_few.cuh - what groupnorm.cu hands over: groups of at most FEW values. */
#pragma once
#include "kernels_base.h"

enum { FEW = 8 };

Status groupnorm_few_fwd(void *y, float *stats, const void *x, const float *gain, const float *bias,
                         size_t n, size_t hw, int c, int groups, float eps, Act act, Dtype type,
                         Stream *s);
/* share_bias, share_gain[n][c]: each image's part of dbias and dgain */
Status groupnorm_few_dx(void *dx, float *share_bias, float *share_gain, const void *dy,
                        const void *x, const float *gain, const float *bias, size_t n, size_t hw,
                        int c, int groups, float eps, Act act, Dtype type, Stream *s);
