/* steps.h - the stages of a study as a table: their names, what each needs, what it does. Their order in
 * the table is the order of one rank.
 */
#ifndef STEPS_H
#define STEPS_H
#include "study/task.h"

enum {
    STEP_PREPARE,
    STEP_BASELINE_A,
    STEP_BASELINE_B,
    STEP_LDM_A,
    STEP_LDM_B,
    STEP_SYNTH_A,
    STEP_SYNTH_B,
    STEP_AUGMENTED_A,
    STEP_AUGMENTED_B,
    STEP_EVALUATE,
    STEP_REPORT, /* has no record: made each time */
    N_STEP
};
typedef enum {
    STEPS_PREPARE,
    STEPS_CLASSIFIER,
    STEPS_LDM,
    STEPS_SYNTH,
    STEPS_AUGMENTED,
    STEPS_EVALUATE,
    STEPS_REPORT
} StepKind;

typedef struct {
    const char *name, *title; /* "ldm-a": of its folder, too */
    unsigned needs;           /* bit i: step i is complete before */
    StepKind kind;
    int task; /* 0 or 1; -1: of both */
    bool alone; /* one rank works, the others wait */
} Step;
extern const Step step[N_STEP];

int step_find(const char *name); /* -1: there is none */
char *step_folder(const char *run, int i); /* RUN/stages/<name>; heap */
/* What it is called in lines: "diffusion model, bacteria". */
void step_title(Text *t, int i, const Config *c);
/* The number that the number of its ranks must divide; 0: any is fine. */
int step_micro(int i, const Config *c);

/* Gives the stages their names and folders. */
void study_open(Study *s);
void study_close(Study *s);
/* The prepared films and the tasks, once the stage prepare is complete; a second call does nothing. */
Status study_data(Study *s);

Stage *step_stage(Study *s, int i); /* NULL: STEP_REPORT */
/* By all ranks of s->comm: ERR_INPUT where what step i needs is not complete; checked as stage_need(). */
Status step_need(Study *s, int i, bool checked);
/* By all ranks of s->comm, when what it needs is there (Stage.done) and study_data() was called. */
Status step_run(Study *s, int i);
#endif
