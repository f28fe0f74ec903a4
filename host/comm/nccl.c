/* nccl.c - finds NCCL's functions in its shared library. */
#include "comm/nccl.h"
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static const char FILE_NAME[] = "libnccl.so.2";

static void *open_library(void)
{
    const char *folder = getenv("EQ_LIBRARIES");
    char path[1024];
    if (!folder || !*folder) return dlopen(FILE_NAME, RTLD_NOW | RTLD_LOCAL);
    snprintf(path, sizeof path, "%s/%s", folder, FILE_NAME);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* ISO C knows no way from void * to a function but through its bytes. */
static Status find(void *library, const char *name, void *at)
{
    *(void **)at = dlsym(library, name);
    if (*(void **)at) return OK;
    return FAIL(ERR_DEVICE, "NCCL: %s has no %s, expected NCCL 2.18 or later", FILE_NAME, name);
}

Status nccl_load(const Nccl **out)
{
    static Nccl nccl;
    static bool loaded;
    *out = &nccl;
    if (loaded) return OK;
    void *library = open_library();
    if (!library) return FAIL(ERR_DEVICE, "several ranks on GPUs need NCCL: %s", dlerror());
#define NCCL_FIND(name, arguments) TRY(find(library, "nccl" #name, &nccl.name));
    NCCL_CALLS(NCCL_FIND)
#undef NCCL_FIND
    TRY(find(library, "ncclGetErrorString", &nccl.GetErrorString));
    TRY(find(library, "ncclGetLastError", &nccl.GetLastError));
    loaded = true;
    return OK;
}
