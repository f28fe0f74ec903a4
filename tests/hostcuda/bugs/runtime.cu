/* runtime.cu - streams that run late, events, capture and replay, ordered failures, limits. */
#include "bugs.h"
#include <cstdio>
#include <cstring>

static int failed_checks;
#define CHECK_THAT(x)                                                                              \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            printf("FAILED runtime.cu:%d: %s\n", __LINE__, #x);                                    \
            failed_checks++;                                                                       \
        }                                                                                          \
    } while (0)

static __global__ void add_kernel(float *y, const float *x, float c, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] + c;
}

static const int N = 64;

static float first(const float *device)
{
    float v;
    cudaMemcpy(&v, device, sizeof v, cudaMemcpyDeviceToHost);
    return v;
}

static cudaStream_t new_stream()
{
    cudaStream_t s;
    cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    return s;
}

static float *new_zeros()
{
    float *p = nullptr;
    cudaMalloc(&p, N * sizeof *p);
    cudaMemset(p, 0, N * sizeof *p);
    cudaDeviceSynchronize();
    return p;
}

/* Work waits for a synchronisation; one stream's waits for another's event. */
static void late_work()
{
    cudaStream_t a = new_stream(), b = new_stream();
    cudaEvent_t event;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    float *x = new_zeros(), *y = new_zeros();
    add_kernel<<<1, N, 0, a>>>(x, x, 1, N);
    cudaEventRecord(event, a);
    CHECK_THAT(hostcuda_pending() == 2);
    cudaStreamWaitEvent(b, event, 0);
    add_kernel<<<1, N, 0, b>>>(y, x, 2, N);
    CHECK_THAT(cudaStreamSynchronize(b) == cudaSuccess);
    CHECK_THAT(first(y) == 3 && !*hostcuda_report());
    /* without the wait, b reads what a has not written */
    add_kernel<<<1, N, 0, a>>>(x, x, 1, N);
    add_kernel<<<1, N, 0, b>>>(y, x, 2, N);
    cudaStreamSynchronize(b);
    CHECK_THAT(first(y) == 3);
    cudaStreamSynchronize(a);
    /* the host reads too early */
    add_kernel<<<1, N, 0, a>>>(x, x, 1, N);
    first(x);
    cudaStreamSynchronize(a);
    CHECK_THAT(strstr(hostcuda_report(), "the host read device memory before"));
    hostcuda_clear();
    hostcuda_forgive();
    cudaFree(x);
    cudaFree(y);
    cudaEventDestroy(event);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
}

/* What the runtime refuses while this thread captures */
static void forbidden_in_capture(cudaStream_t s)
{
    void *p = nullptr, *pinned = nullptr;
    cudaGraph_t graph;
    cudaEvent_t event;
    cudaEventCreate(&event);
    cudaEventRecord(event, s);
    cudaMallocHost(&pinned, 16);
    for (int i = 0; i < 6; i++) {
        cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
        cudaError_t e = i == 0   ? cudaStreamSynchronize(s)
                        : i == 1 ? cudaMalloc(&p, 16)
                        : i == 2 ? cudaMallocHost(&p, 16)
                        : i == 3 ? cudaFreeHost(pinned)
                        : i == 4 ? cudaEventQuery(event)
                                 : cudaEventSynchronize(event);
        CHECK_THAT(e == cudaErrorStreamCaptureUnsupported);
        CHECK_THAT(cudaStreamEndCapture(s, &graph) == cudaErrorStreamCaptureInvalidated && !graph);
    }
    cudaFreeHost(pinned);
    cudaEventDestroy(event);
}

