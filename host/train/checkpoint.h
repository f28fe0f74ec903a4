/* checkpoint.h - the state of a training run on disk, whole or absent.
 *
 * DIR/step-NNNNNNNNN/ holds state.safetensors (blocks of floats by name; numbers and texts of the
 * run as metadata) and MANIFEST.json (its size and SHA-256), written into a temporary directory
 * that is renamed last. Older checkpoints are removed only after the new one stands; two are kept.
 * Loading takes the newest that verifies and says so when it had to skip one.
 */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H
#include "base/log.h"
#include "train/optimizer.h"

typedef struct {
    const char *name;
    float *data;  /* device memory, borrowed: the block, or this rank's pieces of it */
    size_t count; /* of the whole block, as it is in files */
    /* Where ranks keep pieces: whose they are, of which store, and what is elsewhere in the block
     * (optimizer_visit). */
    Optimizer *keeper;
    int store;
    const float *rest;
} CheckpointBlock;

/* Blocks of several ranks are the same in files as those of one: a checkpoint does not tell how many
 * saved it. All ranks of comm (NULL: alone) call these together and get the same Status; rank 0
 * writes, and looks for what there is. */

/* info: numbers and texts of the run, in JSON: the caller's own. */
Status checkpoint_save(const char *dir, long step, Device *d, Comm *comm,
                       const CheckpointBlock *block, int n, const char *info, Log *log);

/* A checkpoint that verifies. */
typedef struct {
    char *folder, *info; /* owned; NULL where there is none */
    long step;           /* then -1 */
} Checkpoint;            /* starts as {0} */

/* The newest one of dir, which need not exist. Reads the file once, for its hash, and its header.
 */
Status checkpoint_find(Checkpoint *c, const char *dir, Comm *comm, Log *log);
/* Blocks must agree in name and count with what was saved. */
Status checkpoint_load(const Checkpoint *c, Device *d, Comm *comm, const CheckpointBlock *block,
                       int n);
void checkpoint_free(Checkpoint *c); /* accepts {0} */

void checkpoint_remove_all(const char *dir);
#endif
