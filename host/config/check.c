/* check.c - the rules that tie settings together. */
#include "config/config.h"
#include <math.h>
#include <string.h>

static Status check_data(const DataSettings *d)
{
    if (d->train_share + d->val_share >= 1)
        return FAIL(ERR_USAGE,
                    "data.train_share = %g and data.val_share = %g leave no patient for the test",
                    d->train_share, d->val_share);
    if (!*d->normal || !*d->disease_a || !*d->disease_b || !strcmp(d->normal, d->disease_a) ||
        !strcmp(d->normal, d->disease_b) || !strcmp(d->disease_a, d->disease_b))
        return FAIL(
            ERR_USAGE,
            "data.normal = \"%s\", data.disease_a = \"%s\" and data.disease_b = \"%s\" must "
            "be three different classes",
            d->normal, d->disease_a, d->disease_b);
    return OK;
}

/* auto, cpu, cuda or cuda:N */
static Status check_study(const StudySettings *s)
{
    const char *d = s->device, *digits = d + 5;
    bool numbered = !strncmp(d, "cuda:", 5) && *digits && strlen(digits) < 4 &&
                    strspn(digits, "0123456789") == strlen(digits);
    if (numbered || !strcmp(d, "auto") || !strcmp(d, "cpu") || !strcmp(d, "cuda")) return OK;
    return FAIL(ERR_USAGE, "study.device = \"%.100s\", expected auto, cpu, cuda or cuda:N", d);
}

static Status check_classifier(const ClassifierSettings *k, int size)
{
    if (k->aux_weight > 0 && size < 299)
        return FAIL(ERR_USAGE,
                    "classifier.aux_weight = %g needs data.size >= 299, found %d: "
                    "Inception-V3's auxiliary head needs 299 px",
                    k->aux_weight, size);
    if (k->min_learning_rate > k->learning_rate && strcmp(k->schedule, "constant"))
        return FAIL(ERR_USAGE,
                    "classifier.min_learning_rate = %g is above classifier.learning_rate = %g",
                    k->min_learning_rate, k->learning_rate);
    return OK;
}

static Status check_ldm(const LdmSettings *l)
{
    if (l->warmup > l->steps)
        return FAIL(ERR_USAGE, "ldm.warmup = %d is longer than ldm.steps = %d", l->warmup,
                    l->steps);
    if (l->prior_share > 0 && (int)(l->prior_share * l->batch) < 1)
        return FAIL(ERR_USAGE, "ldm.prior_share = %g of ldm.batch = %d is no whole film",
                    l->prior_share, l->batch);
    if (lrint(l->prior_share * l->batch) >= l->batch)
        return FAIL(ERR_USAGE,
                    "ldm.prior_share = %g of ldm.batch = %d leaves no film of the disease",
                    l->prior_share, l->batch);
    if (l->lora_rank && l->train_text_encoder)
        return FAIL(ERR_USAGE,
                    "ldm.lora_rank = %d with ldm.train_text_encoder = 1, expected one of them: a "
                    "LoRA leaves all else as it is",
                    l->lora_rank);
    if (l->lora_rank && !strcmp(l->init, "random"))
        return FAIL(ERR_USAGE,
                    "ldm.lora_rank = %d with ldm.init = random, expected base: a LoRA changes "
                    "trained weights",
                    l->lora_rank);
    return OK;
}

static Status check_autoencoder(const AutoencoderSettings *a)
{
    if (a->warmup > a->steps)
        return FAIL(ERR_USAGE, "autoencoder.warmup = %d is longer than autoencoder.steps = %d",
                    a->warmup, a->steps);
    if (a->perceptual_weight > 0 && !*a->perceptual_weights)
        return FAIL(ERR_USAGE,
                    "autoencoder.perceptual_weight = %g without autoencoder.perceptual_weights, "
                    "expected an Inception-V3's file",
                    a->perceptual_weight);
    if (a->l1_weight + a->mse_weight + a->perceptual_weight <= 0)
        return FAIL(ERR_USAGE,
                    "autoencoder.l1_weight = 0, autoencoder.mse_weight = 0 and "
                    "autoencoder.perceptual_weight = 0 leave no error to train on");
    return OK;
}

static Status check_synthesis(const SynthesisSettings *s)
{
    if (!strcmp(s->mode, "image-to-image") && (int)(s->steps * s->strength) < 1)
        return FAIL(ERR_USAGE,
                    "synthesis.strength = %g of synthesis.steps = %d is no whole step, so that "
                    "every film would be its source",
                    s->strength, s->steps);
    return OK;
}

Status config_check(const Config *c)
{
    TRY(check_study(&c->study));
    TRY(check_data(&c->data));
    TRY(check_classifier(&c->classifier, c->data.size));
    TRY(check_ldm(&c->ldm));
    TRY(check_autoencoder(&c->autoencoder));
    return check_synthesis(&c->synthesis);
}
