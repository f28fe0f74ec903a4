/* stage.h - one stage of a run: what it was made from, what it made, and whether it is complete.
 *
 * A stage has a record, a JSON file:
 *
 *   {"stage": "ldm-a", "program": "0.1.0", "done": true,
 *    "inputs": {"ldm.steps": "2000", "base model": "<sha-256>", ...},
 *    "outputs": {"model": "<sha-256>", ...}}
 *
 * Inputs are settings by name and hashes of files, folders and upstream stages' outputs. The record
 * is written when the stage starts (done: false) and, last of all, when it is complete. So at a
 * restart
 *   no record                         the stage starts;
 *   same inputs, not done             it continues where it stood (its worker's own business);
 *   same inputs, done, outputs agree  it is skipped;
 *   other inputs                      refused, naming what changed with both values;
 *   outputs changed or missing        refused, naming them.
 * Nothing is made anew silently: the answer to a changed input is another run folder.
 *
 * Several ranks may run a stage together: they share `comm` and make the same calls. The first of them
 * reads and writes the files; all come to the same end.
 *
 *   Stage s;
 *   stage_new(&s, "ldm-a", "RUN/stages/ldm-a");
 *   stage_setting(&s, config, "study.seed ldm");
 *   TRY_OR(done, status, stage_input(&s, "base model", config->ldm.base));
 *   TRY_OR(done, status, stage_begin(&s));
 *   if (!s.done) {
 *       ... work ...
 *       TRY_OR(done, status, stage_end(&s, (const char *[]){"model", "history.json"}, 2));
 *   }
 *   done: stage_free(&s);
 */
#ifndef STAGE_H
#define STAGE_H
#include "comm/comm.h"
#include "config/config.h"
#include <jansson.h>

typedef struct {
    char *name, *folder, *record; /* owned; record: FOLDER/stage.json */
    json_t *inputs, *outputs;     /* owned: objects of texts; outputs once it is done */
    bool done, begun, found; /* begun: by stage_begin(); found: it was done then */
    Comm *comm; /* borrowed: of the ranks that run it; NULL: one */
} Stage;        /* starts as {0} */

void stage_new(Stage *s, const char *name, const char *folder);
void stage_free(Stage *s); /* accepts {0} */

/* Inputs. names: "ldm synthesis.weights study.seed": sections or single settings. */
void stage_setting(Stage *s, const Config *c, const char *names);
void stage_text(Stage *s, const char *name, const char *value);
Status stage_input(Stage *s, const char *name, const char *path); /* file or folder; "" is fine */
/* An upstream stage's output (or all of them, NULL), as its record has it. */
void stage_upstream(Stage *s, const Stage *up, const char *output);

/* Sets s->done, or makes the folder and notes the start. */
Status stage_begin(Stage *s);
/* Hashes the outputs (files or folders, relative to the folder) and notes completion. */
Status stage_end(Stage *s, const char *const *output, int n);

/* For what depends on a stage that others ran, or ran before: its outputs, out of its record. *done is
 * false where it is not complete (yet). checked: the outputs' hashes are compared, too. By one rank. */
Status stage_read(Stage *s, bool checked);
/* The same by all ranks of s->comm, of which the first reads; ERR_INPUT where it is not complete. */
Status stage_need(Stage *s, bool checked);
/* Waits until its record, which other processes write, says that it is complete. ERR_STOPPED. */
Status stage_wait(Stage *s);

/* Hash of all inputs: what a trainer's checkpoint belongs to. */
void stage_identity(const Stage *s, char hash[HASH_TEXT]);

/* SHA-256 of a file, or of a folder: of the relative paths and hashes of all files below, sorted.
 */
Status hash_path(char hash[HASH_TEXT], const char *path);

/* "name = value" pairs that differ: "ldm.steps = 10, was 20; ..." appended to t; how many. Settings that
 * only tell ranks how to share the work do not count. */
int settings_difference(Text *t, const Config *now, const Config *was);
#endif
