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
#include "exec/device.h"

typedef struct {
    const char *name;
    float *data; /* device memory, borrowed */
    size_t count;
} CheckpointBlock;

/* info: numbers and texts of the run, in JSON: the caller's own. */
Status checkpoint_save(const char *dir, long step, Device *d, const CheckpointBlock *block, int n,
                       const char *info, Log *log);

/* *step is -1 if dir holds none (or does not exist). *info is heap. Blocks must agree in name and
 * count with what was saved. */
Status checkpoint_load(const char *dir, Device *d, const CheckpointBlock *block, int n, long *step,
                       char **info, Log *log);

/* Only the newest valid step and its info, without reading blocks; info may be NULL. */
Status checkpoint_newest(const char *dir, long *step, char **info, Log *log);

void checkpoint_remove_all(const char *dir);
#endif
