/* classifier_net.h - Inception-V3 with its parameters and its two uses: training pass and
 * evaluation pass. */
#ifndef CLASSIFIER_NET_H
#define CLASSIFIER_NET_H
#include "data/loader.h"
#include "exec/exec.h"
#include "models/inception_v3.h"
#include "train/classifier.h"
#include "train/step.h"

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
    bool joint;                                 /* statistics of the batch are over ranks */
    int batch, size;
} ClassifierPass; /* starts as {0} */

/* train: whose updates the pass is for (its ranks share statistics of the batch where
 * parallel.sync_batchnorm says so); NULL: a pass of evaluation. class_weight: [classes] or NULL.
 */
Status classifier_pass_open(ClassifierPass *p, ClassifierNet *n, const Config *c, int batch,
                            Optimizer *train, const float *class_weight);
void classifier_pass_close(ClassifierPass *p);
/* pixel [batch, size, size] in [0, 1]; label [batch]; rng[3], NULL in evaluation. */
Status classifier_pass_write(ClassifierPass *p, const float *pixel, const int *label,
                             const int32_t *rng);
/* A step with this pass; feed is still to be filled in. Where the gradient is not finite, a step
 * changes nothing: neither parameters nor the running averages that the forward pass moves. */
TrainStep classifier_step(ClassifierPass *p, Optimizer *o);

/* Every film once, in order: probabilities [n, classes] and, where not NULL, features [n, width].
 * The ranks of comm share the films, and all get all. */
Status classifier_scan(ClassifierPass *p, const Config *c, Comm *comm, const ClassifierFilm *film,
                       int n, float *probability, float *features, Log *log, const char *what);

/* The training order, from `step` on: this rank's micro-batches, as `sum` shares them out. */
Status classifier_loader(Loader **l, const ClassifierJob *job, const Reduction *sum, long step,
                         long per_epoch);
#endif
