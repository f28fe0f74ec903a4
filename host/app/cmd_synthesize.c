/* cmd_synthesize.c - equipoise synthesize: films of one class, outside of a study. */
#include "app/commands.h"
#include "app/lone_stage.h"
#include "app/options.h"
#include "study/dataset.h"
#include "study/space.h"
#include "study/task.h"
#include <stdlib.h>
#include <string.h>

static const Option option[] = {
    {"model", "DIR", "folder of the diffusion model", NULL},
    {"out", "DIR",
     "gets films/images/*.png, films/manifest.csv, log.jsonl; a second call continues", NULL},
    {"class", "NAME", "class of the films, which decides their prompts", NULL},
};
static const Usage usage = {
    .command = "synthesize",
    .arguments = "CONFIG",
    .least = 1,
    .most = 1,
    .help = "Makes synthetic films as [synthesis] says. Image-to-image starts from training films "
            "of data.source, which are prepared in DIR/prepare/ first. synthesis.count = 0: as "
            "many as balance the "
            "classes.",
    .option = option,
    .n_option = sizeof option / sizeof *option,
    .takes_config = true,
};

static bool translates(const Config *c) { return !strcmp(c->synthesis.mode, "image-to-image"); }
static bool needs_films(const Config *c) { return translates(c) || !c->synthesis.count; }

/* Sources and number of films. */
static Status choose_sources(LoneStage *l)
{
    const Config *c = l->config;
    const Manifest *m = &l->manifest;
    SynthesisJob *job = l->job;
    SourceFilm *source;
    job->count = c->synthesis.count;
    if (needs_films(c)) {
        int n_train, n_val;
        TRY(lone_stage_films(l));
        TRY(fold_need_class(m, c->data.normal));
        TRY(fold_need_class(m, l->label));
        TRY(synthetic_wanted(&n_train, &n_val, c, m, l->label));
        job->count = n_train + n_val;
    }
    if (!translates(c)) return OK;
    TRY(fold_sources(&source, &job->n_source, &l->arena, m,
                     !strcmp(c->synthesis.source, "normal") ? c->data.normal : l->label));
    job->source = source;
    return OK;
}

static Status check_record(const LoneStage *l, const char *films)
{
    if (!dir_exists(films) || file_exists(l->stage.record)) return OK;
    return FAIL(ERR_USAGE,
                "%s: is there without %s, which says what its films were made from; expected both, "
                "or another --out",
                films, l->stage.record);
}

static Status choose(LoneStage *l)
{
    SynthesisJob *job = l->job;
    Status s = comm_rank(l->comm) ? OK : check_record(l, job->out);
    TRY(comm_agree(l->comm, "films", s));
    job->name = arena_printf(&l->arena, "synthetic %s", l->label);
    TRY(choose_sources(l));
    stage_setting(&l->stage, l->config, "study.seed data.size data.normal synthesis");
    stage_text(&l->stage, "class", l->label);
    return stage_input(&l->stage, "model", job->model);
}

static Status make_films(LoneStage *l)
{
    SynthesisJob *job = l->job;
    job->comm = l->comm;
    return synthesis_run(job, l->device, l->log);
}

static const LoneKind kind = {.name = "synthesize",
                              .output = {"films"},
                              .result = "films/manifest.csv",
                              .choose = choose,
                              .work = make_films};

/* What would be found after the films were prepared. */
static Status check_first(const Config *c, const char *out, const char *label)
{
    int n[3] = {0};
    if (!c->synthesis.count && !strcmp(label, c->data.normal))
        return FAIL(ERR_USAGE,
                    "synthesize: found synthesis.count = 0 with --class %s, which data.normal is "
                    "too, expected a number of films",
                    label);
    if (needs_films(c)) TRY(dataset_check(n, c, (const char *[]){c->data.normal, label}, 2));
    if (file_exists(out)) return OK; /* it continues, or lone_stage_run() refuses the folder */
    return space_for_films(out, c, n[2], synthetic_expected(c, n[0], n[1]));
}

Status cmd_synthesize(App *app, int argc, char **argv)
{
    Options o;
    Config c;
    const char *out, *model, *label;
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(options_config(&c, &o));
    TRY(options_need(&out, &o, "out"));
    TRY(options_need(&model, &o, "model"));
    TRY(options_need(&label, &o, "class"));
    SynthesisJob job = {.config = &c, .model = model, .label = label};
    TRY(class_prompts(&job.prompts, &c, label));
    TRY(ldm_check(model, c.data.size, LDM_ALL_WEIGHTS));
    TRY(check_first(&c, out, label));
    char *films = path_join(out, "films");
    job.out = films;
    LoneStage l = {.config = &c, .out = out, .label = label, .log = app->log, .job = &job};
    Status s = lone_stage_run(&l, &kind);
    free(films);
    return s;
}
