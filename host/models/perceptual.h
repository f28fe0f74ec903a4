/* perceptual.h - how different two films look to a trained Inception-V3 that rests.
 *
 * Distance as LPIPS (Zhang et al. 2018) has it, with the weight of every channel 1: features f of
 * each tap (InceptionOut.tap) are scaled to length 1 over their channels at each place, and
 *
 *   d(x, y) = sum over taps of the mean over places of |u(x) - u(y)|^2,  u = f / sqrt(f.f + 1e-4)
 *
 * Batch normalisations use their running averages; no parameter gets a gradient. Films are in
 * [0, 1] with three channels, of INCEPTION_LEAST_PX and more; the network sees 2p - 1, as a
 * classifier does.
 */
#ifndef PERCEPTUAL_H
#define PERCEPTUAL_H
#include "models/inception_v3.h"

typedef struct {
    InceptionConfig config;
    ParamStore store;
} Perceptual; /* starts as {0} */

/* path: what inception_config_read() takes; the last layers are left alone. d NULL: names and
 * shapes are checked and nothing is loaded. Freed by perceptual_close(), also where it failed. */
Status perceptual_open(Perceptual *p, Device *d, const char *path);
void perceptual_close(Perceptual *p);

/* [1]: sum over i of weight[i] * d(x[i], target[i]), divided by n, for x and target[n,h,w,3];
 * target is a constant. NULL in a graph that has failed. Recorded outside of any scope. */
Tensor *perceptual_loss(Graph *g, Perceptual *p, Tensor *x, Tensor *target, Tensor *weight);
#endif
