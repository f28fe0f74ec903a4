/* totals.cuh - sums down the columns of two matrices, in a fixed order: the last stage of gradients
 * of parameters, where blocks or images have left their shares. */
#pragma once
#include "device.cuh"

/* first[width] = sum over `count` rows of in[count][stride], and second likewise of in2. A block
 * takes 32 columns, each of its warps every 32nd row. */
static __global__ void __launch_bounds__(1024)
    column_totals_kernel(float *first, float *second, const float *in, const float *in2,
                         size_t count, size_t stride, int width)
{
    __shared__ float part[32][33];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    if (blockIdx.y) first = second, in = in2;
    float sum = 0;
    if (column < width) {
#pragma unroll 4
        for (size_t r = warp; r < count; r += 32) sum += in[r * stride + column];
    }
    part[warp][lane] = sum;
    __syncthreads();
    float total = warp_sum(part[lane][warp]);
    column = blockIdx.x * 32 + warp;
    if (lane == 0 && column < width) first[column] = total;
}

static inline Status column_totals(float *first, float *second, const float *in, const float *in2,
                                   size_t count, size_t stride, int width, Stream *s)
{
    dim3 grid((width + 31) / 32, 2);
    column_totals_kernel<<<grid, 1024, 0, s->handle>>>(first, second, in, in2, count, stride,
                                                       width);
    return launched("column_totals");
}
