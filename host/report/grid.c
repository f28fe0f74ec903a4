/* grid.c - source, synthetic and real films: as a section of the page, and as one picture. */
#include "base/signal.h"
#include "data/image.h"
#include "report/choose.h"
#include "report/html.h"
#include "report/letters.h"
#include "report/report.h"
#include "report/sections.h"
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_SIDE = 128, GAP = 6, TITLE = 26, TITLE_SCALE = 2, KINDS = 3 };

#define SYNTHETIC_NOTE "yes: made by a latent diffusion model, not a film of a patient"

static const ShownFilm *film_of(const FilmColumn *c, int kind)
{
    return kind == 0 ? &c->source : kind == 1 ? &c->synthetic : &c->real;
}

/* ---- the section ---------------------------------------------------------------------- */

static void add_base64(Text *t, const char *data, size_t size)
{
    enum { PIECE = 3 * 1024 };
    unsigned char text[4 * 1024 + 1];
    for (size_t at = 0; at < size; at += PIECE) {
        size_t n = size - at < PIECE ? size - at : PIECE;
        EVP_EncodeBlock(text, (const unsigned char *)data + at, (int)n);
        text_add(t, "%s", (char *)text);
    }
}

/* Its PNG, no larger than it is shown; a synthetic one says so in its metadata. */
static Status add_image(Text *t, const ShownFilm *f, bool synthetic, const char *told)
{
    Image im = {0}, small = {0};
    ImageText note = {"Synthetic", SYNTHETIC_NOTE};
    char *data = NULL;
    size_t size;
    Status s;
    TRY_OR(done, s, image_read(&im, f->path));
    int side = im.h > im.w ? im.h : im.w;
    TRY_OR(done, s, image_fit(&small, &im, side < SHOWN_SIDE ? side : SHOWN_SIDE));
    TRY_OR(
        done, s,
        image_encode_png(&data, &size, small.pixel, small.h, small.w, &note, synthetic, f->path));
    text_add(t, "<img width=\"%d\" height=\"%d\" alt=\"", small.w, small.h);
    text_add_html(t, told);
    text_add(t, "\" title=\"");
    text_add_html(t, f->id);
    text_add(t, "\" src=\"data:image/png;base64,");
    add_base64(t, data, size);
    text_add(t, "\">");
done:
    free(data);
    image_free(&im);
    image_free(&small);
    return s;
}

static Status add_film(Text *t, const FilmColumn *column, int kind)
{
    static const char *const name[KINDS] = {"source", "synthetic", "real"};
    const ShownFilm *f = film_of(column, kind);
    Text told = {0};
    Status s = OK;
    text_add(&told, "%s film%s%s%s%s", name[kind], *f->label ? " of class " : "", f->label,
             *f->id ? ", " : "", f->id);
    text_add(t, "<figure class=\"film %s\">", name[kind]);
    if (f->path) s = add_image(t, f, kind == 1, told.s);
    else if (kind == 0 && !*f->id) text_add(t, "<span class=\"none\">none: from the prompt</span>");
    else if (kind == 2 && !*f->id) text_add(t, "<span class=\"none\">no further patient</span>");
    else text_add(t, "<span class=\"none\">not in the run</span>");
    text_add(t, "<figcaption>%s", name[kind]);
    if (kind != 1 && *f->label) {
        text_add(t, ": ");
        text_add_html(t, f->label);
    }
    text_add(t, "</figcaption></figure>\n");
    free(told.s);
    return s;
}

static Status add_task(Text *t, const Run *r, const RunTask *task, Arena *a)
{
    FilmColumn column[MOST_COLUMNS];
    int n;
    TRY(choose_films(column, &n, a, r, task));
    html_h3(t, "%s", task->disease);
    if (!n) {
        html_missing(t, "The synthetic films of %s are not in the run.", task->disease);
        return OK;
    }
    text_add(t, "<div class=\"grid\">\n");
    for (int k = 0; k < n; k++) {
        text_add(t, "<div class=\"trio\">\n");
        for (int kind = 0; kind < KINDS; kind++) TRY(add_film(t, &column[k], kind));
        text_add(t, "</div>\n");
    }
    text_add(t, "</div>\n");
    return OK;
}

