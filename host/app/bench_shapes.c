/* bench_shapes.c - the ops of one call of each model that take its time, per image: Stable
 * Diffusion v1.5 at 512 px (UNet on 64 x 64 latents, decoder), and Inception-V3 at 299 px. */
#include "app/bench.h"

#define CONV(model, count, side, c, k, r, s, stride)                                               \
    {                                                                                              \
        BENCH_CONV, model, count, side, side, c, k, r, s, stride, 0, false                         \
    }
#define VALID(model, count, side, c, k, r, s, stride)                                              \
    {                                                                                              \
        BENCH_CONV, model, count, side, side, c, k, r, s, stride, 0, true                          \
    }
#define LINEAR(model, count, rows, c, k)                                                           \
    {                                                                                              \
        BENCH_LINEAR, model, count, rows, 1, c, k, 1, 1, 1, 0, false                               \
    }
#define ATTENTION(model, count, tq, tk, heads, d)                                                  \
    {                                                                                              \
        BENCH_ATTENTION, model, count, tq, tk, (heads) * (d), (heads) * (d), 1, 1, 1, heads, false \
    }
#define NORM(op, model, count, h, w, c)                                                            \
    {                                                                                              \
        op, model, count, h, w, c, c, 1, 1, 1, 0, false                                            \
    }

const BenchShape bench_shape[] = {
    {BENCH_COPY, "any", 1, 256, 1, 1, 1, 1, 1, 1, 0, false},
    ATTENTION("unet", 5, 4096, 4096, 8, 40),
    ATTENTION("unet", 5, 1024, 1024, 8, 80),
    ATTENTION("unet", 5, 256, 256, 8, 160),
    ATTENTION("unet", 1, 64, 64, 8, 160),
    ATTENTION("unet", 5, 4096, 77, 8, 40),
    ATTENTION("unet", 5, 1024, 77, 8, 80),
    ATTENTION("unet", 5, 256, 77, 8, 160),
    ATTENTION("unet-2.1", 5, 4096, 4096, 5, 64),
    CONV("unet", 1, 64, 4, 320, 3, 3, 1),
    CONV("unet", 7, 64, 320, 320, 3, 3, 1),
    CONV("unet", 2, 64, 640, 320, 3, 3, 1),
    CONV("unet", 1, 64, 960, 320, 3, 3, 1),
    CONV("unet", 10, 64, 320, 320, 1, 1, 1),
    CONV("unet", 1, 64, 320, 320, 3, 3, 2),
    CONV("unet", 6, 32, 640, 640, 3, 3, 1),
    CONV("unet", 1, 32, 1920, 640, 3, 3, 1),
    CONV("unet", 6, 16, 1280, 1280, 3, 3, 1),
    CONV("unet", 2, 16, 2560, 1280, 3, 3, 1),
    CONV("unet", 11, 8, 1280, 1280, 3, 3, 1),
    CONV("unet", 1, 64, 320, 4, 3, 3, 1),
    CONV("vae", 10, 64, 512, 512, 3, 3, 1),
    CONV("vae", 5, 256, 256, 256, 3, 3, 1),
    CONV("vae", 5, 512, 128, 128, 3, 3, 1),
    VALID("inception", 1, 299, 3, 32, 3, 3, 2),
    VALID("inception", 1, 73, 80, 192, 3, 3, 1),
    CONV("inception", 2, 35, 48, 64, 5, 5, 1),
    CONV("inception", 12, 17, 768, 192, 1, 1, 1),
    CONV("inception", 4, 17, 192, 192, 1, 7, 1),
    CONV("inception", 4, 17, 192, 192, 7, 1, 1),
    LINEAR("unet", 15, 4096, 320, 320),
    LINEAR("unet", 5, 4096, 320, 2560),
    LINEAR("unet", 5, 4096, 1280, 320),
    LINEAR("unet", 5, 1024, 640, 5120),
    LINEAR("unet", 5, 256, 1280, 10240),
    LINEAR("unet", 5, 77, 768, 640),
    NORM(BENCH_GROUPNORM, "unet", 8, 64, 64, 320),
    NORM(BENCH_GROUPNORM, "unet", 6, 32, 32, 640),
    NORM(BENCH_GROUPNORM, "unet", 6, 16, 16, 1280),
    NORM(BENCH_GROUPNORM, "vae", 6, 512, 512, 128),
    NORM(BENCH_LAYERNORM, "unet", 15, 4096, 1, 320),
    NORM(BENCH_LAYERNORM, "unet", 15, 256, 1, 1280),
    NORM(BENCH_GEGLU, "unet", 5, 4096, 1, 2560),
    NORM(BENCH_GEGLU, "unet", 5, 256, 1, 10240),
    NORM(BENCH_BATCHNORM, "inception", 1, 147, 147, 64),
    NORM(BENCH_BATCHNORM, "inception", 40, 17, 17, 192),
    {BENCH_ADAMW, "any", 1, 128, 1, 1, 1, 1, 1, 1, 0, false},
    {BENCH_SQ_NORM, "any", 1, 128, 1, 1, 1, 1, 1, 1, 0, false},
};
const int bench_shape_count = sizeof bench_shape / sizeof *bench_shape;
