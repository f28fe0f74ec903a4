/* cmd_train_classifier.c - equipoise train-classifier: one classifier, outside of a study. */
#include "app/commands.h"
#include "app/options.h"
#include "study/dataset.h"
#include "study/fold.h"
#include "study/lock.h"
#include <stdlib.h>
#include <string.h>

static const Option option[] = {
    {"out", "DIR",
     "gets prepare/data/, model.safetensors, history.json, log.jsonl; a second call continues",
     NULL},
    {"class", "NAME", "with classifier.target = disease: the class to tell from the normal one",
     NULL},
    {"minutes", "M", "stop cleanly after so long; run again to continue (0 = no limit)", "0"},
};
static const Usage usage = {
    .command = "train-classifier",
    .arguments = "CONFIG",
    .least = 1,
    .most = 1,
    .help = "Trains Inception-V3 on the films of data.source: to tell a disease from normal films, "
            "or, with\n"
            "classifier.target = patient, to tell patients apart (pretraining without disease "
            "labels, on the\n"
            "training and pool films; one film of each patient with three or more validates).",
    .option = option,
    .n_option = sizeof option / sizeof *option,
    .takes_config = true,
};

static Status choose_films(ClassifierJob *job, Stage *s, Arena *a, const Manifest *m,
                           const char *label)
{
    const Config *c = job->config;
    ClassifierFilm *train, *val;
    if (label) {
        TRY(fold_task(&train, NULL, &job->n_train, a, m, SPLIT_TRAIN, c->data.normal, label));
        TRY(fold_task(&val, NULL, &job->n_val, a, m, SPLIT_VAL, c->data.normal, label));
        job->classes = 2;
    } else {
        TRY(fold_patients(&train, &job->n_train, &val, &job->n_val, &job->classes, a, m));
    }
    job->train = train;
    job->val = val;
    stage_text(s, "class", label ? label : "patients");
    stage_setting(s, c, "study.seed data.normal data.size classifier augment");
    return stage_input(s, "first weights", c->classifier.weights);
}

static Status train(const Config *c, const char *out, const char *label, int minutes, Log *log)
{
    Manifest m = {0};
    Stage data = {0}, s = {0};
    Arena a = {0};
    Device *d = NULL;
    char identity[HASH_TEXT], *prepared = path_join(out, "prepare");
    ClassifierJob job = {.config = c,
                         .seed = (uint32_t)c->study.seed,
                         .out = out,
                         .minutes = minutes,
                         .identity = identity};
    Status status;
    stage_new(&s, "train-classifier", out);
    job.name = arena_printf(&a, "classifier %s", label ? label : "patients");
    TRY_OR(done, status, device_open(&d, c->study.device, c->study.threads, log));
    TRY_OR(done, status, dataset_stage(&data, &m, c, prepared, log));
    stage_upstream(&s, &data, NULL);
    TRY_OR(done, status, choose_films(&job, &s, &a, &m, label));
    TRY_OR(done, status, stage_begin(&s));
    if (s.done) {
        log_info(log, "%s: was complete", out);
        goto done;
    }
    stage_identity(&s, identity);
    log_info(log, "%d films to train on, %d to validate, %d classes", job.n_train, job.n_val,
             job.classes);
    TRY_OR(done, status, classifier_train(&job, d, log));
    TRY_OR(done, status, stage_end(&s, (const char *[]){"model.safetensors", "history.json"}, 2));
    printf("%s/model.safetensors\n", out);
done:
    device_close(d);
    stage_free(&s);
    stage_free(&data);
    manifest_free(&m);
    arena_free(&a);
    free(prepared);
    return status;
}

Status cmd_train_classifier(App *app, int argc, char **argv)
{
    Options o;
    Config c;
    const char *out;
    int minutes;
    RunLock lock = {0};
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(options_config(&c, &o));
    TRY(options_need(&out, &o, "out"));
    TRY(options_int(&minutes, &o, "minutes", 0, 1 << 20));
    const char *label = options_text(&o, "class");
    bool patients = !strcmp(c.classifier.target, "patient");
    if (patients && label)
        return FAIL(
            ERR_USAGE,
            "train-classifier: found --class %s, expected none with classifier.target = patient",
            label);
    if (!patients && !label)
        return FAIL(
            ERR_USAGE,
            "train-classifier: --class is missing, expected one with classifier.target = disease");
    TRY(lone_run_open(&lock, out, app->log));
    Status s = train(&c, out, label, minutes, app->log);
    run_unlock(&lock);
    return s;
}
