/* driver.c - a libcuda.so.1 with which the real cuDNN makes plans for a GPU that is not there: it
 * takes the kernels that cuDNN has compiled and says how many clusters fit. Everything else is
 * refused. */
#define EXPORTED __attribute__((visibility("default")))
enum { DONE = 0, STUB = 34 /* CUDA_ERROR_STUB_LIBRARY */, CLUSTERS = 16 };

#define REFUSED(X)                                                                                 \
    X(cuCtxGetCurrent) X(cuCtxGetDevice) X(cuCtxGetLimit) X(cuCtxPopCurrent) X(cuCtxPushCurrent)   \
    X(cuDeviceGet) X(cuDeviceGetAttribute) X(cuDeviceGetCount) X(cuDevicePrimaryCtxRelease)        \
    X(cuDevicePrimaryCtxReset) X(cuDevicePrimaryCtxRetain) X(cuDriverGetVersion) X(cuInit)         \
    X(cuLaunchCooperativeKernel) X(cuLaunchKernel) X(cuLaunchKernelEx) X(cuLibraryLoadFromFile)    \
    X(cuLinkAddData) X(cuLinkAddData_v2) X(cuLinkAddFile_v2) X(cuLinkComplete) X(cuLinkCreate)     \
    X(cuLinkCreate_v2) X(cuLinkDestroy) X(cuMemcpyDtoH_v2) X(cuModuleGetFunction)                  \
    X(cuModuleGetGlobal_v2) X(cuModuleLoadData) X(cuModuleLoadDataEx) X(cuModuleLoadFatBinary)     \
    X(cuModuleUnload) X(cuOccupancyMaxActiveBlocksPerMultiprocessor)                               \
    X(cuOccupancyMaxPotentialClusterSize) X(cuStreamGetCtx) X(cuStreamSynchronize)                 \
    X(cuTensorMapEncodeTiled)
#define X(name) EXPORTED int name(void); int name(void) { return STUB; }
REFUSED(X)
#undef X

#define ACCEPTED(X) X(cuKernelSetAttribute) X(cuFuncSetAttribute) X(cuLibraryUnload)
#define X(name) EXPORTED int name(void); int name(void) { return DONE; }
ACCEPTED(X)
#undef X

#define GIVES(name, type, value)                                                                   \
    EXPORTED int name(type *out);                                                                  \
    int name(type *out)                                                                            \
    {                                                                                              \
        *out = (value);                                                                            \
        return DONE;                                                                               \
    }
static char handle;
GIVES(cuOccupancyMaxActiveClusters, int, CLUSTERS)
GIVES(cuLibraryLoadData, void *, &handle)
GIVES(cuLibraryGetKernel, void *, &handle)
GIVES(cuKernelGetFunction, void *, &handle)
GIVES(cuKernelGetAttribute, int, 0)
GIVES(cuFuncGetAttribute, int, 0)

EXPORTED int cuGetErrorString(int error, const char **text);
int cuGetErrorString(int error, const char **text)
{
    (void)error;
    *text = "no driver";
    return DONE;
}
EXPORTED int cuGetErrorName(int error, const char **text);
int cuGetErrorName(int error, const char **text) { return cuGetErrorString(error, text); }
