/* test_models.c - equipoise forward against goldens of diffusers, transformers and torchvision.
 *
 * tests/golden/models/make_models.py says what a golden holds. Weights are written as published
 * files by the formula that the script has too, the command runs on them, and what it wrote is
 * compared: outputs by relative L2 norm, at most 1e-4; each gradient by the norm of its
 * difference, estimated from 16 random projections (their root mean square is it, give or take
 * 18 %), at most 1e-3 of its own norm and 1e-7 of the model's largest.
 */
#include "app/commands.h"
#include "weights/safetensors.h"
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { N_PROJECTIONS = 16, N_SUMMARY = N_PROJECTIONS + 1, MAX_TENSORS = 2000 };

/* ---- the script's formula --------------------------------------------------------------- */

static uint64_t name_hash(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h;
}

static uint64_t mixed(uint64_t hash, size_t i)
{
    uint64_t z = hash + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double uniform(uint64_t hash, size_t i)
{
    return (double)(mixed(hash, i) >> 40) * 0x1p-23 - 1;
}

static bool ends(const char *name, const char *tail)
{
    size_t n = strlen(name), m = strlen(tail);
    return n >= m && !strcmp(name + n - m, tail);
}

static size_t count_of(int ndim, const int64_t *dim)
{
    size_t n = 1;
    for (int i = 0; i < ndim; i++) n *= (size_t)dim[i];
    return n;
}

static void fill_weights(float *v, const char *name, int ndim, const int64_t *dim, double gain)
{
    size_t n = count_of(ndim, dim), fan_in = ndim ? n / (size_t)dim[0] : 1;
    double base = 0, scale = 0.3;
    if (ends(name, "running_var")) base = 1, scale = 0.5;
    else if (ends(name, "running_mean")) base = 0;
    else if (ends(name, "bn.bias"))
        base = !strncmp(name, "Conv2d_2b", 9) ? 0 : !strncmp(name, "Conv2d_", 7) ? 1 : 2.5;
    else if (ndim >= 2) scale = (float)sqrt(3 * gain / (double)fan_in);
    else if (ends(name, "weight")) base = 1;
    uint64_t hash = name_hash(name);
    for (size_t i = 0; i < n; i++) v[i] = (float)(base + scale * uniform(hash, i));
}

static void fill_input(float *v, const char *name, size_t n, const char *kind)
{
    char full[SAFE_MAX_NAME];
    snprintf(full, sizeof full, "input.%s", name);
    uint64_t hash = name_hash(full);
    double scale = !strcmp(kind, "signed") ? 2 : !strcmp(kind, "unit") ? 0.5 : 1;
    double base = !strcmp(kind, "unit") ? 0.5 : 0;
    for (size_t i = 0; i < n; i++) v[i] = (float)(base + scale * uniform(hash, i));
}

static void summarise(double s[N_SUMMARY], const char *name, const float *g, size_t n)
{
    char full[SAFE_MAX_NAME];
    snprintf(full, sizeof full, "projection.%s", name);
    uint64_t hash = name_hash(full);
    memset(s, 0, N_SUMMARY * sizeof *s);
    for (size_t i = 0; i < n; i++) {
        uint64_t bits = mixed(hash, i);
        s[0] += (double)g[i] * g[i];
        for (int k = 0; k < N_PROJECTIONS; k++)
            s[1 + k] += bits >> k & 1 ? -(double)g[i] : (double)g[i];
    }
    s[0] = sqrt(s[0]);
}

/* ---- files for the command -------------------------------------------------------------- */

typedef enum {
    AS_FOLDER,   /* config.json and model.safetensors */
    AS_FILE,     /* one file with the published names */
    AS_ORIGINAL, /* TAESD's two files, names from the layer's number on; the decoder's is one more
                  */
    WITH_TOP     /* a folder, names below "text_model." */
} Form;

typedef struct {
    const char *golden;
    Form form;
} Case;

typedef struct {
    const Case *c;
    SafeFile file; /* the golden */
    json_t *spec;  /* owned */
    const char *model;
    char folder[64], weights[600], in[128], out[128];
    SafeFile result;
    double worst_output, worst_gradient; /* relative error; share of the limit */
    char worst_name[SAFE_MAX_NAME];
} Run;

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    assert_non_null(s);
    return s;
}

