/* synthesis.h - synthetic films from a fine-tuned model: one PNG and one line of a manifest each.
 *
 * A film is a function of (weights, seed, sample id, source film, prompt, sampler settings) and of
 * nothing else: not of the batch it was made in, nor of what was made before. So a stopped run
 * makes only what is missing, and any film can be made again alone; and ranks share the films, each
 * of which is written by the rank that made it.
 */
#ifndef SYNTHESIS_H
#define SYNTHESIS_H
#include "base/log.h"
#include "comm/comm.h"
#include "config/config.h"
#include "sample/sampler.h"
#include "train/cost.h"

/* The synthesis stage. */
typedef struct {
    const char *id, *path, *patient;
} SourceFilm; /* from the training fold: the caller's duty, by construction */
typedef struct {
    const Config *config;     /* [study] seed, [data] size, [synthesis] */
    const char *model;        /* folder of ldm_train's model/ */
    const char *out;          /* gets images/000000.png ... and manifest.csv */
    const char *label;        /* class of the films made */
    const char *prompts;      /* templates parted by '|' */
    const SourceFilm *source; /* image-to-image: film i starts from source[permuted i] */
    int n_source, count;
    uint64_t first_id; /* sample ids first_id .. first_id + count - 1 */
    const char *name;  /* for progress lines */
    Comm *comm;        /* of the ranks that share the films; NULL: alone. Rank 0 writes the manifest */
} SynthesisJob;
Status synthesis_run(const SynthesisJob *job, Device *d, Log *log);
/* Of the job, of which config, model and count are looked at. The model's weights need not be there. */
Status synthesis_measure(Cost *cost, const SynthesisJob *job, Device *counting);
/* manifest.csv: id, path, label, source_id, source_patient, source_sha256, prompt, negative_prompt,
 * seed, sample_id, mode, strength, guidance, steps, eta, spacing, weights_sha256, sha256 */
#endif
