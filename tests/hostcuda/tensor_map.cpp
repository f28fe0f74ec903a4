/* tensor_map.cpp - encoding tensor maps and walking through their boxes.
 *
 * Tiled: element e of the box at coordinate c is element c + e * step of the tensor; what is
 * outside of the tensor (negative, too) is filled. im2col: pixels are taken in the order w, h, d, n
 * from the start coordinate on, inside the bounding box [lower, dim - 1 + upper] of every spatial
 * dimension; the filter offsets are added to every pixel and what is then outside of the tensor is
 * filled.
 */
#include "tensor_map.h"

#include <algorithm>
#include <cstring>

namespace hostcuda
{

static constexpr uint32_t MAGIC = 0x70616d74;

/* ---- encoding ---- */

/* UINT8 UINT16 UINT32 INT32 UINT64 INT64 F16 F32 F64 BF16 F32_FTZ TF32 TF32_FTZ */
static const uint8_t element_bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};

static uint32_t swizzle_span(int swizzle) { return swizzle ? 16u << swizzle : 1u << 30; }

/* The part that both kinds share; false for what the driver refuses. */
static bool begin_map(TensorMap &t, int type, cuuint32_t rank, void *base, const cuuint64_t *dims,
                      const cuuint64_t *strides, const cuuint32_t *steps, int interleave,
                      int swizzle_mode, int fill)
{
    if (type < 0 || type > 12 || rank < 1 || rank > 5 || interleave || swizzle_mode < 0 ||
        swizzle_mode > 3 || reinterpret_cast<uintptr_t>(base) % 16 || !base)
        return false;
    t.magic = MAGIC;
    t.type = (uint8_t)type;
    t.element_bytes = element_bytes[type];
    t.rank = (uint8_t)rank;
    t.swizzle = (uint8_t)swizzle_mode;
    t.base = static_cast<char *>(base);
    t.fill_nan = fill != 0;
    for (cuuint32_t i = 0; i < rank; i++) {
        if (dims[i] == 0 || dims[i] > 1ull << 32 || steps[i] < 1 || steps[i] > 8) return false;
        if (i && (strides[i - 1] % 16 || strides[i - 1] >= 1ull << 40)) return false;
        t.dim[i] = dims[i];
        t.step[i] = (uint8_t)(i ? steps[i] : 1); /* the innermost one is ignored */
        if (i) t.stride[i - 1] = strides[i - 1];
    }
    return true;
}

static bool inner_fits(const TensorMap &t)
{
    const uint32_t bytes = (uint32_t)t.box[0] * t.element_bytes;
    return bytes % 16 == 0 && bytes <= swizzle_span(t.swizzle);
}

static CUresult hand_out(CUtensorMap *map, const TensorMap &t)
{
    memset(map, 0, sizeof *map);
    memcpy(static_cast<void *>(map), &t, sizeof t);
    return CUDA_SUCCESS;
}

CUresult encode_tiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base,
                      const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box,
                      const cuuint32_t *element_strides, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle_mode, CUtensorMapL2promotion,
                      CUtensorMapFloatOOBfill fill)
{
    TensorMap t = {};
    if (!begin_map(t, type, rank, base, dims, strides, element_strides, interleave, swizzle_mode,
                   fill))
        return CUDA_ERROR_INVALID_VALUE;
    for (cuuint32_t i = 0; i < rank; i++) {
        if (box[i] < 1 || box[i] > 256) return CUDA_ERROR_INVALID_VALUE;
        t.box[i] = (uint16_t)((box[i] + t.step[i] - 1) / t.step[i]);
    }
    return inner_fits(t) ? hand_out(map, t) : CUDA_ERROR_INVALID_VALUE;
}

CUresult encode_im2col(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base,
                       const cuuint64_t *dims, const cuuint64_t *strides, const int *lower_corner,
                       const int *upper_corner, cuuint32_t channels_per_pixel,
                       cuuint32_t pixels_per_column, const cuuint32_t *element_strides,
                       CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle_mode,
                       CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill)
{
    TensorMap t = {};
    if (rank < 3 || !begin_map(t, type, rank, base, dims, strides, element_strides, interleave,
                               swizzle_mode, fill))
        return CUDA_ERROR_INVALID_VALUE;
    if (channels_per_pixel < 1 || channels_per_pixel > 256 || pixels_per_column < 1 ||
        pixels_per_column > 1024)
        return CUDA_ERROR_INVALID_VALUE;
    const int limit = rank == 3 ? 1 << 15 : rank == 4 ? 1 << 7 : 1 << 4;
    for (cuuint32_t i = 0; i < rank - 2; i++) {
        const int corners[2] = {lower_corner[i], upper_corner[i]};
        for (int c : corners)
            if (c < -limit || c >= limit) return CUDA_ERROR_INVALID_VALUE;
        t.lower[i] = (int16_t)lower_corner[i];
        t.upper[i] = (int16_t)upper_corner[i];
    }
    t.im2col = 1;
    t.box[0] = (uint16_t)channels_per_pixel;
    t.box[1] = (uint16_t)pixels_per_column;
    return inner_fits(t) ? hand_out(map, t) : CUDA_ERROR_INVALID_VALUE;
}

