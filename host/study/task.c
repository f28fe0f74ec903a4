/* task.c - a task's names and numbers, its diffusion model and its synthetic films. */
#include "study/task.h"
#include "base/csv.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Films of task B have sample ids of their own, so that the two diseases share no start noise. */
enum { FIRST_ID_B = 1000000 };

char *stage_path(const Stage *s, const char *file) { return path_join(s->folder, file); }

/* Folder of a class's films: its name in letters that are safe in paths and pages. */
static char *synthetic_folder(const Study *s, char letter, const char *label)
{
    Text t = {0};
    bool plain = *label != '.';
    for (const char *c = label; *c; c++) plain &= isalnum((unsigned char)*c) || strchr("._-", *c);
    if (plain) text_add(&t, "%s/synthetic/%s", s->run, label);
    else text_add(&t, "%s/synthetic/disease_%c", s->run, letter);
    return t.s;
}

Status synthetic_wanted(int *n_train, int *n_val, const Config *c, const Manifest *m,
                        const char *disease)
{
    int lack[2], normal = manifest_label(m, c->data.normal), diseased = manifest_label(m, disease);
    bool both = !strcmp(c->classifier.synthetic_in, "train+val");
    for (int i = 0; i < 2; i++) {
        Split split = i ? SPLIT_VAL : SPLIT_TRAIN;
        lack[i] = manifest_count(m, normal, split).films - manifest_count(m, diseased, split).films;
        if (lack[i] < 0 || (i && !both)) lack[i] = 0;
    }
    int count = c->synthesis.count ? c->synthesis.count : lack[0] + lack[1];
    double share = lack[0] + lack[1] ? (double)lack[1] / (lack[0] + lack[1]) : 0;
    *n_val = (int)lround(count * share);
    *n_train = count - *n_val;
    if (*n_train > 0) return OK;
    return FAIL(
        ERR_USAGE,
        "%s: no fewer films of %s than of %s in training, so that none is missing; expected "
        "synthesis.count above 0",
        m->file, disease, c->data.normal);
}

Status task_open(Task *t, const Study *s, char letter)
{
    const Config *c = s->config;
    t->letter = letter;
    t->disease = letter == 'a' ? c->data.disease_a : c->data.disease_b;
    TRY(class_prompts(&t->prompts, c, t->disease));
    TRY(fold_need_class(&s->manifest, c->data.normal));
    TRY(fold_need_class(&s->manifest, t->disease));
    t->synthetic = synthetic_folder(s, letter, t->disease);
    return synthetic_wanted(&t->n_train, &t->n_val, c, &s->manifest, t->disease);
}

void task_close(Task *t)
{
    free(t->synthetic);
    t->synthetic = NULL;
}

/* ---- the diffusion model -------------------------------------------------------------- */

static Status train_ldm(LdmJob *job, Task *t, const Study *s, Arena *a)
{
    const Config *c = s->config;
    LdmFilm *train, *prior = NULL, *val;
    char identity[HASH_TEXT];
    TRY(fold_prompted(&train, &job->n_train, a, &s->manifest, c, 1u << SPLIT_TRAIN, t->disease));
    TRY(fold_prompted(&val, &job->n_val, a, &s->manifest, c, 1u << SPLIT_VAL, t->disease));
    if (c->ldm.prior_share > 0)
        TRY(fold_prompted(&prior, &job->n_prior, a, &s->manifest, c, 1u << SPLIT_TRAIN,
                          c->data.normal));
    job->train = train;
    job->val = val;
    job->prior = prior;
    stage_identity(&t->ldm, identity);
    job->identity = identity;
    TRY(ldm_train(job, s->device, s->log));
    return stage_end(&t->ldm, (const char *[]){"model", "history.json"}, 2);
}

Status task_ldm(Task *t, const Study *s)
{
    const Config *c = s->config;
    Arena a = {0};
    stage_upstream(&t->ldm, &s->prepare, NULL);
    stage_setting(&t->ldm, c,
                  "study.seed data.size data.normal ldm synthesis.weights synthesis.prompt_normal "
                  "parallel.reduction");
    stage_text(&t->ldm, "class", t->disease);
    stage_text(&t->ldm, "prompts", t->prompts);
    TRY(stage_input(&t->ldm, "base model", c->ldm.base));
    TRY(stage_begin(&t->ldm));
    if (t->ldm.done) return OK;
    LdmJob job = {.config = c,
                  .base = c->ldm.base,
                  .out = t->ldm.folder,
                  .name = arena_printf(&a, "LDM %s", t->disease),
                  .comm = s->comm};
    Status status = train_ldm(&job, t, s, &a);
    arena_free(&a);
    return status;
}

