/* reproduce.c - what it takes to run the study again: command, settings, version, hashes. */
#include "report/html.h"
#include "report/sections.h"
#include <stdlib.h>
#include <string.h>

/* Only the last part of a path tells something outside the machine. */
static void add_path(Text *t, const char *name, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (*path) text_add(t, "; %s = .../%s\n", name, slash ? slash + 1 : path);
    else text_add(t, "; %s is empty\n", name);
}

static void settings_text(Text *t, const Config *c)
{
#define SKIP(S, name, ...)
#define PATH_LINE(S, name, ...) add_path(t, #name, c->S.name);
#define SECTION(section, Type, TABLE, meaning)                                                     \
    text_add(t, "%s[" #section "]\n", t->n ? "\n" : "");                                           \
    config_section_text(c, #section, t);                                                           \
    TABLE(section, SKIP, SKIP, SKIP, PATH_LINE)
    CONFIG_SECTIONS(SECTION)
#undef SECTION
#undef PATH_LINE
#undef SKIP
}

/* A hash that a stage's record holds, as a row. */
static Status add_hash(Text *t, const Run *r, const char *stage, const char *input,
                       const char *what)
{
    Text name = {0};
    json_t *record = NULL;
    text_add(&name, "stages/%s/stage.json", stage);
    Status s = run_json(&record, r, name.s);
    free(name.s);
    TRY(s);
    const char *hash = json_string_value(json_object_get(json_object_get(record, "inputs"), input));
    text_add(t, "<tr>");
    html_head(t, "%s", what);
    text_add(t, "<td><code>");
    text_add_html(t, hash ? hash : "not recorded");
    text_add(t, "</code></td></tr>\n");
    json_decref(record);
    return OK;
}

static Status add_record(Text *t, const Run *r)
{
    json_t *record = NULL;
    Text ldm = {0}, arm = {0};
    Status s;
    TRY(run_json(&record, r, "stages/evaluate/stage.json"));
    const char *program = text_at(record, "program");
    text_add(&ldm, "ldm-%s", r->task[0].letter);
    text_add(&arm, "baseline-%s", r->task[0].letter);
    html_table(t, NULL, "What the run started from (SHA-256)", "what|value");
    text_add(t, "<tr>");
    html_head(t, "version");
    html_cell(t, "%s%s", *program ? "equipoise " : "", *program ? program : "not recorded");
    text_add(t, "</tr>\n<tr>");
    html_head(t, "seed");
    html_cell(t, "%s", figure(number_at(r->metrics, "study.seed"), 0).s);
    text_add(t, "</tr>\n");
    TRY_OR(done, s, add_hash(t, r, "prepare", "films", "films"));
    TRY_OR(done, s, add_hash(t, r, ldm.s, "base model", "base diffusion model"));
    TRY_OR(done, s, add_hash(t, r, arm.s, "first weights", "classifier's first weights"));
    html_table_end(t);
done:
    json_decref(record);
    free(ldm.s);
    free(arm.s);
    return s;
}

Status section_reproduce(Text *t, const Run *r)
{
    Text settings = {0};
    text_add(t, "<pre><code>equipoise study config.ini --run NEW_FOLDER</code></pre>\n");
    html_para(
        t, NULL,
        "with the config.ini of the run folder, which holds every setting. The same films, "
        "settings, weights, version, number of threads and kind of processor give the same "
        "numbers to the last bit. metrics.json has the numbers of the tables; the stages' folders "
        "have the predictions.");
    TRY(add_record(t, r));
    if (!r->has_config) {
        html_missing(t, "The settings (config.ini) are not in the run.");
        return OK;
    }
    settings_text(&settings, &r->config);
    text_add(t,
             "<details><summary>All settings (config.ini; paths shortened)</summary>\n<pre><code>");
    text_add_html(t, settings.s);
    text_add(t, "</code></pre></details>\n");
    free(settings.s);
    return OK;
}
