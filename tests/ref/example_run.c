/* example_run.c - a finished study's folder with made-up content; see example_run.h. */
#include "ref/example_run.h"
#include "base/csv.h"
#include "config/config.h"
#include "data/image.h"
#include "data/manifest.h"
#include "ref/make_image.h"
#include "stats/evaluation.h"
#include <stdlib.h>
#include <string.h>

enum { TRAIN = 6, VAL = 3, TEST = EXAMPLE_TEST / 2, PER_CLASS = TRAIN + VAL + TEST };

static const char *const class_name[] = {EXAMPLE_NORMAL, EXAMPLE_DISEASE_A, EXAMPLE_DISEASE_B};

typedef struct {
    const char *folder;
    uint32_t seed;
    Arena memory;
} Maker;

static RandomKey draw(const Maker *m, uint64_t sample)
{
    return (RandomKey){.seed = m->seed, .stream = STREAM_TEST, .step = 77, .sample = sample};
}

static char *at(Maker *m, const char *name)
{
    return arena_printf(&m->memory, "%s/%s", m->folder, name);
}

static void write_text(Maker *m, const char *name, const char *text)
{
    CHECK(!file_write_unsynced(at(m, name), text, strlen(text)));
}

static void put(json_t *object, const char *key, json_t *value)
{
    CHECK(value && !json_object_set_new(object, key, value));
}

/* ---- films ---------------------------------------------------------------------------- */

/* Not waiting for the disk: there are many. */
static void make_film_file(const char *path, uint32_t number, bool synthetic)
{
    enum { PIXELS = EXAMPLE_SIDE * EXAMPLE_SIDE };
    ImageText note = {"Synthetic", "yes: for a test"};
    unsigned char grey[PIXELS];
    float pixel[PIXELS];
    char *data;
    size_t size;
    make_film(grey, EXAMPLE_SIDE, EXAMPLE_SIDE, number);
    for (int k = 0; k < PIXELS; k++) pixel[k] = (float)grey[k] / 255;
    CHECK(
        !image_encode_png(&data, &size, pixel, EXAMPLE_SIDE, EXAMPLE_SIDE, &note, synthetic, path));
    CHECK(!file_write_unsynced(path, data, size));
    free(data);
}

static Split split_of(int i)
{
    return i < TRAIN ? SPLIT_TRAIN : i < TRAIN + VAL ? SPLIT_VAL : SPLIT_TEST;
}

static char *film_id(Maker *m, int label, int i)
{
    return arena_printf(&m->memory, "<i>film %d-%02d\"", label, i);
}

/* Two test films per patient. */
static char *film_patient(Maker *m, int label, int i)
{
    return arena_printf(&m->memory, "p&<%d-%d>", label,
                        split_of(i) == SPLIT_TEST ? i / 2 : 100 + i);
}

static void make_films(Maker *m)
{
    Manifest list = {0};
    char *file = at(m, "stages/prepare/data/manifest.csv");
    CHECK(!dir_make(at(m, "stages/prepare/data/images")));
    manifest_init(&list, file);
    for (int label = 0; label < 3; label++)
        for (int i = 0; i < PER_CLASS; i++) {
            ManifestRow row = {.id = film_id(m, label, i),
                               .label_name = class_name[label],
                               .patient = film_patient(m, label, i),
                               .source = "some/where.png",
                               .split = split_of(i),
                               .width = EXAMPLE_SIDE,
                               .height = EXAMPLE_SIDE};
            row.path = arena_printf(&m->memory, "images/%d-%02d.png", label, i);
            char *full = at(m, arena_printf(&m->memory, "stages/prepare/data/%s", row.path));
            make_film_file(full, m->seed + (uint32_t)(label * 100 + i), false);
            CHECK(!hash_file(row.sha256, full));
            manifest_add(&list, &row);
        }
    CHECK(!manifest_finish(&list) && !manifest_write(&list));
    manifest_free(&list);
    write_text(m, "stages/prepare/data/left_out.csv",
               "path,label,patient,reason\na.png,x,p,exact <duplicate>\nb.png,x,q,exact "
               "<duplicate>\nc.png,x,r,damaged\n");
}

