/* cudart_device.cpp - devices, their properties, versions, entry points of the driver. */
#include "cudart.h"
#include <cstdio>
#include <cstdlib>

namespace hostcuda {

namespace {

struct Devices {
    int count = 1, current = 0;
    Devices()
    {
        const char *text = getenv("HOSTCUDA_DEVICES");
        if (text) count = atoi(text);
    }
};
Devices &devices()
{
    static Devices d;
    return d;
}

/* The chips that the two kinds of PTX are for */
struct Chip {
    const char *name;
    int major, minor, multiprocessors, shared_block, shared_multiprocessor, l2, bus, memory_khz;
};
const Chip ampere = {"hostcuda sm_80", 8, 0, 108, 163 * 1024, 164 * 1024, 40 << 20, 5120, 1215000};
const Chip hopper = {"hostcuda sm_90", 9, 0, 132, 227 * 1024, 228 * 1024, 60 << 20, 6144, 3201000};
const Chip &this_chip() { return chip() >= 90 ? hopper : ampere; }

} // namespace

int device_count() { return devices().count; }
int current_device() { return devices().current; }

} // namespace hostcuda

using namespace hostcuda;

extern "C" {

void hostcuda_set_devices(int n)
{
    devices().count = n;
    if (devices().current >= n) devices().current = 0;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    ENTER();
    *n = device_count();
    return *n ? cudaSuccess : failed(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    ENTER();
    if (device < 0 || device >= device_count())
        return failed(device_count() ? cudaErrorInvalidDevice : cudaErrorNoDevice);
    devices().current = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    ENTER();
    *device = current_device();
    return device_count() ? cudaSuccess : failed(cudaErrorNoDevice);
}

/* Unlike a GPU's, keeps the allocations; a failed kernel is forgotten. */
cudaError_t cudaDeviceReset(void)
{
    run_everything();
    hostcuda_forgive();
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    ENTER();
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    const Chip &c = this_chip();
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = c.shared_block; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = c.shared_multiprocessor; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *value = 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = 65536; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = 65536; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = c.multiprocessors; break;
    case cudaDevAttrComputeCapabilityMajor: *value = c.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = c.minor; break;
    case cudaDevAttrL2CacheSize: *value = c.l2; break;
    case cudaDevAttrMemoryClockRate: *value = c.memory_khz; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = c.bus; break;
    case cudaDevAttrClockRate: *value = 1500000; break;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrMemoryPoolsSupported: *value = 1; break;
    case cudaDevAttrClusterLaunch: *value = c.major >= 9; break;
    case cudaDevAttrIntegrated: *value = 0; break;
    default: return failed(cudaErrorNotSupported);
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    ENTER();
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    const Chip &c = this_chip();
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s", c.name);
    p->uuid.bytes[0] = (char)device;
    p->totalGlobalMem = device_memory();
    p->sharedMemPerBlock = 48 * 1024;
    p->sharedMemPerBlockOptin = (size_t)c.shared_block;
    p->sharedMemPerMultiprocessor = (size_t)c.shared_multiprocessor;
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxBlocksPerMultiProcessor = 32;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = c.major;
    p->minor = c.minor;
    p->multiProcessorCount = c.multiprocessors;
    p->l2CacheSize = c.l2;
    p->memoryBusWidth = c.bus;
    p->concurrentKernels = p->unifiedAddressing = p->memoryPoolsSupported = 1;
    p->asyncEngineCount = 3;
    p->streamPrioritiesSupported = p->canMapHostMemory = 1;
    p->clusterLaunch = c.major >= 9;
    p->pciBusID = device + 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device)
{
    ENTER();
    if (device < 0 || device >= device_count()) return failed(cudaErrorInvalidDevice);
    snprintf(text, (size_t)size, "0000:%02x:00.0", device + 1);
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    ENTER();
    *can = device != peer;
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int, unsigned)
{
    ENTER();
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    ENTER();
    *version = device_count() ? CUDART_VERSION : 0;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    ENTER();
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult *result)
{
    ENTER();
    std::string wanted = name;
    *function = wanted == "cuTensorMapEncodeTiled"    ? (void *)encode_tiled
                : wanted == "cuTensorMapEncodeIm2col" ? (void *)encode_im2col : nullptr;
    if (result)
        *result = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

#if CUDART_VERSION < 12050
cudaError_t cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long flags,
                                    cudaDriverEntryPointQueryResult *result)
{
    return cudaGetDriverEntryPointByVersion(name, function, CUDART_VERSION, flags, result);
}
#endif

} // extern "C"
