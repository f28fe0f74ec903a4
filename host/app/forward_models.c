/* forward_models.c - the models that equipoise forward runs: their inputs and outputs, how they are
 * recorded, and what their files call the parameters. */
#include "app/forward.h"
#include "models/autoencoder_kl.h"
#include "models/autoencoder_tiny.h"
#include "models/clip_text.h"
#include "models/inception_v3.h"
#include "models/unet.h"
#include <stdlib.h>
#include <string.h>

static Status need_folder(const Forward *f)
{
    if (f->config_file) return OK;
    return FAIL(ERR_INPUT,
                "%s: found a single file, expected a folder with config.json: a file's shapes do "
                "not say all",
                f->weights);
}

static Status build_unet(Forward *f)
{
    UnetConfig c;
    TRY(need_folder(f));
    TRY(unet_config_read(&c, f->config_file));
    f->output[0] = unet(f->graph, &f->params, &c, f->input[0], f->input[1], f->input[2], false);
    return OK;
}

static Status build_text(Forward *f)
{
    ClipTextConfig c;
    TRY(need_folder(f));
    TRY(clip_text_config_read(&c, f->config_file));
    f->vocab = c.vocab_size;
    f->output[0] = clip_text(f->graph, &f->params, &c, f->input[0]);
    return OK;
}
static Status names_text(Forward *f) { return clip_text_names(&f->how, f->weights_file); }

static Status build_encode(Forward *f)
{
    TinyConfig c;
    TRY(tiny_config_read(&c, f->weights));
    f->output[0] = autoencoder_tiny_encode(f->graph, &f->params, &c, f->input[0]);
    return OK;
}

static Status build_decode(Forward *f)
{
    TinyConfig c;
    TRY(tiny_config_read(&c, f->weights));
    f->output[0] = autoencoder_tiny_decode(f->graph, &f->params, &c, f->input[0]);
    return OK;
}
static Status names_tiny(Forward *f) { return tiny_names(&f->how, &f->params, f->weights_file); }

static Status build_kl_encode(Forward *f)
{
    KlConfig c;
    TRY(need_folder(f));
    TRY(kl_config_read(&c, f->config_file));
    KlMoments m = autoencoder_kl_encode(f->graph, &f->params, &c, f->input[0], false);
    f->output[0] = m.mean;
    f->output[1] = m.logvar;
    f->how.skip = KL_DECODER;
    return OK;
}

static Status build_kl_decode(Forward *f)
{
    KlConfig c;
    TRY(need_folder(f));
    TRY(kl_config_read(&c, f->config_file));
    f->output[0] = autoencoder_kl_decode(f->graph, &f->params, &c, f->input[0], false);
    f->how.skip = KL_ENCODER;
    return OK;
}

/* The auxiliary head takes part in training only, and only where the image is large enough. */
static Status build_inception(Forward *f)
{
    InceptionConfig c;
    const Tensor *x = f->input[0];
    TRY(inception_config_read(&c, f->weights));
    c.aux = c.aux && f->train && x->dim[1] >= INCEPTION_LEAST_AUX_PX &&
            x->dim[2] >= INCEPTION_LEAST_AUX_PX;
    InceptionOut out = inception_v3(f->graph, &f->params, &c, f->input[0], NULL, f->train);
    f->output[0] = out.logits;
    f->output[1] = out.aux_logits;
    return OK;
}
static Status names_inception(Forward *f)
{
    f->how.skip = f->output[1] ? NULL : "AuxLogits.";
    return inception_check_head(f->weights_file);
}

static const ForwardModel model[] = {
    {"unet",
     {{"sample", PORT_IMAGE, 4},
      {"timestep", PORT_TIME, 1},
      {"encoder_hidden_states", PORT_ROWS, 3}},
     {{"sample", PORT_IMAGE, 4}},
     build_unet,
     NULL,
     false},
    {"vae-encode",
     {{"sample", PORT_IMAGE, 4}},
     {{"mean", PORT_IMAGE, 4}, {"logvar", PORT_IMAGE, 4}},
     build_kl_encode,
     NULL,
     false},
    {"vae-decode",
     {{"latent", PORT_IMAGE, 4}},
     {{"sample", PORT_IMAGE, 4}},
     build_kl_decode,
     NULL,
     false},
    {"taesd-encode",
     {{"sample", PORT_IMAGE, 4}},
     {{"latent", PORT_IMAGE, 4}},
     build_encode,
     names_tiny,
     false},
    {"taesd-decode",
     {{"latent", PORT_IMAGE, 4}},
     {{"sample", PORT_IMAGE, 4}},
     build_decode,
     names_tiny,
     false},
    {"text",
     {{"input_ids", PORT_IDS, 2}},
     {{"last_hidden_state", PORT_ROWS, 3}},
     build_text,
     names_text,
     false},
    {"inception",
     {{"image", PORT_IMAGE, 4}},
     {{"logits", PORT_ROWS, 2}, {"aux_logits", PORT_ROWS, 2}},
     build_inception,
     names_inception,
     true},
};
enum { N_MODEL = sizeof model / sizeof *model };

Status forward_find_model(const ForwardModel **m, const char *name)
{
    Text names = {0};
    for (int i = 0; i < N_MODEL; i++) {
        *m = &model[i];
        if (!strcmp(name, model[i].name)) {
            free(names.s);
            return OK;
        }
        text_add(&names, "%s%s", i ? ", " : "", model[i].name);
    }
    Status s = FAIL(ERR_USAGE, "forward: unknown model %s, expected one of %s", name, names.s);
    free(names.s);
    return s;
}
