/* test_report_figures.c - the report's curves have the areas that the evaluation computed; its
 * films are the right ones, and marked; the grid as a picture.
 */
#include "data/image.h"
#include "study/report_page.h"
#include <math.h>
#include <openssl/evp.h>

/* ---- curves --------------------------------------------------------------------------- */

/* Behind `what` of the plot with this id. */
static const char *in_plot(const char *page, const char *plot, const char *what)
{
    char find[64];
    snprintf(find, sizeof find, "aria-labelledby=\"%s-t", plot);
    const char *c = strstr(page, find);
    assert_non_null(c);
    c = strstr(c, what);
    assert_non_null(c);
    return c + strlen(what);
}

/* The disc of a class's threshold lies on its line, whose pieces run along an axis. */
static void disc_is_on_steps(const char *page, const char *plot, int class)
{
    char what[64];
    double at_x, at_y, x, y, x_before = 0, y_before = 0;
    bool on = false;
    snprintf(what, sizeof what, "<circle class=\"dot c%d\" cx=\"", class);
    const char *c = in_plot(page, plot, what);
    assert_int_equal(sscanf(c, "%lf\" cy=\"%lf", &at_x, &at_y), 2);
    snprintf(what, sizeof what, "<path class=\"line c%d%s\" d=\"", class, class ? " dashed" : "");
    c = in_plot(page, plot, what);
    for (int i = 0, n; sscanf(c, "%*[ML]%lf %lf%n", &x, &y, &n) == 2; i++, c += n) {
        double off = fmax(fmax(fmin(x, x_before) - at_x, at_x - fmax(x, x_before)),
                          fmax(fmin(y, y_before) - at_y, at_y - fmax(y, y_before)));
        on |= i && off < .11; /* two roundings to a tenth */
        x_before = x;
        y_before = y;
    }
    if (!on) fail_msg("%s: the disc at %g, %g is not on line %d", plot, at_x, at_y, class);
}

/* Area under the drawn line of a class in the plot with this id, in its frame of 0..1 by 0..1. */
static double drawn_area(const char *page, const char *plot, const char *line)
{
    enum { LEFT = 58, SIDE = 386, BOTTOM = 12 + SIDE };
    char what[64];
    snprintf(what, sizeof what, "<path class=\"line %s\" d=\"", line);
    const char *c = in_plot(page, plot, what);
    double area = 0, x, y, x_before = 0, y_before = 0;
    for (int i = 0, n; sscanf(c, "%*[ML]%lf %lf%n", &x, &y, &n) == 2; i++, c += n) {
        if (i) area += (x - x_before) * ((BOTTOM - y) + (BOTTOM - y_before)) / 2;
        else assert_true(fabs(x - LEFT) < .1);
        x_before = x;
        y_before = y;
    }
    assert_true(fabs(x_before - LEFT - SIDE) < .1);
    return area / SIDE / SIDE;
}

/* Coordinates are rounded to 0.05 units of 386, so an area of a monotonous curve of height 1 is
 * off by at most 0.05 / 386 each way and axis; that of steps, whose height goes up and down with
 * each of at most 60 films, by 0.05 / 386 in height and as much times the sum of heights' changes.
 */
static void curves_have_the_right_area(void **state)
{
    const Fixture *f = *state;
    const double unit = .05 / 386;
    char *page = make_page(f);
    json_t *all = example_metrics(f->folder), *task, *tasks = json_object_get(all, "tasks");
    const char *letter;
    json_object_foreach(tasks, letter, task) for (int k = 0; k < 2; k++)
    {
        const json_t *metrics = json_object_get(
            json_object_get(json_object_get(task, k ? "augmented" : "baseline"), "evaluation"),
            "metrics");
        const char *line = k ? "c1 dashed" : "c0";
        char roc[16], pr[16];
        snprintf(roc, sizeof roc, "roc-%s", letter);
        snprintf(pr, sizeof pr, "pr-%s", letter);
        double auroc = number_of(json_object_get(metrics, "auroc"), "value"),
               auprc = number_of(json_object_get(metrics, "auprc"), "value");
        assert_true(fabs(drawn_area(page, roc, line) - auroc) < 2.5 * unit);
        assert_true(fabs(drawn_area(page, pr, line) - auprc) < (2 + EXAMPLE_TEST / 2) * unit);
        disc_is_on_steps(page, pr, k);
    }
    json_decref(all);
    free(page);
}

