/* weights.h - the parts of equipoise weights: what each of its subcommands does. */
#ifndef WEIGHTS_H
#define WEIGHTS_H
#include "base/log.h"
#include "weights/safetensors.h"

/* Visits every file below `from`, in order of names, but what an unfinished write left. */
typedef struct Walk Walk;
struct Walk {
    Log *log;
    const char *from, *to; /* roots; to: NULL when inspecting */
    SafeDtype dtype;
    Status (*visit)(Walk *w, const char *path, const char *relative);
    int n_files; /* safetensors seen */
    size_t n_values;
    uint64_t bytes;
};
Status weights_walk(Walk *w);

/* A file or a folder with its numbers as dtype; shards become one file. */
Status weights_convert(Log *log, const char *from, const char *to, SafeDtype dtype);

/* A single-file checkpoint of Stable Diffusion (CompVis' names) as a folder of diffusers' layout;
 * config: a folder with the configs, tokenizer and scheduler of that model, copied. dtype NULL: as
 * in the checkpoint. */
Status weights_compvis(Log *log, const char *from, const char *config, const char *to,
                       const SafeDtype *dtype);
#endif
