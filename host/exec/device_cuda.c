/* device_cuda.c - one CUDA GPU: a stream on which everything is enqueued in order. */
#include "exec/device_table.h"
#if EQ_CUDA
#include <cuda_runtime_api.h>
#include <stdio.h>

static Status failed(cudaError_t e, const char *doing)
{
    return e == cudaSuccess ? OK : FAIL(ERR_DEVICE, "CUDA %s: %s", doing, cudaGetErrorString(e));
}

static cudaStream_t handle(const Device *d) { return cuda_stream_handle(d->stream); }

int cuda_device_count(const char **why_none)
{
    int n = 0; /* untouched when there is no driver */
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0) return n;
    cudaGetLastError(); /* not anyone's later error */
    *why_none = e == cudaErrorInsufficientDriver ? "no NVIDIA driver, or one too old for this build"
                : e == cudaSuccess || e == cudaErrorNoDevice ? "no NVIDIA GPU"
                                                             : cudaGetErrorString(e);
    return 0;
}

static Status open(Device *d, int threads)
{
    (void)threads;
    TRY(failed(cudaSetDevice(0), "device 0"));
    snprintf(d->text, sizeof d->text, "CUDA");
    return cuda_stream_new(&d->stream);
}

static void close(Device *d) { cuda_stream_free(d->stream); }

static Status alloc(void **p, size_t bytes)
{
    cudaError_t e = cudaMalloc(p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return ERR_SPACE;
    }
    TRY(failed(e, "memory"));
    return failed(cudaMemset(*p, 0, bytes), "memory");
}

static void release(void *p) { cudaFree(p); }

static Status copy_in(Device *d, void *to, const void *host, size_t bytes)
{
    TRY(failed(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, handle(d)), "copy"));
    return failed(cudaStreamSynchronize(handle(d)), "copy");
}

static Status copy_out(Device *d, void *host, const void *from, size_t bytes)
{
    TRY(failed(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, handle(d)), "copy"));
    return failed(cudaStreamSynchronize(handle(d)), "copy");
}

static Status run(const Device *d, const Tensor *node)
{
    if (!node->op->cuda) return FAIL(ERR_BUG, "%s has no CUDA kernel", node->op->name);
    return node->op->cuda(node, d->stream);
}

static Status sync(Device *d) { return failed(cudaStreamSynchronize(handle(d)), "wait"); }

const DeviceTable device_cuda = {"cuda",  open,     close, alloc, release,
                                 copy_in, copy_out, run,   sync};
#endif
