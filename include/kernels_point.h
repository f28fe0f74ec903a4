/* kernels_point.h - launchers bound by memory: elementwise, norms, pools, joins, lookups. See kernels.h. */
#ifndef KERNELS_POINT_H
#define KERNELS_POINT_H
#include "kernels_base.h"

Status cpu_fill(float *y, float value, size_t count, Stream *s);
Status cpu_add(float *y, const float *a, const float *b, size_t count, Stream *s);
#endif
