/* test_report.c - report.html of a made-up run: its numbers; nothing from elsewhere, nothing
 * unescaped, nothing of the machine; parts missing and parts damaged.
 */
#include "data/image.h"
#include "ref/example_run.h"
#include "stats/evaluation.h"
#include "study/report_page.h"
#include <math.h>

/* ---- the page as a whole -------------------------------------------------------------- */

/* Every element that is opened is closed, in order; '<' stands for nothing else. */
static void must_nest(const char *page)
{
    static const char *const empty[] = {"meta", "img", "path", "circle", "!DOCTYPE"};
    char open[64][16];
    int n = 0;
    for (const char *c = strchr(page, '<'); c; c = strchr(c + 1, '<')) {
        char name[16] = "";
        bool closing = c[1] == '/', none = false;
        sscanf(c + 1 + closing, "%15[A-Za-z0-9!]", name);
        if (!*name || !strchr(c, '>')) fail_msg("no element: %.60s", c);
        for (int i = 0; i < 5; i++) none |= !strcmp(name, empty[i]);
        if (none) continue;
        if (!closing) strcpy(open[n++], name);
        else if (!n || strcmp(open[--n], name))
            fail_msg("</%s> closes <%s>: %.60s", name, n < 0 ? "nothing" : open[n], c);
        assert_in_range(n, 0, 63);
    }
    assert_int_equal(n, 0);
}

static void page_is_whole_and_alone(void **state)
{
    const Fixture *f = *state;
    static const char *const section[] = {"summary",  "methods", "metrics", "curves", "confusion",
                                          "training", "films",   "quality", "limits", "timeline",
                                          "reproduce"};
    char *page = make_page(f), at[64];
    for (int i = 0; i < 11; i++) {
        snprintf(at, sizeof at, "<section id=\"%s\">", section[i]);
        must_hold(page, at);
        snprintf(at, sizeof at, "<a href=\"#%s\">", section[i]);
        must_hold(page, at);
    }
    must_nest(page);
    must_not_hold(page, "http");
    must_not_hold(page, "<script");
    must_not_hold(page, "<link");
    must_not_hold(page, "<iframe");
    must_not_hold(page, "@import");
    must_not_hold(page, "url(");
    must_not_hold(page, "nan");
    must_not_hold(page, "(null)");
    int n = 0;
    for (const char *c = strstr(page, "src="); c; c = strstr(c + 1, "src=")) {
        assert_memory_equal(c, "src=\"data:image/png;base64,", 27);
        n++;
    }
    assert_int_equal(n, 2 * 8 * 3);
    for (const char *c = strstr(page, "href="); c; c = strstr(c + 1, "href="))
        assert_memory_equal(c, "href=\"#", 7);
    free(page);
}

static void names_are_escaped(void **state)
{
    const Fixture *f = *state;
    char *page = make_page(f);
    must_hold(page, "bact&lt;script&gt;alert(1)&lt;/script&gt;");
    must_hold(page, "no&lt;b&gt;rmal &amp; &quot;well&quot;");
    must_hold(page, "vi&#39;rus");
    must_hold(page, "a &lt;/title&gt; study");
    must_hold(page, "&lt;i&gt;film 0-00&quot;");
    must_hold(page, "synthetic-&lt;0&gt;");
    must_hold(page, "2: exact &lt;duplicate&gt;");
    must_hold(page, "&lt;0123abcd&gt;");
    must_hold(page, "On &lt;nothing&gt; at all.");
    must_hold(page, ".../base&lt;2&gt;");
    must_hold(page, " batches of 36, ");
    must_not_hold(page, "<i>");
    free(page);
}

/* Equal runs give equal bytes wherever they lie, and nothing of the place is told. */
static void page_is_reproducible(void **state)
{
    Fixture *f = *state;
    char *page = make_page(f), *again = make_page(f), other[96];
    assert_string_equal(page, again);
    free(again);
    snprintf(other, sizeof other, "%s-moved", f->folder);
    assert_int_equal(dir_rename(f->folder, other), OK);
    assert_int_equal(report_write(other, f->log), OK);
    again = read_page(other);
    assert_string_equal(page, again);
    assert_int_equal(dir_rename(other, f->folder), OK);
    must_not_hold(page, f->folder);
    must_not_hold(page, SOURCE_DIR);
    must_not_hold(page, "secret");
    must_not_hold(page, "/tmp");
    must_not_hold(page, "/dev/shm");
    must_hold(page, "equipoise 9.8.7");
    example_run(f->folder, f->seed + 1);
    free(again);
    again = make_page(f);
    assert_string_not_equal(page, again);
    free(again);
    free(page);
}

/* ---- numbers -------------------------------------------------------------------------- */

/* Rounded to three places with U+2212, as the page has it. */
static void add_rounded(char *to, double v, const char *plus)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%.3f", fabs(v));
    bool zero = !strcmp(digits, "0.000");
    sprintf(to + strlen(to), "%s%s", zero ? "" : v < 0 ? "\xe2\x88\x92" : plus, digits);
}