/* The name of a golden's parameter in the file that this case writes; NULL: in the other half's
 * file. */
static const char *file_name(const Run *r, const char *name, char room[SAFE_MAX_NAME])
{
    snprintf(room, SAFE_MAX_NAME, "%s%s", r->c->form == WITH_TOP ? "text_model." : "", name);
    if (r->c->form != AS_ORIGINAL) return room;
    bool decoder = !strcmp(r->model, "taesd-decode");
    int layer, at;
    if (sscanf(name, decoder ? "decoder.layers.%d%n" : "encoder.layers.%d%n", &layer, &at) != 1)
        return NULL;
    snprintf(room, SAFE_MAX_NAME, "%d%s", layer + decoder, name + at);
    return room;
}

static void write_weights(Run *r, const char *path)
{
    const json_t *list = json_object_get(r->spec, "parameters");
    double gain = json_real_value(json_object_get(r->spec, "gain"));
    SafeSpec *spec = calloc(MAX_TENSORS, sizeof *spec);
    const char **published = calloc(MAX_TENSORS, sizeof *published);
    char(*name)[SAFE_MAX_NAME] = calloc(MAX_TENSORS, SAFE_MAX_NAME);
    int n = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *row = json_array_get(list, i), *shape = json_array_get(row, 1);
        published[n] = json_string_value(json_array_get(row, 0));
        if (!file_name(r, published[n], name[n])) continue;
        spec[n] = (SafeSpec){.name = name[n], .ndim = (int)json_array_size(shape)};
        spec[n].dtype = ends(name[n], "num_batches_tracked") ? SAFE_I64 : SAFE_F32;
        for (int k = 0; k < spec[n].ndim; k++)
            spec[n].dim[k] = json_integer_value(json_array_get(shape, (size_t)k));
        assert_true(++n < MAX_TENSORS);
    }
    SafeWriter w = {0};
    require(st_write_begin(&w, path, n, spec, 0, NULL));
    for (int i = 0; i < n; i++) {
        int32_t seven = 7;
        if (spec[i].dtype == SAFE_I64) {
            require(st_write_i32(&w, &seven, 1));
            continue;
        }
        size_t count = count_of(spec[i].ndim, spec[i].dim);
        float *v = malloc(count * sizeof *v);
        fill_weights(v, published[i], spec[i].ndim, spec[i].dim, gain);
        require(st_write_f32(&w, v, count));
        free(v);
    }
    require(st_write_commit(&w));
    free(name);
    free(published);
    free(spec);
}

