/* steps.c - the table of the stages, and their common frame. */
#include "study/steps.h"
#include "report/report.h"
#include "study/dataset.h"
#include "study/evaluate.h"
#include "study/study.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define AFTER(x) (1u << STEP_##x)
#define BOTH(x) (AFTER(x##_A) | AFTER(x##_B))

const Step step[N_STEP] = {
    {"prepare", "films", 0, STEPS_PREPARE, -1, true},
    {"baseline-a", "baseline classifier", AFTER(PREPARE), STEPS_CLASSIFIER, 0, false},
    {"baseline-b", "baseline classifier", AFTER(PREPARE), STEPS_CLASSIFIER, 1, false},
    {"ldm-a", "diffusion model", AFTER(PREPARE), STEPS_LDM, 0, false},
    {"ldm-b", "diffusion model", AFTER(PREPARE), STEPS_LDM, 1, false},
    {"synth-a", "synthetic films", AFTER(PREPARE) | AFTER(LDM_A), STEPS_SYNTH, 0, false},
    {"synth-b", "synthetic films", AFTER(PREPARE) | AFTER(LDM_B), STEPS_SYNTH, 1, false},
    {"augmented-a", "augmented classifier", AFTER(PREPARE) | AFTER(SYNTH_A), STEPS_AUGMENTED, 0,
     false},
    {"augmented-b", "augmented classifier", AFTER(PREPARE) | AFTER(SYNTH_B), STEPS_AUGMENTED, 1,
     false},
    {"evaluate", "evaluation", AFTER(PREPARE) | BOTH(BASELINE) | BOTH(SYNTH) | BOTH(AUGMENTED),
     STEPS_EVALUATE, -1, false},
    {"report", "report", AFTER(PREPARE) | AFTER(EVALUATE), STEPS_REPORT, -1, true},
};

/* What a step does, and where in a Task its record is. */
static const struct {
    Status (*run)(Task *t, const Study *s);
    size_t stage;
} work[N_STEP] = {
    [STEP_BASELINE_A] = {task_baseline, offsetof(Task, baseline)},
    [STEP_BASELINE_B] = {task_baseline, offsetof(Task, baseline)},
    [STEP_LDM_A] = {task_ldm, offsetof(Task, ldm)},
    [STEP_LDM_B] = {task_ldm, offsetof(Task, ldm)},
    [STEP_SYNTH_A] = {task_synth, offsetof(Task, synth)},
    [STEP_SYNTH_B] = {task_synth, offsetof(Task, synth)},
    [STEP_AUGMENTED_A] = {task_augmented, offsetof(Task, augmented)},
    [STEP_AUGMENTED_B] = {task_augmented, offsetof(Task, augmented)},
};

int step_find(const char *name)
{
    for (int i = 0; i < N_STEP; i++)
        if (!strcmp(step[i].name, name)) return i;
    return -1;
}

char *step_folder(const char *run, int i)
{
    Text t = {0};
    text_add(&t, "%s/stages/%s", run, step[i].name);
    return t.s;
}

void step_title(Text *t, int i, const Config *c)
{
    text_add(t, "%s", step[i].title);
    if (step[i].task >= 0)
        text_add(t, ", %s", step[i].task ? c->data.disease_b : c->data.disease_a);
}

int step_micro(int i, const Config *c)
{
    switch (step[i].kind) {
    case STEPS_CLASSIFIER:
    case STEPS_AUGMENTED:
        return c->classifier.accumulate;
    case STEPS_LDM:
        return c->ldm.accumulate;
    default:
        return step[i].alone ? 1 : 0;
    }
}

Stage *step_stage(Study *s, int i)
{
    if (i == STEP_PREPARE) return &s->prepare;
    if (i == STEP_EVALUATE) return &s->evaluate;
    return i == STEP_REPORT ? NULL : (Stage *)((char *)&s->task[step[i].task] + work[i].stage);
}

void study_open(Study *s)
{
    for (int i = 0; i < N_STEP; i++) {
        Stage *stage = step_stage(s, i);
        if (!stage) continue;
        char *folder = step_folder(s->run, i);
        stage_new(stage, step[i].name, folder);
        free(folder);
    }
}

void study_close(Study *s)
{
    for (int i = 0; i < N_STEP; i++)
        if (step_stage(s, i)) stage_free(step_stage(s, i));
    for (int i = 0; i < 2; i++) task_close(&s->task[i]);
    manifest_free(&s->manifest);
}

Status study_data(Study *s)
{
    if (s->manifest.n) return OK;
    TRY(dataset_manifest(&s->manifest, &s->prepare));
    for (int i = 0; i < 2; i++) TRY(task_open(&s->task[i], s, i ? 'b' : 'a'));
    return OK;
}

Status step_need(Study *s, int i, bool checked)
{
    for (int k = 0; k < N_STEP; k++) {
        Stage *stage = step_stage(s, k);
        if (!stage || !(step[i].needs >> k & 1)) continue;
        stage->comm = s->comm;
        TRY(stage_need(stage, checked));
    }
    return OK;
}

Status step_run(Study *s, int i)
{
    Stage *stage = step_stage(s, i);
    if (stage) stage->comm = s->comm;
    if (i == STEP_PREPARE) return dataset_stage(stage, s->config, s->log);
    if (i == STEP_EVALUATE) return evaluate_stage(s);
    if (i == STEP_REPORT) return study_report(s->run, s->log);
    return work[i].run(&s->task[step[i].task], s);
}