static void make_synthetic(Maker *m, int label, const char *folder)
{
    OutFile o = {0};
    CHECK(!dir_make(at(m, arena_printf(&m->memory, "%s/images", folder))));
    CHECK(!out_open(&o, at(m, arena_printf(&m->memory, "%s/manifest.csv", folder))));
    CHECK(!out_printf(&o, "id,path,label,source_id,source_patient,prompt\n"));
    for (int i = 0; i < EXAMPLE_SYNTHETIC; i++) {
        char *path = arena_printf(&m->memory, "images/%06d.png", i);
        make_film_file(at(m, arena_printf(&m->memory, "%s/%s", folder, path)),
                       m->seed + 5000 + (uint32_t)(label * 100 + i), true);
        const char *field[] = {arena_printf(&m->memory, "synthetic-<%d>", i),
                               path,
                               class_name[label],
                               film_id(m, 0, i % TRAIN),
                               film_patient(m, 0, i % TRAIN),
                               "a \"prompt\""};
        for (int k = 0; k < 6; k++) CHECK(!csv_write_field(&o, field[k], k == 5));
    }
    CHECK(!out_commit(&o));
}

/* ---- predictions and what follows from them ------------------------------------------- */

static void make_predictions(Maker *m, Predictions *p, int disease, int arm)
{
    const char *id[EXAMPLE_TEST], *patient[EXAMPLE_TEST];
    uint8_t label[EXAMPLE_TEST];
    double score[EXAMPLE_TEST];
    for (int i = 0; i < EXAMPLE_TEST; i++) {
        int film = TRAIN + VAL + i / 2;
        label[i] = (uint8_t)(i % 2);
        id[i] = film_id(m, label[i] ? disease : 0, film);
        patient[i] = film_patient(m, label[i] ? disease : 0, film);
        double u = random_uniform(draw(m, (uint64_t)(disease * 2 + arm)), (uint32_t)i);
        score[i] = (double)(int)(40 * (.7 * u + .3 * label[i])) / 40; /* with ties */
    }
    CHECK(!predictions_new(p, "example", EXAMPLE_TEST, id, patient, label, score));
    char *name = arena_printf(&m->memory, "stages/%s-%c/predictions_test.csv",
                              arm ? "augmented" : "baseline", 'a' + disease - 1);
    CHECK(!predictions_write(p, at(m, name)));
}

static json_t *arm_json(const Predictions *p, int arm, const Resampling *how)
{
    Evaluation e;
    int more = arm ? EXAMPLE_SYNTHETIC : 0;
    evaluation_run(&e, p, .5, how);
    return json_pack("{s:o, s:{s:{s:i,s:i,s:i}, s:{s:i,s:i,s:i}, s:{s:i,s:i,s:i}}, "
                     "s:{s:s,s:f,s:i}}",
                     "evaluation", evaluation_json(&e), "films", "train", "normal", 60, "diseased",
                     6, "synthetic", more, "val", "normal", 30, "diseased", 3, "synthetic",
                     more / 2, "test", "normal", TEST, "diseased", TEST, "synthetic", 0,
                     "threshold", "rule", "youden", "value", .5, "validation_films", 33 + more / 2);
}

static json_t *quality_json(const char *folder)
{
    return json_pack(
        "{s:s, s:i, s:i, s:i, s:{s:s, s:{s:f,s:f,s:[i,i]}, s:{s:f,s:f,s:[i,i]}, "
        "s:{s:f,s:f,s:[i,i]}}, "
        "s:{s:f,s:i,s:i,s:f,s:[f,f]}, s:{s:{s:i,s:f,s:f}, s:{s:i,s:f,s:f}, s:{s:i,s:f,s:f}}}",
        "folder", folder, "count", EXAMPLE_SYNTHETIC, "train", 8, "val", 3, "kid", "features",
        "classifier.weights", "synthetic", "value", .0123, "std_error", .0011, "n", 11, 30, "real",
        "value", -.0004, "std_error", .0009, "n", 6, 30, "normal", "value", .0789, "std_error",
        .0021, "n", 6, 30, "called_diseased", "value", .7273, "called", 8, "n", 11, "threshold", .5,
        "ci_clopper_pearson", .39, .94, "nearest", "with_source", "n", 11, "median", .91, "max",
        .97, "with_training", "n", 11, "median", .93, "max", .98, "real_test_with_training", "n",
        30, "median", .88, "max", .96);
}

static json_t *make_task(Maker *m, int disease)
{
    Resampling how = {200, 200, 3};
    Predictions p[2] = {{0}};
    Comparison compared;
    char *folder = arena_printf(&m->memory, "synthetic/disease_%c", 'a' + disease - 1);
    for (int arm = 0; arm < 2; arm++) make_predictions(m, &p[arm], disease, arm);
    make_synthetic(m, disease, folder);
    comparison_run(&compared, &p[1], .5, &p[0], .5, &how);
    json_t *j = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "normal", EXAMPLE_NORMAL, "disease",
                          class_name[disease], "baseline", arm_json(&p[0], 0, &how), "augmented",
                          arm_json(&p[1], 1, &how), "comparison", comparison_json(&compared),
                          "synthetic", quality_json(folder));
    for (int arm = 0; arm < 2; arm++) predictions_free(&p[arm]);
    return j;
}

