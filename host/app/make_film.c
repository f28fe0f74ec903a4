/* make_film.c - img2img and txt2img: options, sizes, given noise, the PNG.
 *
 * With the same weights, prompts and noise the film is the one of diffusers'
 * StableDiffusionImg2ImgPipeline and StableDiffusionPipeline with DDIMScheduler.
 */
#include "app/make_film.h"
#include "app/options.h"
#include "base/text.h"
#include "data/image.h"
#include "sample/film_note.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MODEL                                                                                      \
    {"model", "DIR",                                                                               \
     "folder of the diffusion model, sampled as diffusers' Stable Diffusion pipelines with DDIM "  \
     "do; a tokenizer.json in it goes before vocab.json and merges.txt and must agree with them",  \
     NULL},                                                                                        \
    {"lora", "FILE[:S]", "low-rank changes to the model, S times (1 if not given)", NULL}
#define PROMPTS                                                                                    \
    {"prompt", "TEXT", "what to show", NULL}, {"negative", "TEXT", "what to lead away from", ""}
#define SAMPLING                                                                                   \
    {"steps", "N", "of the sampler from pure noise", "25"},                                        \
    {"guidance", "G", "weight of the prompt; up to 1: no negative prompt is run", "4"},            \
    {"eta", "E", "fresh noise per step; 0 = DDIM, 1 = DDPM", "0"},                                 \
    {"spacing", "WAY",                                                                             \
     "of the sampler's steps: leading, trailing or linspace (default as the model says)", NULL},   \
    {"seed", "K", "of the noise", "0"}
#define NOISE                                                                                      \
    "safetensors with noise to use instead: \"noise\" [1,c,h,w] at the start, with eta also "      \
    "\"step_noise\" [steps run,c,h,w]; c, h, w of the latent; what is not in FILE comes from the " \
    "seed"
#define SIDES                                                                                      \
    {"width", "PX", "of a film that is not square, with --height", NULL},                          \
    {"height", "PX", "likewise", NULL}
#define OUTPUT                                                                                     \
    {"rgb", NULL, "colour in and out; else grey, the mean of the model's three channels", NULL},   \
    {"device", "D", "auto, cpu, cuda or cuda:N", "auto"},                                          \
    {"precision", "P", "auto, fp32 or bf16; auto: bf16 on a GPU", "auto"},                         \
    {"out", "FILE.png", "the PNG to write", NULL},                                                 \
    {"force", NULL, "write over FILE.png if it is there", NULL}

static const Option from_film_option[] = {
    MODEL,
    {"image", "FILE", "the film to start from, PNG or JPEG", NULL},
    PROMPTS,
    {"strength", "S", "0 keeps the film, 1 ignores it", "0.6"},
    SAMPLING,
    {"noise", "FILE",
     NOISE "; with AutoencoderKL also \"encode_noise\" [1,c,h,w], else the mean is encoded", NULL},
    {"size", "PX",
     "side of the square film made; without any size: the film's own, or, where the model does not "
     "take that, a square of its longer side, rounded down",
     NULL},
    SIDES,
    OUTPUT,
};
static const Option from_text_option[] = {
    MODEL,
    PROMPTS,
    SAMPLING,
    {"noise", "FILE", NOISE, NULL},
    {"size", "PX", "side of the square film made", NULL},
    SIDES,
    OUTPUT,
};

static const Usage usage[2] = {
    {
        .command = "txt2img",
        .help = "Makes one synthetic film from a prompt. The PNG says in its metadata that it is "
                "synthetic.",
        .option = from_text_option,
        .n_option = sizeof from_text_option / sizeof *from_text_option,
    },
    {
        .command = "img2img",
        .help = "Makes one synthetic film from a film and a prompt. The PNG says in its metadata "
                "that it is synthetic.",
        .option = from_film_option,
        .n_option = sizeof from_film_option / sizeof *from_film_option,
    },
};

typedef struct {
    const char *command, *model, *image, *prompt, *negative, *out, *device, *precision, *noise;
    SamplerSettings set;
    bool own_spacing; /* else the model's */
    int seed, w, h;   /* 0: not given */
    int channels;
    LdmUse use;
    char *lora; /* owned: the file of use.lora */
} Wish;

/* ---- options ------------------------------------------------------------------------------ */

