/* cmd_train_ldm.c - equipoise train-ldm: one diffusion model, outside of a study. */
#include "app/commands.h"
#include "app/lone_stage.h"
#include "app/options.h"
#include "study/dataset.h"
#include "study/fold.h"
#include <string.h>

static const Option option[] = {
    {"out", "DIR", "gets prepare/data/, model/, history.json, log.jsonl; a second call continues",
     NULL},
    {"class", "NAME", "class of the films, or all: each film with the prompts of its class", "all"},
    {"minutes", "M", "stop cleanly after so long; run again to continue; 0: no limit", "0"},
};
static const Usage usage = {
    .command = "train-ldm",
    .arguments = "CONFIG",
    .least = 1,
    .most = 1,
    .help =
        "Fine-tunes the diffusion model ldm.base on the training and pool films of data.source.",
    .option = option,
    .n_option = sizeof option / sizeof *option,
    .takes_config = true,
};

static Status choose_films(LoneStage *l)
{
    const unsigned outside_tests = 1u << SPLIT_TRAIN | 1u << SPLIT_POOL;
    const Config *c = l->config;
    const Manifest *m = &l->manifest;
    LdmJob *job = l->job;
    LdmFilm *train, *prior = NULL, *val;
    Arena *a = &l->arena;
    TRY(lone_stage_films(l));
    if (l->label) TRY(fold_need_class(m, l->label));
    TRY(fold_prompted(&train, &job->n_train, a, m, c, outside_tests, l->label));
    TRY(fold_prompted(&val, &job->n_val, a, m, c, 1u << SPLIT_VAL, l->label));
    if (l->label && c->ldm.prior_share > 0)
        TRY(fold_prompted(&prior, &job->n_prior, a, m, c, 1u << SPLIT_TRAIN, c->data.normal));
    if (!job->n_train)
        return FAIL(ERR_INPUT, "%s: no film to train on, expected some in train or pool", m->file);
    job->train = train;
    job->prior = prior;
    job->val = val;
    job->identity = l->identity;
    job->comm = l->comm;
    job->name = arena_printf(a, "LDM %s", l->label ? l->label : "all");
    stage_text(&l->stage, "class", l->label ? l->label : "all");
    stage_setting(
        &l->stage, c,
        "study.seed data.normal data.disease_a data.disease_b data.size ldm parallel.reduction "
        "synthesis.weights synthesis.prompt_normal synthesis.prompt_a synthesis.prompt_b");
    return stage_input(&l->stage, "base model", c->ldm.base);
}

static Status train(LoneStage *l)
{
    const LdmJob *job = l->job;
    log_info(l->log, "%d films to train on, %d to validate, %d prior", job->n_train, job->n_val,
             job->n_prior);
    return ldm_train(job, l->device, l->log);
}

static const LoneKind kind = {.name = "train-ldm",
                              .output = {"model", "history.json"},
                              .result = "model",
                              .choose = choose_films,
                              .work = train};

Status cmd_train_ldm(App *app, int argc, char **argv)
{
    Options o;
    Config c;
    const char *out;
    int minutes;
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(options_config(&c, &o));
    TRY(options_need(&out, &o, "out"));
    TRY(options_int(&minutes, &o, "minutes", 0, 1 << 20));
    const char *label = options_text(&o, "class");
    if (!*c.ldm.base) return FAIL(ERR_USAGE, "ldm.base is empty, expected a model folder");
    TRY(ldm_check(c.ldm.base, c.data.size, strcmp(c.ldm.init, "random")));
    TRY(dataset_check(NULL, &c, &label, strcmp(label, "all") != 0));
    LdmJob job = {.config = &c, .base = c.ldm.base, .out = out, .minutes = minutes};
    LoneStage l = {.config = &c,
                   .out = out,
                   .label = strcmp(label, "all") ? label : NULL,
                   .log = app->log,
                   .job = &job};
    return lone_stage_run(&l, &kind);
}
