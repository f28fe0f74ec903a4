/* film_note.c - text chunks of a synthetic film's PNG; what identifies weights. */
#include "sample/film_note.h"
#include "base/text.h"
#include "data/image.h"
#include "weights/model_folder.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXTS = 20, VALUE = 40 };

typedef struct {
    ImageText text[MAX_TEXTS];
    char number[MAX_TEXTS][VALUE];
    int n;
} Texts;

static void say(Texts *t, const char *key, const char *value)
{
    CHECK(t->n < MAX_TEXTS);
    t->text[t->n++] = (ImageText){(char *)(uintptr_t)key, (char *)(uintptr_t)value};
}

static void add_real(Texts *t, const char *key, double value)
{
    snprintf(t->number[t->n], VALUE, "%.17g", value);
    say(t, key, t->number[t->n]);
}

static void add_whole(Texts *t, const char *key, uint64_t value)
{
    snprintf(t->number[t->n], VALUE, "%" PRIu64, value);
    say(t, key, t->number[t->n]);
}

Status film_note_write(const char *path, const float *film, FilmShape shape, const FilmNote *note)
{
    const SamplerSettings *set = &note->set;
    Texts t = {0};
    say(&t, "Synthetic", "yes: made by a latent diffusion model, not a film of a patient");
    say(&t, "Software", "Equipoise " EQ_VERSION);
    if (note->label) say(&t, "Class", note->label);
    say(&t, "Prompt", note->prompt);
    say(&t, "NegativePrompt", note->negative ? note->negative : "");
    add_whole(&t, "Seed", note->seed);
    add_whole(&t, "SampleId", note->id);
    say(&t, "Mode", set->image_to_image ? "image-to-image" : "text-to-image");
    if (set->image_to_image) add_real(&t, "Strength", set->strength);
    add_real(&t, "Guidance", set->guidance);
    add_whole(&t, "Steps", (uint64_t)set->steps);
    add_real(&t, "Eta", set->eta);
    say(&t, "Spacing", spacing_name(set->spacing));
    if (note->noise_sha) say(&t, "NoiseSHA", note->noise_sha);
    say(&t, "SourceSHA", note->source_sha ? note->source_sha : "");
    say(&t, "WeightsSHA", note->weights_sha);
    if (note->lora) say(&t, "LoRA", note->lora);
    return shape.channels == 3
               ? image_write_colour_png(path, film, shape.h, shape.w, t.text, t.n)
               : image_write_png(path, film, shape.h, shape.w, t.text, t.n);
}

static Status add_hash(Text *all, const char *path)
{
    char sha[HASH_TEXT];
    TRY(hash_file(sha, path));
    text_add(all, "%s", sha);
    return OK;
}

/* The one file, or, where it is an index, every file of weights beside it. */
static Status add_folder(Text *all, const char *folder)
{
    char *weights;
    DirList list;
    TRY(model_weights(&weights, folder));
    size_t n = strlen(weights);
    if (n < 5 || strcmp(weights + n - 5, ".json")) {
        Status s = add_hash(all, weights);
        free(weights);
        return s;
    }
    free(weights);
    TRY(dir_list(&list, folder));
    Status s = OK;
    for (int i = 0; i < list.n && !s; i++) {
        if (!model_is_weights(list.name[i])) continue;
        char *path = path_join(folder, list.name[i]);
        s = add_hash(all, path);
        free(path);
    }
    dir_list_free(&list);
    return s;
}

Status weights_hash(char sha[HASH_TEXT], const char *model)
{
    static const char *const part[] = {"unet", "text_encoder"};
    Text all = {0};
    Status s = OK;
    for (int i = 0; i < 2 && !s; i++) {
        char *folder = path_join(model, part[i]);
        s = add_folder(&all, folder);
        free(folder);
    }
    if (!s) hash_bytes(sha, all.s, strlen(all.s));
    free(all.s);
    return s;
}
