/* inception_v3.h - Inception-V3 as in torchvision, with a width multiplier.
 *
 * Images are 2p - 1 for pixels p in [0, 1]; with transform_input they are ImageNet's normalisation
 * of p, out of which it makes 2p - 1. Images of 75 px and more; the auxiliary head needs 299.
 */
#ifndef INCEPTION_V3_H
#define INCEPTION_V3_H
#include "models/layers.h"

enum { INCEPTION_LEAST_PX = 75, INCEPTION_LEAST_AUX_PX = 299, INCEPTION_TAPS = 3 };

typedef struct {
    int num_classes;
    double width;  /* channels times width, rounded up to a multiple of 8; 1: published */
    bool aux;      /* has the auxiliary head */
    float dropout; /* before the last layer; 0.5 published */
    bool transform_input;
    struct Comm *sync; /* in training, batch statistics are of all its ranks' images; NULL: its own */
} InceptionConfig;

typedef struct {
    Tensor *features;   /* [n,2048 * width] pooled, before dropout */
    Tensor *logits;     /* [n,classes] */
    Tensor *aux_logits; /* [n,classes], NULL without the head */
    Tensor *tap[INCEPTION_TAPS]; /* [n,h,w,c] after Conv2d_2b_3x3, Mixed_5d, Mixed_6e */
} InceptionOut;

/* A folder with config.json (num_classes, aux_logits, transform_input, dropout as torchvision calls
 * them, width; torchvision's defaults where absent) and model.safetensors, or one safetensors file,
 * whose config follows from its shapes and which has no transform_input. */
Status inception_config_read(InceptionConfig *c, const char *path);
/* Refuses a file with a part of the auxiliary head, which torchvision would not load, whether the
 * head is used or not; a file without any of it is fine. */
Status inception_check_head(const char *weights);
int inception_scaled(double width, int channels); /* channels at that width */

/* image[n,h,w,3]. train: batch statistics, running averages move; else running averages are used.
 * rng: I32[3] as dropout() takes it; NULL: no dropout. All NULL in a graph that has failed. */
InceptionOut inception_v3(Graph *g, ParamStore *s, const InceptionConfig *c, Tensor *image,
                          Tensor *rng, bool train);
#endif
