/* ldm.c - opens, runs and saves the parts of a latent diffusion model. */
#include "models/ldm.h"
#include "exec/exec.h"
#include "models/lora.h"
#include "ops/ops.h"
#include "weights/model_folder.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CODER_BATCH = 8, CODER_PIXELS = CODER_BATCH << 16, TEXT_BATCH = 8 };

/* ---- opening ------------------------------------------------------------------------------ */

static Status read_configs(Ldm *m)
{
    static const char *const file[] = {"unet/config.json", "text_encoder/config.json", "vae",
                                       "tokenizer"};
    char *path[4];
    for (int i = 0; i < 4; i++) path[i] = path_join(m->folder, file[i]);
    Status s = OK;
    TRY_OR(done, s, unet_config_read(&m->unet_config, path[0]));
    TRY_OR(done, s, clip_text_config_read(&m->text_config, path[1]));
    TRY_OR(done, s, autoencoder_config_read(&m->vae_config, path[2]));
    TRY_OR(done, s, schedule_read(&m->schedule, m->folder));
    TRY_OR(done, s, tokenizer_open(&m->tokenizer, path[3]));
    if (m->unet_config.in_channels != m->vae_config.latent_channels)
        s = FAIL(ERR_INPUT, "%s: in_channels %d, expected the autoencoder's %d", path[0],
                 m->unet_config.in_channels, m->vae_config.latent_channels);
    else if (m->unet_config.cross_attention_dim != m->text_config.hidden_size)
        s = FAIL(ERR_INPUT, "%s: cross_attention_dim %d, expected the text encoder's %d", path[0],
                 m->unet_config.cross_attention_dim, m->text_config.hidden_size);
    else if (tokenizer_size(m->tokenizer) != m->text_config.vocab_size)
        s = FAIL(ERR_INPUT, "%s: vocab_size %d, expected the tokenizer's %d", path[1],
                 m->text_config.vocab_size, tokenizer_size(m->tokenizer));
    else if (tokenizer_longest(m->tokenizer) > m->text_config.max_position_embeddings)
        s = FAIL(ERR_INPUT,
                 "%s: model_max_length %d, expected at most the text encoder's %d positions",
                 path[3], tokenizer_longest(m->tokenizer), m->text_config.max_position_embeddings);
done:
    for (int i = 0; i < 4; i++) free(path[i]);
    return s;
}

/* Registers every parameter by recording each network once, small. */
static Status register_parameters(Ldm *m)
{
    Graph *g = graph_new();
    int c = m->vae_config.latent_channels, deepest = 1 << (m->unet_config.n_block - 1);
    Tensor *x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "sample", 4, (int[]){1, deepest, deepest, c});
    Tensor *t = graph_leaf(g, KIND_INPUT, DTYPE_F32, "timestep", 1, (int[]){1});
    Tensor *ids = graph_leaf(g, KIND_INPUT, DTYPE_I32, "ids", 2, (int[]){1, ldm_tokens(m)});
    int side = ldm_scale(m);
    Tensor *film = graph_leaf(g, KIND_INPUT, DTYPE_F32, "film", 4, (int[]){1, side, side, 3});
    unet(g, &m->unet, &m->unet_config, x, t, clip_text(g, &m->text, &m->text_config, ids), false);
    autoencoder_decode(g, &m->vae, &m->vae_config,
                       autoencoder_encode(g, &m->vae, &m->vae_config, film, false).mean,
                       false);
    Status s = graph_status(g);
    graph_free(g);
    return s;
}

static Status load_files(Ldm *m, bool random)
{
    char *unet_folder = path_join(m->folder, "unet"), *unet_file = NULL;
    char *text_folder = path_join(m->folder, "text_encoder"), *text_file = NULL;
    char *vae_folder = path_join(m->folder, "vae");
    Status s = OK;
    TRY_OR(done, s, autoencoder_load(&m->vae, &m->vae_config, vae_folder));
    if (!random) {
        TRY_OR(done, s, model_weights(&unet_file, unet_folder));
        TRY_OR(done, s, model_weights(&text_file, text_folder));
        TRY_OR(done, s, params_load(&m->unet, unet_file, NULL));
        TRY_OR(done, s, clip_text_load(&m->text, text_file));
    }
done:
    free(unet_folder);
    free(unet_file);
    free(text_folder);
    free(text_file);
    free(vae_folder);
    return s;
}

