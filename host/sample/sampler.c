/* sampler.c - the sampling loop: network, guidance and DDIM update are one recorded graph, run once
 * a step. The latents stay on the device from the first step to the last, coefficients of all steps
 * lie there in tables, and the host only enqueues, but for noise that a request brings itself.
 *
 * What depends on the prompts alone (keys and values of cross-attention) or on the times alone (the
 * time MLP and its projections, of all steps) is held: computed when the prompts change. */
#include "sample/sampler.h"
#include "base/random.h"
#include "base/signal.h"
#include "ops/ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *text;     /* owned */
    float *context; /* owned: [tokens, width] */
} Prompt;

struct Sampler {
    Ldm *m;
    SamplerSettings set;
    uint32_t seed;
    FilmShape shape;
    int batch, rows;          /* rows: samples the network sees, twice the batch when guided */
    size_t per, per_text;     /* floats of a latent; of a prompt's context */
    int *time, n_time, first; /* owned: timesteps descending; where image-to-image starts */
    Graph *g, *start_g;
    Exec *e, *start_e; /* of a step; of the noise that a trajectory starts from */
    Tensor *input, *x, *times, *at, *context, *noise, *coef, *next;
    Tensor *start_x, *start_key, *start_mix, *noisy;
    float *latent, *rows_context, *step_noise; /* owned host buffers */
    const float **shown; /* owned: [rows], whose context each row has; borrowed of prompt */
    bool contexts_written;
    int32_t *ats;        /* owned: device memory, [n_time, rows]: numbers of steps */
    float *coefs;        /* owned: device memory, [n_time, 6] */
    Prompt *prompt;      /* owned: embedded prompts */
    int n_prompt;
};

static Status record_step(Sampler *s, const int *latent)
{
    const Ldm *m = s->m;
    Graph *g = s->g = device_graph(m->device);
    bool guided = s->rows > s->batch;
    int rows[] = {s->rows, latent[1], latent[2], latent[3]};
    s->input = graph_leaf(g, KIND_INPUT, DTYPE_F32, "latent_rows", 4, rows);
    s->x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "latent", 4, latent);
    s->times = graph_leaf(g, KIND_INPUT, DTYPE_F32, "times", 1, &s->n_time);
    s->at = graph_leaf(g, KIND_INPUT, DTYPE_I32, "step", 2, (int[]){s->rows, 1});
    s->context = graph_leaf(g, KIND_INPUT, DTYPE_F32, "context", 3,
                            (int[]){s->rows, ldm_tokens(m), m->text_config.hidden_size});
    s->coef = graph_leaf(g, KIND_INPUT, DTYPE_F32, "coef", 1, (int[]){6});
    if (s->set.eta > 0)
        s->noise = s->set.noise_given
                       ? graph_leaf(g, KIND_INPUT, DTYPE_F32, "noise", 4, latent)
                       : graph_leaf(g, KIND_INPUT, DTYPE_I32, "key", 2, (int[]){s->batch, 3});
    Tensor *prediction = unet_at(g, &s->m->unet, &m->unet_config, s->input, s->times, s->at,
                                 s->context, false);
    s->next = ddim_step(g, s->x, prediction, s->noise, s->coef,
                        (DdimArgs){guided, m->schedule.prediction, (float)s->set.guidance});
    TRY(graph_status(g));
    graph_hold(s->times);
    graph_hold(s->context);
    params_hold(g);
    params_bind(g);
    graph_finish(g, &s->next, 1);
    return exec_new(&s->e, m->device, g, &s->next, 1);
}

static Status record_start(Sampler *s, const int *latent)
{
    Graph *g = s->start_g = graph_new();
    s->start_x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "latent", 4, latent);
    s->start_key = graph_leaf(g, KIND_INPUT, DTYPE_I32, "key", 2, (int[]){s->batch, 4});
    s->start_mix = graph_leaf(g, KIND_INPUT, DTYPE_F32, "mix", 2, (int[]){s->batch, 2});
    s->noisy = noise_samples(g, s->start_x, s->start_key, s->start_mix, s->start_mix,
                             (NoiseArgs){0, STREAM_START});
    TRY(graph_status(g));
    graph_finish(g, &s->noisy, 1);
    return exec_new(&s->start_e, s->m->device, g, &s->noisy, 1);
}

