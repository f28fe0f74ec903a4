/* runs.h - for test_parallel*.c: the folders of runs that train_rank made, compared. */
#ifndef RUNS_H
#define RUNS_H
#include "base/file.h"
#include "weights/safetensors.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> /* behind the headers it needs */

static char folder[64]; /* of all runs */

/* What a run said, FOLDER/name; heap. */
static inline char *read_said(const char *name)
{
    char path[128], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (file_read(&text, &n, path, 1 << 20)) fail_msg("%s", status_message());
    return text;
}

static inline bool same(const char *a, const char *b, const char *file)
{
    char hash[2][HASH_TEXT], path[512];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s/%s", folder, i ? b : a, file);
        if (hash_file(hash[i], path)) fail_msg("%s", status_message());
    }
    return !strcmp(hash[0], hash[1]);
}

static inline void same_run(const char *a, const char *b, const char *const *file)
{
    for (; *file; file++)
        if (!same(a, b, *file)) fail_msg("%s of %s and %s differ", *file, a, b);
}

/* Largest difference of two runs' tensors, in parts of the tensor's largest value. */
static inline double apart(const char *a, const char *b, const char *file)
{
    SafeFile f[2];
    char path[512];
    double worst = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s/%s", folder, i ? b : a, file);
        if (st_open(&f[i], path)) fail_msg("%s", status_message());
    }
    for (int k = 0; k < f[0].n; k++) {
        const SafeTensor *t[2] = {&f[0].tensor[k], &f[1].tensor[k]};
        size_t n = t[0]->bytes / sizeof(float);
        if (t[0]->dtype != SAFE_F32) continue;
        float *x = malloc(n * sizeof *x + 1), *y = malloc(n * sizeof *y + 1), top = 1e-30f;
        assert_false(st_read_f32(&f[0], t[0], x) || st_read_f32(&f[1], t[1], y));
        for (size_t i = 0; i < n; i++) top = fmaxf(top, fabsf(x[i]));
        for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)x[i] - y[i]) / top);
        free(x);
        free(y);
    }
    st_close(&f[0]);
    st_close(&f[1]);
    return worst;
}

#define LDM_FILES                                                                                  \
    "model/unet/diffusion_pytorch_model.safetensors", "model/text_encoder/model.safetensors",      \
        "history.json"
static const char *const ldm_files[] = {LDM_FILES, NULL};
static const char *const classifier_files[] = {"model.safetensors", "history.json", NULL};

static inline int open_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_parallel-%ld", (long)getpid());
    setenv("OMP_NUM_THREADS", "1", 1);
    return dir_make(folder);
}

static inline int remove_folder(void **state)
{
    (void)state;
    return dir_remove(folder);
}
#endif
