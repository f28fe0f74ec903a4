/* nccl.h - the few functions of NCCL 2 that are used here, found in libnccl.so.2 when ranks first meet on GPUs.
 *
 * Declared anew, so that a build needs no NCCL: within major version 2 their types and numbers do not change
 * (nccl.h of 2.28.9). $EQ_LIBRARIES names a folder to load it from.
 */
#ifndef COMM_NCCL_H
#define COMM_NCCL_H
#include "base/status.h"
#include <stddef.h>

typedef struct NcclComm *NcclHandle;
typedef struct { char internal[128]; } NcclId;
enum { NCCL_SUCCESS = 0, NCCL_IN_PROGRESS = 7 };
enum { NCCL_INT8 = 0, NCCL_FLOAT32 = 7 }; /* types */
enum { NCCL_SUM = 0 };
enum { NCCL_NO_COLOR = -1 };

#define NCCL_CALLS(X)                                                                              \
    X(GetUniqueId, (NcclId *))                                                                     \
    X(CommInitRank, (NcclHandle *, int size, NcclId, int rank))                                    \
    X(CommSplit, (NcclHandle, int color, int key, NcclHandle *, void *config))                     \
    X(CommDestroy, (NcclHandle))                                                                   \
    X(CommAbort, (NcclHandle))                                                                     \
    X(CommGetAsyncError, (NcclHandle, int *error))                                                 \
    X(AllReduce, (const void *, void *, size_t, int type, int op, NcclHandle, void *stream))       \
    X(AllGather, (const void *, void *, size_t, int type, NcclHandle, void *stream))               \
    X(ReduceScatter, (const void *, void *, size_t, int type, int op, NcclHandle, void *stream))   \
    X(Send, (const void *, size_t, int type, int peer, NcclHandle, void *stream))                  \
    X(Recv, (void *, size_t, int type, int peer, NcclHandle, void *stream))                        \
    X(GroupStart, (void))                                                                          \
    X(GroupEnd, (void))

typedef struct {
#define NCCL_FIELD(name, arguments) int(*name) arguments;
    NCCL_CALLS(NCCL_FIELD)
#undef NCCL_FIELD
    const char *(*GetErrorString)(int);
    const char *(*GetLastError)(NcclHandle);
} Nccl;

/* ERR_DEVICE where it is not there, or too old for one of them. It stays loaded. */
Status nccl_load(const Nccl **out);
#endif
