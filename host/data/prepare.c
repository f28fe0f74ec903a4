/* prepare.c - the steps of a preparation, in order, and its files. */
#include "data/prepare.h"
#include "base/csv.h"
#include "base/signal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- files ---------------------------------------------------------------------------- */

static Status write_film(ManifestRow *row, const Films *f, const Film *film, const char *out,
                         int size)
{
    Image im = {0}, square = {0};
    char *data = NULL, *path = path_join(out, row->path);
    size_t n_bytes;
    Status s;
    TRY_OR(done, s, films_read(&im, f, film));
    TRY_OR(done, s, image_fit(&square, &im, size));
    TRY_OR(done, s, image_encode_png(&data, &n_bytes, square.pixel, size, size, NULL, 0, path));
    hash_bytes(row->sha256, data, n_bytes);
    TRY_OR(done, s, file_write_unsynced(path, data, n_bytes));
done:
    free(data);
    free(path);
    image_free(&im);
    image_free(&square);
    return s;
}

/* Films and manifest. The first failure in the films' order is the one that is told. */
static Status write_films(Manifest *m, const Films *f, const char *out, int size, Log *log)
{
    int done = 0, failed_at = f->n;
    char message[1024] = "";
    Status status = OK;
    ManifestRow *row = calloc((size_t)f->n + 1, sizeof *row);
    CHECK(row);
#pragma omp parallel for schedule(dynamic, 4)
    for (int i = 0; i < f->n; i++) {
        const Film *film = &f->film[i];
        char path[256];
        if (film->left_out || signal_stop_requested()) continue;
        snprintf(path, sizeof path, "images/%s.png", film->id);
        row[i] = (ManifestRow){.id = film->id,
                               .path = path,
                               .label_name = film->label_name,
                               .patient = film->patient,
                               .source = film->path,
                               .split = film->split,
                               .width = size,
                               .height = size};
        Status s = write_film(&row[i], f, film, out, size);
        row[i].path = NULL;
#pragma omp critical(prepare_write)
        {
            if (s && i < failed_at) {
                failed_at = i;
                status = s;
                snprintf(message, sizeof message, "%s", status_message());
            }
            if (++done % 64 == 0) log_progress(log, "films written", done, f->n, NULL);
        }
    }
    log_progress_end(log);
    for (int i = 0; i < f->n && !status; i++) {
        char path[256];
        if (!row[i].id) continue;
        snprintf(path, sizeof path, "images/%s.png", f->film[i].id);
        row[i].path = path;
        manifest_add(m, &row[i]);
    }
    free(row);
    if (status) return FAIL(status, "%s", message);
    if (signal_stop_requested())
        return FAIL(ERR_STOPPED, "stopped while writing films, which are removed");
    TRY(manifest_finish(m));
    return manifest_write(m);
}

static Status write_left_out(const Films *f, const char *path)
{
    OutFile o;
    Status s;
    TRY(out_open(&o, path));
    TRY_OR(done, s, out_printf(&o, "path,label,patient,reason\n"));
    for (int i = 0; i < f->n; i++) {
        const Film *film = &f->film[i];
        if (!film->left_out) continue;
        TRY_OR(done, s, csv_write_field(&o, film->path, false));
        TRY_OR(done, s, csv_write_field(&o, film->label_name, false));
        TRY_OR(done, s, csv_write_field(&o, film->patient, false));
        TRY_OR(done, s, csv_write_field(&o, film->left_out, true));
    }
    TRY_OR(done, s, out_commit(&o));
done:
    out_abandon(&o);
    return s;
}

static Status write_near(const Films *f, const NearPair *pair, int n_pair, const char *path)
{
    OutFile o;
    Status s;
    TRY(out_open(&o, path));
    TRY_OR(done, s, out_printf(&o, "path_a,path_b,bits,correlation\n"));
    for (int i = 0; i < n_pair; i++) {
        TRY_OR(done, s, csv_write_field(&o, f->film[pair[i].a].path, false));
        TRY_OR(done, s, csv_write_field(&o, f->film[pair[i].b].path, false));
        TRY_OR(done, s, out_printf(&o, "%d,%.6f\n", pair[i].bits, pair[i].correlation));
    }
    TRY_OR(done, s, out_commit(&o));
done:
    out_abandon(&o);
    return s;
}