Status section_films(Text *t, const Run *r)
{
    Arena a = {0};
    Status s = OK;
    html_para(
        t, NULL,
        "Each column: a source film of the training set, the synthetic film made from it "
        "(framed), and a real test film of the disease. The real film is of another patient "
        "and has no tie to the two above it. Films are chosen by their place in the list, not "
        "by their looks.");
    for (int i = 0; i < r->n_task && !s; i++) s = add_task(t, r, &r->task[i], &a);
    arena_free(&a);
    return s;
}

/* ---- the picture ---------------------------------------------------------------------- */

typedef struct {
    float *pixel; /* owned: [h, w] */
    int h, w;
} Canvas;

static Status draw_film(const Canvas *c, const ShownFilm *f, int top, int left)
{
    Image im = {0}, fitted = {0};
    Status s = OK;
    if (f->path) s = image_read(&im, f->path);
    if (f->path && !s) s = image_fit(&fitted, &im, SHOWN_SIDE);
    for (int y = 0; y < SHOWN_SIDE && !s; y++)
        for (int x = 0; x < SHOWN_SIDE; x++)
            c->pixel[(size_t)(top + y) * (size_t)c->w + (size_t)(left + x)] =
                fitted.pixel ? fitted.pixel[y * SHOWN_SIDE + x] : .85f;
    image_free(&im);
    image_free(&fitted);
    return s;
}

static Status draw_task(const Canvas *c, const FilmColumn *column, int n, const RunTask *task,
                        int top)
{
    for (int kind = 0; kind < KINDS; kind++) {
        TRY(signal_check());
        Text title = {0};
        const char *source = column[0].source.label;
        if (kind == 0) text_add(&title, "source: %s", *source ? source : "none");
        else text_add(&title, "%s: %s", kind == 1 ? "synthetic" : "real", task->disease);
        letters_draw(c->pixel, c->h, c->w, top + (TITLE - LETTER_HEIGHT * TITLE_SCALE) / 2, GAP,
                     TITLE_SCALE, title.s);
        free(title.s);
        for (int k = 0; k < n; k++)
            TRY(draw_film(c, film_of(&column[k], kind), top + TITLE, GAP + k * (SHOWN_SIDE + GAP)));
        top += TITLE + SHOWN_SIDE;
    }
    return OK;
}

static Status draw_run(const Run *r, const char *path, Arena *a)
{
    enum { TASK_HEIGHT = KINDS * (TITLE + SHOWN_SIDE) };
    FilmColumn(*column)[MOST_COLUMNS] = arena_alloc(a, (size_t)r->n_task * sizeof *column);
    int *n = arena_alloc(a, (size_t)r->n_task * sizeof *n), wide = 0, tasks = 0, top = 0;
    ImageText note = {"Synthetic", "in part: rows titled so are made by latent diffusion models"};
    for (int i = 0; i < r->n_task; i++) {
        TRY(choose_films(column[i], &n[i], a, r, &r->task[i]));
        tasks += n[i] > 0;
        if (n[i] > wide) wide = n[i];
    }
    if (!tasks)
        return FAIL(ERR_INPUT, "%s: no synthetic films, expected a finished run", r->folder);
    Canvas c = {NULL, tasks * TASK_HEIGHT + GAP, GAP + wide * (SHOWN_SIDE + GAP)};
    size_t pixels = (size_t)c.h * (size_t)c.w;
    c.pixel = arena_alloc(a, pixels * sizeof *c.pixel);
    for (size_t i = 0; i < pixels; i++) c.pixel[i] = 1;
    for (int i = 0; i < r->n_task; i++) {
        if (!n[i]) continue;
        TRY(draw_task(&c, column[i], n[i], &r->task[i], top));
        top += TASK_HEIGHT;
    }
    return image_write_png(path, c.pixel, c.h, c.w, &note, 1);
}

Status report_grid_png(const char *run_dir, const char *path)
{
    Run r;
    Arena a = {0};
    TRY(run_read(&r, run_dir));
    Status s = draw_run(&r, path, &a);
    arena_free(&a);
    run_free(&r);
    return s;
}
