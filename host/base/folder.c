/* folder.c - folders filled beside their final name. */
#include "base/folder.h"
#include "base/file.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int without_slashes(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    return (int)n;
}

char *folder_begin(const char *path)
{
    char *temp = malloc(strlen(path) + 32);
    CHECK(temp);
    sprintf(temp, "%.*s.tmp-%ld", without_slashes(path), path, (long)getpid());
    dir_remove(temp); /* where that fails, filling it will say why */
    return temp;
}

Status folder_end(Status s, char *temp, const char *path)
{
    char *final = strndup(path, (size_t)without_slashes(path));
    CHECK(final);
    if (!s) s = dir_rename(temp, final);
    if (s) {
        Failure failure;
        status_keep(&failure, s);
        dir_remove(temp);
        status_restore(&failure);
    }
    free(final);
    free(temp);
    return s;
}
