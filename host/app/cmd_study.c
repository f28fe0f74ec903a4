/* cmd_study.c - equipoise study: everything, in one run folder. */
#include "app/commands.h"
#include "app/options.h"
#include "app/ranks.h"
#include "base/signal.h"
#include "study/study.h"
#include <stdlib.h>
#include <string.h>

static const Option option[] = {
    {"run", "DIR", "run folder; runs/ and CONFIG's name where none is given", NULL},
    {"resume", NULL, "continue the run in DIR; where DIR is missing or empty, start it", NULL},
    {"stage", "NAME",
     "only this stage; continues by itself. Jobs of other stages may run beside it", NULL},
    {"list-stages", NULL, "print the stages, what each needs and whether DIR has it; run nothing",
     NULL},
    {"minutes", "M", "stop cleanly after so long, as by a signal; 0 = no limit", "0"},
    {"plan", NULL, "print which ranks would do what, with memory and time; run nothing", NULL},
    {"ranks", "N", "with --plan: for so many ranks", "1"},
    {"speed", "TFLOPS",
     "of a rank, for the plan's times; measured on one convolution where not given", NULL},
    {"link", "GB/S", "with --plan: between two ranks, for the time of their exchange", NULL},
};
static const Usage usage = {
    .command = "study",
    .arguments = "CONFIG",
    .least = 1,
    .most = 1,
    .help = "Runs the whole study: prepares the films, trains a baseline classifier per disease, "
            "fine-tunes a diffusion model per disease, synthesizes films, trains the classifiers "
            "again with them and compares.\n"
            "DIR gets config.ini, metrics.json, report.html, log.jsonl, stages/ and synthetic/.\n"
            "Started by mpirun or srun, its ranks share the stages; the result is the same.",
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

/* 0 where it is not given. */
static Status number(double *v, const Options *o, const char *name)
{
    *v = 0;
    return options_has(o, name) ? options_real(v, o, name, 1e-6, 1e6) : OK;
}

static Status show_plan(const Options *o, const Config *c, Log *log)
{
    Device *d = NULL;
    int ranks;
    double speed, link;
    bool gpu = !strncmp(c->study.device, "cuda", 4);
    TRY(options_int(&ranks, o, "ranks", 1, 65536));
    TRY(number(&speed, o, "speed"));
    TRY(number(&link, o, "link"));
    if (!speed || !strcmp(c->study.device, "auto")) {
        TRY(device_open(&d, c->study.device, c->study.precision, c->study.threads, log));
        gpu = device_is_gpu(d);
    }
    Dtype act = gpu && strcmp(c->study.precision, "fp32") ? DTYPE_BF16 : DTYPE_F32;
    Status s = study_show_plan(c, ranks, speed * 1e12, link * 1e9, act, d);
    device_close(d);
    return s;
}

static Status run(const Options *o, const Config *c, const char *folder, Log *log)
{
    Ranks r = {0};
    double speed;
    int minutes;
    const char *stage = options_text(o, "stage");
    TRY(number(&speed, o, "speed"));
    TRY(options_int(&minutes, o, "minutes", 0, 1 << 20));
    Status s = ranks_open(&r, c, log);
    StudyJob job = {.config = c,
                    .run = folder,
                    .resume = options_has(o, "resume"),
                    .flops_per_s = speed * 1e12,
                    .world = r.comm,
                    .device = r.device,
                    .log = log};
    if (minutes) signal_stop_after(60 * (unsigned)minutes);
    if (!s) s = stage ? study_run_stage(&job, stage) : study_run(&job);
    return ranks_close(&r, s);
}

/* What belongs to something else than what is asked for would do nothing. */
static Status check_options(const Options *o)
{
    static const char *const what[] = {"stage", "list-stages", "plan"};
    static const char *const plans[] = {"ranks", "link"};
    const char *asked = NULL;
    for (int i = 0; i < 3; i++) {
        if (!options_has(o, what[i])) continue;
        if (asked)
            return FAIL(ERR_USAGE, "study: found --%s and --%s, expected one of them", asked,
                        what[i]);
        asked = what[i];
    }
    for (int i = 0; i < 2; i++)
        if (options_has(o, plans[i]) && !options_has(o, "plan"))
            return FAIL(ERR_USAGE, "study: found --%s without --plan, expected both", plans[i]);
    return OK;
}

Status cmd_study(App *app, int argc, char **argv)
{
    Options o;
    Config c;
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(check_options(&o));
    TRY(options_config(&c, &o));
    const char *given = options_text(&o, "run");
    char *folder = given ? strdup(given) : default_run(o.argument[0]);
    CHECK(folder);
    Status s = options_has(&o, "list-stages") ? study_list_stages(folder)
               : options_has(&o, "plan")      ? show_plan(&o, &c, app->log)
                                              : run(&o, &c, folder, app->log);
    free(folder);
    return s;
}
