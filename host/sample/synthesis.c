/* synthesis.c - the stage that makes synthetic films and accounts for each. */
#include "sample/synthesis.h"
#include "base/csv.h"
#include "base/random.h"
#include "base/signal.h"
#include "data/film.h"
#include "sample/film_note.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 64 };

typedef struct {
    const SynthesisJob *job;
    Log *log;
    char **prompt; /* owned: [n_prompt] */
    int n_prompt;
    char weights[HASH_TEXT]; /* over UNet and text encoder */
    SamplerSettings set;
} Stage;

static uint32_t seed_of(const Stage *st) { return (uint32_t)st->job->config->study.seed; }

/* Which source film and which prompt sample i of the job has: keyed, so that it needs no others. */
static const SourceFilm *source_of(const Stage *st, int i)
{
    const SynthesisJob *j = st->job;
    if (!st->set.image_to_image) return NULL;
    uint64_t at = j->first_id + (uint64_t)i;
    uint32_t n = (uint32_t)j->n_source;
    return &j->source[random_permute((RandomKey){seed_of(st), STREAM_SOURCE, (uint32_t)(at / n), 0},
                                     (uint32_t)(at % n), n)];
}

static const char *prompt_of(const Stage *st, int i)
{
    RandomKey k = {seed_of(st), STREAM_CAPTION, 0, st->job->first_id + (uint64_t)i};
    return st->prompt[random_below(k, 0, (uint32_t)st->n_prompt)];
}

static char *image_path(const Stage *st, int i)
{
    char name[NAME];
    snprintf(name, sizeof name, "images/%06" PRIu64 ".png", st->job->first_id + (uint64_t)i);
    return path_join(st->job->out, name);
}

static Status write_image(const Stage *st, int i, const float *film, const char *source_sha)
{
    FilmNote note = {.label = st->job->label,
                     .prompt = prompt_of(st, i),
                     .negative = st->job->config->synthesis.negative_prompt,
                     .source_sha = source_sha,
                     .weights_sha = st->weights,
                     .seed = seed_of(st),
                     .id = st->job->first_id + (uint64_t)i,
                     .set = st->set};
    char *path = image_path(st, i);
    Status s = film_note_write(path, film, film_square(st->job->config->data.size), &note);
    free(path);
    return s;
}

/* Makes the films of index[0..n-1]. */
static Status make_batch(const Stage *st, Sampler *sampler, const int *index, int n)
{
    size_t pixels = (size_t)st->job->config->data.size * (size_t)st->job->config->data.size;
    float *source = malloc((size_t)n * pixels * sizeof *source),
          *film = malloc((size_t)n * pixels * sizeof *film);
    SampleRequest *request = calloc((size_t)n, sizeof *request);
    char(*hash)[HASH_TEXT] = calloc((size_t)n, sizeof *hash);
    CHECK(source && film && request && hash);
    Status s = OK;
    for (int k = 0; k < n; k++) {
        const SourceFilm *from = source_of(st, index[k]);
        request[k] = (SampleRequest){.id = st->job->first_id + (uint64_t)index[k],
                                     .prompt = prompt_of(st, index[k]),
                                     .negative = st->job->config->synthesis.negative_prompt};
        if (!from) continue;
        request[k].source = source + (size_t)k * pixels;
        TRY_OR(done, s,
               film_read(source + (size_t)k * pixels, from->path, st->job->config->data.size));
        TRY_OR(done, s, hash_file(hash[k], from->path));
    }
    TRY_OR(done, s, sampler_run(sampler, request, n, film));
    for (int k = 0; k < n; k++)
        TRY_OR(done, s, write_image(st, index[k], film + (size_t)k * pixels, hash[k]));
done:
    free(source);
    free(film);
    free(request);
    free(hash);
    return s;
}

/* The negative prompt has no part where nothing guides. */
static Status check_prompts(const Stage *st, const Ldm *m)
{
    TRY(ldm_check_prompts(m, (const char *const *)st->prompt, st->n_prompt, st->log));
    const char *negative = st->set.guidance > 1 ? st->job->config->synthesis.negative_prompt : NULL;
    return ldm_check_prompts(m, &negative, 1, st->log);
}

