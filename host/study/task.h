/* task.h - one binary task of a study, normal against one disease, and its stages' work.
 *
 *   stages/baseline-a    real films only           stages/augmented-a   with synthetic ones
 *   stages/ldm-a         the diffusion model       stages/synth-a       record of
 * synthetic/<disease>/
 *
 * How many synthetic films, and where: with synthesis.count = 0 as many as balance the classifier's
 * training set, and its validation set too where classifier.synthetic_in = train+val; a count that
 * is given is divided between the two in that proportion. Sample ids below n_train go to training,
 * the others to validation: so which film validates does not depend on what it looks like.
 *
 * An arm's folder gets model.safetensors, history.json, predictions_val.csv and
 * predictions_test.csv. With study.repeats > 1 seed r > 0 trains in seed-r/, each seed's
 * predictions are in seed-r/, and those of the arm are the mean scores. Validation is the set that
 * the arm was trained with, test films are real.
 */
#ifndef TASK_H
#define TASK_H
#include "study/fold.h"
#include "study/stage.h"

typedef struct {
    char letter; /* 'a' or 'b' */
    const char *disease, *prompts;
    char *synthetic;    /* owned: RUN/synthetic/<disease> */
    int n_train, n_val; /* synthetic films wanted */
    Stage baseline, ldm, synth, augmented;
} Task; /* starts as {0} */

typedef struct {
    const Config *config;
    const char *run; /* folder */
    Comm *comm;      /* of the ranks that run the stage at hand; NULL: one */
    Device *device;
    Log *log;
    Stage prepare, evaluate;
    Manifest manifest; /* of the prepared films */
    Task task[2];      /* with the manifest */
} Study;               /* starts as {0} */

/* Synthetic films of a disease for training and validation, as told above. */
Status synthetic_wanted(int *n_train, int *n_val, const Config *c, const Manifest *m,
                        const char *disease);

/* Everything of the task but its stages, which are steps.h's. */
Status task_open(Task *t, const Study *s, char letter);
void task_close(Task *t); /* accepts {0} */

/* Each runs its stage unless it is complete, with s->comm and stage.comm. */
Status task_baseline(Task *t, const Study *s);
Status task_ldm(Task *t, const Study *s);
Status task_synth(Task *t, const Study *s);
Status task_augmented(Task *t, const Study *s);

/* The synthetic films of a task, from its manifest; strings in the arena. */
typedef struct {
    const char *id, *path, *source_id;
    uint64_t sample;
} SyntheticFilm;
Status task_synthetic(SyntheticFilm **film, int *n, Arena *a, const Task *t);

char *stage_path(const Stage *s, const char *file); /* heap */
#endif
