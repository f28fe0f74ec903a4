/* report.h - report.html of a finished run: one file that needs nothing else.
 *
 * Reads (see study.h and evaluate.h for who writes them)
 *
 *   metrics.json                               required
 *   config.ini                                 settings; shown without paths
 *   stages/NAME/stage.json                     version and the hashes of what a run started from
 *   stages/NAME/times.json                     who worked on it when
 *   stages/{baseline,augmented}-X/             history.json, predictions_test.csv
 *   stages/ldm-X/history.json
 *   stages/prepare/data/                       manifest.csv, images/, left_out.csv
 *   synthetic/DISEASE/                         manifest.csv, images/
 *
 * and writes RUN/report.html: no script, no font or image from elsewhere, SVG plots, films as PNG
 * data. What is missing is said to be missing; what is damaged is an error (ERR_INPUT). Every text
 * from the run is escaped. Equal runs give equal bytes, but for how long their stages took: no date, no
 * path, no host name.
 */
#ifndef REPORT_H
#define REPORT_H
#include "base/log.h"

Status report_write(const char *run_dir, Log *log);

/* The films of the report as one 8-bit grey PNG: per disease a row of source films, a row of the
 * synthetic films made from them and a row of real films, each with its title. The file says in its
 * metadata that it holds synthetic films. ERR_INPUT where the run has none. */
Status report_grid_png(const char *run_dir, const char *path);
#endif
