/* nvtx.c - a tool as NVTX loads it (NVTX_INJECTION64_PATH): writes the name of each range that
 * begins to $NVTX_NAMES, a line each, and "-" where one ends. */
#define NVTX_NO_IMPL
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>

static FILE *names;

static int push(const char *name)
{
    fprintf(names, "%s\n", name);
    return fflush(names);
}

static int pop(void)
{
    fputs("-\n", names);
    return fflush(names);
}

__attribute__((visibility("default"))) int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get);
int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get)
{
    const NvtxExportTableCallbacks *t = get(NVTX_ETID_CALLBACKS);
    NvtxFunctionTable function;
    unsigned int n;
    names = fopen(getenv("NVTX_NAMES"), "w");
    if (!names || !t || !t->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &function, &n)) return 0;
    *function[NVTX_CBID_CORE_RangePushA] = (NvtxFunctionPointer)push;
    *function[NVTX_CBID_CORE_RangePop] = (NvtxFunctionPointer)pop;
    return 1;
}
