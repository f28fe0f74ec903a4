/* bench.h - equipoise bench kernels: single ops at the shapes that the published models have. */
#ifndef BENCH_H
#define BENCH_H
#include "exec/device.h"

typedef enum {
    BENCH_CONV,
    BENCH_LINEAR,
    BENCH_ATTENTION,
    BENCH_GROUPNORM, /* with SiLU */
    BENCH_LAYERNORM,
    BENCH_GEGLU,
    BENCH_BATCHNORM, /* training, with ReLU */
    BENCH_ADAMW,     /* with averaged weights and their bf16 copy */
    BENCH_SQ_NORM,   /* of the gradients */
    BENCH_COPY       /* within the device: what its memory can do */
} BenchOp;

typedef enum { PART_FORWARD, PART_BACKWARD, PART_DX, PART_DW } BenchPart;

/* One image's worth: x[h,w,c] -> k channels, filters r x s. Tokens: h of them, keys w. Sweeps: h
 * million floats. */
typedef struct {
    BenchOp op;
    const char *model;
    int count; /* how often the model has it */
    int h, w, c, k, r, s, stride, heads;
    bool valid; /* convolutions: no padding */
} BenchShape;

extern const BenchShape bench_shape[];
extern const int bench_shape_count;

typedef struct {
    Device *device;
    const char *only;   /* rows whose "op part" begins so; NULL: all */
    int batch, samples; /* images; measurements of each row */
    int shrink;         /* divides images, channels and tokens: to try it out */
    int rotate_mib;     /* buffers are changed until this much was used; 0: one set */
    int warm_ms;
    double tflops, tbs; /* what this device can do, for the bound; 0: unknown */
    bool piped, list;
    bool libraries;     /* rows of cuBLASLt and cuDNN behind the others */
} KernelBench;

/* Prints CSV on stdout: a row for each op and part; list: without running it; piped: for each line
 * on stdin, which is a row's number. */
Status bench_kernels(const KernelBench *b);
#endif
