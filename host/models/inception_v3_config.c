/* inception_v3_config.c - config.json of our Inception-V3 folders, or the same from a file's
 * shapes. */
#include "base/text.h"
#include "models/inception_v3.h"
#include "weights/model_folder.h"
#include <stdio.h>
#include <string.h>

enum { FILTERS = 32, FEATURES = 2048 }; /* of the first layer, before the last one, at width 1 */
static const char FIRST[] = "Conv2d_1a_3x3.conv.weight", AUX[] = "AuxLogits.";

static Status from_json(InceptionConfig *c, JsonConfig *j)
{
    static const JsonIgnored ignored[] = {{"architecture", JSON_WORD},
                                          {"architectures", JSON_WORDS},
                                          {"model_type", JSON_WORD},
                                          {"init_weights", JSON_BOOL}};
    double dropout = c->dropout;
    TRY(json_config_int(&c->num_classes, j, "num_classes", 1, 1 << 20));
    TRY(json_config_real(&c->width, j, "width", 1.0 / 64, 8));
    if (json_config_has(j, "aux") && json_config_has(j, "aux_logits"))
        return FAIL(ERR_INPUT, "%s: aux: found aux_logits too, expected one of the two", j->path);
    TRY(json_config_bool(&c->aux, j, "aux"));
    TRY(json_config_bool(&c->aux, j, "aux_logits"));
    TRY(json_config_bool(&c->transform_input, j, "transform_input"));
    TRY(json_config_real(&dropout, j, "dropout", 0, 0.99));
    c->dropout = (float)dropout;
    TRY(json_config_nulls(j, NULL, 0));
    return json_config_finish(j, ignored, 4);
}

static bool in_head(const char *name) { return !strncmp(name, AUX, sizeof AUX - 1); }

/* Every tensor below AuxLogits. is of the head, and all of those are there or none is. */
static Status check_head(bool *found, const SafeFile *f)
{
    static const char *const part[] = {
        "conv0.conv.weight",     "conv0.bn.weight",      "conv0.bn.bias",
        "conv0.bn.running_mean", "conv0.bn.running_var", "conv1.conv.weight",
        "conv1.bn.weight",       "conv1.bn.bias",        "conv1.bn.running_mean",
        "conv1.bn.running_var",  "fc.weight",            "fc.bias",
        "conv0.bn.num_batches_tracked", "conv1.bn.num_batches_tracked",
    };
    enum { PARTS = sizeof part / sizeof *part, NEEDED = PARTS - 2 };
    const char *first = NULL;
    for (int i = 0; i < f->n; i++) {
        const char *name = f->tensor[i].name;
        int k = 0;
        if (!in_head(name)) continue;
        while (k < PARTS && strcmp(name + sizeof AUX - 1, part[k])) k++;
        if (k == PARTS)
            return FAIL(ERR_INPUT,
                        "%s: tensor \"%.200s\": found beyond Inception-V3's auxiliary head",
                        f->path, name);
        first = name;
    }
    for (int k = 0; first && k < NEEDED; k++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s", AUX, part[k]);
        if (!st_find(f, name))
            return FAIL(
                ERR_INPUT,
                "%s: tensor \"%s\": found none beside \"%.80s\", expected the whole auxiliary "
                "head, or nothing of it",
                f->path, name, first);
    }
    *found = first != NULL;
    return OK;
}

Status inception_check_head(const char *weights)
{
    SafeFile f;
    bool found;
    TRY(st_open(&f, weights));
    Status s = check_head(&found, &f);
    st_close(&f);
    return s;
}

/* The file's metadata may name the width; else the last layer tells it where nothing was rounded, and
 * the first must agree. */
static Status from_file(InceptionConfig *c, const SafeFile *f)
{
    const SafeTensor *fc = st_find(f, "fc.weight"), *in = st_find(f, FIRST);
    const char *width = st_metadata(f, "width");
    char shape[SAFE_SHAPE_TEXT];
    if (!fc || !in || in->ndim != 4)
        return FAIL(ERR_INPUT,
                    "%s: found no \"%s\" %s, expected an Inception-V3 with torchvision's names",
                    f->path, fc ? FIRST : "fc.weight",
                    fc ? "[filters, 3, 3, 3]" : "[classes, features]");
    st_shape_text(shape, fc->ndim, fc->dim);
    if (fc->ndim != 2 || fc->dim[0] < 1 || fc->dim[0] > 1 << 20)
        return FAIL(ERR_INPUT, "%s: tensor \"fc.weight\": found %s, expected [classes, features]",
                    f->path, shape);
    c->num_classes = (int)fc->dim[0];
    c->width = (double)fc->dim[1] / FEATURES;
    TRY(check_head(&c->aux, f));
    if (width && (!text_to_double(&c->width, width) || !(c->width >= 1.0 / 64 && c->width <= 8)))
        return FAIL(ERR_INPUT, "%s: metadata width: found \"%s\", expected 0.015625..8", f->path,
                    width);
    if (!width && inception_scaled(c->width, FILTERS) != in->dim[0])
        return FAIL(
            ERR_INPUT,
            "%s: tensor \"fc.weight\": found %s, expected %lld features, %d for each filter of "
            "\"%s\"",
            f->path, shape, (long long)in->dim[0] * (FEATURES / FILTERS), FEATURES / FILTERS,
            in->name);
    return OK;
}

Status inception_config_read(InceptionConfig *out, const char *path)
{
    ModelSource m;
    InceptionConfig c = {.num_classes = 1000, .width = 1, .aux = true, .dropout = 0.5f};
    Status s;
    TRY_OR(done, s, model_source_open(&m, path));
    TRY_OR(done, s, m.json.value ? from_json(&c, &m.json) : from_file(&c, &m.file));
    *out = c;
done:
    model_source_close(&m);
    return s;
}
