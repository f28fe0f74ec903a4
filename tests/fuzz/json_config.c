/* json_config.c - fuzzed: the JSON files that describe a model.
 * First byte of an input: which reader; the rest the file. */
#include "base/file.h"
#include "fuzz/fuzz.h"
#include "models/autoencoder_kl.h"
#include "models/autoencoder_tiny.h"
#include "models/clip_text.h"
#include "models/diffusion.h"
#include "models/inception_v3.h"
#include "models/unet.h"
#include "weights/model_folder.h"
#include <stdio.h>
#include <string.h>

const char fuzz_name[] = "json_config";

typedef enum { UNET, TEXT, TINY, KL, INCEPTION, SCHEDULE, INDEX, N_KINDS } File;
static const char *const name[N_KINDS] = {
    "unet/config.json", "text/config.json",      "tiny/config.json",
    "kl/config.json",   "inception/config.json", "scheduler/scheduler_config.json",
    "model_index.json"};
static char root[64], file[N_KINDS][128];

static void add_text(File kind, const char *text)
{
    unsigned char all[4096] = {(unsigned char)kind};
    CHECK(strlen(text) + 1 < sizeof all);
    memcpy(all + 1, text, strlen(text));
    fuzz_add(all, strlen(text) + 1);
}

void fuzz_seeds(const char *folder)
{
    snprintf(root, sizeof root, "%s", folder);
    for (int k = 0; k < N_KINDS; k++) {
        char *path = path_join(folder, name[k]);
        snprintf(file[k], sizeof file[k], "%s", path);
        *strrchr(path, '/') = 0;
        CHECK(!dir_make(path));
        snprintf(path + strlen(path), 12, "/x");
        free(path);
        if (k != TINY && k != INCEPTION) continue;
        char weights[192]; /* readers that find their weights first */
        snprintf(weights, sizeof weights, "%.*s/model.safetensors",
                 (int)(strrchr(file[k], '/') - file[k]), file[k]);
        fuzz_put(weights, "\2\0\0\0\0\0\0\0{}", 10);
    }
    fuzz_add_file(SOURCE_DIR "/configs/models/tiny/unet/config.json", UNET);
    fuzz_add_file(SOURCE_DIR "/samples/base/unet/config.json", UNET);
    fuzz_add_file(SOURCE_DIR "/configs/models/tiny/text_encoder/config.json", TEXT);
    fuzz_add_file(SOURCE_DIR "/configs/models/tiny/vae/config.json", TINY);
    fuzz_add_file(SOURCE_DIR "/configs/models/tiny/scheduler/scheduler_config.json", SCHEDULE);
    fuzz_add_file(SOURCE_DIR "/configs/models/tiny/model_index.json", INDEX);
    add_text(KL,
             "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [8, 16], "
             "\"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\"], "
             "\"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\"], "
             "\"norm_num_groups\": 4, \"scaling_factor\": 0.18215, \"latents_mean\": [0, 0, 0, 1], "
             "\"latents_std\": [1, 1, 2, 1], \"shift_factor\": null, \"layers_per_block\": 2}");
    add_text(INCEPTION,
             "{\"num_classes\": 2, \"width\": 0.5, \"aux_logits\": true, \"dropout\": 0.5, "
             "\"transform_input\": false}");
    add_text(SCHEDULE, "{\"beta_start\": 0.00085, \"beta_end\": 0.012, \"beta_schedule\": "
                       "\"scaled_linear\", \"num_train_timesteps\": 1000, \"steps_offset\": 1, "
                       "\"set_alpha_to_one\": false, \"prediction_type\": \"v_prediction\", "
                       "\"timestep_spacing\": \"trailing\", \"trained_betas\": [0.1, 0.2, 0.3]}");
}

void fuzz_repair(unsigned char *data, size_t size)
{
    if (size) data[0] = (unsigned char)(data[0] % N_KINDS);
}

Status fuzz_one(const unsigned char *data, size_t size)
{
    union {
        UnetConfig unet;
        ClipTextConfig text;
        TinyConfig tiny;
        KlConfig kl;
        InceptionConfig inception;
    } c;
    NoiseSchedule schedule = {0};
    char path[128];
    if (!size) return OK;
    File kind = data[0] % N_KINDS;
    fuzz_put(file[kind], data + 1, size - 1);
    snprintf(path, sizeof path, "%s", file[kind]);
    switch (kind) {
    case UNET:
        return unet_config_read(&c.unet, path);
    case TEXT:
        return clip_text_config_read(&c.text, path);
    case KL:
        return kl_config_read(&c.kl, path);
    case SCHEDULE:
        return schedule_read(&schedule, root);
    case INDEX:
        return model_folder_check(root, true);
    default: /* by folder */
        *strrchr(path, '/') = 0;
        return kind == TINY ? tiny_config_read(&c.tiny, path)
                            : inception_config_read(&c.inception, path);
    }
}