/* FILE or FILE:SCALE; the colon of a file that is there is the file's. */
static Status read_lora(Wish *w, const char *text)
{
    enum { MOST = 100 };
    if (!text) return OK;
    w->lora = strdup(text);
    CHECK(w->lora);
    w->use = (LdmUse){.lora = w->lora, .lora_scale = 1};
    char *colon = strrchr(w->lora, ':');
    if (!colon || file_exists(w->lora)) return OK;
    *colon = 0;
    if (*w->lora && text_to_double(&w->use.lora_scale, colon + 1) &&
        fabs(w->use.lora_scale) <= MOST)
        return OK;
    return FAIL(ERR_USAGE, "%s: --lora is \"%s\", expected a file, or FILE:S with S in %d..%d",
                w->command, text, -MOST, MOST);
}

static Status read_sampling(Wish *w, const Options *o)
{
    SamplerSettings *set = &w->set;
    const char *spacing = options_text(o, "spacing");
    if (set->image_to_image) TRY(options_real(&set->strength, o, "strength", 0, 1));
    TRY(options_int(&set->steps, o, "steps", 1, MAX_TIMESTEPS));
    TRY(options_real(&set->guidance, o, "guidance", 0, 1000));
    TRY(options_real(&set->eta, o, "eta", 0, 1));
    TRY(options_int(&w->seed, o, "seed", 0, 2147483647));
    w->own_spacing = spacing != NULL;
    if (spacing && !spacing_parse(&set->spacing, spacing))
        return FAIL(ERR_USAGE, "%s: --spacing is \"%s\", expected leading, trailing or linspace",
                    w->command, spacing);
    if (set->image_to_image && !schedule_strength_steps(set->steps, set->strength))
        return FAIL(ERR_USAGE,
                    "%s: --strength %g of --steps %d is no whole step, so that the film would "
                    "stay as it is",
                    w->command, set->strength, set->steps);
    return OK;
}

static Status read_size(Wish *w, const Options *o)
{
    bool square = options_has(o, "size"), wide = options_has(o, "width"),
         high = options_has(o, "height");
    if (square && (wide || high))
        return FAIL(ERR_USAGE, "%s: found --size and --width or --height, expected one of the two",
                    w->command);
    if (wide != high)
        return FAIL(ERR_USAGE, "%s: --%s is missing", w->command, wide ? "height" : "width");
    if (!square && !wide && !w->image)
        return FAIL(ERR_USAGE, "%s: --size is missing, or --width and --height", w->command);
    if (square) TRY(options_int(&w->w, o, "size", 1, IMAGE_MAX_SIDE));
    w->h = w->w;
    if (wide) TRY(options_int(&w->w, o, "width", 1, IMAGE_MAX_SIDE));
    if (high) TRY(options_int(&w->h, o, "height", 1, IMAGE_MAX_SIDE));
    return OK;
}

static Status read_wish(Wish *w, const Options *o, bool from_film)
{
    *w = (Wish){.command = o->usage->command, .set.image_to_image = from_film, .set.strength = 1};
    TRY(options_need(&w->model, o, "model"));
    if (from_film) TRY(options_need(&w->image, o, "image"));
    TRY(options_need(&w->prompt, o, "prompt"));
    TRY(options_need(&w->out, o, "out"));
    TRY(read_lora(w, options_text(o, "lora")));
    w->negative = options_text(o, "negative");
    w->device = options_text(o, "device");
    w->precision = options_text(o, "precision");
    w->noise = options_text(o, "noise");
    w->channels = options_has(o, "rgb") ? 3 : 1;
    TRY(read_sampling(w, o));
    TRY(read_size(w, o));
    return options_out(&w->out, o, "out", ".png", 3,
                       (const char *[]){w->image, w->lora, w->noise});
}

/* ---- the film to start from ------------------------------------------------------------------ */

/* im is empty where there is no film to start from. */
static Status choose_shape(FilmShape *shape, const Wish *w, const Ldm *m, const Image *im)
{
    int unit = ldm_scale(m), longer = im->h > im->w ? im->h : im->w;
    *shape = (FilmShape){w->h, w->w, w->channels};
    if (!w->w && im->h % unit == 0 && im->w % unit == 0) shape->h = im->h, shape->w = im->w;
    else if (!w->w) shape->h = shape->w = longer - longer % unit;
    if (shape->h > 0 && shape->h % unit == 0 && shape->w % unit == 0) return OK;
    if (w->w)
        return FAIL(ERR_USAGE, "%s: found %d x %d px, expected multiples of %d for the model in %s",
                    w->command, shape->w, shape->h, unit, w->model);
    return FAIL(ERR_USAGE, "%s: found %d x %d px, expected %d or more, or --size", w->image, im->w,
                im->h, unit);
}

