/* gemm_plan.h - how a product of gemm.cuh is cut: tile and splits. C, so that tests can ask for
 * each tile by name; programs leave the choice to gemm_conv(). */
#ifndef GEMM_PLAN_H
#define GEMM_PLAN_H
#include "kernels_matrix.h"

#ifdef __cplusplus
#define GEMM_CONSTEXPR static constexpr
extern "C" {
#else
#define GEMM_CONSTEXPR static inline
#endif

/* pass   rows m     columns n   inner k      a     b
 * FWD    y pixels   k           taps x c     x     w
 * DX     x pixels   c           taps x k     dy    w
 * DW     k          taps x c    y pixels     dy    x */
typedef enum { GEMM_FWD, GEMM_DX, GEMM_DW } GemmPass;

/* rows, columns, warps down and across, stages, blocks a multiprocessor holds by registers, and
 * percent of the fastest tile's rate where both fit (estimates). 160 divides the widths of the
 * diffusion models, 320 and its multiples. */
#define GEMM_TILES(X)                                                                              \
    X(128, 160, 4, 2, 4, 2, 100)                                                                   \
    X(128, 128, 2, 4, 4, 2, 95)                                                                    \
    X(64, 160, 2, 2, 4, 3, 85)                                                                     \
    X(160, 128, 2, 4, 4, 2, 100)                                                                   \
    X(160, 64, 2, 2, 4, 3, 85)                                                                     \
    X(64, 64, 2, 2, 4, 4, 60)                                                                      \
    X(128, 32, 4, 1, 4, 4, 45)                                                                     \
    X(128, 16, 4, 1, 4, 4, 25)                                                                     \
    X(128, 8, 4, 1, 4, 4, 13)

#define GEMM_TILE_NAME(m, n, wm, wn, stages, blocks, rate) TILE_##m##x##n,
typedef enum { GEMM_TILES(GEMM_TILE_NAME) TILE_COUNT } GemmTile;
#undef GEMM_TILE_NAME

enum { MOST_SPLITS = 32 };

typedef struct {
    GemmTile tile; /* of bf16; fp32 has its own (gemm_ffma.cu), whatever stands here */
    int splits;    /* of the inner sum, 1 to MOST_SPLITS */
} GemmPlan;

/* Whether a tile is built for a pass; thin: channels of a or b are no multiple of 8. */
GEMM_CONSTEXPR int gemm_has_tile(GemmPass pass, GemmTile tile, int thin)
{
    int dw = tile == TILE_160x128 || tile == TILE_160x64;
    int both = tile == TILE_64x64 || tile == TILE_128x128;
    if (thin) return tile == TILE_64x64 || (tile == TILE_128x8 && pass != GEMM_DW);
    return both || (pass == GEMM_DW ? dw : !dw);
}

enum { MOST_PLANS = 4 };
/* The plans that should be fastest, in order of their predicted time; without one gemm_conv() takes
 * the first. c1 > 0: of gemm_joined(); upsampled: of gemm_upsampled(). */
Status gemm_plans(int *count, GemmPass pass, const ConvShape *shape, int c1, bool upsampled,
                  Dtype type, GemmPlan best[MOST_PLANS]);

/* out = a . b (+ bias); FWD: then what `after` says, or NULL; plan: NULL, or one that is built. */
Status gemm_conv(GemmPass pass, void *out, const void *a, const void *b, const float *bias,
                 const ConvAfter *after, const ConvShape *shape, const GemmPlan *plan, Dtype type,
                 Stream *s);

/* What cuda_linear_geglu_fwd() says, with a plan; shape as of gemm_conv() for the linear layer. */
Status gemm_geglu(void *y, const void *x, const void *w, const float *bias, const ConvShape *shape,
                  const GemmPlan *plan, Dtype type, Stream *s);

/* What cuda_conv2d_join_fwd() says, with a plan. */
Status gemm_joined(void *y, const void *x1, const void *x2, int c1, const void *w,
                   const float *bias, const ConvAfter *after, const ConvShape *shape,
                   const GemmPlan *plan, Dtype type, Stream *s);

/* What cuda_upsample2_conv2d_fwd() says, with a plan. */
Status gemm_upsampled(void *y, const void *x, const void *w4, const float *bias,
                      const ConvAfter *after, const ConvShape *shape, const GemmPlan *plan,
                      Dtype type, Stream *s);

#ifdef __cplusplus
}
#endif
#endif
