/* matrix.cpp - ldmatrix, stmatrix, movmatrix and mma.sync.
 *
 * Fragments are those of the PTX manual: lane l holds row l / 4 and columns 2 (l % 4) + {0, 1} of
 * an 8x8 matrix of 16-bit values. Products are summed in f32 in order of k; the chip truncates, so
 * results differ by roundings.
 */
#include "check.h"

#include <cuda_fp16.h>

#include <cstring>

namespace hostcuda
{

/* ---- 8x8 matrices of 16-bit values ---- */

namespace
{
struct MatrixLane {
    uint32_t *registers;
    char *row;
    int count;
    bool transposed;
};
} // namespace

static MatrixLane &matrix_of(Collective &c, int lane)
{
    return *static_cast<MatrixLane *>(c.argument[lane]);
}

/* The 8 row addresses of matrix m, checked. */
static void take_rows(Collective &c, Warp &w, int m, bool store, At at, char **rows)
{
    for (int i = 0; i < 8; i++) {
        rows[i] = matrix_of(c, m * 8 + i).row;
        need_own_shared(rows[i], 16, 16, op_name(c.op), at);
        check_touch(w.first + m * 8 + i, rows[i], 16, store ? Touch::WRITE : Touch::READ, at);
    }
    if (settings.stats) stats_matrix(rows, store, at);
}

static uint32_t fragment_load(char *const *rows, int lane, bool transposed)
{
    uint32_t value = 0;
    const int high = lane / 4, low = lane % 4;
    if (!transposed) {
        memcpy(&value, rows[high] + low * 4, 4);
        return value;
    }
    uint16_t part[2];
    for (int h = 0; h < 2; h++) memcpy(&part[h], rows[low * 2 + h] + high * 2, 2);
    return part[0] | (uint32_t)part[1] << 16;
}

static void fragment_store(char *const *rows, int lane, bool transposed, uint32_t value)
{
    const int high = lane / 4, low = lane % 4;
    if (!transposed) {
        memcpy(rows[high] + low * 4, &value, 4);
        return;
    }
    const uint16_t part[2] = {(uint16_t)value, (uint16_t)(value >> 16)};
    for (int h = 0; h < 2; h++) memcpy(rows[low * 2 + h] + high * 2, &part[h], 2);
}

static void load_all(Collective &c, Warp &w, At at)
{
    const MatrixLane first = matrix_of(c, 0);
    for (int m = 0; m < first.count; m++) {
        char *rows[8];
        take_rows(c, w, m, false, at, rows);
        for (int i = 0; i < LANES; i++)
            matrix_of(c, i).registers[m] = fragment_load(rows, i, first.transposed);
    }
}

static void store_all(Collective &c, Warp &w, At at)
{
    const MatrixLane first = matrix_of(c, 0);
    for (int m = 0; m < first.count; m++) {
        char *rows[8];
        take_rows(c, w, m, true, at, rows);
        for (int i = 0; i < LANES; i++)
            fragment_store(rows, i, first.transposed, matrix_of(c, i).registers[m]);
    }
}

static void need_full_warp(Op op, At at)
{
    if (machine.current->warp->exist != FULL_MASK)
        trap(at, "%s in a warp of fewer than 32 threads", op_name(op));
}

void ldmatrix(uint32_t *registers, int count, bool transposed, const void *row, At at)
{
    need_full_warp(OP_LDMATRIX, at);
    MatrixLane m = {registers, static_cast<char *>(const_cast<void *>(row)), count, transposed};
    collective(FULL_MASK, OP_LDMATRIX, true, &m, at, load_all);
}

void stmatrix(const uint32_t *registers, int count, bool transposed, void *row, At at)
{
    need_full_warp(OP_STMATRIX, at);
    MatrixLane m = {const_cast<uint32_t *>(registers), static_cast<char *>(row), count, transposed};
    collective(FULL_MASK, OP_STMATRIX, true, &m, at, store_all);
}

void movmatrix(uint32_t *d, uint32_t a, At at)
{
    need_full_warp(OP_MOVMATRIX, at);
    uint32_t pair[2] = {a, 0};
    collective(FULL_MASK, OP_MOVMATRIX, true, pair, at, [](Collective &c, Warp &, At) {
        uint16_t matrix[8][8];
        char *rows[8];
        for (int i = 0; i < 8; i++) rows[i] = reinterpret_cast<char *>(matrix[i]);
        for (int i = 0; i < LANES; i++)
            fragment_store(rows, i, false, static_cast<uint32_t *>(c.argument[i])[0]);
        for (int i = 0; i < LANES; i++)
            static_cast<uint32_t *>(c.argument[i])[1] = fragment_load(rows, i, true);
    });
    *d = pair[1];
}

/* ---- mma ---- */

static const float *half_table()
{
    static float table[65536];
    static const bool filled = [] {
        for (int i = 0; i < 65536; i++) {
            __half_raw raw;
            raw.x = (unsigned short)i;
            table[i] = __half2float(__half(raw));
        }
        return true;
    }();
    (void)filled;
    return table;
}

static const float *const half_values = half_table();

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

template <MmaType TYPE> static inline float value_of(uint32_t bits)
{
    if (TYPE == MmaType::BF16) return from_bits(bits << 16);
    if (TYPE == MmaType::F16) return half_values[bits & 0xffff];
    return from_bits(bits & 0xffffe000u);
}

float mma_value(MmaType type, uint32_t bits)
{
    if (type == MmaType::BF16) return value_of<MmaType::BF16>(bits);
    if (type == MmaType::F16) return value_of<MmaType::F16>(bits);
    return value_of<MmaType::TF32>(bits);
}

namespace
{
struct MmaLane {
    MmaType type;
    int depth;
    float *d;
    const uint32_t *a, *b;
    const float *c;
};

/* C[16][8] += A[16][depth] B[depth][8] */
struct MmaTile {
    alignas(32) float a[16][16], b[16][8], c[16][8];
};
} // namespace

/* A register holds PACK values that follow each other in k, and registers go through (row + 8 h,
 * k + 4 PACK q): h = r & 1, q = r >> 1 for A; q = r for B. */
template <MmaType TYPE> static void unpack(MmaTile &t, const MmaLane &l, int lane)
{
    constexpr int PACK = TYPE == MmaType::TF32 ? 1 : 2;
    const int group = lane / 4, k0 = lane % 4 * PACK, quads = l.depth / (4 * PACK);
    for (int r = 0; r < 2 * quads; r++)
        for (int h = 0; h < PACK; h++)
            t.a[group + 8 * (r & 1)][k0 + h + 4 * PACK * (r >> 1)] =
                value_of<TYPE>(l.a[r] >> (16 * h));
    for (int r = 0; r < quads; r++)
        for (int h = 0; h < PACK; h++)
            t.b[k0 + h + 4 * PACK * r][group] = value_of<TYPE>(l.b[r] >> (16 * h));
    for (int r = 0; r < 4; r++) t.c[group + 8 * (r >> 1)][lane % 4 * 2 + (r & 1)] = l.c[r];
}

template <int DEPTH>
__attribute__((target_clones("arch=x86-64-v3", "default"))) static void multiply(MmaTile &t)
{
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < DEPTH; k++)
            for (int n = 0; n < 8; n++) t.c[m][n] += t.a[m][k] * t.b[k][n];
}

