/* driver_entry.h - a function of the driver by its name, for programs that do not link the driver. */
#pragma once
#include <cuda_runtime_api.h>

static inline void *driver_entry(const char *name) /* NULL: it has none */
{
    void *f = nullptr;
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION < 12050
    cudaGetDriverEntryPoint(name, &f, cudaEnableDefault, &found);
#else
    cudaGetDriverEntryPointByVersion(name, &f, 12000, cudaEnableDefault, &found);
#endif
    return f;
}
