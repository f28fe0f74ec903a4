/* cmd_train_ldm.c - equipoise train-ldm: one diffusion model, outside of a study. */
#include "app/commands.h"
#include "app/lone_stage.h"
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
    const char *label = l->label;
    const Manifest *m = &l->manifest;
    LdmJob *job = l->job;
    LdmFilm *train, *prior = NULL, *val;
    Arena *a = &l->arena;
    TRY(lone_stage_films(l));
    if (label) TRY(fold_need_class(m, label));
    TRY(fold_prompted(&train, &job->n_train, a, m, c, outside_tests, label));
    TRY(fold_prompted(&val, &job->n_val, a, m, c, 1u << SPLIT_VAL, label));
    if (label && c->ldm.prior_share > 0)
        TRY(fold_prompted(&prior, &job->n_prior, a, m, c, 1u << SPLIT_TRAIN, c->data.normal));
    if (!job->n_train)
        return FAIL(ERR_INPUT, "%s: no film to train on, expected some in train or pool", m->file);
    job->train = train;
    job->prior = prior;
    job->val = val;
    job->identity = l->identity;
    job->comm = l->comm;
    job->name = arena_printf(a, "LDM %s", label ? label : "all");
    stage_text(&l->stage, "class", label ? label : "all");
    stage_setting(
        &l->stage, c,
        "study.seed data.normal data.disease_a data.disease_b data.size ldm synthesis.weights "
        "synthesis.prompt_normal synthesis.prompt_a synthesis.prompt_b parallel.reduction");
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
    TrainCall call;
    TRY(train_call(&call, &usage, argc, argv));
    if (call.helped) return OK;
    const Config *c = &call.config;
    if (!*c->ldm.base) return FAIL(ERR_USAGE, "ldm.base is empty, expected a model folder");
    bool random = !strcmp(c->ldm.init, "random");
    TRY(ldm_check(c->ldm.base, c->data.size, random ? LDM_AUTOENCODER : LDM_ALL_WEIGHTS));
    TRY(dataset_check(NULL, c, &call.label, call.label != NULL));
    LdmJob job = {.config = c, .base = c->ldm.base, .out = call.out, .minutes = call.minutes};
    LoneStage l = {.config = c, .out = call.out, .label = call.label, .log = app->log, .job = &job};
    return lone_stage_run(&l, &kind);
}
