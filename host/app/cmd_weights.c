/* cmd_weights.c - equipoise weights: what is in weight files, and what can be made of them. */
#include "app/commands.h"
#include "app/options.h"
#include "app/weights.h"
#include "base/file.h"
#include "base/signal.h"
#include "models/ldm.h"
#include "weights/model_folder.h"
#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 14, MAX_DEPTH = 4 };

static const double suspicious =
    1e4; /* weights are small; more hints at bytes read as another dtype */

static const Option option[] = {
    {"dtype", "f16|bf16|f32", "convert: precision of the numbers in OUT", NULL},
    {"config", "DIR",
     "convert: IN is a single-file checkpoint (CompVis' names) of the model whose configs, "
     "tokenizer and scheduler are in DIR; --dtype may then be left out",
     NULL},
    {"scale", "S", "merge-lora: how much of the LoRA", "1"},
};
static const Usage usage = {
    .command = "weights",
    .arguments = "inspect PATH | convert IN OUT | merge-lora MODEL LORA OUT",
    .help = "inspect: lists the tensors, metadata and SHA-256 of a safetensors file or of all in a "
            "folder.\n"
            "convert: writes a file, or a model's folder, with its numbers in another precision; "
            "shards (IN being their index, or a folder with it) become one file.\n"
            "merge-lora: writes the model's folder with the LoRA's changes in its weights.",
    .least = 2,
    .most = 4,
    .option = option,
    .n_option = sizeof option / sizeof *option,
};

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* ---- walking a folder ------------------------------------------------------------------ */

static Status walk(Walk *w, const char *relative, int depth)
{
    DirList l;
    char *dir = path_join(w->from, relative);
    Status s =
        depth > MAX_DEPTH
            ? FAIL(ERR_INPUT, "%s: lies deeper than %d folders, expected a model", dir, MAX_DEPTH)
            : dir_list(&l, dir);
    for (int i = 0; !s && i < l.n; i++) {
        if (file_is_temp(l.name[i])) continue; /* unfinished, perhaps our own */
        char *inner = path_join(relative, l.name[i]), *path = path_join(w->from, inner);
        s = dir_exists(path) ? walk(w, inner, depth + 1) : w->visit(w, path, inner);
        free(inner);
        free(path);
    }
    if (depth <= MAX_DEPTH) dir_list_free(&l);
    free(dir);
    return s;
}

Status weights_walk(Walk *w) { return walk(w, "", 0); }

/* ---- inspect --------------------------------------------------------------------------- */

/* Text of a file on one line: control characters spelled out. */
static void print_text(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f) printf("\\x%02x", *c);
        else putchar(*c);
}

typedef struct {
    double largest;
    size_t n_bad;
} Range;

static Status measure(Range *r, const SafeFile *f, const SafeTensor *t)
{
    float v[PIECE];
    *r = (Range){0};
    for (size_t at = 0; at < t->count; at += PIECE) {
        TRY(signal_check());
        size_t n = t->count - at < PIECE ? t->count - at : PIECE;
        TRY(st_read_f32_part(f, t, at, n, v));
        for (size_t i = 0; i < n; i++) {
            if (!isfinite(v[i])) r->n_bad++;
            else if (fabs(v[i]) > r->largest) r->largest = fabs(v[i]);
        }
    }
    return OK;
}

static Status print_tensor(Walk *w, const SafeFile *f, const SafeTensor *t)
{
    char shape[SAFE_SHAPE_TEXT];
    Range r;
    st_shape_text(shape, t->ndim, t->dim);
    printf("  ");
    print_text(t->name);
    printf("  %s %s", safe_dtype_name(t->dtype), shape);
    if (safe_dtype_kind(t->dtype) == 'f') {
        TRY(measure(&r, f, t));
        printf("  max %.4g", r.largest);
        if (r.n_bad) printf(", %zu not finite", r.n_bad);
        if (r.n_bad)
            log_warn(w->log, "%s: tensor \"%s\": %zu values are NaN or infinite", f->path, t->name,
                     r.n_bad);
        else if (r.largest > suspicious)
            log_warn(w->log, "%s: tensor \"%s\": largest value %.3g, is %s its true dtype?",
                     f->path, t->name, r.largest, safe_dtype_name(t->dtype));
    }
    printf("\n");
    return OK;
}

static Status inspect_file(Walk *w, const char *path)
{
    SafeFile f;
    char sum[HASH_TEXT];
    size_t n_values = 0;
    uint64_t bytes = 0;
    TRY(st_open(&f, path));
    Status s = hash_file(sum, path);
    if (!s) printf("%s\n  sha256 %s\n", path, sum);
    for (int i = 0; !s && i < f.n_meta; i++) {
        printf("  metadata ");
        print_text(f.meta[i].key);
        printf(": ");
        print_text(f.meta[i].value);
        printf("\n");
    }
    for (int i = 0; !s && i < f.n; i++) {
        s = print_tensor(w, &f, &f.tensor[i]);
        n_values += f.tensor[i].count;
        bytes += f.tensor[i].bytes;
    }
    if (!s)
        printf("  %d tensors, %zu values, %llu bytes\n", f.n, n_values, (unsigned long long)bytes);
    st_close(&f);
    w->n_files++;
    w->n_values += n_values;
    w->bytes += bytes;
    return s;
}

