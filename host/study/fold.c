/* fold.c - lists of films for classifiers, diffusion models and synthesis; see fold.h. */
#include "study/fold.h"
#include <stdlib.h>
#include <string.h>

uint64_t film_key(const char *id)
{
    char text[HASH_TEXT];
    hash_bytes(text, id, strlen(id));
    text[16] = 0;
    return strtoull(text, NULL, 16);
}

static const char *kept_path(Arena *a, const Manifest *m, const ManifestRow *r)
{
    char *path = manifest_path(m, r), *kept = arena_strdup(a, path);
    free(path);
    return kept;
}

Status fold_need_class(const Manifest *m, const char *name)
{
    if (manifest_label(m, name) >= 0) return OK;
    Text all = {0};
    for (int i = 0; i < m->n_label; i++) text_add(&all, "%s%s", i ? ", " : "", m->label[i]);
    Status s =
        FAIL(ERR_USAGE, "%s: no film of class \"%s\", expected one of: %s", m->file, name, all.s);
    free(all.s);
    return s;
}

Status fold_task(ClassifierFilm **film, const ManifestRow ***rows, int *n, Arena *a,
                 const Manifest *m, Split split, const char *normal, const char *disease)
{
    TRY(fold_need_class(m, normal));
    TRY(fold_need_class(m, disease));
    int label[2] = {manifest_label(m, normal), manifest_label(m, disease)}, count[2] = {0}, k = 0;
    ClassifierFilm *list = arena_alloc(a, (size_t)(m->n + 1) * sizeof *list);
    const ManifestRow **row = arena_alloc(a, (size_t)(m->n + 1) * sizeof *row);
    for (int i = 0; i < m->n; i++) {
        const ManifestRow *r = &m->row[i];
        int y = r->label == label[1];
        if (r->split != split || (r->label != label[0] && !y)) continue;
        count[y]++;
        row[k] = r;
        list[k++] = (ClassifierFilm){kept_path(a, m, r), y, film_key(r->id)};
    }
    for (int y = 0; y < 2; y++)
        if (!count[y])
            return FAIL(ERR_INPUT, "%s: no film of class %s in split %s, expected some", m->file,
                        y ? disease : normal, split_name(split));
    *film = list;
    *n = k;
    if (rows) *rows = row;
    return OK;
}

/* ---- the pretext task ----------------------------------------------------------------- */

typedef struct {
    const ManifestRow *row;
    uint64_t key;
} Keyed;

static int by_patient_and_key(const void *a, const void *b)
{
    const Keyed *x = a, *y = b;
    int order = strcmp(x->row->patient, y->row->patient);
    return order ? order : (x->key > y->key) - (x->key < y->key);
}

Status fold_patients(ClassifierFilm **train, int *n_train, ClassifierFilm **val, int *n_val,
                     int *classes, Arena *a, const Manifest *m)
{
    int n = 0, most = 0;
    Keyed *film = arena_alloc(a, (size_t)(m->n + 1) * sizeof *film);
    for (int i = 0; i < m->n; i++)
        if (m->row[i].split == SPLIT_TRAIN || m->row[i].split == SPLIT_POOL)
            film[n++] = (Keyed){&m->row[i], film_key(m->row[i].id)};
    qsort(film, (size_t)n, sizeof *film, by_patient_and_key);
    for (int i = 0, run = 0; i < n; i++) {
        run = i && !strcmp(film[i].row->patient, film[i - 1].row->patient) ? run + 1 : 1;
        if (run > most) most = run;
    }
    if (most < 2)
        return FAIL(
            ERR_INPUT,
            "%s: no patient with two films in train or pool, expected some for target patient",
            m->file);
    int enough = most < 3 ? 2 : 3;
    *train = arena_alloc(a, (size_t)n * sizeof **train);
    *val = arena_alloc(a, (size_t)n * sizeof **val);
    *n_train = *n_val = *classes = 0;
    for (int from = 0, to; from < n; from = to, ++*classes) {
        for (to = from + 1; to < n && !strcmp(film[to].row->patient, film[from].row->patient);)
            to++;
        for (int i = from; i < to; i++) {
            ClassifierFilm f = {kept_path(a, m, film[i].row), *classes, film[i].key};
            if (i == from && to - from >= enough) (*val)[(*n_val)++] = f;
            else (*train)[(*n_train)++] = f;
        }
    }
    return *classes > 1
               ? OK
               : FAIL(ERR_INPUT, "%s: one patient in train and pool, expected several", m->file);
}

/* ---- diffusion models ----------------------------------------------------------------- */

Status class_prompts(const char **prompts, const Config *c, const char *label)
{
    const DataSettings *d = &c->data;
    if (!strcmp(label, d->normal)) *prompts = c->synthesis.prompt_normal;
    else if (!strcmp(label, d->disease_a)) *prompts = c->synthesis.prompt_a;
    else if (!strcmp(label, d->disease_b)) *prompts = c->synthesis.prompt_b;
    else
        return FAIL(
            ERR_USAGE,
            "class \"%s\" has no prompts, expected data.normal = \"%s\", data.disease_a = \"%s\" "
            "or data.disease_b = \"%s\"",
            label, d->normal, d->disease_a, d->disease_b);
    return OK;
}

Status fold_prompted(LdmFilm **film, int *n, Arena *a, const Manifest *m, const Config *c,
                     unsigned splits, const char *label)
{
    int k = 0;
    if (label) TRY(fold_need_class(m, label));
    LdmFilm *list = arena_alloc(a, (size_t)(m->n + 1) * sizeof *list);
    for (int i = 0; i < m->n; i++) {
        const ManifestRow *r = &m->row[i];
        if (!(splits >> r->split & 1) || (label && strcmp(r->label_name, label))) continue;
        const char *prompts = NULL;
        TRY(class_prompts(&prompts, c, r->label_name));
        list[k++] = (LdmFilm){kept_path(a, m, r), arena_strdup(a, prompts)};
    }
    *film = list;
    *n = k;
    return OK;
}

Status fold_paths(const char *const **path, int *n, Arena *a, const Manifest *m, unsigned splits,
                  const char *label)
{
    int k = 0;
    if (label) TRY(fold_need_class(m, label));
    const char **list = arena_alloc(a, (size_t)(m->n + 1) * sizeof *list);
    for (int i = 0; i < m->n; i++) {
        const ManifestRow *r = &m->row[i];
        if (splits >> r->split & 1 && (!label || !strcmp(r->label_name, label)))
            list[k++] = kept_path(a, m, r);
    }
    *path = list;
    *n = k;
    return OK;
}

Status fold_sources(SourceFilm **film, int *n, Arena *a, const Manifest *m, const char *label)
{
    int k = 0;
    TRY(fold_need_class(m, label));
    SourceFilm *list = arena_alloc(a, (size_t)(m->n + 1) * sizeof *list);
    for (int i = 0; i < m->n; i++) {
        const ManifestRow *r = &m->row[i];
        if (r->split != SPLIT_TRAIN || strcmp(r->label_name, label)) continue;
        list[k++] =
            (SourceFilm){arena_strdup(a, r->id), kept_path(a, m, r), arena_strdup(a, r->patient)};
    }
    if (!k)
        return FAIL(ERR_INPUT,
                    "%s: no film of class %s in split train to start from, expected some", m->file,
                    label);
    *film = list;
    *n = k;
    return OK;
}
