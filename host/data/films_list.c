/* films_list.c - the three layouts of sources. */
#include "base/csv.h"
#include "data/films.h"
#include "data/pattern.h"
#include <libgen.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEEPEST = 12 };

/* A class name is taken as it is written, so it must be plain. */
static bool good_name(const char *s)
{
    size_t n = strlen(s);
    if (!n || n > 64 || strchr(" =+-@'", s[0]) || s[n - 1] == ' ') return false;
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) return false;
    return true;
}

void film_problem(Film *film, const char *fmt, ...)
{
    char what[1024];
    va_list ap;
    if (film->status) return;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    film->status = ERR_INPUT;
    film->problem = strdup(what);
    CHECK(film->problem);
}

Film *films_add(Films *f, const char *path)
{
    if (f->n == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 256;
        f->film = realloc(f->film, (size_t)f->cap * sizeof *f->film);
        CHECK(f->film);
    }
    Film *film = &f->film[f->n++];
    *film = (Film){.path = arena_strdup(&f->memory, path),
                   .split = SPLIT_COUNT,
                   .label_name = "",
                   .patient = ""};
    return film;
}

/* ---- folders -------------------------------------------------------------------------- */

/* One way of reading a folder tree: what a file in it is. above: names of the folders above. */
typedef struct Walk Walk;
struct Walk {
    Films *films;
    const FilmsSource *source;
    Pattern *pattern[3]; /* owned */
    void (*found)(Walk *w, const char *path, char *const *above, int depth, const char *name);
    bool only_classes; /* sub-folders of class folders are refused */
};

static Status walk(Walk *w, const char *below, char **above, int depth)
{
    char *folder = path_join(w->films->root, below);
    DirList list = {0};
    Status s = dir_list(&list, folder);
    for (int i = 0; i < list.n && !s; i++) {
        const char *name = list.name[i];
        struct stat st;
        if (name[0] == '.' || !strcmp(name, "__MACOSX")) continue;
        char *path = *below ? path_join(below, name) : strdup(name),
             *full = path_join(folder, name);
        CHECK(path);
        bool there = !lstat(full, &st), is_folder = there && S_ISDIR(st.st_mode);
        if (is_folder && depth == DEEPEST) {
            s = FAIL(ERR_INPUT, "%s: folder %d levels deep, expected at most %d", full, depth + 1,
                     DEEPEST);
        } else if (is_folder) {
            above[depth] = (char *)(uintptr_t)name;
            s = walk(w, path, above, depth + 1);
        } else {
            w->found(w, path, above, depth, name);
        }
        free(path);
        free(full);
    }
    dir_list_free(&list);
    free(folder);
    return s;
}

static void take_patient(Walk *w, Film *film, const Pattern *p, const char *name,
                         const char *expected)
{
    char *patient = pattern_take(p, name, 1);
    if (patient) film->patient = arena_strdup(&w->films->memory, patient);
    else
        film_problem(film, "%s/%s: name does not match, expected %s", w->films->root, film->path,
                     expected);
    free(patient);
}

static void kermany_file(Walk *w, const char *path, char *const *above, int depth, const char *name)
{
    bool normal = depth && !strcasecmp(above[depth - 1], "NORMAL");
    if (!normal && !(depth && !strcasecmp(above[depth - 1], "PNEUMONIA"))) return;
    Film *film = films_add(w->films, path);
    if (normal) {
        film->label_name = "normal";
        take_patient(w, film, w->pattern[0], name, "IM-<n>-<n> or NORMAL2-IM-<n>-<n>");
    } else {
        char *kind = pattern_take(w->pattern[2], name, 2);
        if (kind) film->label_name = !strcmp(kind, "virus") ? "virus" : "bacteria";
        take_patient(w, film, w->pattern[kind ? 1 : 2], name,
                     "person<n>_bacteria_<n> or person<n>_virus_<n>");
        free(kind);
    }
    if (depth < 2 || !split_parse(&film->split, above[depth - 2])) film->split = SPLIT_COUNT;
}

static Status kermany_list(Walk *w)
{
    char *above[DEEPEST + 1];
    w->found = kermany_file;
    TRY(pattern_new(&w->pattern[0], "^((?:NORMAL2-)?IM-\\d+)-", 1, "kermany"));
    TRY(pattern_new(&w->pattern[1], "^(person\\d+)_", 1, "kermany"));
    TRY(pattern_new(&w->pattern[2], "^(person\\d+)_(bacteria|virus)_\\d", 2, "kermany"));
    TRY(walk(w, "", above, 0));
    if (!w->films->n)
        return FAIL(ERR_INPUT,
                    "%s: no folder NORMAL or PNEUMONIA with files, expected the published layout",
                    w->films->root);
    return OK;
}

static void folders_file(Walk *w, const char *path, char *const *above, int depth, const char *name)
{
    int level = w->source->keep_split ? 2 : 1; /* where files belong */
    if (!depth) return;                        /* a README beside the classes */
    Film *film = films_add(w->films, path);
    if (depth != level) {
        film_problem(film, "%s/%s: %d folders deep, expected %s", w->films->root, path, depth,
                     level == 2 ? "<split>/<class>/<file>" : "<class>/<file>");
        return;
    }
    film->label_name = arena_strdup(&w->films->memory, above[depth - 1]);
    if (level == 2 && !split_parse(&film->split, above[0]))
        film_problem(film, "%s/%s: folder \"%s\", expected train, val, test or pool",
                     w->films->root, path, above[0]);
    if (w->pattern[0]) {
        take_patient(w, film, w->pattern[0], name, w->source->patient_regex);
    } else {
        const char *dot = strrchr(name, '.');
        film->patient = arena_printf(&w->films->memory, "%.*s",
                                     dot ? (int)(dot - name) : (int)strlen(name), name);
    }
}

