/* cpu.h - what the CPU kernels share: the stream's inside, scratch memory, vector clones. */
#ifndef CPU_H
#define CPU_H
#include "kernels_base.h"

struct Dnnl;                      /* primitives of oneDNN, made once per shape: dnnl.c */

struct Stream {
    void       *scratch;          /* owned */
    size_t      scratch_bytes;
    struct Dnnl *dnnl;            /* owned; NULL until first used */
};

/* At least `bytes` of scratch, 64-byte aligned, valid until the next call; NULL without memory. */
void *stream_scratch(Stream *s, size_t bytes);

void dnnl_close(struct Dnnl *d);  /* accepts NULL */

enum { PARALLEL_MIN = 16384 };    /* elements from which starting the threads pays */

/* One function, compiled for AVX-512, AVX2 and the baseline, chosen when the program starts. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__)
#define SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define SIMD_CLONES 1
#else
#define SIMD
#define SIMD_CLONES 0
#endif
#endif