static void prepare_weights(Run *r)
{
    const char *given = json_string_value(json_object_get(r->spec, "weights"));
    char path[600];
    if (given) {
        snprintf(r->weights, sizeof r->weights, "%s/%s", SOURCE_DIR, given);
        return;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", r->folder);
    write_weights(r, path);
    bool folder = r->c->form == AS_FOLDER || r->c->form == WITH_TOP;
    snprintf(r->weights, sizeof r->weights, "%s", folder ? r->folder : path);
    if (!folder) return;
    snprintf(path, sizeof path, "%s/config.json", r->folder);
    assert_int_equal(json_dump_file(json_object_get(r->spec, "config"), path, 0), 0);
}

typedef struct {
    SafeSpec spec[16];
    char name[16][64];
    float *value[16]; /* owned */
    int n;
} Inputs;

static float *add_input(Inputs *in, const char *prefix, const char *name, SafeDtype dtype, int ndim,
                        const int64_t *dim)
{
    int i = in->n++;
    snprintf(in->name[i], sizeof in->name[i], "%s%s", prefix, name);
    in->spec[i] = (SafeSpec){.name = in->name[i], .dtype = dtype, .ndim = ndim};
    memcpy(in->spec[i].dim, dim, (size_t)ndim * sizeof *dim);
    return in->value[i] = malloc(count_of(ndim, dim) * sizeof(float));
}

/* By formula, or as the golden has them: integers under their names, floats under "input.NAME". */
static void list_inputs(Run *r, Inputs *in)
{
    const char *name;
    json_t *row;
    json_object_foreach(json_object_get(r->spec, "inputs"), name, row)
    {
        int64_t dim[SAFE_MAX_DIMS];
        const json_t *shape = json_array_get(row, 0);
        int ndim = (int)json_array_size(shape);
        for (int k = 0; k < ndim; k++)
            dim[k] = json_integer_value(json_array_get(shape, (size_t)k));
        fill_input(add_input(in, "", name, SAFE_F32, ndim, dim), name, count_of(ndim, dim),
                   json_string_value(json_array_get(row, 1)));
    }
    for (int i = 0; i < r->file.n; i++) {
        const SafeTensor *t = &r->file.tensor[i];
        if (t->dtype == SAFE_I64)
            require(st_read_i32(
                &r->file, t,
                (int32_t *)(void *)add_input(in, "", t->name, SAFE_I64, t->ndim, t->dim)));
        else if (!strncmp(t->name, "input.", 6))
            require(st_read_f32(&r->file, t,
                                add_input(in, "", t->name + 6, SAFE_F32, t->ndim, t->dim)));
    }
}

static void write_inputs(Run *r)
{
    Inputs in = {.n = 0};
    size_t i;
    json_t *output;
    list_inputs(r, &in);
    json_array_foreach(json_object_get(r->spec, "outputs"), i, output)
    {
        char name[64];
        const SafeTensor *t = st_find(&r->file, json_string_value(output));
        assert_non_null(t);
        snprintf(name, sizeof name, "grad.%s", t->name);
        fill_input(add_input(&in, "grad.", t->name, SAFE_F32, t->ndim, t->dim), name, t->count, "");
    }
    SafeWriter w = {0};
    require(st_write_begin(&w, r->in, in.n, in.spec, 0, NULL));
    for (int k = 0; k < in.n; k++) {
        size_t n = count_of(in.spec[k].ndim, in.spec[k].dim);
        require(in.spec[k].dtype == SAFE_I64 ? st_write_i32(&w, (int32_t *)(void *)in.value[k], n)
                                             : st_write_f32(&w, in.value[k], n));
        free(in.value[k]);
    }
    require(st_write_commit(&w));
}

/* ---- comparing -------------------------------------------------------------------------- */

static float *read_f32(const SafeFile *f, const char *name, int ndim, const int64_t *dim)
{
    const SafeTensor *t;
    require(st_expect(&t, f, name, ndim, dim));
    float *v = malloc((t->count + 1) * sizeof *v);
    require(st_read_f32(f, t, v));
    return v;
}

/* Everything in the golden that is neither an input nor the gradients: outputs, moved averages. */
static void compare_outputs(Run *r)
{
    int compared = 0;
    for (int i = 0; i < r->file.n; i++) {
        const SafeTensor *t = &r->file.tensor[i];
        if (t->dtype == SAFE_I64 || !strncmp(t->name, "input.", 6) || !strcmp(t->name, "gradients"))
            continue;
        float *want = read_f32(&r->file, t->name, t->ndim, t->dim),
              *got = read_f32(&r->result, t->name, t->ndim, t->dim);
        double error = 0, norm = 0;
        for (size_t k = 0; k < t->count; k++) {
            error += ((double)got[k] - want[k]) * ((double)got[k] - want[k]);
            norm += (double)want[k] * want[k];
        }
        error = sqrt(error / norm);
        if (!(error <= 1e-4))
            fail_msg("%s: %s: relative error %.2e, at most 1e-4", r->c->golden, t->name, error);
        if (error > r->worst_output) r->worst_output = error;
        free(want);
        free(got);
        compared++;
    }
    assert_true(compared > 0);
}

static void compare_gradients(Run *r)
{
    const json_t *names = json_object_get(r->spec, "gradients");
    size_t n = json_array_size(names);
    int64_t shape[] = {(int64_t)n, N_SUMMARY};
    const SafeTensor *t;
    require(st_expect(&t, &r->file, "gradients", 2, shape));
    double(*want)[N_SUMMARY] = malloc(n * sizeof *want), largest = 0;
    require(st_read_bytes(&r->file, t, 0, n * sizeof *want, want));
    for (size_t i = 0; i < n; i++) largest = fmax(largest, want[i][0]);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        char room[SAFE_MAX_NAME], full[SAFE_MAX_NAME + 8];
        bool input = st_find(&r->result, name) || !strchr(name, '.');
        snprintf(full, sizeof full, "grad.%s", input ? name : file_name(r, name, room));
        const SafeTensor *g = st_find(&r->result, full);
        if (!g) fail_msg("%s: no tensor %s", r->c->golden, full);
        float *v = read_f32(&r->result, full, g->ndim, g->dim);
        double got[N_SUMMARY], sum = 0;
        summarise(got, name, v, g->count);
        free(v);
        for (int k = 1; k < N_SUMMARY; k++) sum += (got[k] - want[i][k]) * (got[k] - want[i][k]);
        double share = sqrt(sum / N_PROJECTIONS) / (1e-3 * want[i][0] + 1e-7 * largest);
        if (!(share <= 1))
            fail_msg("%s: %s: difference %.2e, norm %.2e, largest %.2e: %.2f of the limit",
                     r->c->golden, full, sqrt(sum / N_PROJECTIONS), want[i][0], largest, share);
        if (share <= r->worst_gradient) continue;
        r->worst_gradient = share;
        snprintf(r->worst_name, sizeof r->worst_name, "%s", name);
    }
    free(want);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void test_golden(void **state)
{
    Run r = {.c = *state};
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/models/%s.safetensors", SOURCE_DIR, r.c->golden);
    require(st_open(&r.file, path));
    assert_non_null(st_metadata(&r.file, "spec"));
    r.spec = json_loads(st_metadata(&r.file, "spec"), 0, NULL);
    r.model = text_of(r.spec, "model");
    snprintf(r.folder, sizeof r.folder, "/tmp/eq-models-XXXXXX");
    assert_non_null(mkdtemp(r.folder));
    snprintf(r.in, sizeof r.in, "%s/in.safetensors", r.folder);
    snprintf(r.out, sizeof r.out, "%s/out.safetensors", r.folder);
    prepare_weights(&r);
    write_inputs(&r);

    App app = {.log = log_new(true)};
    bool train = json_is_true(json_object_get(r.spec, "train"));
    char *argv[] = {"forward", (char *)r.model, "--weights", r.weights, "--in",
                    r.in,      "--out",         r.out,       "--grad",  train ? "--train" : NULL,
                    NULL};
    double began = seconds();
    require(cmd_forward(&app, 9 + train, argv));
    double spent = seconds() - began;
    require(st_open(&r.result, r.out));
    compare_outputs(&r);
    compare_gradients(&r);
    printf("%-18s outputs %.1e, gradients %.4f of the limit (%s), %.2f s\n", r.c->golden,
           r.worst_output, r.worst_gradient, r.worst_name, spent);

    log_free(app.log);
    st_close(&r.result);
    st_close(&r.file);
    json_decref(r.spec);
    require(dir_remove(r.folder));
}

#define GOLDEN(name, form)                                                                         \
    {                                                                                              \
        name, test_golden, NULL, NULL, &(Case) { name, form }                                      \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        GOLDEN("unet_conv", AS_FOLDER),        GOLDEN("unet_linear", AS_FOLDER),
        GOLDEN("unet_switches", AS_FOLDER),    GOLDEN("inception_transform", AS_FOLDER),
        GOLDEN("unet_odd", AS_FOLDER),         GOLDEN("unet_odd_floor", AS_FOLDER),
        GOLDEN("text_quick_gelu", AS_FOLDER),  GOLDEN("text_gelu", WITH_TOP),
        GOLDEN("kl_quant_encode", AS_FOLDER),  GOLDEN("kl_quant_decode", AS_FOLDER),
        GOLDEN("kl_plain_encode", AS_FOLDER),  GOLDEN("kl_plain_decode", AS_FOLDER),
        GOLDEN("taesd_encode", AS_FOLDER),     GOLDEN("taesd_decode", AS_FILE),
        GOLDEN("taesd_encode", AS_ORIGINAL),   GOLDEN("taesd_decode", AS_ORIGINAL),
        GOLDEN("taef2_encode", AS_FOLDER),     GOLDEN("taef2_decode", AS_FOLDER),
        GOLDEN("inception_eval", AS_FILE),     GOLDEN("inception_train", AS_FOLDER),
        GOLDEN("inception_narrow", AS_FOLDER), GOLDEN("inception_aux", AS_FILE),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
