/* choose.c - which films the report shows; see choose.h. */
#include "report/choose.h"
#include "base/csv.h"
#include <stdlib.h>
#include <string.h>

static ShownFilm real_film(Arena *a, const Run *r, const ManifestRow *row)
{
    char *path = manifest_path(&r->manifest, row);
    ShownFilm f = {arena_strdup(a, path), arena_strdup(a, row->id),
                   arena_strdup(a, row->label_name)};
    free(path);
    if (!file_exists(f.path)) f.path = NULL;
    return f;
}

static ShownFilm source_film(Arena *a, const Run *r, const char *id)
{
    for (int i = 0; i < r->manifest.n; i++)
        if (!strcmp(r->manifest.row[i].id, id)) return real_film(a, r, &r->manifest.row[i]);
    return (ShownFilm){NULL, arena_strdup(a, id), ""};
}

/* The first test film of each patient with the disease. */
static int test_films(const ManifestRow **list, const Run *r, const char *disease)
{
    int n = 0;
    for (int i = 0; i < r->manifest.n; i++) {
        const ManifestRow *row = &r->manifest.row[i];
        bool known = row->split != SPLIT_TEST || strcmp(row->label_name, disease);
        for (int k = 0; k < n && !known; k++) known = !strcmp(list[k]->patient, row->patient);
        if (!known) list[n++] = row;
    }
    return n;
}

static void choose_real(FilmColumn *column, int n, Arena *a, const Run *r, const char *disease)
{
    const ManifestRow **list = calloc((size_t)r->manifest.n + 1, sizeof *list);
    CHECK(list);
    int n_list = test_films(list, r, disease);
    for (int k = 0; k < n; k++) {
        column[k].real = (ShownFilm){NULL, "", arena_strdup(a, disease)};
        if (n_list >= n) column[k].real = real_film(a, r, list[(int64_t)k * n_list / n]);
        else if (k < n_list) column[k].real = real_film(a, r, list[k]);
    }
    free(list);
}

static Status read_synthetic(FilmColumn *column, int *n, Arena *a, const Run *r, const char *folder,
                             const char *disease)
{
    char *file = path_join(folder, "manifest.csv");
    Csv c = {0};
    int id, path, source;
    Status s = OK;
    *n = 0;
    if (!file_exists(file)) goto done;
    TRY_OR(done, s, csv_read(&c, file));
    TRY_OR(done, s, csv_need(&id, &c, "id"));
    TRY_OR(done, s, csv_need(&path, &c, "path"));
    TRY_OR(done, s, csv_need(&source, &c, "source_id"));
    int most = c.n_row < MOST_COLUMNS ? c.n_row : MOST_COLUMNS;
    for (int k = 0; k < most; k++) {
        int row = (int)((int64_t)k * c.n_row / most);
        const char *at = csv_at(&c, row, path);
        if (!path_stays_inside(at)) {
            s = FAIL(ERR_INPUT, "%s:%d: path \"%s\", expected one inside the folder", file,
                     c.line[row], at);
            goto done;
        }
        char *full = path_join(folder, at);
        column[k].synthetic =
            (ShownFilm){file_exists(full) ? arena_strdup(a, full) : NULL,
                        arena_strdup(a, csv_at(&c, row, id)), arena_strdup(a, disease)};
        column[k].source = source_film(a, r, csv_at(&c, row, source));
        free(full);
    }
    *n = most;
done:
    csv_free(&c);
    free(file);
    return s;
}

Status choose_films(FilmColumn column[MOST_COLUMNS], int *n, Arena *a, const Run *r,
                    const RunTask *task)
{
    const char *below = text_at(task->json, "synthetic.folder");
    *n = 0;
    if (!path_stays_inside(below)) {
        if (!*below) return OK;
        return FAIL(ERR_INPUT, "%s/metrics.json: folder \"%s\", expected one inside the run",
                    r->folder, below);
    }
    char *folder = path_join(r->folder, below);
    Status s = read_synthetic(column, n, a, r, folder, task->disease);
    free(folder);
    if (!s) choose_real(column, *n, a, r, task->disease);
    return s;
}
