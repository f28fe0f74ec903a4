/* classifier_net.h - Inception-V3 with its parameters and its two uses: training pass and
 * evaluation pass. */
#ifndef CLASSIFIER_NET_H
#define CLASSIFIER_NET_H
#include "data/loader.h"
#include "exec/exec.h"
#include "models/inception_v3.h"
#include "train/classifier.h"
#include "train/optimizer.h"

typedef struct {
    Device *device;
    InceptionConfig config;
    ParamStore store;
    float aux_weight;
} ClassifierNet; /* starts as {0}; freed by params_free(&store) */

/* Registers and allocates; values are zero. */
Status classifier_net_open(ClassifierNet *n, Device *d, const Config *c, int classes,
                           bool with_grad);
/* classifier.weights over the values, the last layers apart, and classifier_net_freeze(). */
Status classifier_net_start(ClassifierNet *n, const Config *c);
Status classifier_net_freeze(ClassifierNet *n, const Config *c); /* what classifier.frozen names */

typedef struct {
    Graph *g;
    Exec *e;
    Tensor *image, *label, *rng, *class_weight; /* inputs */
    Tensor *loss, *probability, *features;      /* kept */
    float *three;                               /* owned: [batch, size, size, 3] host buffer */
    ClassifierNet *net;                         /* borrowed */
    float *averages; /* owned, in training: device copy of the running averages */
    Optimizer *optimizer; /* borrowed: of the training steps; NULL before the first */
    int batch, size;
} ClassifierPass; /* starts as {0} */

/* class_weight: [classes] or NULL. */
Status classifier_pass_open(ClassifierPass *p, ClassifierNet *n, const Config *c, int batch,
                            bool train, const float *class_weight);
void classifier_pass_close(ClassifierPass *p);
/* pixel [batch, size, size] in [0, 1]; label [batch]; rng[3], NULL in evaluation. */
Status classifier_pass_run(ClassifierPass *p, const float *pixel, const int *label,
                           const int32_t *rng);
/* One update. Where the gradient is not finite, as *norm tells, nothing has changed: neither
 * parameters nor the running averages that the forward pass moves. */
Status classifier_pass_train(ClassifierPass *p, Optimizer *o, double rate, const float *pixel,
                             const int *label, const int32_t rng[3], float *loss, double *norm);

/* Every film once, in order: probabilities [n, classes] and, where not NULL, features [n, width].
 */
Status classifier_scan(ClassifierPass *p, const Config *c, const ClassifierFilm *film, int n,
                       float *probability, float *features, Log *log, const char *what);

/* The training order, from `step` on. */
Status classifier_loader(Loader **l, const ClassifierJob *job, long step, long per_epoch);
#endif