static Status inspect_visit(Walk *w, const char *path, const char *relative)
{
    return ends_with(relative, ".safetensors") ? inspect_file(w, path) : OK;
}

static Status inspect(App *app, const char *path)
{
    Walk w = {.log = app->log, .from = path, .visit = inspect_visit};
    if (!dir_exists(path)) return inspect_file(&w, path);
    char *index = path_join(path, "model_index.json");
    Status s = file_exists(index) ? model_folder_check(path, true) : OK;
    free(index);
    TRY(s);
    TRY(weights_walk(&w));
    if (!w.n_files) return FAIL(ERR_INPUT, "%s: found no safetensors file, expected one", path);
    printf("%d files, %zu values, %llu bytes\n", w.n_files, w.n_values,
           (unsigned long long)w.bytes);
    return OK;
}

static const struct {
    const char *name;
    SafeDtype dtype;
} precision[] = {{"f16", SAFE_F16}, {"bf16", SAFE_BF16}, {"f32", SAFE_F32}};

/* Options belong to one of the three each. */
static Status refuse_option(const Options *o, const char *name)
{
    if (!options_has(o, name)) return OK;
    return FAIL(ERR_USAGE, "weights %s: found --%s, which it does not take", o->argument[0], name);
}

/* What is made of a folder does not lie in it: the next look at the folder would find it there. */
static Status refuse_inside(const char *to, const char *from)
{
    char *root = realpath(from, NULL), *at = path_join("", to), *here = NULL;
    for (char *up = at; !here; here = realpath(up, NULL)) up = dirname(up);
    size_t n = root ? strlen(root) : 0;
    bool inside = n && !strncmp(here, root, n) && (!here[n] || here[n] == '/' || n == 1);
    free(root);
    free(at);
    free(here);
    return inside ? FAIL(ERR_USAGE, "%s: lies in %s, which it is made of, expected a place outside",
                         to, from)
                  : OK;
}

static Status convert(App *app, const Options *o)
{
    const char *name = options_text(o, "dtype"), *config = options_text(o, "config");
    const SafeDtype *dtype = NULL;
    if (o->n_argument != 3) return FAIL(ERR_USAGE, "weights convert: expected IN and OUT");
    TRY(refuse_option(o, "scale"));
    if (!config) TRY(options_need(&name, o, "dtype"));
    for (size_t i = 0; name && i < sizeof precision / sizeof *precision; i++)
        if (!strcmp(name, precision[i].name)) dtype = &precision[i].dtype;
    if (name && !dtype)
        return FAIL(ERR_USAGE, "weights: --dtype %s: expected f16, bf16 or f32", name);
    TRY(refuse_inside(o->argument[2], config ? config : o->argument[1]));
    if (config) return weights_compvis(app->log, o->argument[1], config, o->argument[2], dtype);
    return weights_convert(app->log, o->argument[1], o->argument[2], *dtype);
}

static Status merge_lora(App *app, const Options *o)
{
    LdmUse use = {0};
    Device *d = NULL;
    Ldm m = {0};
    Status s;
    if (o->n_argument != 4)
        return FAIL(ERR_USAGE, "weights merge-lora: expected MODEL, LORA and OUT");
    TRY(refuse_option(o, "dtype"));
    TRY(refuse_option(o, "config"));
    TRY(options_real(&use.lora_scale, o, "scale", -100, 100));
    TRY(refuse_inside(o->argument[3], o->argument[1]));
    use.lora = o->argument[2];
    if (file_exists(o->argument[3]))
        return FAIL(ERR_USAGE, "%s: is there already; nothing is overwritten", o->argument[3]);
    TRY(device_open(&d, "cpu", "fp32", 0, app->log));
    TRY_OR(done, s, ldm_open(&m, d, o->argument[1], use));
    s = ldm_save(&m, o->argument[3], NULL, NULL);
done:
    ldm_close(&m);
    device_close(d);
    return s;
}

Status cmd_weights(App *app, int argc, char **argv)
{
    Options o;
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    if (!strcmp(o.argument[0], "convert")) return convert(app, &o);
    if (!strcmp(o.argument[0], "merge-lora")) return merge_lora(app, &o);
    if (strcmp(o.argument[0], "inspect"))
        return FAIL(ERR_USAGE, "weights: found %s, expected inspect, convert or merge-lora",
                    o.argument[0]);
    if (o.n_argument != 2) return FAIL(ERR_USAGE, "weights inspect: expected one PATH");
    for (size_t i = 0; i < sizeof option / sizeof *option; i++)
        TRY(refuse_option(&o, option[i].name));
    return inspect(app, o.argument[1]);
}
