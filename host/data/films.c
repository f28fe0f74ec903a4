/* films.c - class table, checks of every file, ids. */
#include "data/films.h"
#include "base/signal.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { SMALLEST_SIDE = 16, TOLD = 20 };

/* ---- classes -------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void make_class_table(Films *f)
{
    f->label = malloc((size_t)(f->n + 1) * sizeof *f->label);
    CHECK(f->label);
    int n = 0;
    for (int i = 0; i < f->n; i++)
        if (!f->film[i].status) f->label[n++] = f->film[i].label_name;
    qsort(f->label, (size_t)n, sizeof *f->label, by_text);
    for (int i = 0; i < n; i++)
        if (!i || strcmp(f->label[i], f->label[f->n_label - 1]))
            f->label[f->n_label++] = f->label[i];
    for (int i = 0; i < f->n; i++) {
        if (f->film[i].status) continue;
        const char **at = bsearch(&f->film[i].label_name, f->label, (size_t)f->n_label,
                                  sizeof *f->label, by_text);
        f->film[i].label = (int)(at - f->label);
    }
}

static const Film *first_of(const Films *f, int label)
{
    for (int i = 0; i < f->n; i++)
        if (!f->film[i].status && f->film[i].label == label) return &f->film[i];
    return NULL;
}

/* Where a film is listed: "labels.csv:7" or its path. */
static const char *place_of(char place[512], const Films *f, const Film *film)
{
    if (film->line) snprintf(place, 512, "%s:%d", f->table, film->line);
    else snprintf(place, 512, "%s", film->path);
    return place;
}

static Status check_allowed(const Films *f, const char *classes)
{
    char *copy = strdup(classes), *rest = NULL, place[512];
    const char *allowed[SPLIT_MAX_LABELS + 1];
    int n = 0;
    CHECK(copy);
    Status s = OK;
    for (char *c = strtok_r(copy, ",", &rest); c && n <= SPLIT_MAX_LABELS;
         c = strtok_r(NULL, ",", &rest))
        allowed[n++] = c;
    for (int i = 0; i < f->n_label && !s; i++) {
        bool known = false;
        for (int j = 0; j < n; j++) known |= !strcmp(f->label[i], allowed[j]);
        if (known) continue;
        const char *near = text_nearest(f->label[i], allowed, n);
        s = FAIL(ERR_INPUT, "%s: class \"%s\"%s%s%s, expected one of %s",
                 place_of(place, f, first_of(f, i)), f->label[i], near ? " (is \"" : "",
                 near ? near : "", near ? "\" meant?)" : "", classes);
    }
    free(copy);
    return s;
}

/* "Normal " and "normal", "no-finding" and "No Finding". */
static bool same_but_for_form(const char *a, const char *b)
{
    for (;; a++, b++) {
        while (*a && !isalnum((unsigned char)*a) && (unsigned char)*a < 0x80) a++;
        while (*b && !isalnum((unsigned char)*b) && (unsigned char)*b < 0x80) b++;
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b)) return false;
        if (!*a) return true;
    }
}

static bool is_intended(const FilmsSource *s, const char *class)
{
    enum { N = sizeof s->intended / sizeof *s->intended };
    for (int i = 0; i < N; i++)
        if (s->intended[i] && !strcmp(s->intended[i], class)) return true;
    return false;
}

/* A rare class whose name is nearly that of a class twenty times as frequent is a slip. */
static Status check_slips(const Films *f, const FilmsSource *s)
{
    int count[SPLIT_MAX_LABELS] = {0};
    for (int i = 0; i < f->n; i++)
        if (!f->film[i].status) count[f->film[i].label]++;
    for (int a = 0; a < f->n_label; a++)
        for (int b = 0; b < f->n_label; b++) {
            char place[512];
            if (a == b || count[a] > count[b]) continue;
            if (is_intended(s, f->label[a]) && is_intended(s, f->label[b])) continue;
            bool slip = same_but_for_form(f->label[a], f->label[b]) ||
                        (count[a] * 20 <= count[b] && text_nearest(f->label[a], &f->label[b], 1));
            if (slip)
                return FAIL(ERR_INPUT,
                            "%s: class \"%s\" has %d films and \"%s\" %d; is it a slip? expected "
                            "distinct names, or all of them in --classes, or both among a study's "
                            "data.normal, data.disease_a and data.disease_b",
                            place_of(place, f, first_of(f, a)), f->label[a], count[a], f->label[b],
                            count[b]);
        }
    return OK;
}

