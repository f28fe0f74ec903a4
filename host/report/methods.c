/* methods.c - what was run: films, arms, thresholds, models. */
#include "base/csv.h"
#include "report/html.h"
#include "report/sections.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- films ---------------------------------------------------------------------------- */

static void add_classes(Text *t, const Run *r)
{
    const json_t *classes = json_at(r->metrics, "data.classes");
    const char *name;
    json_t *one;
    if (!json_object_size(classes)) {
        html_missing(t, "The number of films per class is not in the run.");
        return;
    }
    html_table(t, NULL, "Films (patients) per class and split. No patient is in two splits.",
               "class|training|validation|test|outside pool");
    json_object_foreach((json_t *)(uintptr_t)classes, name, one)
    {
        static const char *const split[] = {"train", "val", "test", "pool"};
        text_add(t, "<tr>");
        html_head(t, "%s", name);
        for (int i = 0; i < 4; i++) {
            const json_t *n = json_object_get(one, split[i]);
            html_cell(t, "%s (%s)", figure_count(number_at(n, "films")).s,
                      figure_count(number_at(n, "patients")).s);
        }
        text_add(t, "</tr>\n");
    }
    html_table_end(t);
}

/* "12 files were left out: 10 exact duplicate, 2 ..." */
static void add_left_out(Text *t, const Csv *c, int reason)
{
    Text line = {0};
    int kinds = 0;
    for (int i = 0; i < c->n_row; i++) {
        int n = 0;
        bool before = false;
        for (int k = 0; k < c->n_row; k++) {
            bool same = !strcmp(csv_at(c, i, reason), csv_at(c, k, reason));
            before |= same && k < i;
            n += same;
        }
        if (!before && kinds++ < 8)
            text_add(&line, "%s%d: %s", kinds > 1 ? "; " : " ", n, csv_at(c, i, reason));
    }
    html_para(t, NULL, "%d of the source's files were left out in preparation:%s%s.", c->n_row,
              line.s ? line.s : " none", kinds > 8 ? "; and other reasons" : "");
    free(line.s);
}

static Status add_preparation(Text *t, const Run *r)
{
    char *path = run_path(r, "stages/prepare/data/left_out.csv");
    Csv c = {0};
    int reason;
    Status s = OK;
    if (!file_exists(path)) {
        html_missing(t, "The list of films that were left out in preparation is not in the run.");
        goto done;
    }
    TRY_OR(done, s, csv_read(&c, path));
    TRY_OR(done, s, csv_need(&reason, &c, "reason"));
    if (c.n_row) add_left_out(t, &c, reason);
    else html_para(t, NULL, "No film of the source was left out in preparation.");
done:
    csv_free(&c);
    free(path);
    return s;
}

/* ---- arms ----------------------------------------------------------------------------- */

static void add_arm(Text *t, const RunTask *task, int k)
{
    static const char *const split[] = {"train", "val"};
    const json_t *arm = json_at(task->json, arm_name[k]);
    text_add(t, "<tr>");
    html_head(t, "%s: %s", task->disease, arm_title[k]);
    for (int i = 0; i < 2; i++) {
        const json_t *n = json_at(json_at(arm, "films"), split[i]);
        html_cell(t, "%s : %s + %s", figure_count(number_at(n, "normal")).s,
                  figure_count(number_at(n, "diseased")).s,
                  figure_count(number_at(n, "synthetic")).s);
        if (i) continue;
        double normal = number_at(n, "normal"),
               ill = number_at(n, "diseased") + number_at(n, "synthetic");
        html_cell(t, "%s to 1", figure(normal / ill, 1).s);
    }
    html_cell(t, "%s : %s", figure_count(number_at(arm, "films.test.normal")).s,
              figure_count(number_at(arm, "films.test.diseased")).s);
    text_add(t, "</tr>\n");
}

static void add_threshold(Text *t, const RunTask *task, int k)
{
    const json_t *arm = json_at(task->json, arm_name[k]);
    double all = number_at(arm, "threshold.validation_films"),
           synthetic = number_at(arm, "films.val.synthetic"),
           value = number_at(arm, "evaluation.threshold");
    const char *rule = text_at(arm, "threshold.rule");
    text_add(t, "<tr>");
    html_head(t, "%s: %s", task->disease, arm_title[k]);
    html_cell(t, "%s", figure(value, 4).s);
    html_cell(t, "%s",
              !strcmp(rule, "youden")  ? "largest Youden's index on the arm's validation films"
              : !strcmp(rule, "fixed") ? "fixed beforehand"
              : *rule                  ? rule
                                       : "not recorded");
    html_cell(t, "%s, of them %s synthetic", figure_count(all).s, figure_count(synthetic).s);
    text_add(t, "</tr>\n");
}