static Status record(Sampler *s)
{
    int scale = ldm_scale(s->m);
    int latent[] = {s->batch, s->shape.h / scale, s->shape.w / scale,
                    s->m->unet_config.in_channels};
    TRY(record_step(s, latent));
    return record_start(s, latent);
}

/* Times, numbers and coefficients of every step that is run, to the device. */
static Status make_tables(Sampler *s)
{
    size_t n = (size_t)s->n_time, rows = (size_t)s->rows;
    Device *d = s->m->device;
    float *time = malloc(n * sizeof *time), *coef = calloc(n * 6, sizeof *coef);
    int32_t *at = malloc(n * rows * sizeof *at);
    CHECK(time && coef && at);
    for (size_t i = 0; i < n; i++) {
        time[i] = (float)s->time[i];
        for (size_t r = 0; r < rows; r++) at[i * rows + r] = (int32_t)i;
        if (i < (size_t)s->first) continue;
        schedule_ddim(&s->m->schedule, s->time[i], s->set.steps, s->set.eta, coef + 6 * i);
        coef[6 * i + 5] = (float)i;
    }
    Status status = device_alloc(d, (void **)&s->ats, n * rows * sizeof *at, "sampling steps");
    if (!status)
        status = device_alloc(d, (void **)&s->coefs, n * 6 * sizeof *coef, "sampling steps");
    if (!status) status = device_write(d, s->ats, at, n * rows * sizeof *at);
    if (!status) status = device_write(d, s->coefs, coef, n * 6 * sizeof *coef);
    if (!status) status = exec_write(s->e, s->times, time);
    free(time);
    free(coef);
    free(at);
    return status;
}

static Status plan_steps(Sampler *s)
{
    const SamplerSettings *set = &s->set;
    s->time = calloc((size_t)set->steps, sizeof *s->time);
    CHECK(s->time);
    s->n_time = set->steps;
    int run = set->image_to_image ? schedule_strength_steps(set->steps, set->strength) : set->steps;
    s->first = set->steps - run;
    TRY(schedule_timesteps(&s->m->schedule, s->m->folder, set->spacing, set->steps, s->first,
                           s->time));
    return run ? OK
               : FAIL(ERR_USAGE,
                      "strength %g of %d steps is less than one step, expected strength of at "
                      "least %.4g",
                      set->strength, set->steps, 1.0 / set->steps);
}

Status sampler_open(Sampler **out, Ldm *m, FilmShape shape, int batch, SamplerSettings set,
                    uint32_t seed)
{
    int unit = ldm_scale(m);
    *out = NULL;
    if (shape.w % unit || shape.h % unit)
        return FAIL(ERR_USAGE, "size %d x %d px, expected multiples of %d for this model", shape.w,
                    shape.h, unit);
    Sampler *s = calloc(1, sizeof *s);
    CHECK(s);
    *s = (Sampler){.m = m,
                   .set = set,
                   .seed = seed,
                   .shape = shape,
                   .batch = batch,
                   .rows = set.guidance > 1 ? 2 * batch : batch,
                   .per = ldm_latent_count(m, shape),
                   .per_text = (size_t)ldm_tokens(m) * (size_t)m->text_config.hidden_size};
    size_t b = (size_t)batch, r = (size_t)s->rows;
    s->latent = calloc(b * s->per, sizeof(float));
    s->rows_context = calloc(r * s->per_text, sizeof(float));
    s->step_noise = calloc(b * s->per, sizeof(float));
    s->shown = calloc(r, sizeof *s->shown);
    Status status = s->latent && s->rows_context && s->step_noise && s->shown
                        ? plan_steps(s)
                        : FAIL(ERR_SPACE, "no memory to sample a batch of %d", batch);
    if (!status) status = record(s);
    if (!status) status = make_tables(s);
    if (!status) status = ldm_try_decode(m, shape); /* now rather than behind the steps */
    if (status) sampler_close(s);
    else *out = s;
    return status;
}

