/* lone_stage.h - the frame of commands that run one stage outside of a study.
 *
 * lone_stage_run() opens ranks and device, takes the folder --out (lock, log.jsonl), lets the command
 * choose its films and note what its result depends on, and then skips, starts or continues the
 * stage by its record OUT/stage.json (study/stage.h). Where the stage is complete, and when it has
 * become so, the path of its result is printed on stdout. Several ranks do all this together (ranks.h).
 *
 *   static const LoneKind kind = {.name = "train-ldm", .output = {"model", "history.json"},
 *                                 .result = "model", .choose = choose_films, .work = train};
 *   TRY(train_call(&call, &usage, argc, argv));
 *   if (call.helped) return OK;
 *   LoneStage l = {.config = c, .out = call.out, .label = call.label, .log = app->log, .job = &job};
 *   TRY(lone_stage_run(&l, &kind));
 */
#ifndef LONE_STAGE_H
#define LONE_STAGE_H
#include "app/options.h"
#include "base/arena.h"
#include "data/manifest.h"
#include "study/stage.h"

/* The command line of a command that trains: CONFIG, its settings checked, --out, --minutes and --class. */
typedef struct {
    Config config;
    const char *out, *label; /* label: --class, NULL where it is not given or its preset, all */
    int minutes;
    bool helped; /* --help was given and answered: nothing is left to do */
} TrainCall;

Status train_call(TrainCall *call, const Usage *usage, int argc, char **argv);

typedef struct {
    const Config *config;
    const char *out;
    const char *label; /* class of the films, or NULL */
    Log *log;
    void *job; /* the command's own */
    /* For choose and work: */
    Device *device;
    Comm *comm;  /* of all ranks, which run the stage together */
    Arena arena; /* lives until the stage ends */
    Stage stage; /* of the command; choose adds its inputs */
    Stage data;  /* after lone_stage_films() */
    Manifest manifest;
    char identity[HASH_TEXT]; /* of all inputs, valid in work: what checkpoints belong to */
} LoneStage;

typedef struct {
    const char *name;      /* of the stage */
    const char *output[4]; /* files and folders below OUT that its record hashes, then NULL */
    const char *result;    /* below OUT, printed */
    Status (*choose)(LoneStage *l);
    Status (*work)(LoneStage *l);
} LoneKind;

Status lone_stage_run(LoneStage *l, const LoneKind *kind);

/* For choose: prepares data.source into OUT/prepare/ unless that is done, reads its manifest and
 * makes it an input of the stage. */
Status lone_stage_films(LoneStage *l);
#endif
