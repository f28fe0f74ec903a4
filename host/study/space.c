/* space.c - what a run will write, in bytes; see space.h. */
#include "study/space.h"
#include "base/file.h"
#include "base/text.h"
#include "models/ldm.h"
#include "train/classifier.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096, CHECKPOINTS = 3, FLOAT = sizeof(float) };

typedef struct {
    double films, models, checkpoints, latents; /* bytes; the last two not all at once */
} Plan;

static double film_bytes(const Config *c)
{
    double pixels = (double)c->data.size * c->data.size;
    return ceil(.7 * pixels / BLOCK) * BLOCK;
}

int synthetic_expected(const Config *c, int normal, int diseased)
{
    const DataSettings *d = &c->data;
    if (c->synthesis.count) return c->synthesis.count;
    bool both = !strcmp(c->classifier.synthetic_in, "train+val");
    if (d->train_ratio > 0) diseased = (int)fmin(diseased, normal / d->train_ratio);
    double lack = (d->train_share + (both ? d->val_share : 0)) * (normal - diseased);
    return lack > 0 ? (int)lack : 0;
}

static void add_amount(Text *t, const char *what, double bytes)
{
    double mib = bytes / 1048576;
    text_add(t, "%s%.1f %s", what, mib < 1024 ? mib : mib / 1024, mib < 1024 ? "MiB" : "GiB");
}

static Status check(const char *folder, const Plan *p)
{
    uint64_t free_bytes;
    double need = p->films + p->models + p->checkpoints + p->latents;
    TRY(disk_free(&free_bytes, folder));
    if ((double)free_bytes >= need) return OK;
    Text t = {0};
    add_amount(&t, "found ", (double)free_bytes);
    add_amount(&t, " free on its disk, expected ", need);
    add_amount(&t, " for what will be written: films ", p->films);
    if (p->models > 0) {
        add_amount(&t, ", models ", p->models);
        add_amount(&t, ", checkpoints ", p->checkpoints);
        add_amount(&t, ", latents ", p->latents);
    }
    Status s = FAIL(ERR_SPACE, "%s: %s", folder, t.s);
    free(t.s);
    return s;
}

Status space_for_films(const char *folder, const Config *c, int prepared, int synthetic)
{
    return check(folder, &(Plan){.films = film_bytes(c) * ((double)prepared + synthetic)});
}

Status space_for_study(const char *folder, const Config *c, const FilmCounts *n)
{
    LdmSize ldm;
    size_t classifier;
    double made = 0, most = 0;
    TRY(ldm_size(&ldm, c->ldm.base, c->data.size, c->ldm.lora_rank));
    TRY(classifier_size(&classifier, c));
    for (int i = 0; i < 2; i++) {
        made += synthetic_expected(c, n->normal, n->disease[i]);
        most = fmax(most, n->disease[i] + (c->ldm.prior_share > 0 ? n->normal : 0));
    }
    double tuned = (double)(ldm.lora ? ldm.lora : ldm.unet) +
                   (c->ldm.train_text_encoder ? (double)ldm.text : 0);
    /* values, two moments, average; values, the best ones, momentum or two moments */
    double ldm_state = tuned * (c->ldm.ema_decay > 0 ? 4 : 3);
    double classifier_state =
        (double)classifier * (strcmp(c->classifier.optimizer, "adamw") ? 3 : 4);
    double latents = most * (double)ldm.latent;
    Plan p = {.films = film_bytes(c) * (n->all + made),
              .models = FLOAT * (2 * ((double)ldm.unet + (double)ldm.text + (double)ldm.vae) +
                                 4. * c->study.repeats * (double)classifier)};
    if (CHECKPOINTS * ldm_state + latents > CHECKPOINTS * classifier_state) {
        p.checkpoints = FLOAT * CHECKPOINTS * ldm_state;
        p.latents = FLOAT * latents;
    } else {
        p.checkpoints = FLOAT * CHECKPOINTS * classifier_state;
    }
    return check(folder, &p);
}
