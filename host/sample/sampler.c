/* sampler.c - the sampling loop: network, guidance and DDIM update are one recorded graph, run once
 * a step. The latents stay on the device from the first step to the last, times and coefficients of
 * all steps lie there in tables, and without eta the host only enqueues. */
#include "sample/sampler.h"
#include "base/random.h"
#include "base/signal.h"
#include "exec/exec.h"
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
    Graph *g;
    Exec *e;
    Tensor *input, *x, *t, *context, *noise, *coef, *next;
    float *latent, *rows_context, *step_noise; /* owned host buffers */
    float *times, *coefs; /* owned: device memory, [n_time, rows] and [n_time, 6] */
    Prompt *prompt; /* owned: embedded prompts */
    int n_prompt;
};

static Status record(Sampler *s)
{
    const Ldm *m = s->m;
    int h = s->shape.h / ldm_scale(m), w = s->shape.w / ldm_scale(m);
    int c = m->unet_config.in_channels;
    Graph *g = s->g = device_graph(m->device);
    bool guided = s->rows > s->batch;
    int latent[] = {s->batch, h, w, c}, rows[] = {s->rows, h, w, c};
    s->input = graph_leaf(g, KIND_INPUT, DTYPE_F32, "latent_rows", 4, rows);
    s->x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "latent", 4, latent);
    s->t = graph_leaf(g, KIND_INPUT, DTYPE_F32, "time", 1, &s->rows);
    s->context = graph_leaf(g, KIND_INPUT, DTYPE_F32, "context", 3,
                            (int[]){s->rows, ldm_tokens(m), m->text_config.hidden_size});
    s->coef = graph_leaf(g, KIND_INPUT, DTYPE_F32, "coef", 1, (int[]){6});
    if (s->set.eta > 0) s->noise = graph_leaf(g, KIND_INPUT, DTYPE_F32, "noise", 4, latent);
    Tensor *prediction = unet(g, &s->m->unet, &m->unet_config, s->input, s->t, s->context, false);
    s->next = ddim_step(g, s->x, prediction, s->noise, s->coef,
                        (DdimArgs){guided, m->schedule.prediction, (float)s->set.guidance, 0});
    TRY(graph_status(g));
    params_bind(g);
    graph_finish(g, &s->next, 1);
    return exec_new(&s->e, m->device, g, &s->next, 1);
}

/* Times and coefficients of every step that is run, to the device. */
static Status make_tables(Sampler *s)
{
    size_t n = (size_t)s->n_time, rows = (size_t)s->rows;
    Device *d = s->m->device;
    float *time = calloc(n * rows, sizeof *time), *coef = calloc(n * 6, sizeof *coef);
    CHECK(time && coef);
    for (size_t i = (size_t)s->first; i < n; i++) {
        for (size_t r = 0; r < rows; r++) time[i * rows + r] = (float)s->time[i];
        schedule_ddim(&s->m->schedule, s->time[i], s->set.steps, s->set.eta, coef + 6 * i);
    }
    Status status = device_alloc(d, (void **)&s->times, n * rows * sizeof *time, "sampling steps");
    if (!status)
        status = device_alloc(d, (void **)&s->coefs, n * 6 * sizeof *coef, "sampling steps");
    if (!status) status = device_write(d, s->times, time, n * rows * sizeof *time);
    if (!status) status = device_write(d, s->coefs, coef, n * 6 * sizeof *coef);
    free(time);
    free(coef);
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
    Status status = s->latent && s->rows_context && s->step_noise
                        ? plan_steps(s)
                        : FAIL(ERR_SPACE, "no memory to sample a batch of %d", batch);
    if (!status) status = record(s);
    if (!status) status = make_tables(s);
    if (status) sampler_close(s);
    else *out = s;
    return status;
}

void sampler_close(Sampler *s)
{
    if (!s) return;
    exec_free(s->e);
    graph_free(s->g);
    for (int i = 0; i < s->n_prompt; i++) {
        free(s->prompt[i].text);
        free(s->prompt[i].context);
    }
    free(s->prompt);
    free(s->time);
    free(s->latent);
    device_release(s->m->device, s->times);
    device_release(s->m->device, s->coefs);
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

/* Row i of the network's batch is the conditional sample i; when guided the unconditional ones come
 * first. */
static Status fill_contexts(Sampler *s, const SampleRequest *r, int n)
{
    bool guided = s->rows > s->batch;
    for (int i = 0; i < s->batch; i++) {
        const SampleRequest *q = &r[i < n ? i : 0];
        const float *context;
        float *row = s->rows_context + (size_t)i * s->per_text;
        if (guided) {
            TRY(context_of(s, q->negative ? q->negative : "", &context));
            memcpy(row, context, s->per_text * sizeof *row);
            row += (size_t)s->batch * s->per_text;
        }
        TRY(context_of(s, q->prompt, &context));
        memcpy(row, context, s->per_text * sizeof *row);
    }
    return exec_write(s->e, s->context, s->rows_context);
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

/* x at the first timestep: noise, or the source's latent with noise. */
static Status start(Sampler *s, const SampleRequest *r, int n)
{
    float ab = (float)s->m->schedule.alpha_bar[s->time[s->first]];
    float keep = sqrtf(ab), rest = sqrtf(1 - ab);
    for (int i = 0; i < n; i++) {
        float *x = s->latent + (size_t)i * s->per, *noise = s->step_noise;
        if (s->set.image_to_image) TRY(encode(s, &r[i], x, noise));
        if (r[i].noise) memcpy(noise, r[i].noise, s->per * sizeof *noise);
        else random_normals(noise, s->per, (RandomKey){s->seed, STREAM_START, 0, r[i].id});
        if (!s->set.image_to_image) {
            memcpy(x, noise, s->per * sizeof *x);
            continue;
        }
        for (size_t k = 0; k < s->per; k++) x[k] = keep * x[k] + rest * noise[k];
    }
    for (int i = n; i < s->batch; i++)
        memcpy(s->latent + (size_t)i * s->per, s->latent, s->per * sizeof(float));
    return OK;
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
    size_t rows = (size_t)s->rows, i = (size_t)index;
    TRY(device_copy(d, s->t->data, s->times + i * rows, rows * sizeof(float)));
    TRY(device_copy(d, s->coef->data, s->coefs + 6 * i, 6 * sizeof(float)));
    if (s->noise) {
        for (int k = 0; k < n; k++) {
            float *noise = s->step_noise + (size_t)k * s->per;
            size_t at = (size_t)(index - s->first) * s->per;
            if (r[k].step_noise) memcpy(noise, r[k].step_noise + at, s->per * sizeof *noise);
            else
                random_normals(noise, s->per,
                               (RandomKey){s->seed, STREAM_STEP, (uint32_t)index, r[k].id});
        }
        TRY(exec_write(s->e, s->noise, s->step_noise));
    }
    return exec_run_then(s->e, advance, s);
}

int sampler_steps(const Sampler *s) { return s->n_time - s->first; }

Status sampler_run(Sampler *s, const SampleRequest *r, int n, float *films)
{
    CHECK(n >= 1 && n <= s->batch);
    TRY(start(s, r, n));
    TRY(fill_contexts(s, r, n));
    TRY(exec_write(s->e, s->x, s->latent));
    TRY(spread(s));
    for (int i = s->first; i < s->n_time; i++) {
        if (signal_stop_requested())
            return FAIL(ERR_STOPPED, "stopped between two steps of the sampler");
        TRY(step(s, i, r, n));
    }
    TRY(exec_read(s->e, s->next, s->latent));
    return ldm_decode(s->m, s->latent, n, s->shape, films);
}