static void add_arms(Text *t, const Run *r)
{
    html_table(
        t, NULL,
        "Films of the arms, normal : diseased + synthetic. Test films are real in both arms.",
        "arm|training|normal to diseased|validation|test");
    for (int i = 0; i < r->n_task; i++)
        for (int k = 0; k < ARM_COUNT; k++) add_arm(t, &r->task[i], k);
    html_table_end(t);
    html_table(t, NULL,
               "Thresholds. A film is called diseased where its score reaches the threshold. "
               "Test films have no part in choosing it.",
               "arm|threshold|rule|validation films");
    for (int i = 0; i < r->n_task; i++)
        for (int k = 0; k < ARM_COUNT; k++) add_threshold(t, &r->task[i], k);
    html_table_end(t);
}

/* ---- models --------------------------------------------------------------------------- */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void add_classifier(Text *t, const Config *c)
{
    const ClassifierSettings *s = &c->classifier;
    Text line = {0};
    text_add(&line, "Inception-V3 of width %g on films of %d px, ", s->width, c->data.size);
    if (*s->weights) text_add(&line, "started from %s", last_part(s->weights));
    else text_add(&line, "started from random weights");
    text_add(&line,
             "; at most %d epochs, batches of %d, %s with learning rate %g (%s), weight decay %g; "
             "%s; the epoch with the %s is kept. Synthetic films are used in "
             "%s. %d training seed%s per arm.",
             s->epochs, s->batch * s->accumulate, s->optimizer, s->learning_rate, s->schedule,
             s->weight_decay,
             s->class_weights ? "loss weighted against the imbalance" : "loss not weighted",
             strcmp(s->monitor, "loss") ? "largest validation balanced accuracy"
                                        : "smallest validation loss",
             !strcmp(s->synthetic_in, "train") ? "training only" : "training and validation",
             c->study.repeats, c->study.repeats == 1 ? "" : "s");
    html_item(t, "Classifier: %s", line.s);
    free(line.s);
}

static void add_ldm(Text *t, const Config *c)
{
    const LdmSettings *s = &c->ldm;
    Text line = {0};
    if (strcmp(s->init, "random")) text_add(&line, "fine-tuned from %s", last_part(s->base));
    else
        text_add(&line, "laid out as %s, its UNet and text encoder started from random weights",
                 last_part(s->base));
    text_add(
        &line,
        ", one per disease: %d steps of %d films, AdamW with learning rate %g (%s), prediction "
        "%s, min-SNR gamma %g, caption dropout %g, share of normal films in a batch %g, text "
        "encoder %s.",
        s->steps, s->batch * s->accumulate, s->learning_rate, s->schedule, s->prediction,
        s->min_snr_gamma, s->caption_dropout, s->prior_share,
        s->train_text_encoder ? "tuned too" : "frozen");
    if (s->lora_rank)
        text_add(&line,
                 " Only low-rank changes (LoRA of rank %d) of the UNet's attention were "
                 "trained.",
                 s->lora_rank);
    html_item(t, "Diffusion models: %s", line.s);
    free(line.s);
}

static void add_synthesis(Text *t, const Config *c)
{
    const SynthesisSettings *s = &c->synthesis;
    Text line = {0};
    if (strcmp(s->mode, "text-to-image"))
        text_add(
            &line,
            "image-to-image from training films of class %s, strength %g (0 keeps the source, 1 "
            "ignores it)",
            !strcmp(s->source, "normal") ? c->data.normal : "disease", s->strength);
    else text_add(&line, "text-to-image");
    text_add(&line, "; DDIM, %d steps (%s), eta %g, guidance %g, %s weights.", s->steps, s->spacing,
             s->eta, s->guidance, !strcmp(s->weights, "ema") ? "averaged" : "last");
    html_item(t, "Synthesis: %s", line.s);
    html_item(t, "Prompts: \"%s\" for %s; \"%s\" for %s; \"%s\" for %s.", s->prompt_normal,
              c->data.normal, s->prompt_a, c->data.disease_a, s->prompt_b, c->data.disease_b);
    free(line.s);
}

Status section_methods(Text *t, const Run *r)
{
    add_classes(t, r);
    TRY(add_preparation(t, r));
    add_arms(t, r);
    html_h3(t, "Models");
    if (!r->has_config) {
        html_missing(t, "The settings (config.ini) are not in the run.");
        return OK;
    }
    text_add(t, "<ul>\n");
    add_classifier(t, &r->config);
    add_ldm(t, &r->config);
    add_synthesis(t, &r->config);
    html_item(t, "Every random draw follows from seed %d.", r->config.study.seed);
    text_add(t, "</ul>\n");
    return OK;
}
