/* kernels_base.h - what every launcher of kernels.h shares: storage types and streams.
 *
 * Rules that hold for all launchers:
 *   - cpu_<op>_fwd|_dx|_dw(outputs, inputs, sizes, scalars, stream).
 *   - cuda_<op>_... is declared beside it: the same arguments and a storage type before the stream.
 *     Activations, their gradients and weights of two and more dimensions are stored as that type
 *     (void *); statistics, losses, coefficients, one-dimensional parameters and all gradients of
 *     parameters are fp32. Sums are fp32; a result is rounded to its type once.
 *   - A launcher does not print and keeps nothing beyond its stream. On a GPU it only enqueues.
 *   - Arrays are contiguous, row-major, 16-byte aligned; outputs do not overlap inputs unless
 *     "in place" is stated. Outputs are overwritten, never added to, unless stated.
 *   - Sums are kept in at least fp32 and taken in a fixed order: same input, same bits, whatever
 *     the number of threads (gradients of convolutions on the CPU: for a fixed number).
 *   - Returns ERR_BUG for a shape it does not support, ERR_SPACE without memory.
 *
 * Dimension letters: n images, h w pixels, c channels in, k channels out, r s filter rows and
 * columns, p q output pixels, hw = h*w, t tokens, d model width, heads, dh width of a head,
 * groups, per = c / groups. Layouts: activations NHWC, weights [k, r, s, c], tokens [n, t, d].
 */
#ifndef KERNELS_BASE_H
#define KERNELS_BASE_H
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { DTYPE_F32, DTYPE_BF16, DTYPE_I32 } Dtype;
typedef enum { ACT_NONE, ACT_SILU, ACT_RELU } Act; /* applied to the result of a norm */

static inline size_t dtype_bytes(Dtype d) { return d == DTYPE_BF16 ? 2 : 4; }

/* Where work is enqueued: on a CPU it holds the library's primitives, already made, and scratch
 * memory that grows during the first step only. Used by one thread at a time. */
typedef struct Stream Stream;

Status cpu_stream_new(Stream **s);
void   cpu_stream_free(Stream *s); /* accepts NULL */
Status cuda_stream_new(Stream **s);      /* on the current GPU */
void   cuda_stream_free(Stream *s);      /* accepts NULL */
void  *cuda_stream_handle(const Stream *s); /* its cudaStream_t */

#ifdef __cplusplus
}
#endif
#endif