/* ---- reading ---- */

const TensorMap &tensor_map(const TensorCopy &copy, At at)
{
    const TensorMap &t = *reinterpret_cast<const TensorMap *>(copy.map);
    if (reinterpret_cast<uintptr_t>(copy.map) % 64)
        trap(at, "TMA: the tensor map is not 64-byte aligned");
    if (t.magic != MAGIC || t.rank != copy.rank)
        trap(at, "TMA: the operand is not a tensor map of rank %d", copy.rank);
    if ((t.im2col != 0) != copy.im2col) trap(at, "TMA: tiled and im2col do not go together");
    return t;
}

uint32_t tile_bytes(const TensorMap &t)
{
    uint32_t n = t.element_bytes;
    for (int i = 0; i < (t.im2col ? 2 : t.rank); i++) n *= t.box[i];
    return n;
}

namespace
{
struct Walk {
    const TensorMap &map;
    std::vector<Piece> pieces;
    uint32_t offset = 0;
};
} // namespace

/* One row of the box: box[0] elements from coordinate x on; row is null outside of the tensor. */
static void add_row(Walk &w, char *row, int64_t x)
{
    const uint32_t size = w.map.element_bytes, per_piece = 16 / size;
    for (uint32_t i = 0; i < w.map.box[0]; i += per_piece) {
        const int64_t first = x + i, end = first + per_piece;
        if (row && first >= 0 && (uint64_t)end <= w.map.dim[0]) {
            w.pieces.push_back({w.offset, 16, row + first * size});
        } else {
            for (int64_t e = first; e < end; e++) {
                const bool in = row && e >= 0 && (uint64_t)e < w.map.dim[0];
                w.pieces.push_back(
                    {w.offset + (uint32_t)(e - first) * size, size, in ? row + e * size : nullptr});
            }
        }
        w.offset += 16;
    }
}

/* The row at coordinates x[1..], or null when it is outside. */
static char *row_at(const TensorMap &t, const int64_t *x)
{
    char *p = t.base;
    for (int i = 1; i < t.rank; i++) {
        if (x[i] < 0 || (uint64_t)x[i] >= t.dim[i]) return nullptr;
        p += x[i] * (int64_t)t.stride[i - 1];
    }
    return p;
}

static void walk_tiled(Walk &w, const TensorCopy &copy)
{
    const TensorMap &t = w.map;
    uint32_t rows = 1;
    for (int i = 1; i < t.rank; i++) rows *= t.box[i];
    for (uint32_t r = 0; r < rows; r++) {
        int64_t x[5] = {};
        uint32_t rest = r;
        for (int i = 1; i < t.rank; i++) {
            x[i] = copy.coordinate[i] + (int64_t)(rest % t.box[i]) * t.step[i];
            rest /= t.box[i];
        }
        add_row(w, row_at(t, x), copy.coordinate[0]);
    }
}

static void next_pixel(const TensorMap &t, int64_t *pixel)
{
    for (int i = 1; i < t.rank - 1; i++) {
        pixel[i] += t.step[i];
        if (pixel[i] <= (int64_t)t.dim[i] - 1 + t.upper[i - 1]) return;
        pixel[i] = t.lower[i - 1];
    }
    pixel[t.rank - 1]++;
}

static void walk_im2col(Walk &w, const TensorCopy &copy)
{
    const TensorMap &t = w.map;
    int64_t pixel[5] = {}, x[5] = {};
    std::copy(copy.coordinate, copy.coordinate + t.rank, pixel);
    for (uint32_t p = 0; p < t.box[1]; p++) {
        for (int i = 1; i < t.rank; i++)
            x[i] = pixel[i] + (i < t.rank - 1 && copy.n_offsets ? copy.offset[i - 1] : 0);
        add_row(w, row_at(t, x), copy.coordinate[0]);
        next_pixel(t, pixel);
    }
}

std::vector<Piece> tile_pieces(const TensorMap &map, const TensorCopy &copy)
{
    Walk w = {map, {}, 0};
    w.pieces.reserve(tile_bytes(map) / 16);
    if (map.im2col) walk_im2col(w, copy);
    else walk_tiled(w, copy);
    return std::move(w.pieces);
}

} // namespace hostcuda
