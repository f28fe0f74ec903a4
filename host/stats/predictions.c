/* predictions.c - reading, checking, matching and writing predictions. */
#include "stats/predictions.h"
#include "base/csv.h"
#include "base/text.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *id, *patient; /* in the arena of the Predictions to be */
    double score;
    int label, line;
} Row;

static int compare_ids(const void *a, const void *b)
{
    return strcmp(((const Row *)a)->id, ((const Row *)b)->id);
}

static int compare_patients(const void *a, const void *b, void *name)
{
    const char *const *of = name;
    return strcmp(of[*(const int *)a], of[*(const int *)b]);
}

static void number_patients(Predictions *p)
{
    int *order = malloc((size_t)p->n * sizeof *order);
    CHECK(order);
    for (int i = 0; i < p->n; i++) order[i] = i;
    qsort_r(order, (size_t)p->n, sizeof *order, compare_patients, p->patient_name);
    for (int i = 0; i < p->n; i++) {
        bool another =
            i == 0 || strcmp(p->patient_name[order[i - 1]], p->patient_name[order[i]]) != 0;
        p->n_patients += another;
        p->patient[order[i]] = p->n_patients - 1;
    }
    free(order);
}

/* Sorts the rows by id, refuses an id that stands twice, fills p's arrays. */
static Status from_rows(Predictions *p, Row *row, int n)
{
    if (n == 0) return FAIL(ERR_INPUT, "%s: no films, expected at least one row", p->path);
    size_t count = (size_t)n;
    qsort(row, count, sizeof *row, compare_ids);
    for (int i = 1; i < n; i++) {
        int a = row[i - 1].line, b = row[i].line;
        if (!compare_ids(&row[i - 1], &row[i]))
            return FAIL(ERR_INPUT, "%s:%d: id \"%s\" stands on line %d already, expected each once",
                        p->path, a > b ? a : b, row[i].id, a > b ? b : a);
    }
    p->n = n;
    p->id = arena_alloc(&p->arena, count * sizeof *p->id);
    p->patient_name = arena_alloc(&p->arena, count * sizeof *p->patient_name);
    p->patient = arena_alloc(&p->arena, count * sizeof *p->patient);
    p->label = arena_alloc(&p->arena, count * sizeof *p->label);
    p->score = arena_alloc(&p->arena, count * sizeof *p->score);
    p->line = arena_alloc(&p->arena, count * sizeof *p->line);
    for (int i = 0; i < n; i++) {
        p->id[i] = row[i].id;
        p->patient_name[i] = row[i].patient;
        p->label[i] = (uint8_t)row[i].label;
        p->score[i] = row[i].score;
        p->line[i] = row[i].line;
        p->n_positives += row[i].label;
    }
    number_patients(p);
    return OK;
}

/* Copies the names into p's arena. */
static Status check_row(Row *row, Predictions *p)
{
    if (!*row->id || !*row->patient)
        return FAIL(ERR_INPUT, "%s:%d: empty %s, expected a name", p->path, row->line,
                    *row->id ? "patient" : "id");
    if (!(row->score >= 0 && row->score <= 1))
        return FAIL(ERR_INPUT, "%s:%d: score %g of id \"%s\", expected 0 to 1", p->path, row->line,
                    row->score, row->id);
    row->id = arena_strdup(&p->arena, row->id);
    row->patient = arena_strdup(&p->arena, row->patient);
    return OK;
}

Status predictions_new(Predictions *p, const char *path, int n, const char *const *id,
                       const char *const *patient, const uint8_t *label, const double *score)
{
    Predictions r = {0};
    Row *row = calloc((size_t)n + 1, sizeof *row);
    Status s = OK;
    CHECK(row);
    *p = (Predictions){0};
    r.path = arena_strdup(&r.arena, path);
    for (int i = 0; i < n; i++) {
        CHECK(label[i] <= 1);
        row[i] = (Row){id[i], patient[i], score[i], label[i], i + 2};
        TRY_OR(done, s, check_row(&row[i], &r));
    }
    TRY_OR(done, s, from_rows(&r, row, n));
    *p = r;
    r = (Predictions){0};
done:
    free(row);
    predictions_free(&r);
    return s;
}

void predictions_free(Predictions *p)
{
    arena_free(&p->arena);
    *p = (Predictions){0};
}