static void add_cell(char *to, const json_t *one, const char *key, const char *plus)
{
    const json_t *ci = json_object_get(one, "ci");
    strcat(to, "<td>");
    add_rounded(to, number_of(one, key), plus);
    strcat(to, " <span>[");
    add_rounded(to, json_number_value(json_array_get(ci, 0)), plus);
    strcat(to, ", ");
    add_rounded(to, json_number_value(json_array_get(ci, 1)), plus);
    strcat(to, "]</span>");
}

static void every_metric_stands_in_the_table(void **state)
{
    const Fixture *f = *state;
    char *page = make_page(f);
    json_t *all = example_metrics(f->folder), *task, *tasks = json_object_get(all, "tasks");
    const char *letter;
    json_object_foreach(tasks, letter, task) for (Metric m = 0; m < METRIC_COUNT; m++)
    {
        const char *name = metric_info(m)->name;
        for (int k = 0; k < 3; k++) {
            const json_t *arm = json_object_get(task, k == 1 ? "augmented" : "baseline");
            const json_t *metrics = json_object_get(json_object_get(arm, "evaluation"), "metrics");
            const json_t *one =
                json_object_get(k == 2 ? json_object_get(task, "comparison") : metrics, name);
            char cell[256] = "";
            add_cell(cell, one, k == 2 ? "difference" : "value", k == 2 ? "+" : "");
            must_hold(page, cell);
        }
    }
    json_decref(all);
    free(page);
}

static void quality_stands_in_the_page(void **state)
{
    const Fixture *f = *state;
    char *page = make_page(f);
    must_hold(page, "<td>0.0123 \xc2\xb1 0.0011</td><td>11 and 30</td>");
    must_hold(page, "<td>\xe2\x88\x92"
                    "0.0004 \xc2\xb1 0.0009</td>");
    must_hold(page, "nearer to the disease");
    must_hold(page,
              "calls 72.7 % of the 11 synthetic films diseased (95 % interval 39.0 to 94.0 %");
    must_hold(page, "<td>0.930</td><td>0.980</td>");
    must_hold(page, "<td>60 : 6 + 11</td><td>3.5 to 1</td>");
    must_hold(page, "1,010 (900)");
    must_hold(page, "Some patients have several test films.");
    free(page);
}

/* The summary says what the numbers say, also where nothing was gained. */
static void summary_follows_the_numbers(void **state)
{
    static const struct {
        double lo, hi, p, holm;
        const char *task, *lead;
    } kind[] = {
        {.05, .2, .001, .006, "is better on these films", "rose in both tasks"},
        {-.2, -.05, .001, .006, "is worse on these films", "rose in 0 and fell in 2"},
        {-.05, .2, .2, .9,
         "differences from \xe2\x88\x92"
         "0.050 to +0.200 remain",
         "not shown to help in either task"},
        {.01, .2, .03, .12, "Undecided", "not shown to help in either task"},
        {-.01, .2, .001, .006, "Undecided", "not shown to help in either task"},
        {NAN, NAN, NAN, NAN, "could not be compared", "Result: none"},
    };
    const Fixture *f = *state;
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
        json_t *all = example_metrics(f->folder), *task, *tasks = json_object_get(all, "tasks");
        const char *letter;
        json_object_foreach(tasks, letter, task)
        {
            json_t *youden = json_object_get(json_object_get(task, "comparison"), "youden");
            bool none = isnan(kind[i].lo);
            json_object_set_new(youden, "difference", json_real(.07));
            json_object_set_new(youden, "ci",
                                none ? json_null() : json_pack("[f, f]", kind[i].lo, kind[i].hi));
            json_object_set_new(youden, "p", none ? json_null() : json_real(kind[i].p));
            json_object_set_new(youden, "p_holm", none ? json_null() : json_real(kind[i].holm));
        }
        example_metrics_put(f->folder, all);
        char *page = make_page(f), *end = strstr(page, "id=\"methods\"");
        assert_non_null(end);
        *end = 0;
        must_hold(page, kind[i].task);
        must_hold(page, kind[i].lead);
        must_hold(page, "difference +0.070");
        free(page);
    }
}

static void seeds_are_told(void **state)
{
    const Fixture *f = *state;
    json_t *all = example_metrics(f->folder);
    json_t *arm = json_object_get(json_object_get(json_object_get(all, "tasks"), "a"), "baseline");
    json_object_set_new(json_object_get(all, "study"), "repeats", json_integer(3));
    json_object_set_new(
        arm, "seeds",
        json_pack("{s:i, s:{s:{s:f, s:f}}}", "n", 3, "metrics", "f1", "mean", .8125, "sd", .0625));
    example_metrics_put(f->folder, all);
    char *page = make_page(f);
    must_hold(page, "over 3 training seeds");
    must_hold(page, "<td>0.812 (0.062)</td>");
    must_hold(page, "Curves are of the first training seed.");
    must_hold(page, "trained from 3 seeds and its scores averaged");
    free(page);
}

/* ---- parts missing, parts damaged ----------------------------------------------------- */

static void remove_part(const Fixture *f, const char *name)
{
    char *path = path_join(f->folder, name);
    assert_true(file_exists(path));
    if (dir_exists(path)) assert_int_equal(dir_remove(path), OK);
    else assert_int_equal(unlink(path), 0);
    free(path);
}

