/* cmd_synthesize.c - equipoise synthesize: films of one class, outside of a study. */
#include "app/commands.h"
#include "app/options.h"
#include "study/dataset.h"
#include "study/lock.h"
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
            "of data.source,\n"
            "which are prepared in DIR/prepare/ first. synthesis.count = 0: as many as balance the "
            "classes.",
    .option = option,
    .n_option = sizeof option / sizeof *option,
    .takes_config = true,
};

/* Sources and number of films. */
static Status choose(SynthesisJob *job, Stage *s, Stage *data, Manifest *m, Arena *a,
                     const char *out, Log *log)
{
    const Config *c = job->config;
    bool translate = !strcmp(c->synthesis.mode, "image-to-image");
    SourceFilm *source;
    job->count = c->synthesis.count;
    if (translate || !job->count) {
        int n_train, n_val;
        char *prepared = path_join(out, "prepare");
        Status status = dataset_stage(data, m, c, prepared, log);
        free(prepared);
        TRY(status);
        stage_upstream(s, data, NULL);
        TRY(fold_need_class(m, c->data.normal));
        TRY(fold_need_class(m, job->label));
        TRY(synthetic_wanted(&n_train, &n_val, c, m, job->label));
        job->count = n_train + n_val;
    }
    if (!translate) return OK;
    TRY(fold_sources(&source, &job->n_source, a, m,
                     !strcmp(c->synthesis.source, "normal") ? c->data.normal : job->label));
    job->source = source;
    return OK;
}

static Status synthesize(const Config *c, const char *out, const char *model, const char *label,
                         Log *log)
{
    Manifest m = {0};
    Stage data = {0}, s = {0};
    Arena a = {0};
    Device *d = NULL;
    char *films = path_join(out, "films");
    SynthesisJob job = {.config = c, .model = model, .out = films, .label = label};
    Status status;
    stage_new(&s, "synthesize", out);
    job.name = arena_printf(&a, "synthetic %s", label);
    TRY_OR(done, status, class_prompts(&job.prompts, c, label));
    TRY_OR(done, status, device_open(&d, c->study.device, c->study.threads, log));
    TRY_OR(done, status, choose(&job, &s, &data, &m, &a, out, log));
    stage_setting(&s, c, "study.seed data.size data.normal synthesis");
    stage_text(&s, "class", label);
    TRY_OR(done, status, stage_input(&s, "model", model));
    TRY_OR(done, status, stage_begin(&s));
    if (s.done) {
        log_info(log, "%s: was complete", out);
        goto done;
    }
    TRY_OR(done, status, synthesis_run(&job, d, log));
    TRY_OR(done, status, stage_end(&s, (const char *[]){"films"}, 1));
    printf("%s/manifest.csv\n", films);
done:
    device_close(d);
    stage_free(&s);
    stage_free(&data);
    manifest_free(&m);
    arena_free(&a);
    free(films);
    return status;
}

Status cmd_synthesize(App *app, int argc, char **argv)
{
    Options o;
    Config c;
    const char *out, *model, *label;
    RunLock lock = {0};
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(options_config(&c, &o));
    TRY(options_need(&out, &o, "out"));
    TRY(options_need(&model, &o, "model"));
    TRY(options_need(&label, &o, "class"));
    TRY(lone_run_open(&lock, out, app->log));
    Status s = synthesize(&c, out, model, label, app->log);
    run_unlock(&lock);
    return s;
}