static Status read_row(Row *out, Predictions *p, const Csv *c, int row, const int column[4])
{
    const char *label = csv_at(c, row, column[2]), *text = csv_at(c, row, column[3]);
    double score;
    if (strcmp(label, "0") && strcmp(label, "1"))
        return FAIL(ERR_INPUT, "%s:%d: label \"%s\", expected 0 or 1", c->path, c->line[row],
                    label);
    if (!text_to_double(&score, text))
        return FAIL(ERR_INPUT, "%s:%d: score \"%s\", expected a number from 0 to 1", c->path,
                    c->line[row], text);
    *out = (Row){csv_at(c, row, column[0]), csv_at(c, row, column[1]), score, *label == '1',
                 c->line[row]};
    return check_row(out, p);
}

Status predictions_read(Predictions *p, const char *path)
{
    static const char *const name[4] = {"id", "patient", "label", "score"};
    Csv c = {0};
    Predictions r = {0};
    Row *row = NULL;
    int column[4];
    Status s = OK;
    *p = (Predictions){0};
    r.path = arena_strdup(&r.arena, path);
    TRY_OR(done, s, csv_read(&c, path));
    for (int k = 0; k < 4; k++) TRY_OR(done, s, csv_need(&column[k], &c, name[k]));
    row = calloc((size_t)c.n_row + 1, sizeof *row);
    CHECK(row);
    for (int i = 0; i < c.n_row; i++) TRY_OR(done, s, read_row(&row[i], &r, &c, i, column));
    TRY_OR(done, s, from_rows(&r, row, c.n_row));
    *p = r;
    r = (Predictions){0};
done:
    free(row);
    predictions_free(&r);
    csv_free(&c);
    return s;
}

Status predictions_write(const Predictions *p, const char *path)
{
    OutFile o = {0};
    char number[32];
    Status s;
    TRY(out_open(&o, path));
    TRY_OR(done, s, out_printf(&o, "id,patient,label,score\n"));
    for (int i = 0; i < p->n; i++) {
        snprintf(number, sizeof number, "%.17g", p->score[i]);
        TRY_OR(done, s, csv_write_field(&o, p->id[i], false));
        TRY_OR(done, s, csv_write_field(&o, p->patient_name[i], false));
        TRY_OR(done, s, csv_write_field(&o, p->label[i] ? "1" : "0", false));
        TRY_OR(done, s, csv_write_field(&o, number, true));
    }
    return out_commit(&o);
done:
    out_abandon(&o);
    return s;
}

/* Film i is the same in both in everything but its score. */
static Status same_film(const Predictions *q, const Predictions *p, int i)
{
    if (q->label[i] != p->label[i])
        return FAIL(ERR_INPUT, "%s:%d: id \"%s\" has label %d, expected %d as in %s:%d", q->path,
                    q->line[i], q->id[i], q->label[i], p->label[i], p->path, p->line[i]);
    if (strcmp(q->patient_name[i], p->patient_name[i]))
        return FAIL(ERR_INPUT, "%s:%d: id \"%s\" has patient \"%s\", expected \"%s\" as in %s:%d",
                    q->path, q->line[i], q->id[i], q->patient_name[i], p->patient_name[i], p->path,
                    p->line[i]);
    return OK;
}

Status predictions_match(const Predictions *q, const Predictions *p)
{
    for (int i = 0; i < p->n || i < q->n; i++) {
        int order = i >= q->n ? 1 : i >= p->n ? -1 : strcmp(q->id[i], p->id[i]);
        if (order > 0) /* p's id comes first in the alphabet: q has skipped it */
            return FAIL(ERR_INPUT, "%s: no id \"%s\", expected it as in %s:%d", q->path, p->id[i],
                        p->path, p->line[i]);
        if (order < 0)
            return FAIL(ERR_INPUT, "%s:%d: id \"%s\", expected only ids of %s", q->path, q->line[i],
                        q->id[i], p->path);
        TRY(same_film(q, p, i));
    }
    return OK;
}

Status predictions_average(Predictions *mean, const Predictions *in, int n)
{
    CHECK(n > 0);
    *mean = (Predictions){0};
    for (int k = 1; k < n; k++) TRY(predictions_match(&in[k], &in[0]));
    TRY(predictions_new(mean, in[0].path, in[0].n, in[0].id, in[0].patient_name, in[0].label,
                        in[0].score));
    for (int i = 0; i < mean->n; i++) {
        double sum = 0;
        for (int k = 0; k < n; k++) sum += in[k].score[i];
        mean->score[i] = sum / n;
    }
    return OK;
}