static void missing_files_are_said_to_be_missing(void **state)
{
    static const struct {
        const char *name, *said;
    } part[] = {
        {"config.ini", "The settings (config.ini) are not in the run."},
        {"stages/prepare/data/left_out.csv", "left out in preparation is not in the run"},
        {"stages/augmented-a/predictions_test.csv",
         "the test predictions of the arm &quot;with synthetic films&quot; are not in the run"},
        {"stages/ldm-b/history.json", "history of the stage ldm-b is not in the run"},
        {"stages/baseline-b/history.json", "history of the stage baseline-b is not in the run"},
        {"stages/prepare/data/images/0-00.png", "not in the run</span>"},
        {"synthetic/disease_a/manifest.csv", "are not in the run"},
        {"stages/prepare/data/manifest.csv", "no further patient"},
        {"synthetic", "The synthetic films of vi&#39;rus are not in the run."},
        {"stages", "not recorded"},
    };
    const Fixture *f = *state;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        remove_part(f, part[i].name);
        char *page = make_page(f);
        must_hold(page, part[i].said);
        must_nest(page);
        must_not_hold(page, "nan");
        free(page);
    }
    char *path = path_join(f->folder, "grid.png");
    assert_int_equal(report_grid_png(f->folder, path), ERR_INPUT);
    assert_false(file_exists(path));
    free(path);
}

static void missing_numbers_are_said_to_be_missing(void **state)
{
    static const struct {
        const char *within, *key, *said;
    } part[] = {
        {"synthetic", "kid", "(KID) was not measured"},
        {"synthetic", "called_diseased", "calls diseased was not measured"},
        {"synthetic", "nearest", "likeness to the training films was not measured"},
        {NULL, "synthetic", "were not measured"},
        {NULL, "comparison", "The two arms were not compared."},
        {"augmented", "evaluation", "One of the two arms was not evaluated."},
        {NULL, "baseline", "no confusion matrix was recorded"},
    };
    const Fixture *f = *state;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        json_t *all = example_metrics(f->folder);
        json_t *task = json_object_get(json_object_get(all, "tasks"), "a");
        json_t *in = part[i].within ? json_object_get(task, part[i].within) : task;
        assert_int_equal(json_object_del(in, part[i].key), 0);
        example_metrics_put(f->folder, all);
        char *page = make_page(f);
        must_hold(page, part[i].said);
        must_nest(page);
        must_not_hold(page, "nan");
        free(page);
    }
}

/* Each damage alone: refused, naming the file, and the old page stays. */
static void damage_is_refused(void **state)
{
    static const struct {
        const char *name, *content, *said;
    } damage[] = {
        {"metrics.json", "{\"tasks\": ", "metrics.json:1: "},
        {"metrics.json", "{\"tasks\": {}}", "no tasks"},
        {"metrics.json", "{\"tasks\": {\"../x\": {}}}", "expected a name of letters"},
        {"metrics.json", "{\"tasks\": {\"a\": {\"synthetic\": {\"folder\": \"x/../../y\"}}}}",
         "expected one inside the run"},
        {"config.ini", "[study]\nsead = 1\n", "config.ini:2"},
        {"stages/ldm-a/history.json", "{]", "history.json:1: "},
        {"stages/baseline-a/predictions_test.csv", "id,patient,label\n",
         "predictions_test.csv:1: "},
        {"stages/prepare/data/manifest.csv", "id\n1\n", "manifest.csv"},
        {"stages/prepare/data/images/0-00.png", "no film", "0-00.png"},
        {"synthetic/disease_b/manifest.csv", "id,path,source_id\n1,../2.png,3\n",
         "expected one inside the folder"},
    };
    const Fixture *f = *state;
    char *page = make_page(f);
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        char *path = path_join(f->folder, damage[i].name), *before, *after;
        size_t size;
        assert_int_equal(file_read(&before, &size, path, 64 << 20), OK);
        assert_int_equal(file_write(path, damage[i].content, strlen(damage[i].content)), OK);
        Status s = report_write(f->folder, f->log);
        if (s != ERR_INPUT && s != ERR_USAGE) fail_msg("%s: status %d", damage[i].name, s);
        if (!strstr(status_message(), damage[i].said))
            fail_msg("\"%s\" not in: %s", damage[i].said, status_message());
        after = read_page(f->folder);
        assert_string_equal(page, after);
        assert_int_equal(file_write(path, before, size), OK);
        free(before);
        free(after);
        free(path);
    }
    free(page);
    remove_part(f, "metrics.json");
    assert_int_equal(report_write(f->folder, f->log), ERR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(page_is_whole_and_alone),
        TEST(names_are_escaped),
        TEST(page_is_reproducible),
        TEST(every_metric_stands_in_the_table),
        TEST(quality_stands_in_the_page),
        TEST(summary_follows_the_numbers),
        TEST(seeds_are_told),
        TEST(missing_files_are_said_to_be_missing),
        TEST(missing_numbers_are_said_to_be_missing),
        TEST(damage_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
