/* report.c - puts the page together; see report.h. */
#include "report/report.h"
#include "base/signal.h"
#include "report/html.h"
#include "report/sections.h"
#include <stdlib.h>

static const struct {
    const char *id, *title;
    SectionWriter *write;
} sections[] = {
    {"summary", "Summary", section_summary},
    {"methods", "What was run", section_methods},
    {"metrics", "Results on the test films", section_metrics},
    {"curves", "ROC and precision-recall curves", section_curves},
    {"confusion", "Confusion matrices", section_confusion},
    {"training", "Training curves", section_training},
    {"films", "Source, synthetic and real films", section_films},
    {"quality", "Quality of the synthetic films", section_quality},
    {"limits", "Limits and notes", section_limits},
    {"timeline", "When it ran", section_timeline},
    {"reproduce", "How to reproduce", section_reproduce},
};
enum { N_SECTION = sizeof sections / sizeof *sections };

static void add_head(Text *t, const Run *r)
{
    const char *name = text_at(r->metrics, "study.name");
    text_add(t, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                "<meta name=\"color-scheme\" content=\"light dark\">\n"
                "<meta name=\"generator\" content=\"equipoise " EQ_VERSION "\">\n<title>");
    text_add_html(t, *name ? name : "study");
    text_add(t, ": report</title>\n<style>\n%s%s</style>\n</head>\n<body>\n<header>\n<h1>",
             page_style_screen, page_style_paper);
    text_add_html(t, *name ? name : "study");
    text_add(t, "</h1>\n<p class=\"by\">Normal chest X-rays against ");
    for (int i = 0; i < r->n_task; i++) {
        Text word = {0};
        text_add_html(&word, r->task[i].disease);
        words_join(t, word.s ? word.s : "", i, r->n_task);
        free(word.s);
    }
    text_add(t, ", with and without synthetic films in training. Made by equipoise " EQ_VERSION
                ".</p>\n<nav aria-label=\"Sections\">");
    for (int i = 0; i < N_SECTION; i++)
        text_add(t, "<a href=\"#%s\">%s</a>\n", sections[i].id, sections[i].title);
    text_add(t, "</nav>\n</header>\n<main>\n");
}

static Status add_page(Text *t, const Run *r)
{
    add_head(t, r);
    for (int i = 0; i < N_SECTION; i++) {
        text_add(t, "<section id=\"%s\">\n<h2>%s</h2>\n", sections[i].id, sections[i].title);
        TRY(sections[i].write(t, r));
        TRY(signal_check());
        text_add(t, "</section>\n");
    }
    text_add(t, "</main>\n<footer><p>Research use only. Films called synthetic show no "
                "patient.</p></footer>\n</body>\n</html>\n");
    return OK;
}

Status report_write(const char *run_dir, Log *log)
{
    Run r;
    Text page = {0};
    char *path = NULL;
    Status s;
    TRY(run_read(&r, run_dir));
    TRY_OR(done, s, add_page(&page, &r));
    path = run_path(&r, "report.html");
    TRY_OR(done, s, file_write(path, page.s, page.n));
    log_info(log, "%s", path);
done:
    free(page.s);
    free(path);
    run_free(&r);
    return s;
}
