/* history.h - losses and rates by step, as the report and a resumed run read them: rows of numbers
 * under named columns. NaN means "not measured here" and is null in files. */
#ifndef HISTORY_H
#define HISTORY_H
#include "base/status.h"

enum { HISTORY_COLUMNS = 6 };
typedef struct {
    const char *column[HISTORY_COLUMNS]; /* borrowed, static */
    int n_column, n, cap;
    double *value; /* owned: [n, n_column] */
} History;

void history_init(History *h, int n_column, const char *const *column);
void history_free(History *h);
void history_add(History *h, const double *row);
/* {"columns": [...], "rows": [[...], ...]}: heap text. */
char *history_text(const History *h);
Status history_write(const History *h, const char *path);
/* Takes the rows out of `text` (an object that holds the above under "history"); columns must
 * agree. */
Status history_parse(History *h, const char *text);
#endif