/* What diffusers' Stable Diffusion pipelines overrule or overlook, and we therefore too. */
static void say_unheeded(const Ldm *m, Log *log)
{
    static const char why[] = "as in diffusers' Stable Diffusion pipelines";
    if (log && m->schedule.outdated)
        log_warn(
            log,
            "%s/scheduler/scheduler_config.json: steps_offset is taken for %d and clip_sample for "
            "false, %s",
            m->folder, PIPELINE_OFFSET, why);
    if (log && m->vae_config.is_kl && m->vae_config.kl.has_shift)
        log_warn(
            log,
            "%s/vae/config.json: shift_factor, latents_mean and latents_std have no effect, %s",
            m->folder, why);
}

static Status load_values(Ldm *m, LdmUse use)
{
    TRY(load_files(m, use.random));
    if (use.random) {
        TRY(params_init(&m->unet, use.seed));
        TRY(params_init(&m->text, use.seed));
    }
    if (use.lora_rank) TRY(params_init(&m->lora, use.seed));
    return use.lora ? lora_merge(&m->unet, &m->text, use.lora, use.lora_scale) : OK;
}

static Status load(Ldm *m, LdmUse use)
{
    TRY(params_alloc(&m->unet, m->device, use.train_unet));
    TRY(params_alloc(&m->text, m->device, use.train_text));
    TRY(params_alloc(&m->vae, m->device, false));
    if (use.lora_rank) TRY(params_alloc(&m->lora, m->device, true));
    if (!use.bare) TRY(load_values(m, use));
    params_freeze(&m->vae, "");
    if (!use.train_unet) params_freeze(&m->unet, "");
    if (!use.train_text) params_freeze(&m->text, "");
    return OK;
}

static Status need_folder(const char *folder)
{
    if (dir_exists(folder)) return OK;
    return FAIL(ERR_INPUT, "%s: no such folder, expected a model in diffusers' layout", folder);
}

Status ldm_check(const char *folder, int size, LdmWeights there)
{
    Ldm m = {.folder = path_join("", folder)};
    Status s;
    TRY_OR(done, s, need_folder(folder));
    if (there != LDM_NO_WEIGHTS)
        TRY_OR(done, s, model_folder_check(folder, there == LDM_ALL_WEIGHTS));
    TRY_OR(done, s, read_configs(&m));
    int unit = ldm_scale(&m), least = unit * unet_least_side(&m.unet_config);
    if (size % unit || size < least)
        s = FAIL(ERR_USAGE,
                 "data.size = %d, expected a multiple of %d, %d or more, for the model in %s", size,
                 unit, least, folder);
    if (!s) s = register_parameters(&m);
    if (!s && there) /* into stores without memory: headers only */
        s = load_files(&m, there == LDM_AUTOENCODER);
done:
    ldm_close(&m);
    return s;
}

static void adapt(Ldm *m, int rank)
{
    if (!rank) return;
    m->unet.adapter = &m->lora;
    m->unet.adapter_rank = rank;
}

Status ldm_size(LdmSize *z, const char *folder, int size, int lora_rank)
{
    Ldm m = {.folder = path_join("", folder)};
    Status s;
    TRY_OR(done, s, read_configs(&m));
    adapt(&m, lora_rank);
    TRY_OR(done, s, register_parameters(&m));
    *z = (LdmSize){.unet = params_registered(&m.unet),
                   .text = params_registered(&m.text),
                   .vae = params_registered(&m.vae),
                   .lora = params_registered(&m.lora),
                   .latent = ldm_latent_count(&m, film_square(size))};
done:
    ldm_close(&m);
    return s;
}

