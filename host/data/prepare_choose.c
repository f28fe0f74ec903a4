/* prepare_choose.c - which films are used, and in which split. */
#include "data/prepare.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- patients and duplicates ---------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted names of all patients. */
static const char **patient_table(const Films *f, int *n_patient)
{
    const char **name = malloc((size_t)(f->n + 1) * sizeof *name);
    CHECK(name);
    for (int i = 0; i < f->n; i++) name[i] = f->film[i].patient;
    qsort(name, (size_t)f->n, sizeof *name, by_text);
    int n = 0;
    for (int i = 0; i < f->n; i++)
        if (!i || strcmp(name[i], name[n - 1])) name[n++] = name[i];
    *n_patient = n;
    return name;
}

static int patient_index(const char **table, int n, const char *name)
{
    return (int)((const char **)bsearch(&name, table, (size_t)n, sizeof *table, by_text) - table);
}

static int by_picture(const void *a, const void *b)
{
    const Film *x = *(Film *const *)a, *y = *(Film *const *)b;
    int order = strcmp(x->print->hash, y->print->hash);
    return order ? order : (x > y) - (x < y);
}

/* film[0 .. n-1] are one picture: the first stays, unless their classes contradict each other. */
static void drop_copies(Films *f, Film **film, int n)
{
    bool contradict = false;
    for (int i = 1; i < n; i++) contradict |= film[i]->label != film[0]->label;
    for (int i = contradict ? 0 : 1; i < n; i++) {
        const Film *other = film[i ? 0 : 1];
        film[i]->left_out =
            contradict ? arena_printf(&f->memory, "identical films of different classes (%s is %s)",
                                      other->path, other->label_name)
                       : arena_printf(&f->memory, "identical to %s", other->path);
    }
}

typedef struct {
    int copies, contradicting, merged;
} DuplicateCount;

static DuplicateCount drop_duplicates(Films *f)
{
    DuplicateCount count = {0};
    int n_patient;
    const char **name = patient_table(f, &n_patient);
    int *set = union_new(n_patient);
    Film **film = malloc((size_t)(f->n + 1) * sizeof *film);
    CHECK(film);
    for (int i = 0; i < f->n; i++) film[i] = &f->film[i];
    qsort(film, (size_t)f->n, sizeof *film, by_picture);
    for (int from = 0, to; from < f->n; from = to) {
        for (to = from + 1; to < f->n && !strcmp(film[to]->print->hash, film[from]->print->hash);
             to++) {
            int a = patient_index(name, n_patient, film[from]->patient);
            int b = patient_index(name, n_patient, film[to]->patient);
            count.merged += union_find(set, a) != union_find(set, b);
            union_join(set, a, b);
        }
        drop_copies(f, film + from, to - from);
        if (film[from]->left_out) count.contradicting += to - from;
        else count.copies += to - from - 1;
    }
    for (int i = 0; i < f->n; i++) {
        const char *stands_for_all =
            name[union_find(set, patient_index(name, n_patient, f->film[i].patient))];
        f->film[i].joined = strcmp(f->film[i].patient, stands_for_all) != 0;
        f->film[i].patient = stands_for_all;
    }
    free(film);
    free(set);
    free(name);
    return count;
}

/* "P 007" and "p7": lower case, no spaces, no leading zeros. */
static const char *canonical(Arena *a, const char *name)
{
    char *out = arena_strdup(a, name), *to = out;
    for (const char *c = name; *c; c++) {
        bool leading = *c == '0' && isdigit((unsigned char)c[1]) &&
                       (c == name || !isdigit((unsigned char)c[-1]));
        if (leading) {
            while (*c == '0' && isdigit((unsigned char)c[1])) c++;
        }
        if (*c != ' ') *to++ = (char)tolower((unsigned char)*c);
    }
    *to = 0;
    return out;
}

typedef struct {
    const char *canonical, *name;
} Near;

static int by_canonical(const void *a, const void *b)
{
    const Near *x = a, *y = b;
    int order = strcmp(x->canonical, y->canonical);
    return order ? order : strcmp(x->name, y->name);
}

static void warn_of_near_names(const Films *f, Log *log)
{
    Arena memory = {0};
    int n, n_near = 0;
    const char **name = patient_table(f, &n);
    Near *near = malloc((size_t)(n + 1) * sizeof *near);
    CHECK(near);
    for (int i = 0; i < n; i++) near[i] = (Near){canonical(&memory, name[i]), name[i]};
    qsort(near, (size_t)n, sizeof *near, by_canonical);
    for (int i = 1; i < n; i++)
        if (!strcmp(near[i].canonical, near[i - 1].canonical) && ++n_near <= 5)
            log_warn(log, "patients \"%s\" and \"%s\" count as two, but differ in form only",
                     near[i - 1].name, near[i].name);
    if (n_near > 5) log_warn(log, "... and %d more such pairs of patients", n_near - 5);
    free(near);
    free(name);
    arena_free(&memory);
}

/* ---- splits --------------------------------------------------------------------------- */

static int by_patient(const void *a, const void *b)
{
    const Film *x = *(const Film *const *)a, *y = *(const Film *const *)b;
    int order = strcmp(x->patient, y->patient);
    return order ? order : (x > y) - (x < y);
}

