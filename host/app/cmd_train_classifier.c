/* cmd_train_classifier.c - equipoise train-classifier: one classifier, outside of a study. */
#include "app/commands.h"
#include "app/lone_stage.h"
#include "study/dataset.h"
#include "study/fold.h"
#include "train/run_state.h"
#include <string.h>

static const Option option[] = {
    {"out", "DIR",
     "gets prepare/data/, model.safetensors, history.json, log.jsonl; a second call continues",
     NULL},
    {"class", "NAME", "with classifier.target = disease: the class to tell from the normal one",
     NULL},
    {"minutes", "M", "stop cleanly after so long; run again to continue; 0: no limit", "0"},
};
static const Usage usage = {
    .command = "train-classifier",
    .arguments = "CONFIG",
    .least = 1,
    .most = 1,
    .help = "Trains Inception-V3 on the films of data.source: to tell a disease from normal films, "
            "or, with "
            "classifier.target = patient, to tell patients apart (pretraining without disease "
            "labels, on the training and pool films; one film of each patient with three or more "
            "validates).",
    .option = option,
    .n_option = sizeof option / sizeof *option,
    .takes_config = true,
};

static Status choose_films(LoneStage *l)
{
    const Config *c = l->config;
    const char *label = l->label;
    const Manifest *m = &l->manifest;
    ClassifierJob *job = l->job;
    ClassifierFilm *train, *val;
    Arena *a = &l->arena;
    TRY(lone_stage_films(l));
    if (label) {
        TRY(fold_task(&train, NULL, &job->n_train, a, m, SPLIT_TRAIN, c->data.normal, label));
        TRY(fold_task(&val, NULL, &job->n_val, a, m, SPLIT_VAL, c->data.normal, label));
        job->classes = 2;
    } else {
        TRY(fold_patients(&train, &job->n_train, &val, &job->n_val, &job->classes, a, m));
    }
    job->train = train;
    job->val = val;
    job->identity = l->identity;
    job->comm = l->comm;
    job->name = arena_printf(a, "classifier %s", label ? label : "patients");
    TRY(train_need_batch(job->name, job->n_train, "classifier", c->classifier.batch,
                         c->classifier.accumulate));
    stage_text(&l->stage, "class", label ? label : "patients");
    stage_setting(&l->stage, c,
                  "study.seed data.normal data.size classifier augment parallel.reduction "
                  "parallel.sync_batchnorm");
    return stage_input(&l->stage, "first weights", c->classifier.weights);
}

static Status train(LoneStage *l)
{
    const ClassifierJob *job = l->job;
    log_info(l->log, "%d films to train on, %d to validate, %d classes", job->n_train, job->n_val,
             job->classes);
    return classifier_train(job, l->device, l->log);
}

static const LoneKind kind = {.name = "train-classifier",
                              .output = {"model.safetensors", "history.json"},
                              .result = "model.safetensors",
                              .choose = choose_films,
                              .work = train};

Status cmd_train_classifier(App *app, int argc, char **argv)
{
    TrainCall call;
    TRY(train_call(&call, &usage, argc, argv));
    if (call.helped) return OK;
    const Config *c = &call.config;
    const char *label = call.label;
    bool patients = !strcmp(c->classifier.target, "patient");
    if (patients && label)
        return FAIL(
            ERR_USAGE,
            "train-classifier: found --class %s, expected none with classifier.target = patient",
            label);
    if (!patients && !label)
        return FAIL(
            ERR_USAGE,
            "train-classifier: --class is missing, expected one with classifier.target = disease");
    if (label && !strcmp(label, c->data.normal))
        return FAIL(ERR_USAGE,
                    "train-classifier: --class is \"%s\", which data.normal is too, expected a "
                    "disease",
                    label);
    TRY(classifier_check(c));
    TRY(dataset_check(NULL, c, (const char *[]){label, c->data.normal}, label ? 2 : 0));
    ClassifierJob job = {
        .config = c, .seed = (uint32_t)c->study.seed, .out = call.out, .minutes = call.minutes};
    LoneStage l = {.config = c, .out = call.out, .label = call.label, .log = app->log, .job = &job};
    return lone_stage_run(&l, &kind);
}
