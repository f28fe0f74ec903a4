/* library_tests.h - what tests of cuBLASLt and cuDNN share: the libraries are stand-ins (tests/cuda/fake) on the
 * simulated GPU, and every test runs in a process of its own, since a library is loaded once.
 */
#ifndef LIBRARY_TESTS_H
#define LIBRARY_TESTS_H
#include "base/file.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/equipoise-libraries-XXXXXX"; /* of the test */

#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("FAILED line %d: %s\n", __LINE__, #condition);                                  \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)
#define OKAY(call)                                                                                 \
    do {                                                                                           \
        if (call) {                                                                                \
            printf("FAILED line %d: %s\n", __LINE__, status_message());                            \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* How often a library has computed something in this process. */
static inline int calls(const char *file, const char *function)
{
    char path[512];
    snprintf(path, sizeof path, FAKES "/%s", file);
    void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    void *at = library ? dlsym(library, function) : NULL;
    int (*count)(void);
    memcpy(&count, &at, sizeof count); /* C has no such cast */
    return at ? count() : 0;
}
static inline int cublaslt_calls(void) { return calls(CUBLASLT, "fake_cublaslt_calls"); }
static inline int cudnn_calls(void) { return calls("libcudnn.so.9", "fake_cudnn_calls"); }

/* EQ_LIBRARIES and nothing else that the libraries hear. Ends the test where it is built without cuBLASLt. */
static inline void clean_environment(void)
{
    if (!HAVE_CUBLASLT) exit(77);
    setenv("EQ_LIBRARIES", FAKES, 1);
    unsetenv("EQ_KERNELS");
    unsetenv("EQ_AUTOTUNE");
}

/* 1 where it fails. only: the name of the test that is wanted, or NULL. */
static inline int run_alone(const char *name, void (*test)(void), const char *only)
{
    int status = 1;
    if (only && strcmp(only, name)) return 0;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        if (!mkdtemp(folder)) _exit(2);
        char cache[600];
        snprintf(cache, sizeof cache, "%s/cache", folder);
        setenv("EQ_CACHE", cache, 1);
        test();
        OKAY(dir_remove(folder));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    printf("%s: %s\n", name, status ? "FAILED" : "passed");
    return status != 0;
}
#endif