/* A fork and join, captured; arguments are those of the capture. */
static void graphs()
{
    cudaStream_t a = new_stream(), b = new_stream();
    cudaEvent_t fork, join;
    cudaEventCreate(&fork);
    cudaEventCreate(&join);
    float *x = new_zeros(), *y = new_zeros(), c = 1;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK_THAT(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    add_kernel<<<1, N, 0, a>>>(x, x, c, N);
    c = 100;
    cudaEventRecord(fork, a);
    cudaStreamWaitEvent(b, fork, 0);
    add_kernel<<<1, N, 0, b>>>(y, x, 10, N);
    cudaEventRecord(join, b);
    cudaStreamWaitEvent(a, join, 0);
    cudaMemcpyAsync(x, y, N * sizeof *x, cudaMemcpyDeviceToDevice, a);
    CHECK_THAT(cudaStreamEndCapture(a, &graph) == cudaSuccess);
    size_t nodes = 0;
    CHECK_THAT(cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess && nodes == 3);
    CHECK_THAT(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
    cudaGraphDestroy(graph);
    for (int k = 0; k < 3; k++) cudaGraphLaunch(exec, a);
    cudaStreamSynchronize(a);
    CHECK_THAT(first(x) == 33 && first(y) == 33);
    cudaGraphExecDestroy(exec);
    forbidden_in_capture(a);
    /* a branch that never joins */
    cudaStreamBeginCapture(a, cudaStreamCaptureModeRelaxed);
    cudaEventRecord(fork, a);
    cudaStreamWaitEvent(b, fork, 0);
    add_kernel<<<1, N, 0, b>>>(y, x, 10, N);
    CHECK_THAT(cudaStreamEndCapture(a, &graph) == cudaErrorStreamCaptureUnjoined);
    cudaGetLastError();
    cudaFree(x);
    cudaFree(y);
    cudaEventDestroy(fork);
    cudaEventDestroy(join);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
}

static __global__ void held_kernel(float *y)
{
    __shared__ float word;
    if (!threadIdx.x) word = (float)blockDim.x;
    __syncthreads();
    if (y) *y = word;
}

static void limits()
{
    void *p = nullptr;
    hostcuda_fail("cudaMalloc", 2, 0);
    CHECK_THAT(cudaMalloc(&p, 16) == cudaSuccess);
    cudaFree(p);
    CHECK_THAT(cudaMalloc(&p, 16) == cudaErrorMemoryAllocation);
    CHECK_THAT(cudaGetLastError() == cudaErrorMemoryAllocation &&
               cudaGetLastError() == cudaSuccess);
    hostcuda_set_memory(1 << 20);
    CHECK_THAT(cudaMalloc(&p, 2 << 20) == cudaErrorMemoryAllocation);
    hostcuda_set_memory((size_t)16 << 30);
    int n = -1;
    hostcuda_set_devices(0);
    CHECK_THAT(cudaGetDeviceCount(&n) == cudaErrorNoDevice && n == 0);
    hostcuda_set_devices(2);
    CHECK_THAT(cudaSetDevice(1) == cudaSuccess && cudaSetDevice(2) == cudaErrorInvalidDevice);
    hostcuda_set_devices(1);
    cudaGetLastError();
    add_kernel<<<1, 2048>>>(nullptr, nullptr, 0, 0);
    CHECK_THAT(cudaGetLastError() == cudaErrorInvalidConfiguration);
    add_kernel<<<1, 32, 64 << 10>>>(nullptr, nullptr, 0, 0);
    CHECK_THAT(cudaGetLastError() == cudaErrorInvalidValue);
    held_kernel<<<1, 32, (48 << 10) - 4>>>(nullptr); /* with its own word all there is */
    CHECK_THAT(cudaDeviceSynchronize() == cudaSuccess && cudaGetLastError() == cudaSuccess);
    held_kernel<<<1, 32, 48 << 10>>>(nullptr);
    CHECK_THAT(cudaGetLastError() == cudaErrorInvalidValue);
    CHECK_THAT(cudaFuncSetAttribute(add_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    64 << 10) == cudaSuccess);
    add_kernel<<<1, 32, 64 << 10>>>(nullptr, nullptr, 0, 0);
    CHECK_THAT(cudaDeviceSynchronize() == cudaSuccess);
    int blocks = 0;
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, add_kernel, 1024, 0);
    CHECK_THAT(blocks == 2);
    /* a failed kernel is not forgotten */
    add_kernel<<<1, 32>>>(nullptr, nullptr, 0, 32);
    CHECK_THAT(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
    CHECK_THAT(cudaMalloc(&p, 16) == cudaErrorLaunchFailure);
    CHECK_THAT(strstr(cudaGetErrorString(cudaErrorLaunchFailure), "runtime.cu"));
    hostcuda_clear();
    hostcuda_forgive();
}

int runtime_checks()
{
    hostcuda_set_schedule(0);
    hostcuda_set_streams(1);
    late_work();
    graphs();
    limits();
    return failed_checks;
}