/* The films that are not there yet, as rank 0 sees it; *index [n] is the caller's. */
static Status list_missing(int **index, int *n, const SynthesisJob *j, const Stage *st)
{
    int *missing = calloc((size_t)j->count + 1, sizeof *missing);
    CHECK(missing);
    *n = 0;
    for (int i = 0; i < j->count && comm_rank(j->comm) == 0; i++) {
        char *path = image_path(st, i);
        if (!file_exists(path)) missing[(*n)++] = i;
        free(path);
    }
    *index = missing;
    TRY(comm_host_broadcast(j->comm, j->name, n, sizeof *n, 0));
    return comm_host_broadcast(j->comm, j->name, missing, (size_t)*n * sizeof *missing, 0);
}

/* The films of index[0..n-1]: this rank's. */
static Status make_films(const Stage *st, Device *d, const int *index, int n)
{
    const SynthesisJob *j = st->job;
    const SynthesisSettings *set = &j->config->synthesis;
    Ldm m = {0};
    Sampler *sampler = NULL;
    Status s = OK;
    if (!n) return OK;
    TRY_OR(done, s, ldm_open(&m, d, j->model, (LdmUse){.log = st->log}));
    TRY_OR(done, s, check_prompts(st, &m));
    TRY_OR(done, s,
           device_memory_advice(sampler_open(&sampler, &m, film_square(j->config->data.size),
                                             set->batch, st->set, seed_of(st)),
                                d, "synthesis.batch", set->batch, NULL));
    for (int first = 0; first < n; first += set->batch) {
        int k = n - first < set->batch ? n - first : set->batch;
        s = signal_stop_requested() ? ERR_STOPPED : make_batch(st, sampler, index + first, k);
        if (s == ERR_STOPPED)
            s = FAIL(ERR_STOPPED, "%s: stopped with %d of %d missing films made%s", j->name, first,
                     n, comm_size(j->comm) > 1 ? " by a rank" : "");
        TRY_OR(done, s, s);
        log_progress(st->log, j->name, first + k, n, NULL);
    }
    log_progress_end(st->log);
done:
    sampler_close(sampler);
    ldm_close(&m);
    return s;
}

/* Rank r makes every size-th of what is missing, from the r-th on. */
static Status make_missing(const Stage *st, Device *d)
{
    Comm *comm = st->job->comm;
    int *missing, n, own = 0;
    Status s = list_missing(&missing, &n, st->job, st);
    for (int i = comm_rank(comm); i < n; i += comm_size(comm)) missing[own++] = missing[i];
    if (!s) s = comm_agree(comm, st->job->name, make_films(st, d, missing, own));
    free(missing);
    return s;
}

static Status write_row(const Stage *st, OutFile *o, int i)
{
    const SynthesisSettings *set = &st->job->config->synthesis;
    const SourceFilm *from = source_of(st, i);
    char id[CONFIG_TEXT + NAME], name[NAME], own[HASH_TEXT], source[HASH_TEXT] = "";
    char numbers[4][NAME];
    char *path = image_path(st, i);
    Status s = hash_file(own, path);
    free(path);
    TRY(s);
    if (from) TRY(hash_file(source, from->path));
    uint64_t sample = st->job->first_id + (uint64_t)i;
    int length = snprintf(id, sizeof id, "synthetic-%s-%06" PRIu64, st->job->label, sample);
    CHECK(length < (int)sizeof id);
    snprintf(name, sizeof name, "images/%06" PRIu64 ".png", sample);
    snprintf(numbers[0], NAME, "%.17g", set->strength);
    snprintf(numbers[1], NAME, "%.17g", set->guidance);
    snprintf(numbers[2], NAME, "%d", set->steps);
    snprintf(numbers[3], NAME, "%.17g", set->eta);
    const char *field[] = {id,
                           name,
                           st->job->label,
                           from ? from->id : "",
                           from ? from->patient : "",
                           source,
                           prompt_of(st, i),
                           set->negative_prompt};
    for (size_t k = 0; k < sizeof field / sizeof *field; k++)
        TRY(csv_write_field(o, field[k], false));
    TRY(out_printf(o, "%u,%" PRIu64 ",%s,%s,%s,%s,%s,%s,%s,%s\n", seed_of(st), sample, set->mode,
                   numbers[0], numbers[1], numbers[2], numbers[3], set->spacing, st->weights, own));
    return OK;
}

