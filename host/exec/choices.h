/* choices.h - which kernels compute the products of a run (kernels_choice.h), chosen by measuring
 * and remembered. Does nothing on a device that is no GPU.
 *
 * Two files in one form, JSON that says what it was measured on: GPU, driver, libraries, program.
 *   the cache   $EQ_CACHE, else $XDG_CACHE_HOME/equipoise, else ~/.cache/equipoise, in it
 *               kernels-<gpu>.json: whatever this machine has measured
 *   the record  kernels*.json in the folder of a run, one of each process that works there: what
 *               its results were computed with, so that a continued run computes them so again; what a
 *               process does not use itself stays in its record
 * A process's own record goes before the others, those before the cache. A file that is damaged, or
 * of another machine or version, is passed over with one line and written anew.
 */
#ifndef CHOICES_H
#define CHOICES_H
#include "exec/device.h"

/* how: "off": our kernels as their launchers cut them; "read": what the files say; "on": and what
 * they do not say is measured at first use. folder: of a run, and the record's name there, or NULL:
 * none. log may be NULL. Called before any work; the last call holds. device_open() calls it with
 * $EQ_AUTOTUNE (without: "off") and no folder. $EQ_KERNELS=cublaslt or cudnn: that library wherever
 * it can, for tests and benches. ERR_USAGE: another word in one of these. */
Status device_autotune(Device *d, const char *how, const char *folder, const char *record,
                       Log *log);

/* After the first run of a graph: what was decided in it is on disk before its results can be. */
Status device_keep_choices(Device *d);

/* For benches. only: "cublaslt" or "cudnn" computes what it can from now on; NULL: ours again. */
void device_force_kernels(Device *d, const char *only);
/* Adds what has computed products since then, "cudnn/0" or "64x64/1 ours"; nothing on a CPU. */
void device_kernels_used(Device *d, Text *names);

/* For device.c. */
void choices_close(Device *d);
#endif
