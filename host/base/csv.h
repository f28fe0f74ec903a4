/* csv.h - tables in files: comma separated, first row names the columns (RFC 4180).
 *
 * Accepts a UTF-8 byte order mark, CRLF and quoted fields; refuses NUL bytes, UTF-16, rows of
 * another length than the header, unterminated quotes and duplicate column names, each with
 * the file's name and line.
 */
#ifndef CSV_H
#define CSV_H
#include "base/file.h"

typedef struct {
    char  *path;        /* owned */
    char  *text;        /* owned: what cell and name point into */
    char **name;        /* owned: [n_col] */
    char **cell;        /* owned: [n_row, n_col] */
    int   *line;        /* owned: [n_row] line in the file where the row starts */
    int    n_row, n_col;
} Csv;                  /* starts as {0} */

Status csv_read(Csv *c, const char *path);
void   csv_free(Csv *c);
int    csv_find(const Csv *c, const char *column);                /* -1 if there is none */
Status csv_need(int *col, const Csv *c, const char *column);      /* fails, naming the nearest */
static inline const char *csv_at(const Csv *c, int row, int col)
{
    return c->cell[row * c->n_col + col];
}

/* One field, quoted where needed; a leading = + - @ that is no number gets a ' in front, so that
 * spreadsheets do not run it. */
Status csv_write_field(OutFile *o, const char *value, bool last);
#endif