void sampler_close(Sampler *s)
{
    if (!s) return;
    exec_free(s->e);
    exec_free(s->start_e);
    graph_free(s->g);
    graph_free(s->start_g);
    for (int i = 0; i < s->n_prompt; i++) {
        free(s->prompt[i].text);
        free(s->prompt[i].context);
    }
    free(s->prompt);
    free(s->time);
    free(s->latent);
    device_release(s->m->device, s->ats);
    device_release(s->m->device, s->coefs);
    free(s->shown);
    free(s->rows_context);
    free(s->step_noise);
    free(s);
}

/* The prompt's context, embedded at first sight. */
static Status context_of(Sampler *s, const char *text, const float **context)
{
    for (int i = 0; i < s->n_prompt; i++)
        if (!strcmp(s->prompt[i].text, text)) {
            *context = s->prompt[i].context;
            return OK;
        }
    s->prompt = realloc(s->prompt, (size_t)(s->n_prompt + 1) * sizeof *s->prompt);
    Prompt p = {.text = strdup(text), .context = calloc(s->per_text, sizeof(float))};
    int32_t *ids = calloc((size_t)ldm_tokens(s->m), sizeof *ids);
    CHECK(s->prompt && p.text && p.context && ids);
    Status status = ldm_tokenize(s->m, &text, 1, ids);
    if (!status) status = ldm_embed(s->m, ids, 1, p.context);
    free(ids);
    s->prompt[s->n_prompt++] = p;
    *context = p.context;
    return status;
}

static Status show(Sampler *s, int row, const char *text)
{
    const float *context;
    TRY(context_of(s, text, &context));
    if (s->shown[row] == context) return OK;
    s->contexts_written = false;
    s->shown[row] = context;
    memcpy(s->rows_context + (size_t)row * s->per_text, context, s->per_text * sizeof *context);
    return OK;
}

/* Row i of the network's batch is the conditional sample i; when guided the unconditional ones come
 * first. Nothing is written, and so computed again, where all rows have what they had. */
static Status fill_contexts(Sampler *s, const SampleRequest *r, int n)
{
    bool guided = s->rows > s->batch;
    for (int i = 0; i < s->batch; i++) {
        const SampleRequest *q = &r[i < n ? i : 0];
        if (guided) TRY(show(s, i, q->negative ? q->negative : ""));
        TRY(show(s, s->rows - s->batch + i, q->prompt));
    }
    if (s->contexts_written) return OK;
    TRY(exec_write(s->e, s->context, s->rows_context));
    s->contexts_written = true;
    return OK;
}

/* The latent of r's source; scratch: as many floats. */
static Status encode(Sampler *s, const SampleRequest *r, float *x, float *scratch)
{
    CHECK(r->source);
    if (!r->encode_noise) return ldm_encode(s->m, r->source, 1, s->shape, x);
    TRY(ldm_encode_moments(s->m, r->source, 1, s->shape, x, scratch));
    for (size_t k = 0; k < s->per; k++) x[k] += scratch[k] * r->encode_noise[k];
    return OK;
}

/* Row i of the batch before its noise, and the two factors; where the request brings its noise, with
 * it. Image-to-image: the source's latent. */
static Status start_row(Sampler *s, const SampleRequest *r, float *x, float *mix)
{
    float ab = (float)s->m->schedule.alpha_bar[s->time[s->first]];
    bool from_film = s->set.image_to_image;
    float keep = from_film ? sqrtf(ab) : 0, rest = from_film ? sqrtf(1 - ab) : 1;
    memset(x, 0, s->per * sizeof *x);
    if (from_film) TRY(encode(s, r, x, s->step_noise));
    mix[0] = r->noise ? 1 : keep;
    mix[1] = r->noise ? 0 : rest;
    for (size_t k = 0; r->noise && k < s->per; k++) x[k] = keep * x[k] + rest * r->noise[k];
    return OK;
}

