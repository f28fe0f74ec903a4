/* rank.c - one rank of the jobs that test_parallel*.{c,sh} start:
 *
 *   train_rank KIND OUT [section.key=value]... [stop=STEP] [stopper=RANK] [bad=FILM] [films=N] [slow=RANK]
 *
 * KIND: ldm, classifier, autoencoder: trained as the commands do, on a few films (N, and two to
 * validate), into OUT;
 * statistics: synchronised batch statistics against those of one big batch; steps: see rank_steps.c.
 */
#include "app/ranks.h"
#include "base/csv.h"
#include "base/random.h"
#include "base/signal.h"
#include "rank.h"
#include "train/autoencoder_trainer.h"
#include "train/classifier.h"
#include "train/ldm_trainer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRAIN = 20, VAL = 7, FILMS = TRAIN + VAL };

typedef struct {
    Config config;
    char *path[FILMS];
    LdmFilm prompted[FILMS];
    ClassifierFilm labelled[FILMS];
    long stop;
    int stopper, bad, slow, n_train, n_val;
} Job;

static void choose_films(Job *j, const char *out)
{
    Csv csv;
    CHECK(!csv_read(&csv, SOURCE_DIR "/samples/tiny/films.csv") && csv.n_row >= FILMS);
    int path = csv_find(&csv, "path"), label = csv_find(&csv, "label");
    for (int i = 0; i < FILMS; i++) {
        int at = i < j->n_train ? i * TRAIN / j->n_train : i; /* few are of both labels */
        int row = at * csv.n_row / FILMS;
        char *relative = path_join("samples/films", csv_at(&csv, row, path));
        j->path[i] = i == j->bad ? path_join(out, "bad.png") : path_join(SOURCE_DIR, relative);
        free(relative);
        j->prompted[i] = (LdmFilm){j->path[i], i % 2 ? "chest x-ray|film of a chest" : "pneumonia"};
        j->labelled[i] = (ClassifierFilm){
            j->path[i], strcmp(csv_at(&csv, row, label), "normal") != 0, (uint64_t)i};
    }
    csv_free(&csv);
}

/* The others need no file. */
static bool trains_a_model(const char *kind)
{
    return strcmp(kind, "steps") && strcmp(kind, "statistics");
}

static Status parse(Job *j, const char *kind, int argc, char **argv)
{
    *j = (Job){.bad = -1, .slow = -1, .n_train = TRAIN, .n_val = VAL};
    config_default(&j->config);
    if (trains_a_model(kind)) TRY(config_read(&j->config, SOURCE_DIR "/configs/tiny.ini"));
    else TRY(config_assign(&j->config, "study.device=cpu", "test"));
    for (int i = 0; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        CHECK(value++);
        if (!strncmp(argv[i], "stop=", 5)) j->stop = atol(value);
        else if (!strncmp(argv[i], "stopper=", 8)) j->stopper = atoi(value);
        else if (!strncmp(argv[i], "bad=", 4)) j->bad = atoi(value);
        else if (!strncmp(argv[i], "slow=", 5)) j->slow = atoi(value);
        else if (!strncmp(argv[i], "films=", 6)) {
            j->n_train = atoi(value);
            j->n_val = 2;
            CHECK(j->n_train > 0 && j->n_train <= TRAIN);
        } else TRY(config_assign(&j->config, argv[i], "test"));
    }
    return OK;
}

static Status work(Job *j, const char *kind, const char *out, Ranks *r)
{
    if (!strcmp(kind, "statistics")) return rank_statistics(r);
    if (!strcmp(kind, "steps")) return rank_steps(r, &j->config, out, j->slow);
    /* Only one rank is asked to stop. */
    long stop = r->place.rank == j->stopper ? j->stop : 0;
    const char *const *path = (const char *const *)j->path;
    if (!strcmp(kind, "ldm"))
        return ldm_train(&(LdmJob){.config = &j->config,
                                   .base = SOURCE_DIR "/configs/models/tiny",
                                   .out = out,
                                   .name = "test",
                                   .train = j->prompted,
                                   .n_train = j->n_train,
                                   .prior = j->prompted,
                                   .n_prior = 3,
                                   .val = j->prompted + TRAIN,
                                   .n_val = j->n_val,
                                   .identity = "identity",
                                   .stop_after = stop,
                                   .comm = r->comm},
                         r->device, r->log);
    if (!strcmp(kind, "classifier"))
        return classifier_train(&(ClassifierJob){.config = &j->config,
                                                 .seed = 3,
                                                 .out = out,
                                                 .name = "test",
                                                 .train = j->labelled,
                                                 .n_train = j->n_train,
                                                 .val = j->labelled + TRAIN,
                                                 .n_val = j->n_val,
                                                 .classes = 2,
                                                 .identity = "identity",
                                                 .stop_after = stop,
                                                 .comm = r->comm},
                                r->device, r->log);
    return autoencoder_train(&(AutoencoderJob){.config = &j->config,
                                               .base = SOURCE_DIR "/configs/models/tiny/vae",
                                               .out = out,
                                               .name = "test",
                                               .train = path,
                                               .n_train = j->n_train,
                                               .val = path + TRAIN,
                                               .n_val = j->n_val,
                                               .identity = "identity",
                                               .stop_after = stop,
                                               .comm = r->comm},
                             r->device, r->log);
}

int main(int argc, char **argv)
{
    CHECK(argc > 2);
    Job j;
    Log *log = log_new(true);
    Ranks r = {.log = log}; /* for where its opening is not reached */
    signal_install();
    Status s = parse(&j, argv[1], argc - 3, argv + 3);
    if (!s && trains_a_model(argv[1])) choose_films(&j, argv[2]);
    if (!s) s = ranks_open(&r, &j.config, log);
    if (!s) s = work(&j, argv[1], argv[2], &r);
    s = ranks_close(&r, s);
    if (s && !status_said()) log_failure(log, status_message(), "");
    for (int i = 0; i < FILMS; i++) free(j.path[i]);
    log_free(log);
    return (int)s;
}
