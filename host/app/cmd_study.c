/* cmd_study.c - equipoise study: everything, in one run folder. */
#include "app/commands.h"
#include "app/options.h"
#include "study/study.h"
#include <stdlib.h>
#include <string.h>

static const Option option[] = {
    {"run", "DIR", "run folder; runs/ and CONFIG's name where none is given", NULL},
    {"resume", NULL, "continue the run in DIR; where DIR is missing or empty, start it", NULL},
};
static const Usage usage = {
    .command = "study",
    .arguments = "CONFIG",
    .least = 1,
    .most = 1,
    .help = "Runs the whole study: prepares the films, trains a baseline classifier per disease, "
            "fine-tunes a\n"
            "diffusion model per disease, synthesizes films, trains the classifiers again with "
            "them and compares.\n"
            "DIR gets config.ini, metrics.json, report.html, log.jsonl, stages/ and synthetic/.",
    .option = option,
    .n_option = sizeof option / sizeof *option,
    .takes_config = true,
};

/* "configs/demo.ini" -> "runs/demo" */
static char *default_run(const char *config)
{
    Text t = {0};
    const char *slash = strrchr(config, '/'), *name = slash ? slash + 1 : config,
               *dot = strrchr(name, '.');
    text_add(&t, "runs/%.*s", dot && dot > name ? (int)(dot - name) : (int)strlen(name), name);
    return t.s;
}

Status cmd_study(App *app, int argc, char **argv)
{
    Options o;
    Config c;
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(options_config(&c, &o));
    const char *given = options_text(&o, "run");
    char *run = given ? strdup(given) : default_run(o.argument[0]);
    CHECK(run);
    Status s = study_run(&c, run, options_has(&o, "resume"), app->log);
    free(run);
    return s;
}
