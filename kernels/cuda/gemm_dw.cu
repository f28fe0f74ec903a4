/* gemm_dw.cu - products of gemm.cuh on tensor cores: gradients of weights. See gemm_tile.cuh. */
#include "gemm_mma.cuh"

Status gemm_dw(const Gemm *g, GemmTile tile, bool thin, Stream *s)
{
    return gemm_by_tile<GEMM_DW>(g, tile, thin, s);
}
