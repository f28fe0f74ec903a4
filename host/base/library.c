/* library.c - see library.h. */
#include "base/library.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* $EQ_LIBRARIES/file, or wherever the loader looks. */
static void *open_file(const char *file)
{
    const char *folder = getenv("EQ_LIBRARIES");
    char path[1024];
    if (!folder || !*folder) return dlopen(file, RTLD_NOW | RTLD_LOCAL);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static Status load(void **at, const char *const *names, int n, const char *const *files,
                   const char *missing)
{
    char why[256] = "";
    void *library = NULL;
    for (; !library && *files; files++) {
        library = open_file(*files);
        if (!library && !*why) snprintf(why, sizeof why, "%s", dlerror());
    }
    if (!library) return FAIL(ERR_DEVICE, "%s: %s", missing, why);
    for (int i = 0; i < n; i++)
        if (!(at[i] = dlsym(library, names[i])))
            return FAIL(ERR_DEVICE, "%s: %s has no %s", missing, files[-1], names[i]);
    return OK;
}

Status library_need(SharedLibrary *l, void **at, const char *const *names, int n,
                    const char *const *files, const char *missing)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (!l->tried) l->status = load(at, names, n, files, missing);
    if (!l->tried && l->status) snprintf(l->trouble, sizeof l->trouble, "%s", status_message());
    l->tried = true;
    pthread_mutex_unlock(&lock);
    return l->status ? FAIL(l->status, "%s", l->trouble) : OK;
}
