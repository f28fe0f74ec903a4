/* example_run.h - a finished study's folder with made-up content, for tests of what reads one.
 *
 * Two tasks with letters a and b; films, predictions and numbers are random but agree: the metrics
 * are those of the predictions, as the evaluation writes them. The names of classes, films,
 * patients and the study hold characters that mean something in HTML and CSV.
 */
#ifndef EXAMPLE_RUN_H
#define EXAMPLE_RUN_H
#include <jansson.h>
#include <stdint.h>

enum {
    EXAMPLE_SIDE = 40,     /* of films, pixels */
    EXAMPLE_TEST = 60,     /* test films of a task */
    EXAMPLE_SYNTHETIC = 11 /* films of a disease */
};

#define EXAMPLE_NORMAL "no<b>rmal & \"well\""
#define EXAMPLE_DISEASE_A "bact<script>alert(1)</script>"
#define EXAMPLE_DISEASE_B "vi'rus"

/* Makes the folder. seed: other random content. */
void example_run(const char *folder, uint32_t seed);

/* RUN/metrics.json as an object to change; put writes it back and takes the reference. */
json_t *example_metrics(const char *folder);
void example_metrics_put(const char *folder, json_t *metrics);
#endif
