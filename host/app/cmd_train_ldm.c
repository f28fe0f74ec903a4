/* cmd_train_ldm.c - equipoise train-ldm: one diffusion model, outside of a study. */
#include "app/commands.h"
#include "app/options.h"
#include "study/dataset.h"
#include "study/fold.h"
#include "study/lock.h"
#include <stdlib.h>
#include <string.h>

static const Option option[] = {
    {"out", "DIR", "gets prepare/data/, model/, history.json, log.jsonl; a second call continues",
     NULL},
    {"class", "NAME", "class of the films, or all: each film with the prompts of its class", "all"},
    {"minutes", "M", "stop cleanly after so long; run again to continue (0 = no limit)", "0"},
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

/* Films of the job, and what its result depends on. */
static Status choose_films(LdmJob *job, Stage *s, Arena *a, const Manifest *m, const char *label)
{
    const Config *c = job->config;
    LdmFilm *train, *prior = NULL, *val;
    if (label) TRY(fold_need_class(m, label));
    TRY(fold_prompted(&train, &job->n_train, a, m, c, 1u << SPLIT_TRAIN | 1u << SPLIT_POOL, label));
    TRY(fold_prompted(&val, &job->n_val, a, m, c, 1u << SPLIT_VAL, label));
    if (label && c->ldm.prior_share > 0)
        TRY(fold_prompted(&prior, &job->n_prior, a, m, c, 1u << SPLIT_TRAIN, c->data.normal));
    if (!job->n_train)
        return FAIL(ERR_INPUT, "%s: no film to train on, expected some in train or pool", m->file);
    job->train = train;
    job->prior = prior;
    job->val = val;
    stage_text(s, "class", label ? label : "all");
    stage_setting(
        s, c,
        "study.seed data.normal data.disease_a data.disease_b data.size ldm synthesis.weights "
        "synthesis.prompt_normal synthesis.prompt_a synthesis.prompt_b");
    return stage_input(s, "base model", c->ldm.base);
}

static Status train(const Config *c, const char *out, const char *label, int minutes, Log *log)
{
    Manifest m = {0};
    Stage data = {0}, s = {0};
    Arena a = {0};
    Device *d = NULL;
    char identity[HASH_TEXT], *prepared = path_join(out, "prepare");
    LdmJob job = {
        .config = c, .base = c->ldm.base, .out = out, .minutes = minutes, .identity = identity};
    Status status;
    stage_new(&s, "train-ldm", out);
    job.name = arena_printf(&a, "LDM %s", label ? label : "all");
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
    log_info(log, "%d films to train on, %d to validate, %d prior", job.n_train, job.n_val,
             job.n_prior);
    TRY_OR(done, status, ldm_train(&job, d, log));
    TRY_OR(done, status, stage_end(&s, (const char *[]){"model", "history.json"}, 2));
    printf("%s/model\n", out);
done:
    device_close(d);
    stage_free(&s);
    stage_free(&data);
    manifest_free(&m);
    arena_free(&a);
    free(prepared);
    return status;
}

Status cmd_train_ldm(App *app, int argc, char **argv)
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
    if (!*c.ldm.base) return FAIL(ERR_USAGE, "ldm.base is empty, expected a model folder");
    TRY(ldm_check(c.ldm.base, c.data.size, strcmp(c.ldm.init, "random")));
    TRY(lone_run_open(&lock, out, app->log));
    Status s = train(&c, out, strcmp(label, "all") ? label : NULL, minutes, app->log);
    run_unlock(&lock);
    return s;
}
