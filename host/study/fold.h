/* fold.h - which films of a manifest a stage works on. The only place that decides it.
 *
 * Rules: diffusion models train on training films only (validation films only measure their loss)
 * and image-to-image starts from training films only; classifiers train on training films and pick
 * their epoch and threshold on validation films. Test films are for the last measurement. Films of
 * the pool are outside knowledge: no stage of a study takes them, but base models may be trained on
 * them.
 *
 * Lists keep the manifest's order and live in an arena; their strings too.
 */
#ifndef FOLD_H
#define FOLD_H
#include "config/config.h"
#include "data/manifest.h"
#include "sample/synthesis.h"
#include "train/classifier.h"
#include "train/ldm_trainer.h"

/* Key of a film's random draws: the first 64 bits of its id's SHA-256. */
uint64_t film_key(const char *id);

/* Fails, naming the classes there are, if the manifest has none of this name. */
Status fold_need_class(const Manifest *m, const char *name);

/* Films of `split` that are normal (label 0) or of the disease (label 1). rows, where not NULL, is
 * set to their rows. Fails unless both kinds are there. */
Status fold_task(ClassifierFilm **film, const ManifestRow ***rows, int *n, Arena *a,
                 const Manifest *m, Split split, const char *normal, const char *disease);

/* The pretext task: which patient is it? Labels are patients of training and pool films, numbered
 * by name; the first film, by key, of each patient with three or more (if there is none: two or
 * more) validates, the others train. */
Status fold_patients(ClassifierFilm **train, int *n_train, ClassifierFilm **val, int *n_val,
                     int *classes, Arena *a, const Manifest *m);

/* Films with the prompts of their class. splits: 1 << SPLIT_TRAIN | ...; label NULL: all classes.
 */
Status fold_prompted(LdmFilm **film, int *n, Arena *a, const Manifest *m, const Config *c,
                     unsigned splits, const char *label);

/* Paths of films. splits and label as above. */
Status fold_paths(const char *const **path, int *n, Arena *a, const Manifest *m, unsigned splits,
                  const char *label);

/* Training films of a class, as sources for image-to-image. */
Status fold_sources(SourceFilm **film, int *n, Arena *a, const Manifest *m, const char *label);

/* Prompt templates of a class; fails if it is none of the three of [data]. */
Status class_prompts(const char **prompts, const Config *c, const char *label);
#endif
