/* table.c - metrics.json as a table on stdout. */
#include "stats/metrics.h"
#include "study/evaluate.h"
#include <stdlib.h>

enum { MOST_METRICS_BYTES = 64 << 20 };

/* "0.834" or "-" where it is undefined */
static const char *figure(char text[32], const json_t *v, const char *format)
{
    if (json_is_number(v)) snprintf(text, 32, format, json_number_value(v));
    else snprintf(text, 32, "-");
    return text;
}

/* "0.834 [0.790, 0.876]" in a column */
static void print_value(const json_t *object, const char *key, const char *format)
{
    char v[32], lo[32], hi[32], cell[128];
    const json_t *ci = json_object_get(object, "ci");
    snprintf(cell, sizeof cell, "%s [%s, %s]", figure(v, json_object_get(object, key), format),
             figure(lo, json_array_get(ci, 0), format), figure(hi, json_array_get(ci, 1), format));
    printf("  %-23s", cell);
}

static void print_p(const json_t *v)
{
    char p[32];
    if (json_is_number(v) && json_number_value(v) < .001) snprintf(p, sizeof p, "<0.001");
    else figure(p, v, "%.3f");
    printf("  %7s", p);
}

static const json_t *metrics_of(const json_t *task, const char *arm)
{
    return json_object_get(json_object_get(json_object_get(task, arm), "evaluation"), "metrics");
}

static void print_task(const json_t *task)
{
    const json_t *first = metrics_of(task, "baseline"), *second = metrics_of(task, "augmented");
    const json_t *compared = json_object_get(task, "comparison");
    const json_t *evaluation = json_object_get(json_object_get(task, "baseline"), "evaluation");
    printf("\n%s against %s: %d test films of %d patients, %d diseased\n",
           json_string_value(json_object_get(task, "normal")),
           json_string_value(json_object_get(task, "disease")),
           (int)json_integer_value(json_object_get(evaluation, "n")),
           (int)json_integer_value(json_object_get(evaluation, "patients")),
           (int)json_integer_value(json_object_get(evaluation, "positives")));
    printf("%-18s  %-23s  %-23s  %-23s  %7s  %7s\n", "", "baseline", "augmented", "difference", "p",
           "p Holm");
    for (Metric m = 0; m < METRIC_COUNT; m++) {
        const char *name = metric_info(m)->name;
        const json_t *d = json_object_get(compared, name);
        printf("%-18s", metric_info(m)->title);
        print_value(json_object_get(first, name), "value", "%.3f");
        print_value(json_object_get(second, name), "value", "%.3f");
        print_value(d, "difference", "%+.3f");
        print_p(json_object_get(d, "p"));
        print_p(json_object_get(d, "p_holm"));
        printf("\n");
    }
}

Status table_print(const char *run)
{
    char *data = NULL, *path = path_join(run, "metrics.json");
    size_t size;
    json_error_t error;
    Status s = file_read(&data, &size, path, MOST_METRICS_BYTES);
    json_t *all = s ? NULL : json_loadb(data, size, 0, &error);
    if (!s && !all)
        s = FAIL(ERR_INPUT, "%s:%d: %s, expected the metrics of a study", path, error.line,
                 error.text);
    const char *letter;
    json_t *task;
    json_object_foreach(json_object_get(all, "tasks"), letter, task) print_task(task);
    json_decref(all);
    free(data);
    free(path);
    return s;
}