static Status refuse_overlap(const Films *f, const Film *a, const Film *b)
{
    const char *note =
        a->joined || b->joined ? " (patients who share an identical film count as one)" : "";
    if (f->table)
        return FAIL(ERR_INPUT,
                    "%s:%d: patient \"%s\" is in %s, but in %s at line %d%s, expected each patient "
                    "in one split",
                    f->table, b->line, b->patient, split_name(b->split), split_name(a->split),
                    a->line, note);
    return FAIL(ERR_INPUT,
                "%s: patient \"%s\" is in %s, but in %s with %s%s, expected each patient in one "
                "split",
                b->path, b->patient, split_name(b->split), split_name(a->split), a->path, note);
}

/* Copies that were dropped count too: their split was given, and it leaks. */
static Status check_given_split(const Films *f)
{
    const Film **film = malloc((size_t)(f->n + 1) * sizeof *film);
    Status s = OK;
    CHECK(film);
    for (int i = 0; i < f->n; i++) film[i] = &f->film[i];
    qsort(film, (size_t)f->n, sizeof *film, by_patient);
    for (int i = 1; i < f->n && !s; i++)
        if (!strcmp(film[i]->patient, film[i - 1]->patient) && film[i]->split != film[i - 1]->split)
            s = refuse_overlap(f, film[i - 1], film[i]);
    free(film);
    return s;
}

/* The films that are in, for split.h; *n of them, at[i] is where film i stands in f. */
static SplitFilm *films_in(const Films *f, int *at, int *n)
{
    SplitFilm *in = malloc((size_t)(f->n + 1) * sizeof *in);
    CHECK(in);
    *n = 0;
    for (int i = 0; i < f->n; i++) {
        const Film *film = &f->film[i];
        if (film->left_out) continue;
        at[*n] = i;
        in[(*n)++] = (SplitFilm){film->patient, film->label, film->split, false};
    }
    return in;
}

static void assign_splits(Films *f, const PrepareOptions *o)
{
    int n, *at = malloc((size_t)(f->n + 1) * sizeof *at);
    CHECK(at);
    SplitFilm *in = films_in(f, at, &n);
    split_by_patient(in, n, o->share, o->seed);
    for (int i = 0; i < n; i++) f->film[at[i]].split = in[i].split;
    free(in);
    free(at);
}

static Status make_imbalance(Films *f, const PrepareOptions *o)
{
    int n, normal = -1;
    for (int i = 0; i < f->n_label; i++)
        if (!strcmp(f->label[i], o->normal)) normal = i;
    if (normal < 0) {
        const char *near = text_nearest(o->normal, f->label, f->n_label);
        return FAIL(ERR_USAGE, "train ratio: no class \"%s\", expected %s%s", o->normal,
                    near ? "perhaps " : "one of the data", near ? near : "");
    }
    int *at = malloc((size_t)(f->n + 1) * sizeof *at);
    CHECK(at);
    SplitFilm *in = films_in(f, at, &n);
    Status s = split_imbalance(in, n, normal, o->train_ratio, o->seed, f->label, f->n_label);
    const char *reason =
        arena_printf(&f->memory, "left out for %g normal films per diseased one", o->train_ratio);
    for (int i = 0; i < n && !s; i++)
        if (in[i].left_out) f->film[at[i]].left_out = reason;
    free(in);
    free(at);
    return s;
}

static int drop_crossing(Films *f, const NearPair *pair, int n_pair)
{
    static const int worth[SPLIT_COUNT] = {
        [SPLIT_TEST] = 3, [SPLIT_VAL] = 2, [SPLIT_TRAIN] = 1, [SPLIT_POOL] = 0};
    int n = 0;
    for (int i = 0; i < n_pair; i++) {
        Film *a = &f->film[pair[i].a], *b = &f->film[pair[i].b];
        if (a->left_out || b->left_out || a->split == b->split) continue;
        Film *less = worth[a->split] < worth[b->split] ? a : b, *more = less == a ? b : a;
        less->left_out = arena_printf(&f->memory, "near duplicate of %s in %s", more->path,
                                      split_name(more->split));
        n++;
    }
    return n;
}

/* ---- all ------------------------------------------------------------------------------ */

Status prepare_choose(Films *f, NearPair **pair, int *n_pair, const PrepareOptions *o, Log *log)
{
    warn_of_near_names(f, log);
    DuplicateCount d = drop_duplicates(f);
    log_info(
        log,
        "%d identical copies dropped, %d identical films of different classes dropped, %d patients "
        "joined with another over a shared film",
        d.copies, d.contradicting, d.merged);
    if (f->has_split) TRY(check_given_split(f));
    else assign_splits(f, o);
    const Fingerprint **print = malloc((size_t)(f->n + 1) * sizeof *print);
    CHECK(print);
    for (int i = 0; i < f->n; i++) print[i] = f->film[i].left_out ? NULL : f->film[i].print;
    Status s = near_pairs(pair, n_pair, print, f->n);
    free(print);
    TRY(s);
    int crossing = drop_crossing(f, *pair, *n_pair);
    log_info(log, "%d pairs of near duplicates, %d films dropped where they crossed splits",
             *n_pair, crossing);
    if (o->train_ratio > 0) TRY(make_imbalance(f, o));
    return films_make_ids(f);
}
