/* limits.c - what these numbers do not say. */
#include "report/html.h"
#include "report/sections.h"
#include <stdlib.h>
#include <string.h>

/* "100 films of 90 patients of bacteria, ..." of the outside pool; empty where there is none. */
static void pool_words(Text *t, const Run *r)
{
    const char *name;
    json_t *one, *classes = (json_t *)(uintptr_t)json_at(r->metrics, "data.classes");
    json_object_foreach(classes, name, one)
    {
        double n = number_at(one, "pool.films");
        if (n > 0)
            text_add(t, "%s%s %s (%s patients)", t->s ? ", " : "", figure_count(n).s, name,
                     figure_count(number_at(one, "pool.patients")).s);
    }
}

static void add_outside(Text *t, const Run *r)
{
    Text pool = {0};
    const char *note = r->config.study.base_note;
    if (!r->has_config) {
        html_missing(t,
                     "Whether the models started from weights trained before this study is not in "
                     "the run.");
        return;
    }
    if (!starts_from_weights(r)) {
        html_item(
            t, "The classifiers and the diffusion models' UNets and text encoders started from "
               "random weights. The autoencoder is that of the base model, trained elsewhere.");
        return;
    }
    bool base = *r->config.ldm.base && strcmp(r->config.ldm.init, "random"),
         trunk = *r->config.classifier.weights;
    pool_words(&pool, r);
    html_item(
        t,
        "Outside knowledge: trained before this study, on films that are not counted above: "
        "%s%s%s. "
        "%s%s%s%s",
        base ? "the base of the diffusion models" : "", base && trunk ? " and " : "",
        trunk ? "the trunk that the classifiers start from" : "",
        *note ? note : "On which films, the run does not say.",
        pool.s ? " The prepared films hold an outside pool that no stage of this study reads, but "
                 "base models may have seen: "
               : "",
        pool.s ? pool.s : "", pool.s ? "." : "");
    free(pool.s);
}

/* The films of the public pediatric set keep their names; their licence asks for the credit. */
static bool looks_like_kermany(const Run *r)
{
    int known = 0;
    for (int i = 0; i < r->manifest.n; i++) {
        const char *name = strrchr(r->manifest.row[i].source, '/');
        unsigned number;
        char kind[16];
        name = name ? name + 1 : r->manifest.row[i].source;
        if (!strncmp(name, "NORMAL2-", 8)) name += 8;
        known += sscanf(name, "person%u_%15[a-z]_%u", &number, kind, &number) == 3 ||
                 sscanf(name, "IM-%u-%u", &number, &number) == 2;
    }
    return known && known == r->manifest.n;
}

static void add_statistics(Text *t, const Run *r)
{
    if (test_patients_repeat(r))
        html_item(
            t, "Some patients have several test films. The bootstrap over patients, and the tests "
               "that exchange or draw patients, are the ones that count; Clopper-Pearson, DeLong "
               "and McNemar take films as independent and are too sure.");
    else
        html_item(t,
                  "Every patient has one test film, so that intervals over films and over patients "
                  "are about the same.");
    if (number_at(r->metrics, "study.repeats") > 1)
        html_item(t,
                  "Intervals and tests tell how much the choice of test patients matters. How much "
                  "the training seed matters stands in the tables of seeds.");
    else
        html_item(
            t, "Each classifier was trained once. Intervals and tests tell how much the choice of "
               "test patients matters, not how much another training seed would change.");
    html_item(t, "Holm's correction runs over the metrics of one task, not over the tasks.");
    if (validates_on_synthetic(r))
        html_item(
            t,
            "The augmented arm chose its epoch (and its threshold, unless fixed) on validation "
            "films of which some are synthetic; where these are easier or harder than real ones, "
            "its threshold is off for real films.");
}

Status section_limits(Text *t, const Run *r)
{
    text_add(t, "<ul>\n");
    html_item(
        t, "For research. Not a medical device, not for diagnosis, not for deciding on a patient.");
    add_statistics(t, r);
    add_outside(t, r);
    html_item(t,
              "Synthetic films were made from training films only and are used in training%s; no "
              "test film is synthetic or was a source. Each says in its PNG metadata that it is "
              "synthetic and stands with source, prompt and seed in synthetic/manifest.csv.",
              validates_on_synthetic(r) ? " and validation" : "");
    html_item(
        t, "KID depends on the features that measure it and is noisy on few films. Correlation at "
           "64 x 64 pixels finds copies, not every way in which a model can remember a patient.");
    html_item(t, "One data set. Films of another hospital, age or machine may behave differently.");
    if (looks_like_kermany(r))
        html_item(t,
                  "Films: the names are those of Kermany, Zhang and Goldbaum, Labeled Optical "
                  "Coherence Tomography and Chest X-Ray Images for Classification, Mendeley Data, "
                  "doi 10.17632/rscbjbr9sj.2, CC BY 4.0; here converted to grey and resized.");
    text_add(t, "</ul>\n");
    return OK;
}
