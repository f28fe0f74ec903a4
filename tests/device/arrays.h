/* arrays.h - arrays on both sides, for tests that call launchers directly. */
#ifndef ARRAYS_H
#define ARRAYS_H
#include "base/random.h"
#include "kernels_base.h"
#include "weights/half.h"
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    size_t count;
    float *value;  /* what the device has, too */
    void *device;
    Dtype type;
} Array;

static inline void array_store(Array *a) /* to the device, rounded to its type on both sides */
{
    uint16_t *half = malloc(a->count * sizeof *half);
    size_t bytes = a->count * dtype_bytes(a->type);
    float_to_bf16(half, a->value, a->count);
    if (a->type == DTYPE_BF16) bf16_to_float(a->value, half, a->count);
    if (!a->device && cudaMalloc(&a->device, bytes)) abort();
    cudaMemcpy(a->device, a->type == DTYPE_BF16 ? (void *)half : a->value, bytes,
               cudaMemcpyHostToDevice);
    free(half);
}

static inline void array_load(Array *a) /* from the device */
{
    uint16_t *half = malloc(a->count * sizeof *half);
    size_t bytes = a->count * dtype_bytes(a->type);
    cudaMemcpy(a->type == DTYPE_BF16 ? (void *)half : a->value, a->device, bytes,
               cudaMemcpyDeviceToHost);
    if (a->type == DTYPE_BF16) bf16_to_float(a->value, half, a->count);
    free(half);
}

static inline Array array_empty(size_t count, Dtype type) /* NaN until something is written */
{
    Array a = {count, malloc(count * sizeof(float)), NULL, type};
    memset(a.value, 0xff, count * sizeof(float));
    array_store(&a);
    cudaMemset(a.device, 0xff, count * dtype_bytes(type));
    cudaDeviceSynchronize(); /* a stream that does not block would not wait for it */
    return a;
}

/* Whole numbers from -most to most. */
static inline Array array_whole(size_t count, Dtype type, uint32_t most, uint32_t seed, uint64_t id)
{
    Array a = {count, malloc(count * sizeof(float)), NULL, type};
    for (size_t i = 0; i < count; i++)
        a.value[i] = (float)random_below((RandomKey){seed, STREAM_TEST, 0, id}, (uint32_t)i,
                                         2 * most + 1) - (float)most;
    array_store(&a);
    return a;
}

static inline Array array_normal(size_t count, Dtype type, uint32_t seed, uint64_t id)
{
    Array a = {count, malloc(count * sizeof(float)), NULL, type};
    for (size_t i = 0; i < count; i++)
        a.value[i] = (float)random_normal((RandomKey){seed, STREAM_TEST, 0, id}, (uint32_t)i);
    array_store(&a);
    return a;
}

static inline void array_free(Array *a)
{
    cudaFree(a->device);
    free(a->value);
}
#endif
