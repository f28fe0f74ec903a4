/* ldm_save.c - writes a latent diffusion model as a folder that diffusers' loaders know.
 *
 * Weights of UNet and text encoder are written; all else is copied from the folder the model came
 * from, with two changes: a tiny vae/config.json gets the latents' statistics, and the scheduler's
 * prediction_type is the one trained with.
 */
#include "base/folder.h"
#include "models/ldm.h"
#include "weights/json_text.h"
#include "weights/model_folder.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_JSON = 1 << 20 };
static const char UNET_FILE[] = "unet/diffusion_pytorch_model.safetensors";
static const char TEXT_FILE[] = "text_encoder/model.safetensors";

/* In whatever form UNet and text encoder were read, they are written anew. */
static bool is_rewritten(const char *name)
{
    return (!strncmp(name, "unet/", 5) || !strncmp(name, "text_encoder/", 13)) &&
           model_is_weights(name);
}

/* Everything below `from` but the weights that are written anew, and what is unfinished (`to` may
 * lie in it). */
static Status copy_tree(const char *from, const char *to, const char *below)
{
    DirList list;
    char *here = path_join(from, below);
    Status s = dir_list(&list, here);
    free(here);
    if (s) return s;
    for (int i = 0; i < list.n && !s; i++) {
        if (file_is_temp(list.name[i])) continue;
        char *name = *below ? path_join(below, list.name[i]) : strdup(list.name[i]);
        char *source = path_join(from, name), *target = path_join(to, name);
        if (dir_exists(source)) s = copy_tree(from, to, name);
        else if (!is_rewritten(name)) s = file_copy(source, target);
        free(source);
        free(target);
        free(name);
    }
    dir_list_free(&list);
    return s;
}

static json_t *number_list(const float *v, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_real(v[i]));
    return list;
}

static Status edit_json(const char *folder, const char *name, void (*edit)(json_t *j, const Ldm *m),
                        const Ldm *m)
{
    json_t *j;
    char *path = path_join(folder, name), *text = NULL;
    Status s = json_file_object(&j, path, MAX_JSON, 8);
    if (!s) {
        edit(j, m);
        text = json_text_dump(j, JSON_INDENT(2) | JSON_SORT_KEYS);
        s = file_write(path, text, strlen(text));
        free(text);
        json_decref(j);
    }
    free(path);
    return s;
}

static void edit_vae(json_t *j, const Ldm *m)
{
    const AutoencoderConfig *a = &m->vae_config;
    json_object_set_new(j, "latents_mean", number_list(a->mean, a->latent_channels));
    json_object_set_new(j, "latents_std", number_list(a->std, a->latent_channels));
}

static void edit_scheduler(json_t *j, const Ldm *m)
{
    json_object_set_new(j, "prediction_type",
                        json_string(prediction_name(m->schedule.prediction)));
}

static Status write_all(const Ldm *m, const char *folder, const float *unet, const float *text)
{
    char *unet_file = path_join(folder, UNET_FILE), *text_file = path_join(folder, TEXT_FILE);
    Status s = OK;
    TRY_OR(done, s, dir_make(folder));
    TRY_OR(done, s, copy_tree(m->folder, folder, ""));
    if (m->vae_config.standardised && !m->vae_config.is_kl)
        TRY_OR(done, s, edit_json(folder, "vae/config.json", edit_vae, m));
    TRY_OR(done, s, edit_json(folder, "scheduler/scheduler_config.json", edit_scheduler, m));
    TRY_OR(done, s,
           params_save(&m->unet, unet, unet_file, SAVE_F32, 1, &(SafeMeta){"format", "pt"}));
    TRY_OR(done, s,
           params_save(&m->text, text, text_file, SAVE_F32, 1, &(SafeMeta){"format", "pt"}));
done:
    free(unet_file);
    free(text_file);
    return s;
}

Status ldm_save(const Ldm *m, const char *folder, const float *unet, const float *text)
{
    if (dir_exists(folder))
        return FAIL(ERR_INPUT, "%s: is there already, expected a new folder", folder);
    char *temp = folder_begin(folder);
    return folder_end(write_all(m, temp, unet, text), temp, folder);
}
