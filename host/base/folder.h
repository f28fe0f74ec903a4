/* folder.h - folders that are whole or absent, as files by file.h.
 *
 *   char *temp = folder_begin(path);
 *   Status s = fill(temp);
 *   return folder_end(s, temp, path);
 *
 * path must not be there yet; it may end in slashes.
 */
#ifndef FOLDER_H
#define FOLDER_H
#include "base/status.h"

/* The name "<path>.tmp-<pid>" beside path, where nothing is left of an earlier try; heap. */
char *folder_begin(const char *path);
/* s OK: temp becomes path; else, or where that fails, temp is removed and the failure's line stays. Frees
 * temp. */
Status folder_end(Status s, char *temp, const char *path);
#endif
