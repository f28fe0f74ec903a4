/* nccl.c - finds NCCL's functions in its shared library. */
#include "comm/nccl.h"
#include "base/library.h"

Status nccl_load(const Nccl **out)
{
#define NCCL_NAME(name, arguments) "nccl" #name,
    static const char *const names[] = {NCCL_CALLS(NCCL_NAME) "ncclGetErrorString",
                                        "ncclGetLastError"};
#undef NCCL_NAME
    static const char *const files[] = {"libnccl.so.2", NULL};
    static SharedLibrary loaded;
    static Nccl nccl;
    _Static_assert(sizeof nccl == sizeof names, "a name for each function");
    *out = &nccl;
    return library_need(&loaded, (void **)&nccl, names, sizeof names / sizeof *names, files,
                        "several ranks on GPUs need NCCL 2.18 or later");
}
