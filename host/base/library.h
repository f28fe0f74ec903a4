/* library.h - functions of a shared library that a program uses where it is there, and is not linked with. */
#ifndef BASE_LIBRARY_H
#define BASE_LIBRARY_H
#include "base/status.h"
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    bool tried; /* once a process */
    Status status;
    char trouble[256];
} SharedLibrary; /* static, starts as {0} */

/* The functions names[n] of the first of files[] (ends with NULL) that can be loaded, into at[n], from the
 * folder $EQ_LIBRARIES where that is set. ERR_DEVICE, "missing: ", as in "no cuDNN", and which file or
 * function is. A library stays loaded: what it has made may outlive any owner. Any thread may call it. */
Status library_need(SharedLibrary *l, void **at, const char *const *names, int n, const char *const *files,
                    const char *missing);

#ifdef __cplusplus
}
#endif
#endif