static Status write_manifest(const Stage *st)
{
    OutFile o;
    char *path = path_join(st->job->out, "manifest.csv");
    Status s = out_open(&o, path);
    free(path);
    if (s) return s;
    s = out_printf(&o, "id,path,label,source_id,source_patient,source_sha256,prompt,negative_"
                       "prompt,seed,sample_id,mode,"
                       "strength,guidance,steps,eta,spacing,weights_sha256,sha256\n");
    for (int i = 0; i < st->job->count && !s; i++) s = write_row(st, &o, i);
    if (!s) return out_commit(&o);
    out_abandon(&o);
    return s;
}

static SamplerSettings sampler_settings(const SynthesisSettings *set)
{
    SamplerSettings s = {.image_to_image = !strcmp(set->mode, "image-to-image"),
                         .strength = set->strength,
                         .guidance = set->guidance,
                         .eta = set->eta,
                         .steps = set->steps};
    CHECK(spacing_parse(&s.spacing, set->spacing));
    return s;
}

static Status open_stage(Stage *st)
{
    const SynthesisJob *job = st->job;
    if (st->set.image_to_image && job->n_source < 1)
        return FAIL(ERR_INPUT,
                    "%s: no source films, expected some of class %s in the training fold",
                    job->name, job->config->synthesis.source);
    st->n_prompt = text_parts(&st->prompt, job->prompts);
    return comm_rank(job->comm) ? OK : weights_hash(st->weights, job->model);
}

Status synthesis_run(const SynthesisJob *job, Device *d, Log *log)
{
    Stage st = {.job = job, .log = log, .set = sampler_settings(&job->config->synthesis)};
    Status s;
    TRY_OR(done, s, comm_agree(job->comm, job->name, open_stage(&st)));
    TRY_OR(done, s,
           comm_host_broadcast(job->comm, job->name, st.weights, sizeof st.weights, 0));
    TRY_OR(done, s, make_missing(&st, d));
    s = comm_agree(job->comm, job->name, comm_rank(job->comm) ? OK : write_manifest(&st));
done:
    free(st.prompt);
    return s;
}

Status synthesis_measure(Cost *cost, const SynthesisJob *job, Device *d)
{
    const Config *c = job->config;
    int n = job->count < c->synthesis.batch ? job->count : c->synthesis.batch;
    size_t pixels = (size_t)c->data.size * (size_t)c->data.size;
    float *film = calloc((size_t)n * pixels, sizeof *film);
    SampleRequest *request = calloc((size_t)n, sizeof *request);
    Ldm m = {0};
    Sampler *sampler = NULL;
    Status s;
    CHECK(film && request);
    for (int i = 0; i < n; i++) request[i] = (SampleRequest){.prompt = "", .source = film};
    *cost = (Cost){0};
    device_peak_restart(d);
    TRY_OR(done, s, ldm_open(&m, d, job->model, (LdmUse){.bare = true}));
    cost->parameters = device_bytes(d);
    TRY_OR(done, s,
           sampler_open(&sampler, &m, film_square(c->data.size), c->synthesis.batch,
                        sampler_settings(&c->synthesis), 0));
    cost->activations = device_bytes(d) - cost->parameters;
    double before = device_flops(d);
    TRY_OR(done, s, sampler_run(sampler, request, n, film));
    cost->unit = (device_flops(d) - before) / n;
    cost->peak = device_peak(d);
done:
    sampler_close(sampler);
    ldm_close(&m);
    free(film);
    free(request);
    return s;
}