static void make_metrics(Maker *m)
{
    static const char *const split[] = {"train", "val", "test", "pool"};
    json_t *classes = json_object(), *tasks = json_object();
    for (int label = 0; label < 3; label++) {
        json_t *one = json_object();
        for (int k = 0; k < 4; k++)
            put(one, split[k],
                json_pack("{s:i, s:i}", "films", 1000 + 10 * label + k, "patients", 900 + k));
        put(classes, class_name[label], one);
    }
    put(tasks, "a", make_task(m, 1));
    put(tasks, "b", make_task(m, 2));
    example_metrics_put(m->folder,
                        json_pack("{s:{s:s,s:i,s:i,s:i}, s:{s:o}, s:o}", "study", "name",
                                  "a </title> study", "seed", 7, "repeats", 1, "size", EXAMPLE_SIDE,
                                  "data", "classes", classes, "tasks", tasks));
}

/* ---- histories and settings ----------------------------------------------------------- */

static void make_history(Maker *m, const char *stage, int rows, const char *columns)
{
    Text t = {0};
    text_add(&t, "{\"columns\": [%s],\n \"rows\": [", columns);
    for (int i = 0; i < rows; i++) {
        text_add(&t, "%s\n  [%d, %.6f, ", i ? "," : "", i + 1, 1. / (i + 1));
        if (i % 3) text_add(&t, "null");
        else text_add(&t, "%.6f", 1.2 / (i + 1));
        text_add(&t, ", 0.625, 0.001]");
    }
    text_add(&t, "]}\n");
    write_text(m, arena_printf(&m->memory, "stages/%s/history.json", stage), t.s);
    free(t.s);
}

static void make_rest(Maker *m)
{
    for (char letter = 'a'; letter <= 'b'; letter++) {
        const char *arm = "\"epoch\", \"loss\", \"val_loss\", \"val_balanced_accuracy\", \"rate\"";
        make_history(m, arena_printf(&m->memory, "baseline-%c", letter), 9, arm);
        make_history(m, arena_printf(&m->memory, "augmented-%c", letter), 1, arm);
        make_history(m, arena_printf(&m->memory, "ldm-%c", letter), 700,
                     "\"step\", \"loss\", \"val_loss\", \"rate\", \"grad_norm\"");
    }
    write_text(m, "stages/ldm-a/stage.json",
               "{\"stage\": \"ldm-a\", \"inputs\": {\"base model\": \"<0123abcd>\"}}");
    write_text(m, "stages/baseline-a/stage.json", "{\"inputs\": {\"first weights\": \"89ef\"}}");
    write_text(m, "stages/prepare/stage.json", "{\"inputs\": {\"films\": \"4567\"}}");
    write_text(m, "stages/evaluate/stage.json", "{\"program\": \"9.8.7\"}");
    write_text(m, "config.ini",
               "[study]\nname = a </title> study\nseed = 7\nbase_note = On <nothing> at all.\n"
               "[data]\nnormal = " EXAMPLE_NORMAL "\ndisease_a = " EXAMPLE_DISEASE_A
               "\ndisease_b = " EXAMPLE_DISEASE_B "\nsource = /somewhere/secret/films<1>.csv\n"
               "[ldm]\nbase = /somewhere/secret/base<2>\n"
               "[classifier]\nbatch = 12\naccumulate = 3\nweights = "
               "/somewhere/secret/trunk.safetensors\n");
}

void example_run(const char *folder, uint32_t seed)
{
    Maker m = {folder, seed, {0}};
    CHECK(!dir_make(folder));
    make_films(&m);
    make_metrics(&m);
    make_rest(&m);
    arena_free(&m.memory);
}

json_t *example_metrics(const char *folder)
{
    char *path = path_join(folder, "metrics.json");
    json_t *j = json_load_file(path, 0, NULL);
    CHECK(j);
    free(path);
    return j;
}

void example_metrics_put(const char *folder, json_t *metrics)
{
    char *path = path_join(folder, "metrics.json");
    CHECK(metrics && !json_write(metrics, path));
    json_decref(metrics);
    free(path);
}
