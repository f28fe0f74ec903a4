/* dataset.c - from [data] to a prepared manifest; see dataset.h. */
#include "study/dataset.h"
#include "base/csv.h"
#include "data/prepare.h"
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

/* What a table leads to: itself and its films. A film that is not there is left to prepare, which
 * lists all that are missing at once. */
static Status hash_table(char hash[HASH_TEXT], const char *table, const char *images)
{
    Csv c = {0};
    int path;
    char text[HASH_TEXT] = "";
    Hash *h = hash_new();
    Status s;
    TRY_OR(done, s, hash_file(text, table));
    hash_add(h, text, sizeof text);
    TRY_OR(done, s, csv_read(&c, table));
    TRY_OR(done, s, csv_need(&path, &c, "path"));
    for (int i = 0; i < c.n_row && !s; i++) {
        char *full = path_join(images, csv_at(&c, i, path));
        if (file_exists(full) && !dir_exists(full)) s = hash_file(text, full);
        else text[0] = 0;
        hash_add(h, text, sizeof text);
        free(full);
    }
done:
    hash_end(h, hash);
    csv_free(&c);
    return s;
}

static Status hash_source(char hash[HASH_TEXT], const DataSettings *d)
{
    if (strcmp(d->format, "csv")) return hash_path(hash, d->source);
    char *copy = strdup(d->source);
    CHECK(copy);
    Status s = hash_table(hash, d->source, *d->images ? d->images : dirname(copy));
    free(copy);
    return s;
}

static FilmsSource source_of(const DataSettings *d)
{
    return (FilmsSource){.format = d->format,
                         .source = d->source,
                         .images = *d->images ? d->images : NULL,
                         .intended = {d->normal, d->disease_a, d->disease_b}};
}

static int films_of(const Films *f, int label)
{
    int n = 0;
    for (int i = 0; i < f->n; i++) n += !f->film[i].status && f->film[i].label == label;
    return n;
}

Status dataset_check(int *count, const Config *c, const char *const *class, int n)
{
    FilmsSource source = source_of(&c->data);
    Films f = {0};
    Text all = {0};
    Status s;
    if (!*c->data.source)
        return FAIL(ERR_USAGE, "data.source is empty, expected a folder or table of films");
    TRY_OR(done, s, films_list(&f, &source));
    TRY_OR(done, s, films_classes(&f, &source));
    for (int i = 0; i < f.n_label; i++) text_add(&all, "%s%s", i ? ", " : "", f.label[i]);
    for (int k = 0; k < n && !s; k++) {
        int at = 0;
        while (at < f.n_label && strcmp(f.label[at], class[k])) at++;
        if (at == f.n_label)
            s = FAIL(ERR_USAGE, "%s: no film of class \"%s\", expected one of: %s", c->data.source,
                     class[k], all.s ? all.s : "(none)");
        if (count) count[k] = films_of(&f, at);
    }
    if (count) count[n] = f.n;
done:
    free(all.s);
    films_free(&f);
    return s;
}

/* What is read must not be in the folder that is made anew. */
static Status check_apart(const char *read, const char *out)
{
    char *from = realpath(read, NULL), *to = realpath(out, NULL);
    size_t n = to ? strlen(to) : 0;
    bool inside = from && to && !strncmp(from, to, n) && (!from[n] || from[n] == '/');
    free(from);
    free(to);
    if (!inside) return OK;
    return FAIL(ERR_USAGE, "%s: is in %s, which is made anew, expected films of another folder",
                read, out);
}

static Status prepare(const Config *c, const char *out, Log *log)
{
    const DataSettings *d = &c->data;
    PrepareOptions o = {
        .source = source_of(d),
        .out = out,
        .normal = d->normal,
        .size = d->size,
        .share = {.train = d->train_share, .val = d->val_share},
        .train_ratio = d->train_ratio,
        .seed = (uint32_t)c->study.seed,
    };
    TRY(check_apart(d->source, out));
    if (*d->images) TRY(check_apart(d->images, out));
    TRY(dir_remove(out)); /* complete or not: its record was not */
    Text partial = {0};
    text_add(&partial, "%s.partial", out); /* in our own folder: of a run that was killed */
    Status s = dir_remove(partial.s);
    free(partial.s);
    return s ? s : prepare_run(&o, log);
}

Status dataset_stage(Stage *s, const Config *c, Log *log)
{
    char hash[HASH_TEXT];
    stage_setting(s, c,
                  "study.seed data.format data.size data.normal data.train_share data.val_share "
                  "data.train_ratio");
    TRY(hash_source(hash, &c->data));
    stage_text(s, "films", hash);
    TRY(stage_begin(s));
    if (s->done) return OK;
    char *data = path_join(s->folder, "data");
    Status status = prepare(c, data, log);
    free(data);
    TRY(status);
    return stage_end(s, (const char *[]){"data"}, 1);
}

Status dataset_manifest(Manifest *m, const Stage *s)
{
    char *table = path_join(s->folder, "data/manifest.csv");
    Status status = manifest_read(m, table);
    free(table);
    return status;
}