Status ldm_open(Ldm *m, Device *d, const char *folder, LdmUse use)
{
    *m = (Ldm){.device = d, .folder = path_join("", folder)};
    Status s = OK;
    TRY_OR(done, s, need_folder(folder));
    if (!use.bare) TRY_OR(done, s, model_folder_check(folder, !use.random));
    TRY_OR(done, s, read_configs(m));
    say_unheeded(m, use.log);
    adapt(m, use.lora_rank);
    TRY_OR(done, s, register_parameters(m));
    TRY_OR(done, s, load(m, use));
done:
    if (s) ldm_close(m);
    return s;
}

void ldm_close(Ldm *m)
{
    params_free(&m->unet);
    params_free(&m->text);
    params_free(&m->vae);
    params_free(&m->lora);
    if (m->tokenizer) tokenizer_close(&m->tokenizer);
    free(m->folder);
    *m = (Ldm){0};
}

int ldm_scale(const Ldm *m) { return m->vae_config.scale; }

size_t ldm_latent_count(const Ldm *m, FilmShape shape)
{
    int scale = ldm_scale(m);
    return (size_t)(shape.h / scale) * (size_t)(shape.w / scale) *
           (size_t)m->vae_config.latent_channels;
}

int ldm_tokens(const Ldm *m)
{
    int longest = tokenizer_longest(m->tokenizer);
    return longest ? longest : m->text_config.max_position_embeddings;
}

/* ---- running a part over many samples, a fixed batch at a time ------------------------------- */

typedef struct {
    Graph *g;
    Exec *e;
    Tensor *in, *out;
} Part;

static Status part_open(Part *p, Device *d)
{
    TRY(graph_status(p->g));
    params_hold(p->g); /* a part is closed before anything trains on */
    params_bind(p->g);
    graph_finish(p->g, &p->out, 1);
    return exec_new(&p->e, d, p->g, &p->out, 1);
}

/* in [n, per_in] and out [n, per_out], both of 4-byte elements. The last batch is filled up with
 * the samples of the one before: samples do not see each other. */
static Status part_run(Part *p, const void *in, int n, float *out)
{
    int batch = p->in->dim[0];
    size_t per_in = tensor_bytes(p->in) / (size_t)batch,
           per_out = tensor_bytes(p->out) / (size_t)batch;
    char *from = calloc((size_t)batch, per_in), *to = calloc((size_t)batch, per_out);
    Status s = from && to ? OK : FAIL(ERR_SPACE, "no memory for a batch");
    for (int first = 0; first < n && !s; first += batch) {
        size_t k = (size_t)(n - first < batch ? n - first : batch);
        memcpy(from, (const char *)in + (size_t)first * per_in, k * per_in);
        s = exec_write(p->e, p->in, from);
        if (!s) s = exec_run(p->e);
        if (!s) s = exec_read(p->e, p->out, to);
        if (!s) memcpy((char *)out + (size_t)first * per_out, to, k * per_out);
    }
    free(from);
    free(to);
    return s;
}

static void part_close(Part *p)
{
    exec_free(p->e);
    graph_free(p->g);
}

/* ---- autoencoder ----------------------------------------------------------------------------- */

static void apply_statistics(const Ldm *m, float *latents, size_t count, bool inverse)
{
    const AutoencoderConfig *a = &m->vae_config;
    size_t c = (size_t)a->latent_channels;
    for (size_t i = 0; i < count; i++)
        latents[i] = inverse ? latents[i] * a->std[i % c] + a->mean[i % c]
                             : (latents[i] - a->mean[i % c]) / a->std[i % c];
}

static size_t pixel_count(int n, FilmShape shape)
{
    return (size_t)n * (size_t)shape.h * (size_t)shape.w;
}

/* Films at once: as many as memory is meant for, fewer where they are large. */
static int coder_batch(int n, FilmShape shape)
{
    size_t fit = CODER_PIXELS / pixel_count(1, shape);
    int most = fit < 1 ? 1 : fit < CODER_BATCH ? (int)fit : CODER_BATCH;
    return n < most ? n : most;
}