static Status read_source(Image *source, const Wish *w)
{
    *source = (Image){0};
    if (!w->image) return OK;
    return w->channels == 3 ? image_read_colour(source, w->image) : image_read(source, w->image);
}

/* A film of that shape already stays as it is. */
static Status fit_source(Image *source, FilmShape shape)
{
    Image fitted;
    if (!source->pixel || (source->h == shape.h && source->w == shape.w)) return OK;
    TRY(image_fit_box(&fitted, source, shape.h, shape.w));
    image_free(source);
    *source = fitted;
    return OK;
}

/* ---- given noise --------------------------------------------------------------------- */

typedef struct {
    float *encode, *start, *steps; /* owned: [h,w,c], steps [n,h,w,c]; NULL where not given */
} Noise;

static void noise_free(Noise *n)
{
    free(n->encode);
    free(n->start);
    free(n->steps);
    *n = (Noise){0};
}

/* The tensor [n,c,h,w] of that name as [n,h,w,c], or NULL where the file has none. */
static Status read_noise(float **out, const SafeFile *f, const char *name, int64_t n, int64_t h,
                         int64_t w, int64_t c)
{
    const SafeTensor *t;
    *out = NULL;
    if (!st_find(f, name)) return OK;
    TRY(st_expect(&t, f, name, 4, (int64_t[]){n, c, h, w}));
    float *v = malloc(t->count * sizeof *v), *turned = malloc(t->count * sizeof *turned);
    Status s = v && turned ? st_read_f32(f, t, v) : FAIL(ERR_SPACE, "no memory for %s", f->path);
    for (size_t i = 0; !s && i < t->count; i++)
        if (!isfinite(v[i]))
            s = FAIL(ERR_INPUT, "%s: tensor \"%s\": element %zu is %f, expected a finite number",
                     f->path, name, i, (double)v[i]);
    for (int64_t i = 0; !s && i < n; i++)
        for (int64_t k = 0; k < c; k++)
            for (int64_t p = 0; p < h * w; p++)
                turned[(i * h * w + p) * c + k] = v[(i * c + k) * h * w + p];
    free(v);
    if (s) free(turned);
    else *out = turned;
    return s;
}

/* Whether the steps' noise is given; the rest of the file is looked at once their number is known. */
static Status see_step_noise(Wish *w)
{
    SafeFile f;
    if (!w->noise) return OK;
    TRY(st_open(&f, w->noise));
    w->set.noise_given = st_find(&f, "step_noise") != NULL;
    st_close(&f);
    return OK;
}

static Status read_noises(Noise *noise, const Wish *w, const Ldm *m, FilmShape shape, int steps)
{
    bool encodes = w->image && m->vae_config.is_kl;
    static const char *const known[] = {"noise", "step_noise", "encode_noise"};
    SafeFile f;
    Status s = OK;
    *noise = (Noise){0};
    if (!w->noise) return OK;
    TRY(st_open(&f, w->noise));
    int64_t h = shape.h / ldm_scale(m), wide = shape.w / ldm_scale(m);
    int64_t c = m->unet_config.in_channels;
    if (!f.n)
        s = FAIL(ERR_INPUT, "%s: found no tensors, expected noise or step_noise%s", w->noise,
                 encodes ? " or encode_noise" : "");
    else if (w->set.eta <= 0 && st_find(&f, known[1]))
        s = FAIL(ERR_INPUT, "%s: tensor \"%s\": found with --eta 0, expected --eta above 0",
                 w->noise, known[1]);
    for (int i = 0; i < f.n && !s; i++) {
        bool used = false;
        for (int k = 0; k < 2 + encodes; k++) used |= !strcmp(f.tensor[i].name, known[k]);
        if (!used)
            s = FAIL(ERR_INPUT, "%s: tensor \"%.80s\": found no use for it, expected noise or "
                                "step_noise%s",
                     w->noise, f.tensor[i].name, encodes ? " or encode_noise" : "");
    }
    if (!s) s = read_noise(&noise->start, &f, known[0], 1, h, wide, c);
    if (!s) s = read_noise(&noise->steps, &f, known[1], steps, h, wide, c);
    if (!s) s = read_noise(&noise->encode, &f, known[2], 1, h, wide, c);
    st_close(&f);
    if (s) noise_free(noise);
    return s;
}

