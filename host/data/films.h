/* films.h - what a source folder or table holds: films, their classes and patients.
 *
 * films_list() only looks at names; films_check() reads every file. What is wrong with single
 * films is kept with them, so that all of it can be told at once.
 *
 *   kermany  .../NORMAL/<name> and .../PNEUMONIA/<name>, at any depth; classes normal, bacteria
 *            and virus; patients from the names: "person12_virus_34.jpeg" -> person12,
 *            "IM-0115-0001.jpeg" -> IM-0115, "NORMAL2-IM-0115-0001.jpeg" -> NORMAL2-IM-0115.
 *            Splits are the folders train, val and test above.
 *   folders  SOURCE/<class>/<file>, with splits SOURCE/<split>/<class>/<file>; a patient is a
 *            file's name without its ending, or what the regular expression's first group takes.
 *   csv      a table with the columns path, label, patient and, if there, split and id; paths
 *            are relative to the table's folder, or to `images`.
 *
 * Hidden files and "__MACOSX" are skipped. Files outside the source folder, also by way of links,
 * are refused.
 */
#ifndef FILMS_H
#define FILMS_H
#include "base/log.h"
#include "data/duplicates.h"
#include "data/split.h"

typedef struct {
    const char *path; /* below the root                                     */
    const char *label_name, *patient;
    const char *id; /* NULL until films_make_ids() unless                 */
    bool id_given;  /* by the table                                       */
    bool joined;    /* patient is another one, with whom it shares a film */
    int label;      /* in the class table                                 */
    int line;       /* of the table, else 0                               */
    Split split;
    Status status;          /* not OK: cannot be used,                            */
    char *problem;          /* owned: and why, in one line                        */
    const char *left_out;   /* good, but not used, and why                        */
    char sha256[HASH_TEXT]; /* of the file                                        */
    int h, w, bits;
    float brightest;    /* 0..1 */
    Fingerprint *print; /* owned */
} Film;

typedef struct {
    char *root;  /* owned */
    char *table; /* owned: the csv file, or NULL */
    Film *film;  /* owned: [n] in the order of names or rows */
    int n, cap;
    const char **label; /* owned: [n_label], sorted */
    int n_label;
    bool has_split; /* every film's split was given */
    Arena memory;
} Films; /* starts as {0} */

typedef struct {
    const char *format, *source;
    const char *images;        /* csv: folder that paths are relative to, or NULL: the table's */
    const char *patient_regex; /* or NULL */
    const char *classes;       /* comma list of the allowed classes, or NULL */
    const char *intended[3];   /* classes named elsewhere, so no slips; or NULL */
    bool keep_split;           /* the source's own splits count; csv: if it has that column */
    bool allow_synthetic;
} FilmsSource;

Status films_list(Films *f, const FilmsSource *s);

/* Makes the class table; refuses classes that are not allowed or look like slips, and fewer than
 * two. */
Status films_classes(Films *f, const FilmsSource *s);

/* Reads all files, in parallel. If any cannot be used: warns of the first 20 and fails. */
Status films_check(Films *f, const FilmsSource *s, Log *log);

/* Reads one film again; refuses it if the file has changed since films_check(). */
Status films_read(Image *im, const Films *f, const Film *film);

/* Gives films that are used and have none an id: the file's name in safe letters, made longer
 * where it is not unique. Fails if a table gave one id twice. */
Status films_make_ids(Films *f);

void films_free(Films *f);

/* For the readers of films_list(): adds an empty film, notes a problem (the first counts). */
Film *films_add(Films *f, const char *path);
void film_problem(Film *film, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#endif
