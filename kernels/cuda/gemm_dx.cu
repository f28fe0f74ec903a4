/* gemm_dx.cu - products of gemm.cuh on tensor cores: gradients of images. See gemm_tile.cuh. */
#include "gemm_mma.cuh"

Status gemm_dx(const Gemm *g, GemmTile tile, bool thin, Stream *s)
{
    return gemm_by_tile<GEMM_DX>(g, tile, thin, s);
}
