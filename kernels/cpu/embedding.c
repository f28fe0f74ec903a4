/* embedding.c - rows of a table by number, and the gradient of the table. */
#include "cpu.h"
#include "kernels_shape.h"
#include <string.h>

Status cpu_embedding_fwd(float *y, const int32_t *ids, const float *table, size_t count, int rows,
                         int d, Stream *s)
{
    (void)s;
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= rows)
            return FAIL(ERR_INPUT, "position %zu: id %d, expected 0 to %d", i, (int)ids[i],
                        rows - 1);
#pragma omp parallel for
    for (size_t i = 0; i < count; i++)
        memcpy(y + i * (size_t)d, table + (size_t)ids[i] * (size_t)d, (size_t)d * sizeof *y);
    return OK;
}

/* Threads share out columns, not positions: equal ids never meet, and every element is summed in
 * order of position. */
SIMD Status cpu_embedding_dw(float *dtable, const int32_t *ids, const float *dy, size_t count,
                             int rows, int d, Stream *s)
{
    (void)s;
    enum { BLOCK = 64 };
#pragma omp parallel for
    for (int r = 0; r < rows; r++)
        memset(dtable + (size_t)r * (size_t)d, 0, (size_t)d * sizeof *dtable);
#pragma omp parallel for
    for (int from = 0; from < d; from += BLOCK) {
        int width = d - from < BLOCK ? d - from : BLOCK;
        for (size_t i = 0; i < count; i++) {
            float *to = dtable + (size_t)ids[i] * (size_t)d + from;
            const float *v = dy + i * (size_t)d + from;
#pragma omp simd
            for (int k = 0; k < width; k++) to[k] += v[k];
        }
    }
    return OK;
}
