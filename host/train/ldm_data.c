/* ldm_data.c - caches of latents and prompts, and the draws of a step. */
#include "train/ldm_data.h"
#include "base/random.h"
#include "comm/share.h"
#include "data/film.h"
#include "weights/safetensors.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ENCODE_BATCH = 16 };
static const uint32_t VALIDATION_STEP = 0xffffffffu;

static void *need(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    CHECK(p);
    return p;
}

/* ---- prompts --------------------------------------------------------------------------- */

static int prompt_index(LdmData *d, const char *text)
{
    for (int i = 0; i < d->n_prompt; i++)
        if (!strcmp(d->prompt[i], text)) return i;
    d->prompt = realloc(d->prompt, (size_t)(d->n_prompt + 1) * sizeof *d->prompt);
    CHECK(d->prompt);
    d->prompt[d->n_prompt] = strdup(text);
    CHECK(d->prompt[d->n_prompt]);
    return d->n_prompt++;
}

/* The number of the list of these templates, which is entered where it is new. */
static int prompt_list(LdmData *d, const char *templates)
{
    for (int i = 0; i < d->n_list; i++)
        if (!strcmp(d->list[i].templates, templates)) return i;
    char **part;
    int n = text_parts(&part, templates);
    d->list = realloc(d->list, (size_t)(d->n_list + 1) * sizeof *d->list);
    CHECK(d->list);
    PromptList *l = &d->list[d->n_list];
    *l = (PromptList){templates, need((size_t)n, sizeof *l->index), n};
    for (int i = 0; i < n; i++) l->index[i] = prompt_index(d, part[i]);
    free(part);
    return d->n_list++;
}

/* ---- films ----------------------------------------------------------------------------- */

/* Encoded latents kept beside the run, so that a continued run need not encode again. A file that
 * is not exactly of these films is as good as none. */
static bool cache_read(LdmFilms *f, const char *path, const char *identity)
{
    SafeFile file;
    const SafeTensor *t;
    if (!path || !file_exists(path) || st_open(&file, path)) return false;
    const char *made_for = st_metadata(&file, "identity");
    bool good = made_for && !strcmp(made_for, identity) &&
                !st_expect(&t, &file, "latent", 2, (int64_t[]){f->n, (int64_t)f->per}) &&
                !st_read_f32(&file, t, f->latent);
    st_close(&file);
    return good;
}

static void cache_write(const LdmFilms *f, const char *path, const char *identity, Log *log)
{
    SafeWriter w;
    SafeSpec spec = {
        .name = "latent", .dtype = SAFE_F32, .ndim = 2, .dim = {f->n, (int64_t)f->per}};
    if (!path) return;
    Status s = st_write_begin(&w, path, 1, &spec, 1, &(SafeMeta){"identity", identity});
    if (!s) {
        s = st_write_f32(&w, f->latent, (size_t)f->n * f->per);
        if (s) st_write_abandon(&w);
        else s = st_write_commit(&w);
    }
    if (s) log_warn(log, "latents are not kept, going on without: %s", status_message());
}

/* *found: whether all ranks have the latents from the cache. */
static Status share_cache(LdmFilms *f, bool *found, const char *cache, const char *identity,
                          Comm *comm)
{
    bool missing = !cache_read(f, cache, identity);
    TRY(comm_any(comm, "cached latents", missing, &missing));
    *found = !missing;
    return OK;
}

/* Films first..first+k-1; grey: room for them. */
static Status encode_some(LdmFilms *f, Ldm *m, const LdmFilm *film, int first, int k, float *grey)
{
    size_t pixels = (size_t)f->size * (size_t)f->size;
    for (int i = 0; i < k; i++)
        TRY(film_read(grey + (size_t)i * pixels, film[first + i].path, f->size));
    return ldm_encode(m, grey, k, film_square(f->size), f->latent + (size_t)first * f->per);
}

static Status encode_all(LdmFilms *f, Ldm *m, const LdmFilm *film, const char *what, Comm *comm,
                         Log *log)
{
    size_t pixels = (size_t)f->size * (size_t)f->size;
    float *grey = need(ENCODE_BATCH * pixels, sizeof *grey);
    int n = f->n, n_batch = (n + ENCODE_BATCH - 1) / ENCODE_BATCH;
    Status s = OK;
    for (int b = 0; b < n_batch && !s; b++) {
        int first = b * ENCODE_BATCH, k = n - first < ENCODE_BATCH ? n - first : ENCODE_BATCH;
        if (!share_mine(comm, b)) continue;
        s = encode_some(f, m, film, first, k, grey);
        log_progress(log, what, first + k, n, NULL);
    }
    log_progress_end(log);
    free(grey);
    return share_gather(comm, what, s, f->latent, ENCODE_BATCH * f->per * sizeof *f->latent,
                        n_batch);
}

