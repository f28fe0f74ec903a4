/* cmd_train_autoencoder.c - equipoise train-autoencoder: one autoencoder, on films. */
#include "app/commands.h"
#include "app/lone_stage.h"
#include "study/dataset.h"
#include "study/fold.h"
#include "train/autoencoder_trainer.h"
#include "train/run_state.h"
#include <stdlib.h>
#include <string.h>

static const Option option[] = {
    {"out", "DIR", "gets prepare/data/, model/, history.json, log.jsonl; a second call continues",
     NULL},
    {"class", "NAME", "class of the films, or all", "all"},
    {"minutes", "M", "stop cleanly after so long; run again to continue; 0: no limit", "0"},
};
static const Usage usage = {
    .command = "train-autoencoder",
    .arguments = "CONFIG",
    .least = 1,
    .most = 1,
    .help = "Fine-tunes the autoencoder autoencoder.base (AutoencoderKL or AutoencoderTiny, a "
            "folder with config.json, or a model's folder with vae/) on the training and pool "
            "films of data.source, to give films back as they are. To keep the latents that a "
            "diffusion model was trained on, train the decoder only: "
            "autoencoder.frozen = encoder.,quant_conv.",
    .option = option,
    .n_option = sizeof option / sizeof *option,
    .takes_config = true,
};

static Status choose_films(LoneStage *l)
{
    const Config *c = l->config;
    const char *label = l->label;
    AutoencoderJob *job = l->job;
    const Manifest *m = &l->manifest;
    Arena *a = &l->arena;
    TRY(lone_stage_films(l));
    TRY(fold_paths(&job->train, &job->n_train, a, m, 1u << SPLIT_TRAIN | 1u << SPLIT_POOL, label));
    TRY(fold_paths(&job->val, &job->n_val, a, m, 1u << SPLIT_VAL, label));
    if (!job->n_train)
        return FAIL(ERR_INPUT, "%s: no film to train on, expected some in train or pool", m->file);
    job->identity = l->identity;
    job->comm = l->comm;
    job->name = arena_printf(a, "autoencoder %s", label ? label : "all");
    TRY(train_need_batch(job->name, job->n_train, "autoencoder", c->autoencoder.batch,
                         c->autoencoder.accumulate));
    stage_text(&l->stage, "class", label ? label : "all");
    stage_setting(&l->stage, c, "study.seed data.size autoencoder parallel.reduction");
    if (c->autoencoder.perceptual_weight > 0)
        TRY(stage_input(&l->stage, "perceptual weights", c->autoencoder.perceptual_weights));
    return stage_input(&l->stage, "base model", job->base);
}

static Status train(LoneStage *l)
{
    const AutoencoderJob *job = l->job;
    log_info(l->log, "%d films to train on, %d to validate", job->n_train, job->n_val);
    return autoencoder_train(job, l->device, l->log);
}

static const LoneKind kind = {.name = "train-autoencoder",
                              .output = {"model", "history.json"},
                              .result = "model",
                              .choose = choose_films,
                              .work = train};

/* The folder of the autoencoder itself: base, or base/vae. */
static char *own_folder(const char *base)
{
    char *part = path_join(base, "vae");
    if (dir_exists(part)) return part;
    free(part);
    return path_join("", base);
}

Status cmd_train_autoencoder(App *app, int argc, char **argv)
{
    TrainCall call;
    TRY(train_call(&call, &usage, argc, argv));
    if (call.helped) return OK;
    const Config *c = &call.config;
    if (!*c->autoencoder.base)
        return FAIL(ERR_USAGE, "autoencoder.base is empty, expected an autoencoder's folder");
    char *base = own_folder(c->autoencoder.base);
    AutoencoderJob job = {.config = c, .base = base, .out = call.out, .minutes = call.minutes};
    LoneStage l = {.config = c, .out = call.out, .label = call.label, .log = app->log, .job = &job};
    Status s = dir_exists(base)
                   ? autoencoder_train_check(c, base)
                   : FAIL(ERR_INPUT, "%s: found no such folder, expected an autoencoder's", base);
    if (!s) s = dataset_check(NULL, c, &call.label, call.label != NULL);
    if (!s) s = lone_stage_run(&l, &kind);
    free(base);
    return s;
}
