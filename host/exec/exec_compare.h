/* exec_compare.h - one node on a device against the same node on the CPU. */
#ifndef EXEC_COMPARE_H
#define EXEC_COMPARE_H
#include "exec/device.h"

typedef struct Compare Compare;
Status compare_new(Compare **c, Device *d);
void compare_free(Compare *c); /* accepts NULL */

/* Runs `node` on the device and on the CPU in fp32 from what the device has in its sources, and
 * fails (ERR_NUMERIC) where they differ by more than the storage of the result explains. */
Status compare_run(Compare *c, const Tensor *node);
#endif
