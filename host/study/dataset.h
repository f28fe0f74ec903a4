/* dataset.h - the stage that prepares a run's films: FOLDER/data/ with manifest.csv, see prepare.h.
 */
#ifndef DATASET_H
#define DATASET_H
#include "base/log.h"
#include "data/manifest.h"
#include "study/stage.h"

/* Prepares data.source into s->folder/data unless that is done. s: stage_new() of "prepare". By one
 * rank. */
Status dataset_stage(Stage *s, const Config *c, Log *log);
/* Of the complete stage. */
Status dataset_manifest(Manifest *m, const Stage *s);

/* What dataset_stage would find late, from the names of the source's films in a moment: a class of
 * the n that it has no film of, and a source that cannot be listed. count, where not NULL, gets
 * [n + 1] numbers of films: of these classes, and all. */
Status dataset_check(int *count, const Config *c, const char *const *class, int n);
#endif
