/* model_folder.c - finds files, and says what lies there instead. */
#include "weights/model_folder.h"
#include "base/file.h"
#include <stdlib.h>
#include <string.h>

typedef enum {
    PART_UNET,
    PART_VAE,
    PART_TEXT_ENCODER,
    PART_TOKENIZER,
    PART_SCHEDULER,
    N_PARTS
} ModelPart;

static const struct {
    const char *folder, *config;
    bool weights;
} layout[N_PARTS] = {
    [PART_UNET] = {"unet", "config.json", true},
    [PART_VAE] = {"vae", "config.json", true},
    [PART_TEXT_ENCODER] = {"text_encoder", "config.json", true},
    [PART_TOKENIZER] = {"tokenizer", NULL, false},
    [PART_SCHEDULER] = {"scheduler", "scheduler_config.json", false},
};

/* What weights are called, the most wanted first: whole before shards, full precision before
 * half. */
static const char *const stem[] = {"diffusion_pytorch_model", "model"};
static const char *const tail[] = {".safetensors", ".safetensors.index.json", ".fp16.safetensors",
                                   ".fp16.safetensors.index.json", ".safetensors.index.fp16.json"};
enum { N_STEMS = sizeof stem / sizeof *stem, N_TAILS = sizeof tail / sizeof *tail };

/* ---- finding --------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* What a folder without the weights that we look for holds instead, or NULL. */
static const char *instead(const char *name)
{
    if (ends_with(name, ".safetensors.index.json")) return "another index of shards (rename it)";
    if (ends_with(name, ".safetensors")) return "another safetensors file (rename it)";
    if (ends_with(name, ".bin") || ends_with(name, ".pt") || ends_with(name, ".pth") ||
        ends_with(name, ".ckpt"))
        return "pickled weights (convert them to safetensors)";
    return NULL;
}

static Status no_weights(const char *folder)
{
    static const char expected[] = "diffusion_pytorch_model.safetensors or model.safetensors, or "
                                   "their .safetensors.index.json or .fp16.safetensors";
    DirList l;
    Status s = OK;
    TRY(dir_list(&l, folder));
    for (int i = 0; i < l.n && !s; i++) {
        const char *what = instead(l.name[i]);
        if (what)
            s = FAIL(ERR_INPUT, "%s: found %s, %s, expected %s", folder, l.name[i], what, expected);
    }
    dir_list_free(&l);
    return s ? s : FAIL(ERR_INPUT, "%s: found no weights, expected %s", folder, expected);
}

Status model_weights(char **weights, const char *folder)
{
    for (int t = 0; t < N_TAILS; t++)
        for (int k = 0; k < N_STEMS; k++) {
            char name[64];
            snprintf(name, sizeof name, "%s%s", stem[k], tail[t]);
            *weights = path_join(folder, name);
            if (file_exists(*weights)) return OK;
            free(*weights);
        }
    *weights = NULL;
    return no_weights(folder);
}

bool model_is_weights(const char *name)
{
    return ends_with(name, ".safetensors") || st_is_index(name) || ends_with(name, ".bin") ||
           ends_with(name, ".bin.index.json") || ends_with(name, ".ckpt") ||
           ends_with(name, ".pt") || ends_with(name, ".pth") || ends_with(name, ".msgpack") ||
           ends_with(name, ".h5");
}

static Status need_file(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    Status s = OK;
    if (!file_exists(path))
        s = FAIL(ERR_INPUT, "%s: found no such file, expected it in this kind of folder", path);
    else if (dir_exists(path)) s = FAIL(ERR_INPUT, "%s: is a directory, expected a file", path);
    free(path);
    return s;
}

static Status check_part(const char *root, ModelPart part, bool weights_too)
{
    char *folder = path_join(root, layout[part].folder), *weights = NULL;
    Status s = OK;
    if (!dir_exists(folder)) {
        s = FAIL(
            ERR_INPUT,
            "%s: found no such folder, expected diffusers' unet, vae, text_encoder, tokenizer and "
            "scheduler in %s",
            folder, root);
        goto done;
    }
    if (layout[part].config) TRY_OR(done, s, need_file(folder, layout[part].config));
    if (part == PART_TOKENIZER && need_file(folder, "tokenizer.json"))
        TRY_OR(done, s, need_file(folder, "merges.txt"));
    if (layout[part].weights && weights_too) s = model_weights(&weights, folder);
done:
    free(folder);
    free(weights);
    return s;
}

/* A part's entry is [library, class]; parts that we do not use may be anything. */
static Status check_class(const JsonConfig *index, const char *key, const char *const *known, int n)
{
    const json_t *pair = json_object_get(index->value, key);
    const char *class = json_string_value(json_array_get(pair, 1));
    for (int i = 0; class && i < n; i++)
        if (!strcmp(class, known[i])) return OK;
    return FAIL(ERR_INPUT, "%s: %s: found %.80s, expected %s%s%s", index->path, key,
                class ? class : "no class", known[0], n > 1 ? " or " : "", n > 1 ? known[1] : "");
}