/* ---- films ---------------------------------------------------------------------------- */

/* Decodes the n-th picture of the page. */
static void page_image(Image *im, const char *page, int n)
{
    const char *mark = "base64,", *c = page;
    for (int i = 0; i <= n; i++) {
        c = strstr(c, mark);
        assert_non_null(c);
        c += strlen(mark);
    }
    int length = (int)strcspn(c, "\""), size;
    unsigned char *data = malloc((size_t)length);
    size = EVP_DecodeBlock(data, (const unsigned char *)c, length);
    for (int i = 1; i <= 2; i++) size -= c[length - i] == '=';
    if (image_decode(im, data, (size_t)size, "picture of the page"))
        fail_msg("%s", status_message());
    free(data);
}

static void must_equal_film(const Image *im, const Fixture *f, const char *name)
{
    char *path = path_join(f->folder, name);
    Image film = {0};
    if (image_read(&film, path)) fail_msg("%s", status_message());
    assert_int_equal(im->h, EXAMPLE_SIDE);
    assert_int_equal(im->w, EXAMPLE_SIDE);
    assert_memory_equal(im->pixel, film.pixel, sizeof(float) * EXAMPLE_SIDE * EXAMPLE_SIDE);
    image_free(&film);
    free(path);
}

/* Column k of task a shows synthetic film 11 k / 8, made from training film (that) mod 6 of class
 * 0, above the first film of test patient 15 k / 8; see example_run.c. */
static void films_are_the_right_ones(void **state)
{
    const Fixture *f = *state;
    char *page = make_page(f), name[64];
    for (int k = 0; k < 8; k++) {
        Image im[3] = {{0}};
        int made = 11 * k / 8;
        for (int i = 0; i < 3; i++) page_image(&im[i], page, 3 * k + i);
        snprintf(name, sizeof name, "stages/prepare/data/images/0-%02d.png", made % 6);
        must_equal_film(&im[0], f, name);
        snprintf(name, sizeof name, "synthetic/disease_a/images/%06d.png", made);
        must_equal_film(&im[1], f, name);
        assert_true(image_says_synthetic(&im[1]));
        assert_false(image_says_synthetic(&im[0]) || image_says_synthetic(&im[2]));
        for (int i = 0; i < 3; i++) image_free(&im[i]);
    }
    free(page);
}

static void grid_is_a_picture(void **state)
{
    enum { CELL = 128, GAP = 6, ROW = 26 + CELL };
    const Fixture *f = *state;
    char *path = path_join(f->folder, "grid.png");
    char *film = path_join(f->folder, "synthetic/disease_b/images/000000.png");
    Image grid = {0}, made = {0}, fitted = {0};
    if (report_grid_png(f->folder, path)) fail_msg("%s", status_message());
    assert_int_equal(image_read(&grid, path), OK);
    assert_true(image_says_synthetic(&grid));
    assert_int_equal(grid.h, 6 * ROW + GAP);
    assert_int_equal(grid.w, GAP + 8 * (CELL + GAP));
    assert_int_equal(image_read(&made, film), OK);
    assert_int_equal(image_fit(&fitted, &made, CELL), OK);
    int top = 4 * ROW + 26, dark = 0;
    for (int y = 0; y < CELL; y++)
        for (int x = 0; x < CELL; x++)
            assert_true(fabsf(grid.pixel[(top + y) * grid.w + GAP + x] -
                              fitted.pixel[y * CELL + x]) <= .5f / 255 + 1e-6f);
    for (int y = 0; y < 26; y++) /* the row has a title */
        for (int x = 0; x < grid.w; x++) dark += grid.pixel[(top - 26 + y) * grid.w + x] == 0;
    assert_in_range(dark, 200, 4000);
    image_free(&grid);
    image_free(&made);
    image_free(&fitted);
    free(path);
    free(film);
}

