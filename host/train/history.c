/* history.c - rows of numbers, to JSON and back without loss. */
#include "train/history.h"
#include "base/file.h"
#include "base/text.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void history_init(History *h, int n_column, const char *const *column)
{
    CHECK(n_column <= HISTORY_COLUMNS);
    *h = (History){.n_column = n_column};
    for (int i = 0; i < n_column; i++) h->column[i] = column[i];
}

void history_free(History *h)
{
    free(h->value);
    h->value = NULL;
    h->n = h->cap = 0;
}

void history_add(History *h, const double *row)
{
    if (h->n == h->cap) {
        h->cap = h->cap ? 2 * h->cap : 64;
        h->value = realloc(h->value, (size_t)(h->cap * h->n_column) * sizeof *h->value);
        CHECK(h->value);
    }
    memcpy(h->value + h->n++ * h->n_column, row, (size_t)h->n_column * sizeof *row);
}

char *history_text(const History *h)
{
    Text t = {0};
    text_add(&t, "{\"columns\": [");
    for (int i = 0; i < h->n_column; i++) text_add(&t, "%s\"%s\"", i ? ", " : "", h->column[i]);
    text_add(&t, "],\n \"rows\": [");
    for (int r = 0; r < h->n; r++) {
        text_add(&t, "%s[", r ? ",\n  " : "\n  ");
        for (int i = 0; i < h->n_column; i++) {
            double v = h->value[r * h->n_column + i];
            if (isfinite(v)) text_add(&t, "%s%.17g", i ? ", " : "", v);
            else text_add(&t, "%snull", i ? ", " : "");
        }
        text_add(&t, "]");
    }
    text_add(&t, "]}");
    return t.s;
}

Status history_write(const History *h, const char *path)
{
    char *text = history_text(h);
    Status s = file_write(path, text, strlen(text));
    free(text);
    return s;
}

Status history_parse(History *h, const char *text)
{
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    json_t *rows = json_object_get(json_object_get(root, "history"), "rows");
    Status s = json_is_array(rows)
                   ? OK
                   : FAIL(ERR_INPUT, "checkpoint: has no history, expected rows of numbers");
    h->n = 0;
    for (size_t r = 0; !s && r < json_array_size(rows); r++) {
        double row[HISTORY_COLUMNS];
        json_t *cells = json_array_get(rows, r);
        if (json_array_size(cells) != (size_t)h->n_column)
            s = FAIL(ERR_INPUT, "checkpoint: history row %zu has %zu numbers, expected %d", r,
                     json_array_size(cells), h->n_column);
        for (int i = 0; !s && i < h->n_column; i++) {
            json_t *v = json_array_get(cells, (size_t)i);
            row[i] = json_is_number(v) ? json_number_value(v) : NAN;
        }
        if (!s) history_add(h, row);
    }
    json_decref(root);
    return s;
}
