/* csv.c - a one-pass reader that cuts the text in place. */
#include "base/csv.h"
#include "base/text.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_CSV_BYTES = 1 << 28, MAX_COLUMNS = 256 };

typedef struct {
    char **cell;
    int *line;
    int n, cap, rows, cap_rows;
} Cells;

static void cells_add(Cells *c, char *cell)
{
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 1024;
        c->cell = realloc(c->cell, (size_t)c->cap * sizeof *c->cell);
        CHECK(c->cell);
    }
    c->cell[c->n++] = cell;
}

static void cells_row(Cells *c, int line)
{
    if (c->rows == c->cap_rows) {
        c->cap_rows = c->cap_rows ? 2 * c->cap_rows : 256;
        c->line = realloc(c->line, (size_t)c->cap_rows * sizeof *c->line);
        CHECK(c->line);
    }
    c->line[c->rows++] = line;
}

/* Cuts one field off *at, unquoting it in place. *end gets the character that ended it. */
static Status next_field(char **field, char **at, char *end, int *line, const char *path)
{
    char *in = *at, *out = in;
    *field = out;
    if (*in == '"') {
        int opened = *line;
        for (in++;; in++) {
            if (!*in)
                return FAIL(ERR_INPUT, "%s:%d: quote is never closed, expected a closing \"", path,
                            opened);
            if (*in == '"' && in[1] != '"') break;
            if (*in == '"') in++;
            *line += *in == '\n';
            *out++ = *in;
        }
        in++;
        if (*in && *in != ',' && *in != '\n' && !(*in == '\r' && in[1] == '\n'))
            return FAIL(ERR_INPUT, "%s:%d: text after a closing quote, expected a comma", path,
                        *line);
    } else {
        while (*in && *in != ',' && *in != '\n' && !(*in == '\r' && in[1] == '\n')) *out++ = *in++;
    }
    if (*in == '\r') in++;
    *end = *in;
    *at = *in ? in + 1 : in;
    *out = 0;
    return OK;
}

static Status next_row(Cells *c, int *n_col, char **at, int *line, const char *path)
{
    char end, *field;
    int begun = *line;
    *n_col = 0;
    do {
        TRY(next_field(&field, at, &end, line, path));
        cells_add(c, field);
        (*n_col)++;
    } while (end == ',');
    if (end == '\n') (*line)++;
    cells_row(c, begun);
    return OK;
}

static Status check_header(const Csv *c)
{
    for (int i = 0; i < c->n_col; i++)
        for (int j = 0; j < i; j++)
            if (!strcmp(c->name[i], c->name[j]))
                return FAIL(ERR_INPUT, "%s:1: column \"%s\" twice, expected each once", c->path,
                            c->name[i]);
    return c->n_col <= MAX_COLUMNS ? OK
                                   : FAIL(ERR_INPUT, "%s:1: %d columns, expected at most %d",
                                          c->path, c->n_col, MAX_COLUMNS);
}

static Status parse(Csv *c, size_t size)
{
    Cells cells = {0};
    char *at = c->text;
    int line = 1, n_col;
    Status s = OK;
    if (size >= 2 && ((unsigned char)at[0] >= 0xfe && (unsigned char)at[1] >= 0xfe))
        return FAIL(ERR_INPUT, "%s: is UTF-16, expected UTF-8", c->path);
    if (memchr(at, 0, size)) return FAIL(ERR_INPUT, "%s: has NUL bytes, expected text", c->path);
    if (!strncmp(at, "\xef\xbb\xbf", 3)) at += 3;
    if (!*at) return FAIL(ERR_INPUT, "%s: is empty, expected a header line", c->path);

    TRY_OR(done, s, next_row(&cells, &c->n_col, &at, &line, c->path));
    while (*at) {
        int begun = line;
        TRY_OR(done, s, next_row(&cells, &n_col, &at, &line, c->path));
        if (n_col != c->n_col) {
            s = FAIL(ERR_INPUT, "%s:%d: %d fields, expected %d as in the header", c->path, begun,
                     n_col, c->n_col);
            goto done;
        }
    }
    c->n_row = cells.rows - 1;
    c->name = malloc((size_t)c->n_col * sizeof *c->name);
    c->cell = malloc((size_t)(cells.n - c->n_col + 1) * sizeof *c->cell);
    c->line = malloc((size_t)cells.rows * sizeof *c->line);
    CHECK(c->name && c->cell && c->line);
    memcpy(c->name, cells.cell, (size_t)c->n_col * sizeof *c->name);
    memcpy(c->cell, cells.cell + c->n_col, (size_t)(cells.n - c->n_col) * sizeof *c->cell);
    memcpy(c->line, cells.line + 1, (size_t)c->n_row * sizeof *c->line);
    s = check_header(c);
done:
    free(cells.cell);
    free(cells.line);
    return s;
}

Status csv_read(Csv *c, const char *path)
{
    Csv r = {.path = path_join("", path)};
    size_t size;
    *c = (Csv){0};
    Status s = file_read(&r.text, &size, path, MAX_CSV_BYTES);
    if (!s) s = parse(&r, size);
    if (s) csv_free(&r);
    *c = r;
    return s;
}

void csv_free(Csv *c)
{
    free(c->path);
    free(c->text);
    free(c->name);
    free(c->cell);
    free(c->line);
    *c = (Csv){0};
}

int csv_find(const Csv *c, const char *column)
{
    for (int i = 0; i < c->n_col; i++)
        if (!strcmp(c->name[i], column)) return i;
    return -1;
}

Status csv_need(int *col, const Csv *c, const char *column)
{
    *col = csv_find(c, column);
    if (*col >= 0) return OK;
    const char *near = text_nearest(column, (const char *const *)c->name, c->n_col);
    return FAIL(ERR_INPUT, "%s:1: no column \"%s\"%s%s%s", c->path, column,
                near ? ", is \"" : "", near ? near : "", near ? "\" meant?" : "");
}

Status csv_write_field(OutFile *o, const char *value, bool last)
{
    double number;
    bool formula = *value && strchr("=+-@", *value) && !text_to_double(&number, value);
    bool quote = formula || strpbrk(value, ",\"\r\n");
    if (!quote) return out_printf(o, "%s%s", value, last ? "\n" : ",");
    TRY(out_printf(o, "\"%s", formula ? "'" : ""));
    for (const char *c = value; *c; c++) TRY(out_printf(o, *c == '"' ? "\"\"" : "%c", *c));
    return out_printf(o, "\"%s", last ? "\n" : ",");
}