/* ---- the timeline ---------------------------------------------------------------------- */

static void write_times(const Fixture *f, const char *stage, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/stages/%s/times.json", f->folder, stage);
    assert_int_equal(file_write(path, text, strlen(text)), OK);
}

/* Ends of the bar that follows `name` in the page, from 146 (0) on, 238 wide for the whole time. */
static void bar_after(const char *page, const char *name, const char *color, double from, double to)
{
    double x, back, y;
    char find[64];
    snprintf(find, sizeof find, ">%s</text>", name);
    const char *c = strstr(page, find);
    assert_non_null(c);
    snprintf(find, sizeof find, "<path class=\"bar %s\" d=\"M", color);
    c = strstr(c, find);
    assert_non_null(c);
    assert_int_equal(sscanf(c + strlen(find), "%lf %lfH%lf", &x, &y, &back), 3);
    assert_true(fabs(x - (146 + 238 * from)) < .11 && fabs(back - (146 + 238 * to)) < .11);
}

/* Two sessions with an hour between them, which is left out: 100 s and 60 s of work. */
static void timeline_shows_who_ran_when(void **state)
{
    const Fixture *f = *state;
    char *page = make_page(f);
    must_hold(page, "When the stages ran is not in the run.");
    free(page);
    write_times(f, "prepare",
                "[{\"began\":1000,\"ended\":1020,\"rank\":0,\"ranks\":1,\"how\":\"done\"}]");
    write_times(f, "ldm-0",
                "[{\"began\":1020,\"ended\":1100,\"rank\":2,\"ranks\":2,\"how\":\"stopped\"},"
                "{\"began\":4700,\"ended\":4760,\"rank\":0,\"ranks\":4,\"how\":\"done\"}]");
    page = make_page(f);
    must_hold(page, "4 ranks worked on stages 66 % of the time shown."); /* 420 of 640 */
    must_hold(page,
              "ldm-0: 20.0 to 100.0, ranks 2\u20133. ldm-0: 100.0 to 160.0, ranks 0\u20133. ");
    must_hold(page, "idle time was left out");
    must_not_hold(page, "set back");
    must_hold(page, ">ranks 0\u20133</text>");
    bar_after(page, "prepare", "c0", 0, 20. / 160);
    bar_after(page, "ldm-0", "c1", 20. / 160, 100. / 160);
    bar_after(page, "ldm-0", "c0", 100. / 160, 1);
    free(page);
    /* the clock was set back during the one, and no time passed in the other */
    write_times(f, "ldm-0",
                "[{\"began\":1000,\"ended\":900,\"rank\":0,\"ranks\":1,\"how\":\"done\"}]");
    write_times(f, "prepare",
                "[{\"began\":800,\"ended\":800,\"rank\":0,\"ranks\":1,\"how\":\"done\"}]");
    page = make_page(f);
    must_hold(page, "1 rank worked on stages 0 % of the time shown.");
    must_hold(page, "not shown, nor those during which the clock was set back.");
    must_hold(page, "prepare: 0.0 to 0.0, rank 0. ");
    must_not_hold(page, "ldm-0: ");
    free(page);
    write_times(f, "prepare", "[{\"began\":900,\"ended\":1000,\"rank\":-1,\"ranks\":1}]");
    assert_int_equal(report_write(f->folder, f->log), ERR_INPUT);
    assert_non_null(strstr(status_message(), "prepare/times.json: entry 1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(curves_have_the_right_area),
        TEST(films_are_the_right_ones),
        TEST(grid_is_a_picture),
        TEST(timeline_shows_who_ran_when),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