static Status encode_films(LdmData *d, LdmFilms *f, Ldm *m, const LdmFilm *film, int n, int size,
                           const char *what, const char *cache, const char *identity, Comm *comm,
                           Log *log)
{
    bool found = false;
    *f = (LdmFilms){.n = n,
                    .size = size,
                    .channels = (size_t)m->vae_config.latent_channels,
                    .per = ldm_latent_count(m, film_square(size))};
    f->latent = need(((size_t)n + ENCODE_BATCH) * f->per, sizeof *f->latent);
    f->list = need((size_t)n, sizeof *f->list);
    for (int i = 0; i < n; i++) f->list[i] = prompt_list(d, film[i].prompts);
    TRY(share_cache(f, &found, cache, identity, comm));
    if (found) return OK;
    TRY(encode_all(f, m, film, what, comm, log));
    if (n && !comm_rank(comm)) cache_write(f, cache, identity, log);
    return OK;
}

/* Token ids of all prompts and, where wanted, what the text encoder makes of them. */
static Status read_prompts(LdmData *d, Ldm *m, bool embed, Log *log)
{
    size_t tokens = (size_t)d->n_prompt * (size_t)d->tokens;
    TRY(ldm_check_prompts(m, (const char *const *)d->prompt, d->n_prompt, log));
    d->ids = need(tokens, sizeof *d->ids);
    TRY(ldm_tokenize(m, (const char *const *)d->prompt, d->n_prompt, d->ids));
    if (!embed) return OK;
    d->context = need(tokens * (size_t)d->width, sizeof *d->context);
    return ldm_embed(m, d->ids, d->n_prompt, d->context);
}

Status ldm_data_open(LdmData *d, Ldm *m, const LdmFilm *train, int n_train, const LdmFilm *prior,
                     int n_prior, const LdmFilm *val, int n_val, int size, bool standardise,
                     bool embed, const char *cache, const char *identity, Comm *comm, Log *log)
{
    *d = (LdmData){.tokens = ldm_tokens(m), .width = m->text_config.hidden_size};
    Status s = OK;
    prompt_index(d, "");
    TRY_OR(done, s,
           encode_films(d, &d->train, m, train, n_train, size, "encoding training films", cache,
                        identity, comm, log));
    TRY_OR(done, s,
           encode_films(d, &d->prior, m, prior, n_prior, size, "encoding prior films", NULL,
                        identity, comm, log));
    TRY_OR(done, s,
           encode_films(d, &d->val, m, val, n_val, size, "encoding validation films", NULL,
                        identity, comm, log));
    if (standardise && !m->vae_config.standardised) {
        ldm_standardise(m, d->train.latent, n_train, size);
        ldm_restandardise(m, d->prior.latent, n_prior, size);
        ldm_restandardise(m, d->val.latent, n_val, size);
    }
    s = comm_agree(comm, "prompts", read_prompts(d, m, embed, log));
done:
    if (s) ldm_data_close(d);
    return s;
}

Status ldm_data_measure(LdmData *d, Ldm *m, const int n[3], int size, bool embed, double *flops)
{
    LdmFilms *films[3] = {&d->train, &d->prior, &d->val};
    int k = n[0] < ENCODE_BATCH ? n[0] : ENCODE_BATCH;
    *d = (LdmData){.tokens = ldm_tokens(m), .width = m->text_config.hidden_size};
    size_t per = ldm_latent_count(m, film_square(size));
    for (int i = 0; i < 3; i++)
        *films[i] = (LdmFilms){.n = n[i],
                               .size = size,
                               .channels = (size_t)m->vae_config.latent_channels,
                               .per = per};
    float *grey = need((size_t)k * (size_t)size * (size_t)size, sizeof *grey),
          *latent = need((size_t)k * per, sizeof *latent),
          *context = need((size_t)d->tokens * (size_t)d->width, sizeof *context);
    int32_t *ids = need((size_t)d->tokens, sizeof *ids);
    double before = device_flops(m->device);
    Status s = ldm_encode(m, grey, k, film_square(size), latent);
    *flops = (device_flops(m->device) - before) * (n[0] + n[1] + n[2]) / k;
    if (!s && embed) s = ldm_embed(m, ids, 1, context);
    free(grey);
    free(latent);
    free(context);
    free(ids);
    return s;
}

static void films_free(LdmFilms *f)
{
    free(f->latent);
    free(f->list);
}

void ldm_data_close(LdmData *d)
{
    films_free(&d->train);
    films_free(&d->prior);
    films_free(&d->val);
    for (int i = 0; i < d->n_list; i++) free(d->list[i].index);
    free(d->list);
    for (int i = 0; i < d->n_prompt; i++) free(d->prompt[i]);
    free(d->prompt);
    free(d->ids);
    free(d->context);
    *d = (LdmData){0};
}

/* ---- batches --------------------------------------------------------------------------- */

