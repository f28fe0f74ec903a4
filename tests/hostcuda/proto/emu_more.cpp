// emu_more.cpp - the rest of the cudart subset that the engine calls; weak: the rewritten runtime has its own.
#include <cuda_runtime_api.h>
#include <cstdlib>
#include <cstring>
#define WEAK extern "C" __attribute__((weak)) cudaError_t CUDARTAPI
WEAK cudaGetDeviceProperties(cudaDeviceProp *p, int) { memset(p, 0, sizeof *p); strcpy(p->name, "hostcuda"); p->major = 8; p->multiProcessorCount = 1; p->totalGlobalMem = 1ull << 30; return cudaSuccess; }
WEAK cudaDriverGetVersion(int *v) { *v = 13000; return cudaSuccess; }
WEAK cudaRuntimeGetVersion(int *v) { *v = 13000; return cudaSuccess; }
WEAK cudaMemGetInfo(size_t *f, size_t *t) { *f = *t = 1ull << 30; return cudaSuccess; }
WEAK cudaMallocHost(void **p, size_t n) { return (*p = malloc(n)) ? cudaSuccess : cudaErrorMemoryAllocation; }
WEAK cudaFreeHost(void *p) { free(p); return cudaSuccess; }
WEAK cudaEventCreate(cudaEvent_t *e) { *e = (cudaEvent_t)malloc(1); return cudaSuccess; }
WEAK cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) { return cudaEventCreate(e); }
WEAK cudaEventDestroy(cudaEvent_t e) { free(e); return cudaSuccess; }
WEAK cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
WEAK cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
WEAK cudaEventElapsedTime(float *ms, cudaEvent_t, cudaEvent_t) { *ms = 0; return cudaSuccess; }
WEAK cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
WEAK cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) { return cudaErrorNotSupported; }
WEAK cudaStreamEndCapture(cudaStream_t, cudaGraph_t *g) { *g = nullptr; return cudaErrorNotSupported; }
WEAK cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t, unsigned long long) { *e = nullptr; return cudaErrorNotSupported; }
WEAK cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
WEAK cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return cudaErrorNotSupported; }
WEAK cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