/* ---- making it ----------------------------------------------------------------------- */

/* What a film's size needs too much of. */
static Status size_advice(Status s, FilmShape shape)
{
    char message[768];
    if (s != ERR_SPACE) return s;
    snprintf(message, sizeof message, "%s", status_message());
    return FAIL(s, "%s; %d x %d px are too many, expected a smaller --size", message, shape.w,
                shape.h);
}

static Status write_film(const Wish *w, const float *film, FilmShape shape)
{
    char source[HASH_TEXT], noise[HASH_TEXT], weights[HASH_TEXT], lora[HASH_TEXT + 32];
    if (w->image) TRY(hash_file(source, w->image));
    if (w->noise) TRY(hash_file(noise, w->noise));
    TRY(weights_hash(weights, w->model));
    if (w->lora) {
        TRY(hash_file(lora, w->lora));
        snprintf(lora + strlen(lora), 32, ":%g", w->use.lora_scale);
    }
    FilmNote note = {.prompt = w->prompt,
                     .negative = w->negative,
                     .source_sha = w->image ? source : NULL,
                     .noise_sha = w->noise ? noise : NULL,
                     .weights_sha = weights,
                     .lora = w->lora ? lora : NULL,
                     .seed = (uint32_t)w->seed,
                     .set = w->set};
    return film_note_write(w->out, film, shape, &note);
}

static Status check_prompts(const Wish *w, const Ldm *m, Log *log)
{
    const char *prompt[] = {w->prompt, w->set.guidance > 1 ? w->negative : NULL};
    return ldm_check_prompts(m, prompt, 2, log);
}

static Status make_film(Wish *w, Log *log)
{
    Device *d = NULL;
    Ldm m = {0};
    Sampler *sampler = NULL;
    Image source = {0};
    Noise noise = {0};
    FilmShape shape;
    float *film = NULL;
    Status s;
    TRY_OR(done, s, read_source(&source, w));
    TRY_OR(done, s, device_open(&d, w->device, w->precision, 0, log));
    w->use.log = log;
    TRY_OR(done, s, ldm_open(&m, d, w->model, w->use));
    TRY_OR(done, s, check_prompts(w, &m, log));
    TRY_OR(done, s, choose_shape(&shape, w, &m, &source));
    TRY_OR(done, s, fit_source(&source, shape));
    if (!w->own_spacing) w->set.spacing = m.schedule.spacing;
    TRY_OR(done, s, see_step_noise(w));
    TRY_OR(done, s,
           size_advice(sampler_open(&sampler, &m, shape, 1, w->set, (uint32_t)w->seed), shape));
    TRY_OR(done, s, read_noises(&noise, w, &m, shape, sampler_steps(sampler)));
    film = malloc((size_t)shape.h * (size_t)shape.w * (size_t)shape.channels * sizeof *film);
    if (!film) TRY_OR(done, s, size_advice(FAIL(ERR_SPACE, "no memory for a film"), shape));
    SampleRequest request = {.prompt = w->prompt,
                             .negative = w->negative,
                             .source = source.pixel,
                             .noise = noise.start,
                             .step_noise = noise.steps,
                             .encode_noise = noise.encode};
    TRY_OR(done, s, size_advice(sampler_run(sampler, &request, 1, film), shape));
    TRY_OR(done, s, write_film(w, film, shape));
done:
    sampler_close(sampler);
    ldm_close(&m);
    device_close(d);
    image_free(&source);
    noise_free(&noise);
    free(film);
    return s;
}

Status make_film_command(App *app, int argc, char **argv, bool from_film)
{
    Options o;
    Wish w = {0};
    TRY(options_parse(&o, &usage[from_film], argc, argv));
    if (o.helped) return OK;
    Status s = read_wish(&w, &o, from_film);
    if (!s) s = make_film(&w, app->log);
    free(w.lora);
    return s;
}