/* x at the first timestep: noise, or the source's latent with noise. Keys go with it. */
static Status start(Sampler *s, const SampleRequest *r, int n)
{
    size_t b = (size_t)s->batch;
    int32_t *key = calloc(7 * b, sizeof *key), *step_key = key + 4 * b;
    float *mix = calloc(2 * b, sizeof *mix);
    CHECK(key && mix);
    Status status = OK;
    for (int i = 0; i < s->batch && !status; i++) {
        const SampleRequest *q = &r[i < n ? i : 0]; /* the rest are copies of the first */
        float *x = s->latent + (size_t)i * s->per;
        int32_t sample[] = {(int32_t)(uint32_t)q->id, (int32_t)(uint32_t)(q->id >> 32)};
        key[4 * i] = step_key[3 * i] = (int32_t)s->seed;
        memcpy(key + 4 * i + 2, sample, sizeof sample);
        memcpy(step_key + 3 * i + 1, sample, sizeof sample);
        if (i < n) status = start_row(s, q, x, mix + 2 * i);
        else memcpy(x, s->latent, s->per * sizeof *x), memcpy(mix + 2 * i, mix, 2 * sizeof *mix);
    }
    if (!status) status = exec_write(s->start_e, s->start_x, s->latent);
    if (!status) status = exec_write(s->start_e, s->start_key, key);
    if (!status) status = exec_write(s->start_e, s->start_mix, mix);
    if (!status && s->noise && !s->set.noise_given) status = exec_write(s->e, s->noise, step_key);
    if (!status) status = exec_run(s->start_e);
    free(key);
    free(mix);
    return status;
}

/* x to the network's rows. */
static Status spread(const Sampler *s)
{
    size_t bytes = (size_t)s->batch * s->per * sizeof(float);
    for (int half = 0; half < s->rows / s->batch; half++)
        TRY(device_copy(s->m->device, (char *)s->input->data + (size_t)half * bytes, s->x->data,
                        bytes));
    return OK;
}

/* Behind a step: its result is the next one's latent. */
static Status advance(void *sampler)
{
    const Sampler *s = sampler;
    TRY(device_copy(s->m->device, s->x->data, s->next->data,
                    (size_t)s->batch * s->per * sizeof(float)));
    return spread(s);
}

static Status step(Sampler *s, int index, const SampleRequest *r, int n)
{
    Device *d = s->m->device;
    size_t rows = (size_t)s->rows, i = (size_t)index, at = (i - (size_t)s->first) * s->per;
    TRY(device_copy(d, s->at->data, s->ats + i * rows, rows * sizeof *s->ats));
    TRY(device_copy(d, s->coef->data, s->coefs + 6 * i, 6 * sizeof(float)));
    if (s->noise && s->set.noise_given) {
        for (int k = 0; k < n; k++)
            memcpy(s->step_noise + (size_t)k * s->per, r[k].step_noise + at,
                   s->per * sizeof(float));
        TRY(exec_write(s->e, s->noise, s->step_noise));
    }
    return exec_run_then(s->e, advance, s);
}

const Exec *sampler_exec(const Sampler *s) { return s->e; }
int sampler_steps(const Sampler *s) { return s->n_time - s->first; }

Status sampler_run(Sampler *s, const SampleRequest *r, int n, float *films)
{
    CHECK(n >= 1 && n <= s->batch);
    for (int k = 0; k < n; k++) CHECK(!s->set.noise_given == !r[k].step_noise);
    TRY(start(s, r, n));
    TRY(fill_contexts(s, r, n));
    TRY(device_copy(s->m->device, s->x->data, s->noisy->data, tensor_bytes(s->x)));
    TRY(spread(s));
    for (int i = s->first; i < s->n_time; i++) {
        if (signal_stop_requested())
            return FAIL(ERR_STOPPED, "stopped between two steps of the sampler");
        TRY(step(s, i, r, n));
    }
    TRY(exec_read(s->e, s->next, s->latent));
    return ldm_decode(s->m, s->latent, n, s->shape, films);
}
