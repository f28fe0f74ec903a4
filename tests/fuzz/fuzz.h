/* fuzz.h - a small mutation fuzzer, linked with one target each (gcc has no libFuzzer).
 *
 * The driver mutates the target's seeds (bits, bytes, lengths, numbers, chunks, other seeds), runs
 * each in this process and keeps those that fail at a place not seen before, as new seeds. It is
 * meant to run under the sanitizers. What counts as a finding: a crash, a sanitizer's report, a
 * leak, an input that takes longer than 10 seconds, a failure that breaks the rules of status.h.
 * The input is then in fuzz-<target>.bin, and `fuzz_<target> FILE` runs it again.
 *
 *   FUZZ_SECONDS  how long, 60      FUZZ_SEED  of the mutations, the time
 */
#ifndef FUZZ_H
#define FUZZ_H
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

/* What a target defines. */
extern const char fuzz_name[];
void fuzz_seeds(const char *folder); /* calls fuzz_add(); folder: scratch, removed at the end */
Status fuzz_one(const unsigned char *data, size_t size);
/* Puts right in place what random changes nearly always break; called for every other input. */
void fuzz_repair(unsigned char *data, size_t size);

void fuzz_add(const void *data, size_t size);
void fuzz_add_file(const char *path, unsigned char kind); /* with a first byte before it */
void fuzz_put(const char *path, const void *data, size_t size); /* a file, quickly */
#endif
