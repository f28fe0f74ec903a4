/* study.h - the whole study in one run folder: prepare, baselines, diffusion models, synthesis,
 * augmented classifiers, evaluation, report.
 *
 *   RUN/config.ini      resolved settings          RUN/metrics.json   every number, see evaluate.h
 *   RUN/stages/NAME/    work and record, stage.h   RUN/report.html    made from the above
 *   RUN/synthetic/      films and manifest.csv     RUN/log.jsonl      what happened when
 *
 * A run that was stopped or killed goes on where it stood when it is started again with `resume`,
 * and ends with the same metrics.json. Without `resume` RUN must be new or empty. RUN is locked; a
 * config that differs from RUN/config.ini is refused, naming the settings.
 */
#ifndef STUDY_H
#define STUDY_H
#include "base/log.h"
#include "config/config.h"

/* Prints the table of results on stdout. ERR_STOPPED where a signal asked to stop. */
Status study_run(const Config *config, const char *run, bool resume, Log *log);

/* Makes RUN/report.html again from a finished run. */
Status study_report(const char *run, Log *log);
#endif