Status films_classes(Films *f, const FilmsSource *s)
{
    make_class_table(f);
    int n_bad = 0;
    for (int i = 0; i < f->n; i++) n_bad += f->film[i].status != OK;
    const char *where = f->table ? f->table : f->root;
    if (f->n_label > SPLIT_MAX_LABELS)
        return FAIL(ERR_INPUT,
                    "%s: %d classes, expected at most %d; is the right column or folder taken?",
                    where, f->n_label, SPLIT_MAX_LABELS);
    if (f->n_label == 1 && !n_bad) /* else films_check() tells what is wrong */
        return FAIL(ERR_INPUT, "%s: all films are of class \"%s\", expected at least two classes",
                    where, f->label[0]);
    return s->classes ? check_allowed(f, s->classes) : check_slips(f, s);
}

/* ---- files ---------------------------------------------------------------------------- */

/* root must be what realpath() gives. Links are fine as long as they stay inside. */
static Status check_inside(const char *root, const char *path)
{
    char *real = realpath(path, NULL);
    if (!real) return OK; /* missing: reading it tells */
    size_t n = strlen(root);
    bool inside = !strncmp(real, root, n) && (real[n] == '/' || root[n - 1] == '/');
    free(real);
    return inside ? OK : FAIL(ERR_INPUT, "%s: leads out of %s, expected a file inside", path, root);
}

static Status read_file(Image *im, char sha256[HASH_TEXT], const char *path)
{
    char *data;
    size_t size;
    TRY(file_read(&data, &size, path, IMAGE_MAX_BYTES));
    hash_bytes(sha256, data, size);
    Status s = image_decode(im, data, size, path);
    free(data);
    return s;
}

static Status check_film(Film *film, const Image *im, const char *path, bool allow_synthetic)
{
    float low = im->pixel[0], high = low;
    for (size_t i = 0; i < (size_t)im->h * (size_t)im->w; i++) {
        if (im->pixel[i] < low) low = im->pixel[i];
        if (im->pixel[i] > high) high = im->pixel[i];
    }
    if (im->h < SMALLEST_SIDE || im->w < SMALLEST_SIDE)
        return FAIL(ERR_INPUT, "%s: %d x %d pixels, expected at least %d x %d", path, im->w, im->h,
                    SMALLEST_SIDE, SMALLEST_SIDE);
    if (low == high) return FAIL(ERR_INPUT, "%s: all pixels are equal, expected a film", path);
    if (!allow_synthetic && image_says_synthetic(im))
        return FAIL(ERR_INPUT, "%s: is marked as synthetic, expected a real film", path);
    film->h = im->h;
    film->w = im->w;
    film->bits = im->bits;
    film->brightest = high;
    film->print = malloc(sizeof *film->print);
    if (!film->print) return FAIL(ERR_SPACE, "%s: no memory for its fingerprint", path);
    return fingerprint_make(film->print, im);
}

static void check_one(Films *f, Film *film, const char *real_root, bool allow_synthetic)
{
    Image im = {0};
    char *path = path_join(f->root, film->path);
    Status s = film->path[0] == '/'
                   ? FAIL(ERR_INPUT, "%s: is absolute, expected a path below %s", path, f->root)
                   : check_inside(real_root, path);
    if (!s) s = read_file(&im, film->sha256, path);
    if (!s) s = check_film(film, &im, path, allow_synthetic);
    if (s) {
        if (film->line) film_problem(film, "%s:%d: %s", f->table, film->line, status_message());
        else film_problem(film, "%s", status_message());
        film->status = s;
    }
    image_free(&im);
    free(path);
}

static Status tell_problems(const Films *f, Log *log)
{
    const Film *first = NULL;
    int n = 0;
    for (int i = 0; i < f->n; i++) {
        const Film *film = &f->film[i];
        if (film->status == ERR_SPACE) return FAIL(ERR_SPACE, "%s", film->problem);
        if (!film->status) continue;
        if (!n++) first = film;
    }
    if (!n) return OK;
    if (n == 1) return FAIL(first->status, "%s", first->problem);
    int told = 0;
    for (int i = 0; i < f->n && told < TOLD; i++)
        if (f->film[i].status) {
            log_warn(log, "%s", f->film[i].problem);
            told++;
        }
    if (n > TOLD) log_warn(log, "... and %d more", n - TOLD);
    return FAIL(first->status, "%s: %d of %d films cannot be used, expected none; the first: %s",
                f->table ? f->table : f->root, n, f->n, first->problem);
}

