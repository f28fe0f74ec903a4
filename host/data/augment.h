/* augment.h - random changes of a film for the training of a classifier.
 *
 * One affine map of positions (rotation, scale and shift about the centre, optional mirror),
 * sampled bilinearly with black outside, then y = clamp(contrast (x - 1/2) + 1/2 + brightness).
 * What is drawn is a function of the key alone; all amounts zero give the input back bit for bit.
 */
#ifndef AUGMENT_H
#define AUGMENT_H
#include "base/random.h"
#include "base/status.h"

typedef struct {
    double rotate_degrees; /* at most, either way           */
    double shift;          /* of the side, either way       */
    double scale;          /* larger or smaller by this share, below 1 */
    double brightness;     /* added, either way; white is 1 */
    double contrast;       /* more or less by this share    */
    bool flip;             /* mirror every second film: swaps the heart's side, so off by default */
} Augment;                 /* {0}: nothing */

/* out, in: [size, size]; not the same memory. key: stream STREAM_AUGMENT, step epoch, sample id. */
void augment_apply(float *out, const float *in, int size, const Augment *a, RandomKey key);
#endif
