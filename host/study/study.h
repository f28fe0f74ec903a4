/* study.h - the whole study in one run folder: prepare, baselines, diffusion models, synthesis,
 * augmented classifiers, evaluation, report (steps.h).
 *
 *   RUN/config.ini      resolved settings          RUN/metrics.json   every number, see evaluate.h
 *   RUN/stages/NAME/    work and record, stage.h   RUN/report.html    made from the above
 *   RUN/synthetic/      films and manifest.csv     RUN/log.jsonl      what happened when
 *
 * A run that was stopped or killed goes on where it stood when it is started again with `resume`, on any
 * number of ranks, and ends with the same metrics.json. Without `resume` RUN must be new or empty. RUN
 * is locked; a config that differs from RUN/config.ini is refused, naming the settings.
 *
 * Ranks share the work as plan.h plans and conduct.h runs it. Rank 0 has to do with RUN itself; the
 * first rank of a group speaks for it, in RUN/log-RANK.jsonl too.
 */
#ifndef STUDY_H
#define STUDY_H
#include "comm/comm.h"
#include "config/config.h"

typedef struct {
    const Config *config;
    const char *run;
    bool resume;
    double flops_per_s; /* of a rank, for the times of plans; 0: measured */
    Comm *world;
    Device *device; /* world is attached to it */
    Log *log;
} StudyJob;

/* By all ranks; rank 0 prints the table of results on stdout. ERR_STOPPED where a signal asked to stop. */
Status study_run(const StudyJob *job);

/* One stage alone, in a run folder that is there or, for the stage prepare, new. ERR_INPUT where what it
 * needs is not complete. Other stages may be run by other processes at the same time, but no whole
 * study. */
Status study_run_stage(const StudyJob *job, const char *name);
/* Names of stages on stdout, what each needs and, where `run` is there, whether it is complete. */
Status study_list_stages(const char *run);

/* Prints the plan for so many ranks on stdout; nothing runs. device: to measure the speed on where
 * flops_per_s is 0. act: of activations. */
Status study_show_plan(const Config *config, int ranks, double flops_per_s, double link, Dtype act,
                       Device *device);

/* Makes RUN/report.html again from a finished run. */
Status study_report(const char *run, Log *log);
#endif