/* The autoencoder is the one of its own config.json; diffusers goes by the index. */
static Status check_autoencoder(const char *root, const JsonConfig *index)
{
    static const char *const known[] = {"AutoencoderKL", "AutoencoderTiny"};
    TRY(check_class(index, "vae", known, 2));
    char *path = path_join(root, "vae/config.json");
    JsonConfig own = {0};
    Status s = file_exists(path) ? json_config_open(&own, path) : OK;
    const char *class = json_string_value(json_object_get(own.value, "_class_name")),
               *entry = json_string_value(json_array_get(json_object_get(index->value, "vae"), 1));
    bool ours = class && (!strcmp(class, known[0]) || !strcmp(class, known[1]));
    if (!s && ours && strcmp(class, entry)) /* of another one its own reader tells */
        s = FAIL(ERR_INPUT, "%s: vae: found %s, expected %s as in %s", index->path, entry, class,
                 path);
    json_config_close(&own);
    free(path);
    return s;
}

/* Another part would change what the model does; [null, null] is none. */
static Status check_no_more(const JsonConfig *index)
{
    static const char *const known[] = {
        "unet", "vae", "text_encoder", "tokenizer", "scheduler",
        "feature_extractor", "image_encoder", "safety_checker", "requires_safety_checker"};
    const char *key;
    json_t *value;
    json_object_foreach(index->value, key, value) {
        bool fine = key[0] == '_' || json_is_null(value) ||
                    (json_array_size(value) && json_is_null(json_array_get(value, 1)));
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) fine |= !strcmp(key, known[i]);
        if (!fine)
            return FAIL(ERR_INPUT,
                        "%s: %.80s: found an entry that Stable Diffusion 1 and 2 do not have, "
                        "expected none",
                        index->path, key);
    }
    return OK;
}

static Status check_pipeline(JsonConfig *index)
{
    static const char *const pipeline[] = {"StableDiffusionPipeline",
                                           "StableDiffusionImg2ImgPipeline"};
    int which;
    TRY(json_config_need(index, "_class_name"));
    return json_config_choice(&which, index, "_class_name", pipeline, 2);
}

static Status check_index(const char *root)
{
    static const char *const unet[] = {"UNet2DConditionModel"}, *const text[] = {"CLIPTextModel"};
    static const char *const tokenizer[] = {"CLIPTokenizer", "CLIPTokenizerFast"};
    JsonConfig index;
    Status s;
    char *path = path_join(root, "model_index.json");
    if (!file_exists(path)) {
        free(path);
        return OK;
    }
    TRY_OR(done, s, json_config_open(&index, path));
    TRY_OR(close, s, check_pipeline(&index));
    TRY_OR(close, s, check_class(&index, "unet", unet, 1));
    TRY_OR(close, s, check_autoencoder(root, &index));
    TRY_OR(close, s, check_class(&index, "text_encoder", text, 1));
    TRY_OR(close, s, check_class(&index, "tokenizer", tokenizer, 2));
    TRY_OR(close, s, check_no_more(&index));
close:
    json_config_close(&index);
done:
    free(path);
    return s;
}

Status model_folder_check(const char *root, bool trained)
{
    if (!dir_exists(root))
        return FAIL(ERR_INPUT, "%s: found no such folder, expected a model", root);
    TRY(check_index(root));
    for (int part = 0; part < N_PARTS; part++)
        TRY(check_part(root, (ModelPart)part, trained || part == PART_VAE));
    return OK;
}

static Status need_config(const char *folder)
{
    char *pipeline = path_join(folder, "model_index.json");
    Status s = OK;
    if (file_exists(pipeline))
        s = FAIL(ERR_INPUT,
                 "%s: found a whole pipeline, expected the folder of one model in it, as %s/unet",
                 folder, folder);
    free(pipeline);
    return s ? s : need_file(folder, "config.json");
}

Status model_find(char **config, char **weights, const char *path)
{
    *config = *weights = NULL;
    if (!file_exists(path))
        return FAIL(ERR_INPUT, "%s: found no such file or folder, expected weights", path);
    if (!dir_exists(path)) {
        *weights = path_join("", path);
        return OK;
    }
    TRY(need_config(path));
    TRY(model_weights(weights, path));
    *config = path_join(path, "config.json");
    return OK;
}

Status model_source_open(ModelSource *m, const char *path)
{
    *m = (ModelSource){0};
    if (!dir_exists(path)) return st_open(&m->file, path);
    TRY(need_config(path));
    char *config = path_join(path, "config.json");
    Status s = json_config_open(&m->json, config);
    free(config);
    return s;
}

void model_source_close(ModelSource *m)
{
    json_config_close(&m->json);
    st_close(&m->file);
}
