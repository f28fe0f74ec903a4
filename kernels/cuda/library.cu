/* library.cu - loading a vendor's library and finding its functions. */
#include "product.h"
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <pthread.h>

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
                   const char *title)
{
    char why[256] = "";
    void *library = NULL;
    for (; !library && *files; files++) {
        library = open_file(*files);
        if (!library && !*why) snprintf(why, sizeof why, "%s", dlerror());
    }
    if (!library) return FAIL(ERR_DEVICE, "no %s: %s", title, why);
    for (int i = 0; i < n; i++)
        if (!(at[i] = dlsym(library, names[i])))
            return FAIL(ERR_DEVICE, "no %s: %s: has no %s", title, files[-1], names[i]);
    return OK; /* it stays loaded: what it has made must outlive every stream */
}

Status library_need(Loaded *l, void **at, const char *const *names, int n, const char *const *files,
                    const char *title)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (!l->tried) l->status = load(at, names, n, files, title);
    if (!l->tried && l->status) snprintf(l->trouble, sizeof l->trouble, "%s", status_message());
    l->tried = true;
    pthread_mutex_unlock(&lock);
    return l->status ? FAIL(l->status, "%s", l->trouble) : OK;
}
