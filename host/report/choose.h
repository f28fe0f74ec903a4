/* choose.h - which films the report shows: by position, never by how they look.
 *
 * Of a task's n synthetic films those at places k n / columns, each with the film that it was made
 * from; beside them real test films of the disease, of different patients, at even places too. A
 * real film has nothing to do with the others of its column.
 */
#ifndef CHOOSE_H
#define CHOOSE_H
#include "report/run.h"

enum { MOST_COLUMNS = 8 };

typedef struct {
    const char *path; /* NULL: there is none */
    const char *id, *label;
} ShownFilm;

typedef struct {
    ShownFilm source, synthetic, real;
} FilmColumn;

/* n is 0 where the run has no synthetic films of the task. Strings live in the arena. */
Status choose_films(FilmColumn column[MOST_COLUMNS], int *n, Arena *a, const Run *r,
                    const RunTask *task);
#endif
