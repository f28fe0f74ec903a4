/* file.h - files that are whole or absent.
 *
 * What we write goes to "<path>.tmp-<pid>" beside its final name, is flushed to disk and then
 * renamed; a crash leaves only the temporary, which file_sweep_temps() removes at the next
 * start. Failures name the path. A full disk or quota is ERR_SPACE, everything else ERR_INPUT.
 */
#ifndef FILE_H
#define FILE_H
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct {
    FILE *f;     /* owned; NULL when closed */
    char *path;  /* owned: the final name   */
    char *temp;  /* owned                   */
} OutFile;       /* starts as {0} */

Status out_open(OutFile *o, const char *path);  /* makes missing parent directories */
Status out_write(OutFile *o, const void *data, size_t size);
Status out_printf(OutFile *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Flush, fsync, rename, fsync the directory; empties *o, also on failure. */
Status out_commit(OutFile *o);
void   out_abandon(OutFile *o);  /* removes the temporary; accepts an empty one */

Status file_write(const char *path, const void *data, size_t size);  /* out_open .. out_commit */

/* The same without waiting for the disk: for the many files of a folder that goes through
 * dir_sync() before it gets its final name. */
Status file_write_unsynced(const char *path, const void *data, size_t size);
Status dir_sync(const char *path); /* everything below it (its whole file system) is on disk */

/* Whole file in memory, with a 0 byte behind the end that is not counted. *data is owned by
 * the caller. Refuses what is no regular file, and files above limit_bytes. */
Status file_read(char **data, size_t *size, const char *path, size_t limit_bytes);

Status file_copy(const char *from, const char *to); /* of any size; `to` as by file_write() */

Status file_size(uint64_t *size_bytes, const char *path);
bool   file_exists(const char *path);  /* any kind of file or directory */
bool   dir_exists(const char *path);
bool   file_same(const char *a, const char *b);  /* two names of one file that is there */
bool   file_same_place(const char *a, const char *b); /* the same of a file that may not be there yet */
/* Would file_write(path) find a folder to write into, and no folder or device in its place? Nothing is
 * made. For what takes long. */
Status file_check_room(const char *path);
/* Bytes that we may still write on the disk that path, which need not exist, will lie on. */
Status disk_free(uint64_t *free_bytes, const char *path);
Status dir_make(const char *path);     /* and its parents; fine if there */
Status dir_remove(const char *path);   /* with all that is in it; fine if absent */
Status dir_rename(const char *from, const char *to); /* and fsync the parent */

/* Names in a directory without "." and "..", sorted by strcmp; owned: free with dir_list_free. */
typedef struct { char **name; int n; } DirList;
Status dir_list(DirList *l, const char *path);
void   dir_list_free(DirList *l);

bool file_is_temp(const char *name);    /* the last part of a path: ends in .tmp-<digits>, as what we write */
void file_sweep_temps(const char *dir); /* removes such files and directories below dir */

enum { HASH_TEXT = 65 };               /* 64 hex digits and the 0 */
typedef struct Hash Hash;              /* running SHA-256 */
Hash *hash_new(void);                  /* heap; never NULL */
void  hash_add(Hash *h, const void *data, size_t size);
void  hash_end(Hash *h, char text[HASH_TEXT]); /* frees h */
void  hash_bytes(char text[HASH_TEXT], const void *data, size_t size);
Status hash_file(char text[HASH_TEXT], const char *path);

char *path_join(const char *a, const char *b); /* heap; b alone if it is absolute */
#endif
