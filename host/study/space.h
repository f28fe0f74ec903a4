/* space.h - is there room for what a run will write? Asked before anything is written.
 *
 * An estimate, from the settings, the names of the films and the sizes of the models: prepared and
 * synthetic films (0.7 bytes a pixel, in blocks of 4 KiB), models, and the largest of what stands
 * only while one model is trained (two checkpoints and the one being written; cached latents).
 * Quotas are not seen. ERR_SPACE names what is free and what is expected. Asked when a run starts,
 * not when it continues: what is there already would be counted twice.
 */
#ifndef SPACE_H
#define SPACE_H
#include "config/config.h"

typedef struct {
    int all, normal, disease[2]; /* films by class; disease[1] of the second one */
} FilmCounts;

/* folder need not exist yet. */
Status space_for_study(const char *folder, const Config *c, const FilmCounts *n);
Status space_for_films(const char *folder, const Config *c, int prepared, int synthetic);

/* Synthetic films of a disease, before the split is known. */
int synthetic_expected(const Config *c, int normal, int diseased);
#endif
