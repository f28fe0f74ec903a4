/* cmd_img2img.c - equipoise img2img: one film from another and a prompt. */
#include "app/commands.h"
#include "app/options.h"
#include "data/image.h"
#include "sample/synthesis.h"
#include <stdlib.h>
#include <string.h>

static const Option option[] = {
    {"model", "DIR", "folder of the diffusion model", NULL},
    {"image", "FILE", "the film to start from, PNG or JPEG", NULL},
    {"prompt", "TEXT", "what to show", NULL},
    {"negative", "TEXT", "what to lead away from", ""},
    {"strength", "S", "0 keeps the film, 1 ignores it", "0.6"},
    {"steps", "N", "of the sampler from pure noise", "25"},
    {"guidance", "G", "weight of the prompt; 1 = none beyond the model's", "4"},
    {"eta", "E", "fresh noise per step; 0 = DDIM, 1 = DDPM", "0"},
    {"spacing", "WAY", "of the sampler's steps: leading, trailing or linspace", "leading"},
    {"seed", "K", "of the noise", "0"},
    {"size", "PX",
     "side of the square film made; 0 = of the film's longer side, rounded down to what the model "
     "takes",
     "0"},
    {"device", "D", "auto, cpu or cuda", "auto"},
    {"out", "FILE", "the PNG to write", NULL},
    {"force", NULL, "write over FILE if it is there", NULL},
};
static const Usage usage = {
    .command = "img2img",
    .help = "Makes one synthetic film from a film and a prompt. The PNG says in its metadata that "
            "it is synthetic.",
    .option = option,
    .n_option = sizeof option / sizeof *option,
};

typedef struct {
    const char *model, *image, *prompt, *negative, *out, *device;
    SamplerSettings sampler;
    int seed, size;
} Wish;

static Status read_wish(Wish *w, const Options *o)
{
    TRY(options_need(&w->model, o, "model"));
    TRY(options_need(&w->image, o, "image"));
    TRY(options_need(&w->prompt, o, "prompt"));
    TRY(options_need(&w->out, o, "out"));
    w->negative = options_text(o, "negative");
    w->device = options_text(o, "device");
    w->sampler.image_to_image = true;
    TRY(options_real(&w->sampler.strength, o, "strength", 0, 1));
    TRY(options_int(&w->sampler.steps, o, "steps", 1, 1000));
    TRY(options_real(&w->sampler.guidance, o, "guidance", 1, 100));
    TRY(options_real(&w->sampler.eta, o, "eta", 0, 1));
    TRY(options_int(&w->seed, o, "seed", 0, 2147483647));
    TRY(options_int(&w->size, o, "size", 0, 4096));
    if (!spacing_parse(&w->sampler.spacing, options_text(o, "spacing")))
        return FAIL(ERR_USAGE,
                    "img2img: --spacing is \"%s\", expected leading, trailing or linspace",
                    options_text(o, "spacing"));
    if ((int)(w->sampler.steps * w->sampler.strength) < 1)
        return FAIL(ERR_USAGE,
                    "img2img: --strength %g of --steps %d is no whole step, so that the film would "
                    "stay as it is",
                    w->sampler.strength, w->sampler.steps);
    if (file_exists(w->out) && !options_has(o, "force"))
        return FAIL(ERR_USAGE, "%s: is there, expected a new file, or --force", w->out);
    return OK;
}

static Status choose_size(int *size, const Ldm *m, const Wish *w, const Image *im)
{
    int step = ldm_size_step(m);
    int longer = im->h > im->w ? im->h : im->w;
    *size = w->size ? w->size : longer - longer % step;
    if (*size > 0 && *size % step == 0) return OK;
    return FAIL(ERR_USAGE, "%s: --size %d of a film of %d x %d px, expected a multiple of %d",
                w->image, *size, im->w, im->h, step);
}

static Status write_film(const Wish *w, const float *pixel, int size)
{
    char strength[32], guidance[32], steps[16], eta[32], seed[16];
    snprintf(strength, sizeof strength, "%g", w->sampler.strength);
    snprintf(guidance, sizeof guidance, "%g", w->sampler.guidance);
    snprintf(steps, sizeof steps, "%d", w->sampler.steps);
    snprintf(eta, sizeof eta, "%g", w->sampler.eta);
    snprintf(seed, sizeof seed, "%d", w->seed);
    ImageText text[] = {
        {"Synthetic", "yes: made by a latent diffusion model, not a film of a patient"},
        {"Software", "Equipoise " EQ_VERSION},
        {"Prompt", (char *)(uintptr_t)w->prompt},
        {"NegativePrompt", (char *)(uintptr_t)w->negative},
        {"Strength", strength},
        {"Guidance", guidance},
        {"Steps", steps},
        {"Eta", eta},
        {"Seed", seed},
    };
    return image_write_png(w->out, pixel, size, size, text, sizeof text / sizeof *text);
}

static Status make_film(const Wish *w, Log *log)
{
    Device *d = NULL;
    Ldm m = {0};
    Sampler *sampler = NULL;
    Image im = {0}, source = {0};
    float *film = NULL;
    int size;
    Status s;
    TRY_OR(done, s, image_read(&im, w->image));
    TRY_OR(done, s, device_open(&d, w->device, 0, log));
    TRY_OR(done, s, ldm_open(&m, d, w->model, (LdmUse){0}));
    TRY_OR(done, s, choose_size(&size, &m, w, &im));
    TRY_OR(done, s, image_fit(&source, &im, size));
    film = malloc((size_t)size * (size_t)size * sizeof *film);
    CHECK(film);
    TRY_OR(done, s, sampler_open(&sampler, &m, film_square(size), 1, w->sampler,
                                  (uint32_t)w->seed));
    SampleRequest request = {.prompt = w->prompt, .negative = w->negative, .source = source.pixel};
    TRY_OR(done, s, sampler_run(sampler, &request, 1, film));
    TRY_OR(done, s, write_film(w, film, size));
done:
    sampler_close(sampler);
    ldm_close(&m);
    device_close(d);
    image_free(&im);
    image_free(&source);
    free(film);
    return s;
}

Status cmd_img2img(App *app, int argc, char **argv)
{
    Options o;
    Wish w = {0};
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(read_wish(&w, &o));
    return make_film(&w, app->log);
}
