/* classifier.h - trains Inception-V3 on films, and predicts with it.
 *
 * Writes below `out`: model.safetensors (best epoch by `monitor`, published names; metadata
 * says which and the width), history.json (per epoch: train loss, validation loss and balanced accuracy,
 * rate), checkpoints/ while it runs. A second call continues bit for bit; a finished one returns at
 * once.
 *
 * Loss: cross-entropy with class weights n / (classes * n_class), plus aux_weight times the
 * auxiliary head's. Films go in as 2p - 1, three equal channels, augmented as [augment] says.
 *
 * The ranks of `comm` (attached to the device; NULL: alone) train together, as in ldm_trainer.h, and
 * share the films that are predicted.
 */
#ifndef CLASSIFIER_H
#define CLASSIFIER_H
#include "base/log.h"
#include "comm/comm.h"
#include "config/config.h"
#include "train/cost.h"

typedef struct {
    const char *path; /* borrowed */
    int label;        /* 0 .. classes-1; binary tasks: 1 = diseased */
    uint64_t id;      /* keys its random draws; distinct */
} ClassifierFilm;

typedef struct {
    const Config *config; /* [data] size, loader_threads, [classifier], [augment] */
    uint32_t seed;
    const char *out, *name; /* folder; for progress lines */
    const ClassifierFilm *train, *val;
    int n_train, n_val, classes;
    const char *identity;
    long stop_after; /* tests: as if a stop was requested after this many steps; 0 = never */
    int minutes;     /* stop cleanly after so many minutes; 0 = no limit */
    Comm *comm;
} ClassifierJob;

/* What classifier_train would refuse in classifier.weights, found in a moment from its header. */
Status classifier_check(const Config *config);
Status classifier_size(size_t *floats, const Config *config); /* of its parameters */

Status classifier_train(const ClassifierJob *job, Device *d, Log *log);
/* Of the job, of which config, classes and the numbers of films are looked at. */
Status classifier_measure(Cost *cost, const ClassifierJob *job, Device *counting);

/* Probabilities [n, classes] of films by the model that classifier_train wrote (or published
 * weights of that width); features, where not NULL, is set to a heap array [n, *width] of the
 * pooled features. */
typedef struct {
    const Config *config;
    const char *weights;
    int classes;
    const ClassifierFilm *film;
    int n;
    Comm *comm;
} PredictJob;
Status classifier_predict(const PredictJob *job, Device *d, Log *log, float *probability,
                          float **features, int *width);

/* Of the config. */
Status classifier_measure_predict(Cost *cost, const Config *config, Device *counting);

/* Pooled features only, of weights with any number of classes (the pretrained trunk). */
Status classifier_features(const Config *config, const char *weights, const char *const *path,
                           int n, Comm *comm, Device *d, Log *log, float **features, int *width);
#endif
