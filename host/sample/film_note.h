/* film_note.h - what the file of a synthetic film says of itself: that it is one, and what made it.
 * No patient, no path. */
#ifndef FILM_NOTE_H
#define FILM_NOTE_H
#include "base/file.h"
#include "sample/sampler.h"

typedef struct {
    const char *label;                             /* class, or NULL */
    const char *prompt, *negative;                 /* as SampleRequest has them */
    const char *source_sha, *noise_sha;            /* of files used, or NULL */
    const char *weights_sha;                       /* weights_hash() */
    const char *lora;                              /* "SHA-256:scale" of one on top, or NULL */
    uint32_t seed;
    uint64_t id;
    SamplerSettings set;
} FilmNote;

/* A PNG, grey or colour as the shape says, with the note in its text chunks. */
Status film_note_write(const char *path, const float *film, FilmShape shape, const FilmNote *note);

/* SHA-256 over those of the weights of UNet and text encoder in a model's folder. */
Status weights_hash(char sha[HASH_TEXT], const char *model);
#endif