void ldm_batch_new(LdmBatch *b, const LdmData *d, int n)
{
    size_t count = (size_t)n, per = d->train.per;
    *b = (LdmBatch){
        .n = n,
        .latent = need(count * per, sizeof(float)),
        .noise = need(count * per, sizeof(float)),
        .time = need(count, sizeof(float)),
        .mix = need(2 * count, sizeof(float)),
        .target = need(2 * count, sizeof(float)),
        .weight = need(count, sizeof(float)),
        .ids = need(count * (size_t)d->tokens, sizeof(int32_t)),
        .context = need(d->context ? count * (size_t)(d->tokens * d->width) : 1, sizeof(float))};
}

void ldm_batch_free(LdmBatch *b)
{
    free(b->latent);
    free(b->noise);
    free(b->time);
    free(b->mix);
    free(b->target);
    free(b->weight);
    free(b->ids);
    free(b->context);
    *b = (LdmBatch){0};
}

/* Fills sample i of b with film `at` of f, its noise, time and prompt, keyed by (step, sample). */
static void draw_sample(LdmBatch *b, int i, const LdmData *d, const LdmFilms *f, int at,
                        const NoiseSchedule *s, const LdmSettings *set, uint32_t seed,
                        uint32_t step, uint64_t sample, double drop)
{
    size_t per = f->per, channels = f->channels;
    RandomKey k = {.seed = seed, .step = step, .sample = sample};
    memcpy(b->latent + (size_t)i * per, f->latent + (size_t)at * per, per * sizeof(float));

    k.stream = STREAM_NOISE;
    float *noise = b->noise + (size_t)i * per;
    random_normals(noise, per, k);
    if (set->noise_offset > 0) { /* one more normal per channel, shared by all its pixels */
        k.stream = STREAM_NOISE_OFFSET;
        for (size_t c = 0; c < channels; c++) {
            float shift = (float)(set->noise_offset * random_normal(k, (uint32_t)c));
            for (size_t p = c; p < per; p += channels) noise[p] += shift;
        }
    }
    k.stream = STREAM_TIMESTEP;
    int t = (int)random_below(k, 0, (uint32_t)s->n);
    double keep = sqrt(s->alpha_bar[t]), rest = sqrt(1 - s->alpha_bar[t]);
    b->time[i] = (float)t;
    b->mix[2 * i] = (float)keep;
    b->mix[2 * i + 1] = (float)rest;
    schedule_target(s, t, b->target + 2 * i);
    b->weight[i] = (float)schedule_min_snr(s, t, set->min_snr_gamma);

    k.stream = STREAM_CAPTION;
    const PromptList *l = &d->list[f->list[at]];
    int prompt = l->index[random_below(k, 1, (uint32_t)l->n)];
    if (random_uniform(k, 0) < drop) prompt = 0;
    memcpy(b->ids + (size_t)i * (size_t)d->tokens, d->ids + (size_t)prompt * (size_t)d->tokens,
           (size_t)d->tokens * sizeof *b->ids);
    size_t width = (size_t)d->tokens * (size_t)d->width;
    if (d->context)
        memcpy(b->context + (size_t)i * width, d->context + (size_t)prompt * width,
               width * sizeof(float));
}

/* Film number `draw` (counted over the whole run) of n: epochs of keyed permutations. */
static int film_at(uint32_t seed, uint64_t draw, int n, uint64_t list)
{
    RandomKey k = {seed, STREAM_SHUFFLE, (uint32_t)(draw / (uint64_t)n), list};
    return (int)random_permute(k, (uint32_t)(draw % (uint64_t)n), (uint32_t)n);
}

void ldm_batch_draw(LdmBatch *b, const LdmData *d, const NoiseSchedule *s, const LdmSettings *set,
                    uint32_t seed, long step, int micro)
{
    int n_prior = d->prior.n ? (int)lrint(b->n * set->prior_share) : 0, n_main = b->n - n_prior;
    uint64_t round = (uint64_t)(step - 1) * (uint64_t)set->accumulate + (uint64_t)micro;
    for (int i = 0; i < b->n; i++) {
        bool prior = i >= n_main;
        const LdmFilms *f = prior ? &d->prior : &d->train;
        uint64_t draw = prior ? round * (uint64_t)n_prior + (uint64_t)(i - n_main)
                              : round * (uint64_t)n_main + (uint64_t)i;
        draw_sample(b, i, d, f, film_at(seed, draw, f->n, prior), s, set, seed, (uint32_t)step,
                    (uint64_t)micro * (uint64_t)b->n + (uint64_t)i, set->caption_dropout);
    }
}

void ldm_batch_validation(LdmBatch *b, const LdmData *d, const NoiseSchedule *s,
                          const LdmSettings *set, uint32_t seed, int first)
{
    for (int i = 0; i < b->n; i++) {
        int at = first + i;
        draw_sample(b, i, d, &d->val, at < d->val.n ? at : 0, s, set, seed, VALIDATION_STEP,
                    (uint64_t)at, 0);
        if (at >= d->val.n) b->weight[i] = 0;
    }
}
