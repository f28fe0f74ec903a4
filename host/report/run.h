/* run.h - a finished run in memory, for the sections of the report. */
#ifndef RUN_H
#define RUN_H
#include "config/config.h"
#include "data/manifest.h"
#include <jansson.h>

typedef struct {
    const char *letter, *normal, *disease; /* borrowed from json */
    const json_t *json;                    /* of metrics.json    */
} RunTask;

typedef struct {
    char *folder;    /* owned */
    json_t *metrics; /* owned */
    RunTask *task;   /* owned: [n_task] */
    int n_task;
    Config config;     /* defaults where there is no config.ini */
    Manifest manifest; /* of the prepared films; n = 0 where there is none */
    bool has_config, has_manifest;
} Run; /* starts as {0} */

Status run_read(Run *r, const char *folder);
void run_free(Run *r); /* accepts {0} */

char *run_path(const Run *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); /* heap, below the folder */

/* An optional JSON file of the run: *j is NULL where it is missing, else the caller's. */
Status run_json(json_t **j, const Run *r, const char *name);

/* Of a dotted path: json_at(task, "baseline.evaluation.n"). NULL or NaN where there is none. */
const json_t *json_at(const json_t *j, const char *path);
double number_at(const json_t *j, const char *path);
const char *text_at(const json_t *j, const char *path); /* or "" */

/* True for a relative path without "..". */
bool path_stays_inside(const char *path);

enum { ARM_COUNT = 2 };
extern const char *const arm_name[ARM_COUNT]; /* "baseline", "augmented" */
#endif