static Status folders_list(Walk *w)
{
    char *above[DEEPEST + 1];
    w->found = folders_file;
    if (w->source->patient_regex)
        TRY(pattern_new(&w->pattern[0], w->source->patient_regex, 1, "--patient-regex"));
    TRY(walk(w, "", above, 0));
    if (!w->films->n)
        return FAIL(ERR_INPUT, "%s: no files in sub-folders, expected <class>/<file>",
                    w->films->root);
    return OK;
}

/* ---- csv ------------------------------------------------------------------------------ */

typedef struct {
    int path, label, patient, split, id;
} Columns;

static void csv_film(Films *f, const Csv *c, int row, const Columns *col)
{
    Arena *a = &f->memory;
    Film *film = films_add(f, csv_at(c, row, col->path));
    film->line = c->line[row];
    film->label_name = arena_strdup(a, csv_at(c, row, col->label));
    film->patient = arena_strdup(a, csv_at(c, row, col->patient));
    if (!*film->path)
        film_problem(film, "%s:%d: path is empty, expected a file", c->path, film->line);
    if (!*film->patient)
        film_problem(film, "%s:%d: patient is empty, expected a name", c->path, film->line);
    if (!*film->label_name)
        film_problem(film, "%s:%d: label is empty, expected a class", c->path, film->line);
    if (col->split >= 0 && !split_parse(&film->split, csv_at(c, row, col->split)))
        film_problem(film, "%s:%d: split \"%s\", expected train, val, test or pool", c->path,
                     film->line, csv_at(c, row, col->split));
    if (col->id >= 0 && *csv_at(c, row, col->id)) {
        film->id = arena_strdup(a, csv_at(c, row, col->id));
        film->id_given = true;
        if (strspn(film->id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
                strlen(film->id) ||
            strlen(film->id) > 200 || strchr(".-", film->id[0]))
            film_problem(film, "%s:%d: id \"%s\", expected letters, digits, . _ and -", c->path,
                         film->line, film->id);
    }
}

static Status csv_list(Films *f, bool *has_split)
{
    Csv c = {0};
    Columns col = {0};
    Status s;
    TRY(csv_read(&c, f->table));
    TRY_OR(done, s, csv_need(&col.path, &c, "path"));
    TRY_OR(done, s, csv_need(&col.label, &c, "label"));
    TRY_OR(done, s, csv_need(&col.patient, &c, "patient"));
    col.split = csv_find(&c, "split");
    col.id = csv_find(&c, "id");
    *has_split = col.split >= 0;
    for (int i = 0; i < c.n_row; i++) csv_film(f, &c, i, &col);
    if (!f->n) s = FAIL(ERR_INPUT, "%s: has no rows, expected films", f->table);
done:
    csv_free(&c);
    return s;
}

/* ---- all ------------------------------------------------------------------------------ */

static Status list_folder(Films *f, const FilmsSource *s)
{
    Walk w = {.films = f, .source = s};
    f->root = strdup(s->source);
    CHECK(f->root);
    Status status = !strcmp(s->format, "kermany") ? kermany_list(&w) : folders_list(&w);
    for (int i = 0; i < 3; i++) pattern_free(w.pattern[i]);
    f->has_split = s->keep_split;
    return status;
}

static Status list_table(Films *f, const FilmsSource *s)
{
    char *copy = strdup(s->source);
    CHECK(copy);
    f->table = strdup(s->source);
    f->root = strdup(s->images ? s->images : dirname(copy));
    CHECK(f->table && f->root);
    free(copy);
    if (s->images && !dir_exists(s->images))
        return FAIL(ERR_INPUT, "%s: found no such folder, expected the one of the films in %s",
                    s->images, s->source);
    TRY(csv_list(f, &f->has_split));
    if (s->keep_split && !f->has_split)
        return FAIL(ERR_INPUT, "%s:1: no column \"split\", expected one to keep", f->table);
    return OK;
}

Status films_list(Films *f, const FilmsSource *s)
{
    *f = (Films){0};
    bool table = !strcmp(s->format, "csv");
    if (!table && strcmp(s->format, "kermany") && strcmp(s->format, "folders"))
        return FAIL(ERR_USAGE, "format \"%s\", expected kermany, folders or csv", s->format);
    if (s->patient_regex && strcmp(s->format, "folders"))
        return FAIL(ERR_USAGE, "patient regex with format \"%s\", expected it with folders only",
                    s->format);
    if (s->images && !table)
        return FAIL(ERR_USAGE, "folder of images with format \"%s\", expected it with csv only",
                    s->format);
    Status status = table ? list_table(f, s) : list_folder(f, s);
    for (int i = 0; i < f->n && !status; i++) {
        Film *film = &f->film[i];
        size_t odd = text_not_utf8(film->label_name);
        if (!film->status && film->label_name[odd])
            film_problem(film, "%s: class: found 0x%02X as byte %zu, expected UTF-8", film->path,
                         (unsigned char)film->label_name[odd], odd + 1);
        if (!film->status && !good_name(film->label_name))
            film_problem(film, "%s: class \"%s\", expected a plain name", film->path,
                         film->label_name);
        if (f->has_split && film->split == SPLIT_COUNT)
            film_problem(film, "%s: is in no folder train, val or test, expected one to keep",
                         film->path);
    }
    if (status) films_free(f);
    return status;
}

void films_free(Films *f)
{
    for (int i = 0; i < f->n; i++) {
        free(f->film[i].problem);
        free(f->film[i].print);
    }
    free(f->film);
    free(f->root);
    free(f->table);
    free(f->label);
    arena_free(&f->memory);
    *f = (Films){0};
}
