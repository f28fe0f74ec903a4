/* speed.h - how fast a device computes one convolution: a yardstick for estimates. */
#ifndef SPEED_H
#define SPEED_H
#include "exec/device.h"

/* FLOP/s of a 3 x 3 convolution of 64 to 64 channels that fills the device, in about a fifth of a
 * second. What a network comes to is less: it has layers that are smaller, and others that compute
 * little. */
Status device_speed(double *flops_per_s, Device *d);
#endif