static void tell_counts(const Manifest *m, const Films *f, Log *log)
{
    Text t = {0};
    char *rest = NULL;
    int within = 0, left_out = 0;
    manifest_table(&t, m);
    for (char *line = strtok_r(t.s, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        log_info(log, "%s", line);
    free(t.s);
    for (int s = 0; s < SPLIT_COUNT; s++) within += manifest_count(m, -1, (Split)s).patients;
    log_info(log, "%d patients in more than one split",
             within - manifest_count(m, -1, SPLIT_COUNT).patients);
    for (int i = 0; i < f->n; i++) left_out += f->film[i].left_out != NULL;
    log_info(log, "%d films left out, listed with their reasons in left_out.csv", left_out);
}

/* Everything but the last rename. */
static Status write_all(const Films *f, const NearPair *pair, int n_pair, const PrepareOptions *o,
                        const char *partial, Log *log)
{
    Manifest m = {0};
    char *images = path_join(partial, "images"), *table = path_join(partial, "manifest.csv");
    char *left_out = path_join(partial, "left_out.csv"),
         *near = path_join(partial, "near_duplicates.csv");
    Status s;
    manifest_init(&m, table);
    TRY_OR(done, s, dir_make(images));
    TRY_OR(done, s, write_films(&m, f, partial, o->size, log));
    TRY_OR(done, s, write_left_out(f, left_out));
    TRY_OR(done, s, write_near(f, pair, n_pair, near));
    tell_counts(&m, f, log);
done:
    manifest_free(&m);
    free(images);
    free(table);
    free(left_out);
    free(near);
    return s;
}

/* ---- the steps ------------------------------------------------------------------------ */

static Status check_options(const PrepareOptions *o)
{
    if (o->size < 8 || o->size > 4096)
        return FAIL(ERR_USAGE, "size %d, expected 8 to 4096 pixels", o->size);
    double sum = o->share.train + o->share.val + o->share.pool;
    if (o->share.train <= 0 || o->share.val < 0 || o->share.pool < 0 || sum > 1 + 1e-9)
        return FAIL(
            ERR_USAGE,
            "shares: train %g, val %g, pool %g, expected a part for train and at most 1 in all",
            o->share.train, o->share.val, o->share.pool);
    if (o->train_ratio < 0)
        return FAIL(ERR_USAGE, "train ratio %g, expected 0 or more", o->train_ratio);
    DirList there = {0};
    if (!file_exists(o->out)) return file_check_room(o->out);
    if (!dir_exists(o->out)) return FAIL(ERR_USAGE, "%s: is a file, expected a new folder", o->out);
    TRY(dir_list(&there, o->out));
    int n = there.n;
    dir_list_free(&there);
    return n ? FAIL(ERR_USAGE, "%s: is there and not empty, expected a new folder", o->out) : OK;
}

/* A set that is being made lies beside its place, as OUT.partial, and holds this file until it is
 * whole: by it a folder that a killed run has left is known. */
static char *mark_of(const char *partial) { return path_join(partial, ".unfinished"); }

static Status check_partial(const char *partial)
{
    char *mark = mark_of(partial);
    DirList there = {0};
    bool ours = !file_exists(partial) || file_exists(mark);
    Status s = OK;
    if (!ours && dir_exists(partial)) {
        s = dir_list(&there, partial);
        ours = !there.n;
        dir_list_free(&there);
    }
    free(mark);
    if (s || ours) return s;
    return FAIL(ERR_USAGE,
                "%s: is there and not of an unfinished prepare, expected nothing of that name, "
                "which films are prepared under",
                partial);
}

/* The mark last: what a process leaves that is killed meanwhile is still known as ours. */
static Status remove_partial(const char *partial)
{
    char *mark = mark_of(partial);
    DirList there = {0};
    Status s = dir_exists(partial) ? dir_list(&there, partial) : OK;
    for (int i = 0; i < there.n && !s; i++) {
        char *path = path_join(partial, there.name[i]);
        if (strcmp(path, mark)) s = dir_remove(path);
        free(path);
    }
    dir_list_free(&there);
    free(mark);
    return s ? s : dir_remove(partial);
}

static Status begin_partial(const char *partial)
{
    TRY(check_partial(partial)); /* films have been read since the first time */
    char *mark = mark_of(partial);
    Status s = remove_partial(partial);
    if (!s) s = dir_make(partial);
    if (!s) s = file_write(mark, "", 0);
    free(mark);
    return s;
}

static Status end_partial(const char *partial, const char *out)
{
    char *mark = mark_of(partial);
    Status s = dir_sync(partial);
    if (!s && unlink(mark)) s = FAIL(ERR_SPACE, "%s: cannot be removed: %s", mark, strerror(errno));
    if (!s) s = dir_rename(partial, out);
    free(mark);
    return s;
}

static Status make_set(Films *f, const PrepareOptions *o, const char *partial, Log *log)
{
    NearPair *pair = NULL;
    int n_pair = 0;
    Status s;
    TRY_OR(done, s, films_classes(f, &o->source));
    TRY_OR(done, s, films_check(f, &o->source, log));
    TRY_OR(done, s, prepare_choose(f, &pair, &n_pair, o, log));
    TRY_OR(done, s, begin_partial(partial));
    s = write_all(f, pair, n_pair, o, partial, log);
    if (!s) s = end_partial(partial, o->out);
    if (s) { /* dir_remove may fail too: what is told is why we got here */
        Failure failure;
        status_keep(&failure, s);
        remove_partial(partial);
        status_restore(&failure);
    }
done:
    free(pair);
    return s;
}

Status prepare_run(const PrepareOptions *o, Log *log)
{
    Films films = {0};
    Text partial = {0};
    size_t length = strlen(o->out);
    TRY(check_options(o));
    while (length > 1 && o->out[length - 1] == '/') length--;
    text_add(&partial, "%.*s.partial", (int)length, o->out);
    Status s = check_partial(partial.s);
    if (!s) s = films_list(&films, &o->source);
    if (!s && films.has_split && o->shares_given)
        s = FAIL(ERR_USAGE, "%s: has splits, which are kept, expected no shares beside them",
                 o->source.source);
    if (!s) {
        log_info(log, "%d films in %s", films.n, o->source.source);
        s = make_set(&films, o, partial.s, log);
    }
    free(partial.s);
    films_free(&films);
    return s;
}
