/* inception_v3_config.c - config.json of our Inception-V3 folders, or the same from a file's
 * shapes. */
#include "base/text.h"
#include "models/inception_v3.h"
#include "weights/model_folder.h"

enum { FEATURES = 2048 }; /* before the last layer, at width 1 */

static Status from_json(InceptionConfig *c, JsonConfig *j)
{
    static const char *const ignored[] = {"architecture", "architectures", "model_type",
                                          "init_weights"};
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
    return json_config_finish(j, ignored, 4);
}

/* The file's metadata may name the width; else the last layer tells it where nothing was rounded.
 */
static Status from_file(InceptionConfig *c, const SafeFile *f)
{
    const SafeTensor *fc = st_find(f, "fc.weight");
    if (!fc || fc->ndim != 2 || fc->dim[0] < 1 || fc->dim[0] > 1 << 20)
        return FAIL(ERR_INPUT,
                    "%s: found no \"fc.weight\" [classes, features], expected an Inception-V3",
                    f->path);
    const char *width = st_metadata(f, "width");
    c->num_classes = (int)fc->dim[0];
    c->aux = st_find(f, "AuxLogits.fc.weight") != NULL;
    c->width = (double)fc->dim[1] / FEATURES;
    if (width && (!text_to_double(&c->width, width) || !(c->width >= 1.0 / 64 && c->width <= 8)))
        return FAIL(ERR_INPUT, "%s: metadata width: found \"%s\", expected 0.015625..8", f->path,
                    width);
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