/* ---- synthetic films ------------------------------------------------------------------ */

static Status synthesize(Task *t, const Study *s, Arena *a)
{
    const Config *c = s->config;
    SourceFilm *source = NULL;
    SynthesisJob job = {.config = c,
                        .out = t->synthetic,
                        .label = t->disease,
                        .prompts = t->prompts,
                        .count = t->n_train + t->n_val,
                        .first_id = t->letter == 'a' ? 0 : FIRST_ID_B,
                        .comm = s->comm};
    if (!strcmp(c->synthesis.mode, "image-to-image"))
        TRY(fold_sources(&source, &job.n_source, a, &s->manifest,
                         !strcmp(c->synthesis.source, "normal") ? c->data.normal : t->disease));
    char *model = stage_path(&t->ldm, "model");
    job.model = arena_strdup(a, model);
    free(model);
    job.source = source;
    job.name = arena_printf(a, "synthetic %s", t->disease);
    TRY(synthesis_run(&job, s->device, s->log));
    char *output = arena_printf(a, "../../synthetic/%s", strrchr(t->synthetic, '/') + 1);
    return stage_end(&t->synth, (const char *[]){output}, 1);
}

/* Before the stage begins. Films are its own only where its record is there: without one all are
 * made, whatever lies in the folder. They go before the record is written, so that a process which
 * dies between the two leaves none that the next one would keep. */
static Status clear_films(const Task *t, const Study *s)
{
    if (comm_rank(s->comm)) return OK;
    if (!file_exists(t->synth.record)) return dir_remove(t->synthetic);
    file_sweep_temps(t->synthetic); /* not in the stage's folder, which has been swept */
    return OK;
}

Status task_synth(Task *t, const Study *s)
{
    Arena a = {0};
    stage_upstream(&t->synth, &s->prepare, NULL);
    stage_upstream(&t->synth, &t->ldm, "model");
    stage_setting(
        &t->synth, s->config,
        "study.seed data.size data.normal synthesis.mode synthesis.source "
        "synthesis.strength synthesis.guidance synthesis.steps synthesis.eta synthesis.spacing "
        "synthesis.negative_prompt");
    stage_text(&t->synth, "class", t->disease);
    stage_text(&t->synth, "prompts", t->prompts);
    stage_text(&t->synth, "count", arena_printf(&a, "%d + %d", t->n_train, t->n_val));
    Status status = comm_agree(s->comm, "synthetic films", clear_films(t, s));
    if (!status) status = stage_begin(&t->synth);
    if (!status && !t->synth.done) status = synthesize(t, s, &a);
    arena_free(&a);
    return status;
}

Status task_synthetic(SyntheticFilm **film, int *n, Arena *a, const Task *t)
{
    Csv c = {0};
    int id, path, source, sample;
    char *table = path_join(t->synthetic, "manifest.csv");
    Status s;
    TRY_OR(done, s, csv_read(&c, table));
    TRY_OR(done, s, csv_need(&id, &c, "id"));
    TRY_OR(done, s, csv_need(&path, &c, "path"));
    TRY_OR(done, s, csv_need(&source, &c, "source_id"));
    TRY_OR(done, s, csv_need(&sample, &c, "sample_id"));
    if (c.n_row != t->n_train + t->n_val) {
        s = FAIL(ERR_INPUT, "%s: found %d films, expected %d", table, c.n_row,
                 t->n_train + t->n_val);
        goto done;
    }
    *film = arena_alloc(a, (size_t)c.n_row * sizeof **film);
    for (int i = 0; i < c.n_row; i++) {
        long number;
        char *full = path_join(t->synthetic, csv_at(&c, i, path));
        if (!text_to_long(&number, csv_at(&c, i, sample)))
            s = FAIL(ERR_INPUT, "%s:%d: sample_id \"%s\", expected a number", table, c.line[i],
                     csv_at(&c, i, sample));
        else
            (*film)[i] = (SyntheticFilm){
                .id = arena_printf(a, "synthetic-%s-%s", t->disease, csv_at(&c, i, id)),
                .path = arena_strdup(a, full),
                .source_id = arena_strdup(a, csv_at(&c, i, source)),
                .sample = (uint64_t)(number - (t->letter == 'a' ? 0 : FIRST_ID_B))};
        free(full);
        if (s) goto done;
    }
    *n = c.n_row;
done:
    csv_free(&c);
    free(table);
    return s;
}
