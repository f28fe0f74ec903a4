/* cmd_prepare.c - equipoise prepare: from films as they were published to a data set with splits.
 */
#include "app/commands.h"
#include "app/options.h"
#include "data/prepare.h"

static const Option option[] = {
    {"out", "DIR", "new folder for images/, manifest.csv, left_out.csv, near_duplicates.csv", NULL},
    {"size", "PX", "side of the square films, 8 or more; they are fitted whole, padded with black",
     "256"},
    {"train-share", "S", "of the films, by patients", "0.7"},
    {"val-share", "S", "of the films, by patients", "0.1"},
    {"pool-share", "S",
     "of the films, by patients, for models that precede the study's; what is left tests", "0"},
    {"train-ratio", "R",
     "normal films per film of each disease in train and val, by leaving out "
     "diseased patients; 0 keeps all",
     "0"},
    {"normal", "CLASS", "the class without disease, for --train-ratio", "normal"},
    {"seed", "N", "of the split", "0"},
    {"keep-split", NULL, "take the source's own splits; refused if a patient is in two", NULL},
    {"images", "DIR", "csv: the folder that paths start from; without it, the table's own", NULL},
    {"patient-regex", "RE", "folders: the first group, matched to the file's name, is the patient",
     NULL},
    {"classes", "A,B,..",
     "the classes there may be; without it, names that look like slips are refused", NULL},
    {"allow-synthetic", NULL, "take films that are marked as synthetic", NULL},
};

static const Usage usage = {
    .command = "prepare",
    .arguments = "FORMAT SOURCE",
    .help =
        "Checks every film, drops duplicates, splits by patient and writes square grey PNGs with "
        "a manifest.\nFORMAT is kermany (the published folders), folders (SOURCE/CLASS/FILE, or "
        "SOURCE/SPLIT/CLASS/FILE with --keep-split) or csv (a table with the columns path, label, "
        "patient and, if there, split and id; a split column is always kept).",
    .least = 2,
    .most = 2,
    .option = option,
    .n_option = sizeof option / sizeof *option,
};

static Status read_options(PrepareOptions *p, const Options *o)
{
    int seed;
    p->source = (FilmsSource){.format = o->argument[0],
                              .source = o->argument[1],
                              .images = options_text(o, "images"),
                              .patient_regex = options_text(o, "patient-regex"),
                              .classes = options_text(o, "classes"),
                              .keep_split = options_has(o, "keep-split"),
                              .allow_synthetic = options_has(o, "allow-synthetic")};
    p->normal = options_text(o, "normal");
    TRY(options_need(&p->out, o, "out"));
    TRY(options_int(&p->size, o, "size", 8, 4096));
    TRY(options_real(&p->share.train, o, "train-share", 0, 1));
    TRY(options_real(&p->share.val, o, "val-share", 0, 1));
    TRY(options_real(&p->share.pool, o, "pool-share", 0, 1));
    TRY(options_real(&p->train_ratio, o, "train-ratio", 0, 1000));
    p->shares_given = options_has(o, "train-share") || options_has(o, "val-share") ||
                      options_has(o, "pool-share");
    if (options_has(o, "normal") && p->train_ratio <= 0)
        return FAIL(ERR_USAGE,
                    "prepare: found --normal without --train-ratio above 0, expected both: alone "
                    "it has no effect");
    TRY(options_int(&seed, o, "seed", 0, 2147483647));
    p->seed = (uint32_t)seed;
    return OK;
}

Status cmd_prepare(App *app, int argc, char **argv)
{
    Options o;
    PrepareOptions p = {0};
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(read_options(&p, &o));
    return prepare_run(&p, app->log);
}
