/* hostcuda_runtime.h - what tests may set in the simulated CUDA runtime (C and C++).
 *
 * First values come from the environment:
 *   HOSTCUDA_ARCH     80 or 90 (default 90): the newest PTX that is run; also the chip's properties
 *   HOSTCUDA_STREAMS  0 work runs when issued; 1 (default) as late as legal: when something waits for
 *                     it; 2 random. Programs that synchronise properly see no difference.
 *   HOSTCUDA_DEVICES  number of devices, 0 to 8 (default 1)
 *   HOSTCUDA_MEMORY   bytes of memory of each device (default 16 GiB)
 *   HOSTCUDA_FAIL     "cudaMalloc:3": the third call fails, see hostcuda_fail()
 */
#ifndef HOSTCUDA_RUNTIME_H
#define HOSTCUDA_RUNTIME_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The nth call (1: the next) of the runtime function `name` does nothing and returns `error`
 * (a cudaError_t); 0 takes the error that is usual for it. One order at a time; nth 0 cancels. */
void hostcuda_fail(const char *name, int nth, int error);

void hostcuda_set_devices(int n);
void hostcuda_set_memory(size_t bytes);
void hostcuda_set_streams(int mode);

/* Events tell a clock of the test's own from now on: each work that runs lets ms(name of the work)
 * pass, "kernel NAME" or "a host function". NULL: the machine's clock. */
void hostcuda_set_clock(double (*ms)(const char *work));

/* For host functions that stand in for a library's kernels (cudaLaunchHostFunc): whether n bytes at p
 * lie in one allocation; and that they were written there. */
int hostcuda_contains(const void *p, size_t n);
void hostcuda_wrote(const void *p, size_t n);

/* Takes back a failed kernel's error, which otherwise every later call returns. */
void hostcuda_forgive(void);

/* Work that was issued and has not run yet, in all streams. */
size_t hostcuda_pending(void);

#ifdef __cplusplus
}
#endif
#endif
