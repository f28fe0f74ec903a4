/* run.c - reads a run's folder; see run.h. */
#include "report/run.h"
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_JSON_BYTES = 256 << 20 };

const char *const arm_name[ARM_COUNT] = {"baseline", "augmented"};

char *run_path(const Run *r, const char *fmt, ...)
{
    char name[4096];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    CHECK(n >= 0 && (size_t)n < sizeof name);
    return path_join(r->folder, name);
}

const json_t *json_at(const json_t *j, const char *path)
{
    while (*path && j) {
        size_t n = strcspn(path, ".");
        char key[64];
        CHECK(n < sizeof key);
        memcpy(key, path, n);
        key[n] = 0;
        j = json_object_get(j, key);
        path += n + (path[n] == '.');
    }
    return j;
}

double number_at(const json_t *j, const char *path)
{
    const json_t *v = json_at(j, path);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

const char *text_at(const json_t *j, const char *path)
{
    const char *s = json_string_value(json_at(j, path));
    return s ? s : "";
}

bool path_stays_inside(const char *path)
{
    if (!*path || *path == '/') return false;
    for (const char *c = path; c; c = strchr(c, '/')) {
        c += *c == '/';
        if (!strncmp(c, "..", 2) && (!c[2] || c[2] == '/')) return false;
    }
    return true;
}

Status run_json(json_t **j, const Run *r, const char *name)
{
    char *path = path_join(r->folder, name), *data = NULL;
    size_t size;
    json_error_t error;
    Status s = OK;
    *j = NULL;
    if (!file_exists(path)) goto done;
    TRY_OR(done, s, file_read(&data, &size, path, MOST_JSON_BYTES));
    *j = json_loadb(data, size, JSON_REJECT_DUPLICATES, &error);
    if (!*j) s = FAIL(ERR_INPUT, "%s:%d: %s, expected JSON", path, error.line, error.text);
done:
    free(data);
    free(path);
    return s;
}

/* Letters name folders, so they are letters. */
static Status read_tasks(Run *r)
{
    const char *letter;
    json_t *json, *all = json_object_get(r->metrics, "tasks");
    r->task = calloc(json_object_size(all) + 1, sizeof *r->task);
    CHECK(r->task);
    json_object_foreach(all, letter, json)
    {
        RunTask t = {letter, text_at(json, "normal"), text_at(json, "disease"), json};
        for (const char *c = letter; *c; c++)
            if (!isalnum((unsigned char)*c))
                return FAIL(ERR_INPUT,
                            "%s/metrics.json: task \"%s\", expected a name of letters and digits",
                            r->folder, letter);
        r->task[r->n_task++] = t;
    }
    if (r->n_task) return OK;
    return FAIL(ERR_INPUT, "%s/metrics.json: no tasks, expected the metrics of a study", r->folder);
}

static Status read_metrics(Run *r)
{
    TRY(run_json(&r->metrics, r, "metrics.json"));
    if (!r->metrics)
        return FAIL(ERR_INPUT, "%s/metrics.json: is not there, expected a finished run", r->folder);
    return read_tasks(r);
}

static Status read_config(Run *r)
{
    char *path = run_path(r, "config.ini");
    config_default(&r->config);
    r->has_config = file_exists(path);
    Status s = r->has_config ? config_read(&r->config, path) : OK;
    free(path);
    return s;
}

static Status read_manifest(Run *r)
{
    char *path = run_path(r, "stages/prepare/data/manifest.csv");
    r->has_manifest = file_exists(path);
    Status s = r->has_manifest ? manifest_read(&r->manifest, path) : OK;
    free(path);
    return s;
}

Status run_read(Run *r, const char *folder)
{
    Status s;
    *r = (Run){.folder = strdup(folder)};
    CHECK(r->folder);
    TRY_OR(failed, s, read_metrics(r));
    TRY_OR(failed, s, read_config(r));
    TRY_OR(failed, s, read_manifest(r));
    return OK;
failed:
    run_free(r);
    return s;
}

void run_free(Run *r)
{
    free(r->folder);
    json_decref(r->metrics);
    free(r->task);
    manifest_free(&r->manifest);
    *r = (Run){0};
}
