/* tensor_map.h - what cuTensorMapEncode* puts into the 128 bytes of a CUtensorMap here. */
#ifndef HOSTCUDA_TENSOR_MAP_H
#define HOSTCUDA_TENSOR_MAP_H

#include "core.h"

namespace hostcuda
{

struct TensorMap {
    uint32_t magic;
    uint8_t type, element_bytes, rank, swizzle;
    char *base;
    uint64_t dim[5], stride[4]; /* elements; bytes, of dimensions 1 and up */
    uint16_t box[5];            /* elements per dimension; im2col: channels, pixels */
    uint8_t step[5];            /* element strides */
    uint8_t im2col, fill_nan;
    int16_t lower[3], upper[3]; /* im2col: corners in w, h, d */
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap), "a map has 128 bytes");

/* A run of at most 16 bytes of the tile: where it lies in the tile and in global memory (null: out
 * of bounds, filled). Runs do not cross the 16-byte units of the swizzle. */
struct Piece {
    uint32_t offset, bytes;
    char *global;
};

const TensorMap &tensor_map(const TensorCopy &copy, At at);
uint32_t tile_bytes(const TensorMap &map);
std::vector<Piece> tile_pieces(const TensorMap &map, const TensorCopy &copy);

/* Swizzle of a shared address; modes as CU_TENSOR_MAP_SWIZZLE_{NONE,32B,64B,128B}. */
inline uint32_t swizzle(uint32_t address, int mode)
{
    static const uint32_t mask[4] = {0, 0x10, 0x30, 0x70};
    return address ^ (address >> 3 & mask[mode]);
}

} // namespace hostcuda
#endif
