/* stream.cu - the CUDA stream behind kernels_base.h, and its scratch memory. */
#include "device.cuh"
#include "product.h"
#include <cstdlib>

Status cuda_stream_new(Stream **out)
{
    *out = (Stream *)calloc(1, sizeof(Stream));
    if (!*out) return FAIL(ERR_SPACE, "no memory for a stream");
    cudaError_t e = cudaStreamCreateWithFlags(&(*out)->handle, cudaStreamNonBlocking);
    if (e == cudaSuccess) return OK;
    free(*out);
    *out = NULL;
    return FAIL(ERR_DEVICE, "CUDA stream: %s", cudaGetErrorString(e));
}

void cuda_stream_free(Stream *s)
{
    if (!s) return;
    choices_free(s->choices);
    for (int i = 0; i < s->n_block; i++) cudaFree(s->block[i]);
    cudaStreamDestroy(s->handle);
    free(s);
}

void *cuda_stream_handle(const Stream *s) { return s->handle; }

void *stream_scratch(Stream *s, size_t bytes)
{
    const int room = sizeof s->block / sizeof *s->block;
    if (bytes <= s->scratch_bytes) return s->scratch;
    void *p = NULL;
    size_t grown = bytes > 2 * s->scratch_bytes ? bytes : 2 * s->scratch_bytes;
    if (s->n_block == room || cudaMalloc(&p, grown) != cudaSuccess) {
        cudaGetLastError(); /* said by whoever asked for it */
        return NULL;
    }
    s->block[s->n_block++] = p;
    s->scratch = p;
    s->scratch_bytes = grown;
    return p;
}

Status launched(const char *kernel)
{
    cudaError_t e = cudaGetLastError();
    return e == cudaSuccess ? OK : FAIL(ERR_DEVICE, "%s: %s", kernel, cudaGetErrorString(e));
}
