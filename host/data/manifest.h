/* manifest.h - the list of films of a data set: one row each, patients in exactly one split.
 *
 * manifest.csv has the columns id, path, label, patient, split, sha256, width, height, source;
 * others are ignored. Paths are relative to the manifest's folder and stay inside it. split is
 * train, val, test or pool (films that no classifier sees; outside knowledge). sha256 is that
 * of the file; prepared films hold nothing but pixels, so equal pixels have equal hashes.
 *
 * Refused, naming file and line: a patient or an identical film in two splits, an id twice, a
 * path that leads outside, anything that is no number, split or hash where one belongs.
 */
#ifndef MANIFEST_H
#define MANIFEST_H
#include "base/arena.h"
#include "base/file.h"
#include "base/text.h"

typedef enum { SPLIT_TRAIN, SPLIT_VAL, SPLIT_TEST, SPLIT_POOL, SPLIT_COUNT } Split;

const char *split_name(Split s);
bool split_parse(Split *s, const char *name);

typedef struct {
    const char *id, *path, *label_name, *patient, *source; /* of the manifest */
    int label; /* index of label_name in its class table */
    Split split;
    char sha256[HASH_TEXT];
    int width, height;
    int line; /* in the file; 2 is the first row */
} ManifestRow;

typedef struct {
    char *file;       /* owned */
    char *folder;     /* owned: what paths are relative to */
    ManifestRow *row; /* owned: [n] */
    int n, cap;
    const char **label; /* owned: [n_label], sorted by strcmp */
    int n_label;
    Arena memory; /* the rows' strings */
} Manifest;       /* starts as {0} */

Status manifest_read(Manifest *m, const char *path);
void manifest_free(Manifest *m);

/* Making one: init, add rows (strings are copied), finish (makes the class table and checks
 * everything as manifest_read does), write to m->file. */
void manifest_init(Manifest *m, const char *path);
void manifest_add(Manifest *m, const ManifestRow *row);
Status manifest_finish(Manifest *m);
Status manifest_write(const Manifest *m);

int manifest_label(const Manifest *m, const char *name);      /* -1 if there is none */
char *manifest_path(const Manifest *m, const ManifestRow *r); /* heap: where the film is */

/* Films and patients of a class (-1: all) in a split (SPLIT_COUNT: all). */
typedef struct {
    int films, patients;
} Count;
Count manifest_count(const Manifest *m, int label, Split split);

/* The class table as lines of text, films (patients) per class and split. */
void manifest_table(Text *t, const Manifest *m);
#endif