/* From moments [rows, 2 c], means and log-variances; deviation may be NULL. */
static void take_moments(const Ldm *m, float *latents, float *deviation, const float *moments,
                         size_t rows)
{
    size_t c = (size_t)m->vae_config.latent_channels;
    for (size_t i = 0; i < rows * c; i++) {
        const float *row = moments + i / c * 2 * c;
        latents[i] = row[i % c];
        if (deviation) deviation[i] = expf(0.5f * row[c + i % c]) / m->vae_config.std[i % c];
    }
}

/* Records in `batch` films or latents at once; p->g is empty. */
typedef void (*Coder)(Part *p, Ldm *m, int batch, FilmShape shape);

static void record_encoder(Part *p, Ldm *m, int batch, FilmShape shape)
{
    p->in = graph_leaf(p->g, KIND_INPUT, DTYPE_F32, "film", 4, (int[]){batch, shape.h, shape.w, 3});
    KlMoments coded = autoencoder_encode(p->g, &m->vae, &m->vae_config, p->in, false);
    p->out = coded.logvar ? concat(p->g, 2, (Tensor *[]){coded.mean, coded.logvar}) : coded.mean;
}

static void record_decoder(Part *p, Ldm *m, int batch, FilmShape shape)
{
    int scale = ldm_scale(m), c = m->vae_config.latent_channels;
    p->in = graph_leaf(p->g, KIND_INPUT, DTYPE_F32, "latent", 4,
                       (int[]){batch, shape.h / scale, shape.w / scale, c});
    p->out = autoencoder_decode(p->g, &m->vae, &m->vae_config, p->in, false);
}

/* As part_run(), with fewer at once where the device has no room for so many. *channels: of out. */
static Status coder_run(Ldm *m, Coder record, const float *in, int n, FilmShape shape, float *out,
                        int *channels)
{
    for (int batch = coder_batch(n, shape);; batch /= 2) {
        Part p = {.g = device_graph(m->device)};
        record(&p, m, batch, shape);
        Status s = part_open(&p, m->device);
        if (!s) s = part_run(&p, in, n, out);
        *channels = p.out ? p.out->dim[3] : 0;
        part_close(&p);
        if (s != ERR_SPACE || batch == 1)
            return device_memory_advice(s, m->device, "films at once", 1, NULL);
    }
}

Status ldm_encode_moments(Ldm *m, const float *films, int n, FilmShape shape, float *latents,
                          float *deviation)
{
    size_t values = 3 * pixel_count(n, shape), copies = shape.channels == 3 ? 1 : 3,
           count = (size_t)n * ldm_latent_count(m, shape);
    float *three = malloc(values * sizeof *three), *moments = malloc(2 * count * sizeof *moments);
    int channels, c = m->vae_config.latent_channels;
    Status s = three && moments ? OK : FAIL(ERR_SPACE, "no memory for %d films", n);
    if (s) goto done;
    for (size_t i = 0; i < values; i++) three[i] = films[i / copies];
    TRY_OR(done, s, coder_run(m, record_encoder, three, n, shape, moments, &channels));
    if (channels == 2 * c) take_moments(m, latents, deviation, moments, count / (size_t)c);
    else {
        memcpy(latents, moments, count * sizeof *latents);
        if (deviation) memset(deviation, 0, count * sizeof *deviation);
    }
    apply_statistics(m, latents, count, false);
done:
    free(three);
    free(moments);
    return s;
}

Status ldm_encode(Ldm *m, const float *films, int n, FilmShape shape, float *latents)
{
    return ldm_encode_moments(m, films, n, shape, latents, NULL);
}

/* films [pixels, channels] from three channels; a NaN stays one: the writer refuses it */
static void take_films(float *films, float *three, size_t pixels, int channels)
{
    for (size_t i = 0; i < 3 * pixels; i++)
        three[i] = three[i] > 1 ? 1 : three[i] < 0 ? 0 : three[i];
    if (channels == 3) memcpy(films, three, 3 * pixels * sizeof *films);
    else
        for (size_t i = 0; i < pixels; i++)
            films[i] = (three[3 * i] + three[3 * i + 1] + three[3 * i + 2]) / 3;
}