static const MmaLane &mma_of(Collective &c, int lane)
{
    return *static_cast<MmaLane *>(c.argument[lane]);
}

template <MmaType TYPE> static void mma_all(Collective &c, Warp &, At)
{
    counts.mmas++;
    MmaTile t;
    for (int i = 0; i < LANES; i++) unpack<TYPE>(t, mma_of(c, i), i);
    if (mma_of(c, 0).depth == 16) multiply<16>(t);
    else if (mma_of(c, 0).depth == 8) multiply<8>(t);
    else multiply<4>(t);
    for (int i = 0; i < LANES; i++)
        for (int r = 0; r < 4; r++)
            mma_of(c, i).d[r] = t.c[i / 4 + 8 * (r >> 1)][i % 4 * 2 + (r & 1)];
}

void mma(MmaType type, int depth, float d[4], const uint32_t *a, const uint32_t *b,
         const float c[4], At at)
{
    need_full_warp(OP_MMA, at);
    const int pack = type == MmaType::TF32 ? 1 : 2;
    if (depth != 4 * pack && depth != 8 * pack)
        trap(at, "mma.sync: no m16n8k%d of this type", depth);
    MmaLane l = {type, depth, d, a, b, c};
    const Complete all = type == MmaType::BF16  ? mma_all<MmaType::BF16>
                         : type == MmaType::F16 ? mma_all<MmaType::F16>
                                                : mma_all<MmaType::TF32>;
    collective(FULL_MASK, OP_MMA, true, &l, at, all);
}

} // namespace hostcuda
