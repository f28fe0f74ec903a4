/* wgmma.cpp - wgmma.mma_async: D[64][n] += A[64][k] B[k][n] by four warps, 16 rows each.
 *
 * Operands in shared memory come as descriptors: start address, leading (LBO) and stride (SBO) byte
 * offsets, swizzle. Both layouts are made of 16-byte units, 8 units to a core matrix:
 *   K-major, swizzled by S bytes: unit c of row i at (i % 8) S + (i / 8) SBO + 16 c
 *   K-major, not swizzled:        (i % 8) 16 + (i / 8) SBO + c LBO
 *   MN-major, S bytes: 8 rows from i on at k: (2 i) % S + (2 i / S) LBO + (k % 8) S + (k / 8) SBO
 *   MN-major, not swizzled:       (k % 8) 16 + (k / 8) LBO + (i / 8) SBO
 * and address bits 4-6 are then exclusive-ored with bits 7-9 as far as the swizzle asks for.
 */
#include "check.h"
#include "tensor_map.h"

#include <cstring>
#include <memory>

namespace hostcuda
{

static constexpr int MAX_N = 256, MAX_DEPTH = 16;

namespace
{
struct Descriptor {
    uint32_t start, lbo, sbo;
    int swizzle; /* 0 none, 1 128B, 2 64B, 3 32B */
};

/* Units of 16 bytes that one warp's wgmma reads. */
using Units = std::vector<char *>;

struct Tile {
    alignas(32) float a[16][MAX_DEPTH], b[MAX_DEPTH][MAX_N], c[16][MAX_N];
};
} // namespace

static Descriptor decode(uint64_t d)
{
    return {(uint32_t)(d & 0x3fff) << 4, (uint32_t)(d >> 16 & 0x3fff) << 4,
            (uint32_t)(d >> 32 & 0x3fff) << 4, (int)(d >> 62)};
}

static uint32_t unit_offset(const Descriptor &d, int i, int k, int element_bytes, bool mn_major)
{
    const uint32_t ui = (uint32_t)i, uk = (uint32_t)k;
    const uint32_t span = d.swizzle ? 256u >> d.swizzle : 16;
    if (!mn_major) {
        const uint32_t unit = uk * (uint32_t)element_bytes / 16;
        return ui % 8 * span + ui / 8 * d.sbo + unit * (d.swizzle ? 16 : d.lbo);
    }
    if (!d.swizzle) return ui / 8 * d.sbo + uk % 8 * 16 + uk / 8 * d.lbo;
    return 2 * ui % span + 2 * ui / span * d.lbo + uk % 8 * span + uk / 8 * d.sbo;
}

static char *unit_at(const Descriptor &d, int i, int k, int element_bytes, bool mn_major, At at)
{
    static const int tensor_map_mode[4] = {0, 3, 2, 1};
    const uint32_t address = swizzle(d.start + unit_offset(d, i, k, element_bytes, mn_major),
                                     tensor_map_mode[d.swizzle]);
    char *p = shared_pointer(address + (special.cluster_ctarank << 24));
    if (!in_shared(p, 16))
        trap(at, "wgmma: operand element (%d,%d) at shared address 0x%x is out of bounds", i, k,
             address);
    return p;
}

/* Reads rows [first, first + n) of an operand, calling put(row - first, k, value). */
template <class F>
static void read_operand(const Wgmma &op, uint64_t descriptor, bool mn_major, int first, int n,
                         Units &units, At at, F put)
{
    const Descriptor d = decode(descriptor);
    const int size = op.type == MmaType::TF32 ? 4 : 2, depth = 32 / size, per_unit = 16 / size;
    if (descriptor >> 49 & 7) trap(at, "wgmma: a descriptor with a base offset");
    if (mn_major && size == 4) trap(at, "wgmma: tf32 operands are K-major");
    for (int i = 0; i < n; i += mn_major ? per_unit : 1) {
        for (int k = 0; k < depth; k += mn_major ? 1 : per_unit) {
            char *unit = unit_at(d, first + i, k, size, mn_major, at);
            units.push_back(unit);
            for (int e = 0; e < per_unit; e++) {
                uint32_t bits = 0;
                memcpy(&bits, unit + e * size, (size_t)size);
                put(i + (mn_major ? e : 0), k + (mn_major ? 0 : e), mma_value(op.type, bits));
            }
        }
    }
}

static const Wgmma &lane_op(Collective &c, int lane)
{
    return **static_cast<const Wgmma **>(c.argument[lane]);
}

static void check_lanes(Collective &c, At at)
{
    const Wgmma &first = lane_op(c, 0);
    for (int i = 1; i < LANES; i++) {
        const Wgmma &op = lane_op(c, i);
        if (op.desc_a != first.desc_a || op.desc_b != first.desc_b || op.scale_d != first.scale_d)
            trap(at, "wgmma: descriptors or scale-d differ between lanes");
    }
}

/* A from registers: the fragment of mma, 16 rows of this warp. */
static void read_registers(Collective &c, Tile &t)
{
    const int pack = lane_op(c, 0).type == MmaType::TF32 ? 1 : 2;
    for (int i = 0; i < LANES; i++)
        for (int r = 0; r < 4; r++)
            for (int h = 0; h < pack; h++)
                t.a[i / 4 + 8 * (r & 1)][i % 4 * pack + h + 4 * pack * (r >> 1)] =
                    mma_value(lane_op(c, i).type, lane_op(c, i).a[r] >> (16 * h));
}

static int accumulator_row(int lane, int r) { return lane / 4 + 8 * (r >> 1 & 1); }
static int accumulator_column(int lane, int r) { return r / 4 * 8 + lane % 4 * 2 + (r & 1); }

__attribute__((target_clones("arch=x86-64-v3", "default"))) static void multiply(Tile &t, int depth,
                                                                                 int n, float sign)
{
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < depth; k++) {
            const float a = sign * t.a[m][k];
            for (int j = 0; j < n; j++) t.c[m][j] += a * t.b[k][j];
        }
}