Status ldm_decode(Ldm *m, const float *latents, int n, FilmShape shape, float *films)
{
    size_t count = (size_t)n * ldm_latent_count(m, shape), pixels = pixel_count(n, shape);
    float *raw = malloc(count * sizeof *raw), *three = malloc(3 * pixels * sizeof *three);
    int channels;
    Status s = raw && three ? OK : FAIL(ERR_SPACE, "no memory for %d films", n);
    if (s) goto done;
    memcpy(raw, latents, count * sizeof *raw);
    apply_statistics(m, raw, count, true);
    TRY_OR(done, s, coder_run(m, record_decoder, raw, n, shape, three, &channels));
    take_films(films, three, pixels, shape.channels);
done:
    free(raw);
    free(three);
    return s;
}

Status ldm_try_decode(Ldm *m, FilmShape shape)
{
    Part p = {.g = device_graph(m->device)};
    record_decoder(&p, m, 1, shape);
    Status s = part_open(&p, m->device);
    part_close(&p);
    return s;
}

void ldm_restandardise(const Ldm *m, float *latents, int n, int size)
{
    apply_statistics(m, latents, (size_t)n * ldm_latent_count(m, film_square(size)), false);
}

void ldm_standardise(Ldm *m, float *latents, int n, int size)
{
    size_t count = (size_t)n * ldm_latent_count(m, film_square(size)),
           c = (size_t)m->vae_config.latent_channels;
    for (size_t k = 0; k < c; k++) {
        double mean = 0, square = 0, rows = (double)(count / c);
        for (size_t i = k; i < count; i += c) mean += latents[i] / rows;
        for (size_t i = k; i < count; i += c)
            square += (latents[i] - mean) * (latents[i] - mean) / rows;
        m->vae_config.mean[k] = (float)mean;
        m->vae_config.std[k] = (float)fmax(sqrt(square), 1e-6);
    }
    m->vae_config.standardised = true;
    ldm_restandardise(m, latents, n, size);
}

/* ---- text ------------------------------------------------------------------------------------ */

Status ldm_check_prompts(const Ldm *m, const char *const *prompt, int n, Log *log)
{
    int most = ldm_tokens(m) - 2, found; /* start and end */
    for (int i = 0; i < n; i++) {
        if (!prompt[i]) continue;
        size_t bad = text_not_utf8(prompt[i]);
        if (prompt[i][bad])
            return FAIL(ERR_USAGE, "prompt \"%.*s...\": found 0x%02X as byte %zu, expected UTF-8",
                        bad < 60 ? (int)bad : 60, prompt[i], (unsigned char)prompt[i][bad],
                        bad + 1);
        TRY(tokenizer_count(&found, m->tokenizer, prompt[i]));
        if (found > most)
            log_warn(log, "prompt \"%.60s%s\": found %d tokens, the model sees the first %d",
                     prompt[i], strlen(prompt[i]) > 60 ? "..." : "", found, most);
    }
    return OK;
}

Status ldm_tokenize(Ldm *m, const char *const *prompt, int n, int32_t *ids)
{
    for (int i = 0; i < n; i++)
        TRY(tokenizer_encode(m->tokenizer, prompt[i], ids + (size_t)i * (size_t)ldm_tokens(m),
                             ldm_tokens(m)));
    return OK;
}

Status ldm_embed(Ldm *m, const int32_t *ids, int n, float *context)
{
    Part p = {.g = device_graph(m->device)};
    p.in = graph_leaf(p.g, KIND_INPUT, DTYPE_I32, "ids", 2,
                      (int[]){n < TEXT_BATCH ? n : TEXT_BATCH, ldm_tokens(m)});
    p.out = clip_text(p.g, &m->text, &m->text_config, p.in);
    Status s = part_open(&p, m->device);
    if (!s) s = part_run(&p, ids, n, context);
    part_close(&p);
    return s;
}
