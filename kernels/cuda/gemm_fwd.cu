/* gemm_fwd.cu - products of gemm.cuh on tensor cores: forward. See gemm_tile.cuh. */
#include "gemm_mma.cuh"

Status gemm_fwd(const Gemm *g, GemmTile tile, bool thin, Stream *s)
{
    return gemm_by_tile<GEMM_FWD>(g, tile, thin, s);
}