static void touch_units(const Units &units, int thread, At at)
{
    for (const char *p : units) {
        check_touch(thread, p, 16, Touch::ASYNC_READ, at);
        check_pending_read(p, 16, 1);
    }
}

static void multiply_warp(Collective &c, Warp &w, At at)
{
    counts.mmas++;
    check_lanes(c, at);
    const Wgmma &op = lane_op(c, 0);
    static Tile t; /* 34 KB: too much for a fiber's stack */
    Units units;
    if (op.a) read_registers(c, t);
    else
        read_operand(op, op.desc_a, op.transpose_a, w.id % 4 * 16, 16, units, at,
                     [](int i, int k, float v) { t.a[i][k] = v; });
    read_operand(op, op.desc_b, op.transpose_b, 0, op.n, units, at,
                 [](int i, int k, float v) { t.b[k][i] = v; });
    if (settings.check) {
        touch_units(units, w.first, at);
        w.wgmmas.push_back([units] {
            for (const char *p : units) check_pending_read(p, 16, -1);
        });
    }
    for (int i = 0; i < LANES; i++)
        for (int r = 0; r < op.n / 2; r++)
            t.c[accumulator_row(i, r)][accumulator_column(i, r)] =
                op.scale_d ? lane_op(c, i).d[r] : 0.0f;
    multiply(t, op.type == MmaType::TF32 ? 8 : 16, op.n, (float)(op.scale_a * op.scale_b));
    for (int i = 0; i < LANES; i++)
        for (int r = 0; r < op.n / 2; r++)
            lane_op(c, i).d[r] = t.c[accumulator_row(i, r)][accumulator_column(i, r)];
}

void wgmma(const Wgmma &op, At at)
{
    if (machine.current->warp->id / 4 * 4 + 4 > (int)special.nwarpid)
        trap(at, "wgmma in a warpgroup of fewer than 4 warps");
    if (op.n < 8 || op.n > MAX_N || op.n % 8) trap(at, "wgmma: n = %d", op.n);
    if (!machine.current->wgmma_fenced) trap(at, "wgmma without a wgmma.fence since the last wait");
    const Wgmma *mine = &op;
    collective(FULL_MASK, OP_WGMMA, true, &mine, at, multiply_warp);
}

void wgmma_fence(At at)
{
    machine.current->wgmma_fenced = true;
    collective(FULL_MASK, OP_WGMMA, true, nullptr, at, [](Collective &, Warp &, At) {});
}

void wgmma_commit(At at)
{
    collective(FULL_MASK, OP_WGMMA, true, nullptr, at, [](Collective &, Warp &w, At) {
        w.wgmma_groups.push_back(std::move(w.wgmmas));
        w.wgmmas.clear();
    });
}

void wgmma_wait(int groups_left, At at)
{
    if (groups_left == 0) machine.current->wgmma_fenced = false;
    collective(FULL_MASK, OP_WGMMA, true, &groups_left, at, [](Collective &c, Warp &w, At) {
        auto &groups = w.wgmma_groups;
        const size_t left = (size_t) * static_cast<int *>(c.argument[0]);
        const size_t n = groups.size() > left ? groups.size() - left : 0;
        for (size_t i = 0; i < n; i++)
            for (Action &end : groups[i]) end();
        groups.erase(groups.begin(), groups.begin() + (ptrdiff_t)n);
    });
}

} // namespace hostcuda