static void warn_of_dark(const Films *f, Log *log)
{
    const Film *first = NULL;
    int n = 0;
    for (int i = 0; i < f->n; i++)
        if (f->film[i].bits == 16 && f->film[i].brightest < 1.0f / 15 && !n++) first = &f->film[i];
    if (n)
        log_warn(
            log,
            "%d films of 16 bits use less than 1/15 of the range (such as %s); are they 12-bit "
            "values that were never scaled?",
            n, first->path);
}

Status films_check(Films *f, const FilmsSource *s, Log *log)
{
    char *root = realpath(f->root, NULL);
    int done = 0;
    if (!root) return FAIL(ERR_INPUT, "%s: cannot find it, expected a folder", f->root);
#pragma omp parallel for schedule(dynamic, 4)
    for (int i = 0; i < f->n; i++) {
        if (signal_stop_requested()) continue;
        if (!f->film[i].status) check_one(f, &f->film[i], root, s->allow_synthetic);
        int n;
#pragma omp atomic capture
        n = ++done;
        if (n % 64 == 0 || n == f->n) log_progress(log, "films checked", n, f->n, NULL);
    }
    log_progress_end(log);
    free(root);
    if (signal_stop_requested())
        return FAIL(ERR_STOPPED, "stopped while checking films, nothing was written");
    TRY(tell_problems(f, log));
    warn_of_dark(f, log);
    return OK;
}

Status films_read(Image *im, const Films *f, const Film *film)
{
    char *path = path_join(f->root, film->path), sha256[HASH_TEXT];
    Status s = read_file(im, sha256, path);
    if (!s && strcmp(sha256, film->sha256)) {
        image_free(im);
        s = FAIL(ERR_INPUT, "%s: has changed while it was prepared, expected the same file", path);
    }
    free(path);
    return s;
}

/* ---- ids ------------------------------------------------------------------------------ */

static const char *safe_name(Arena *a, const char *path, bool whole)
{
    const char *from = whole || !strrchr(path, '/') ? path : strrchr(path, '/') + 1;
    char *name = arena_strdup(a, from), *dot = strrchr(name, '.');
    if (dot && dot > name && !strchr(dot, '/')) *dot = 0;
    for (char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c)) *c = '_';
    if (strchr(".-", name[0])) name[0] = '_';
    return name;
}

static int by_id(const void *a, const void *b)
{
    const Film *x = *(Film *const *)a, *y = *(Film *const *)b;
    int order = strcmp(x->id, y->id);
    return order ? order : (x > y) - (x < y);
}

static bool same_id(Film *const *film, int n, int i)
{
    return (i > 0 && !strcmp(film[i]->id, film[i - 1]->id)) ||
           (i + 1 < n && !strcmp(film[i]->id, film[i + 1]->id));
}

/* Names that collide become whole paths; those that still do, and long ones, get a hash too. */
static void make_unique(Films *f, Film **film, int n, bool with_hash)
{
    bool *clash = calloc((size_t)n + 1, 1);
    CHECK(clash);
    for (int i = 0; i < n; i++) clash[i] = same_id(film, n, i) || strlen(film[i]->id) > 200;
    for (int i = 0; i < n; i++) {
        if (!clash[i] || film[i]->id_given) continue;
        char hash[HASH_TEXT];
        const char *whole = safe_name(&f->memory, film[i]->path, true);
        hash_bytes(hash, film[i]->path, strlen(film[i]->path));
        film[i]->id = with_hash ? arena_printf(&f->memory, "%.150s-%.12s", whole, hash) : whole;
    }
    free(clash);
}

Status films_make_ids(Films *f)
{
    Film **film = malloc((size_t)(f->n + 1) * sizeof *film);
    int n = 0;
    Status s = OK;
    CHECK(film);
    for (int i = 0; i < f->n; i++) {
        if (f->film[i].left_out) continue;
        if (!f->film[i].id_given) f->film[i].id = safe_name(&f->memory, f->film[i].path, false);
        film[n++] = &f->film[i];
    }
    for (int round = 0; round < 2; round++) {
        qsort(film, (size_t)n, sizeof *film, by_id);
        make_unique(f, film, n, round == 1);
    }
    for (int i = 1; i < n && !s; i++)
        if (film[i]->id_given && film[i - 1]->id_given && !strcmp(film[i]->id, film[i - 1]->id))
            s = FAIL(ERR_INPUT, "%s:%d: id \"%s\" is also in line %d, expected each once", f->table,
                     film[i]->line, film[i]->id, film[i - 1]->line);
    free(film);
    return s;
}
