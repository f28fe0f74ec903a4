/* hopper.cpp - cases of mbarrier, TMA, wgmma and setmaxnreg. Clusters are in clusters.cpp. */
#include "selftest.h"

namespace selftest
{

static void set(int i, float value) { store(data + i, value, HERE, Space::GLOBAL); }

static uint64_t *barrier(int i) { return reinterpret_cast<uint64_t *>(static_memory()) + i; }

static void init_barriers(int n, int count)
{
    if (thread_index() == 0) {
        for (int i = 0; i < n; i++) mbarrier_init(barrier(i), count, HERE);
        fence_proxy_async(HERE);
    }
    bar_sync(0, 0, HERE);
}

/* Bytes of a box of 8 rows and 32 floats in the tensor of 100 x 40 floats that begins at p. */
constexpr int BOX = 8 * 32 * 4;

static CUtensorMap make_map(float *p, int swizzle)
{
    CUtensorMap map;
    const cuuint64_t dims[2] = {40, 100}, strides[1] = {160};
    const cuuint32_t box[2] = {32, 8}, steps[2] = {1, 1};
    const CUresult r =
        encode_tiled(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, p, dims, strides, box, steps,
                     CU_TENSOR_MAP_INTERLEAVE_NONE, (CUtensorMapSwizzle)swizzle,
                     CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (r != CUDA_SUCCESS) trap(nullptr, "encode_tiled refuses");
    return map;
}

static TensorCopy box_at(const CUtensorMap *map, void *shared, uint64_t *bar, int x, int y)
{
    TensorCopy copy = {};
    copy.map = map;
    copy.shared = shared;
    copy.rank = 2;
    copy.coordinate[0] = x;
    copy.coordinate[1] = y;
    copy.bar = bar;
    return copy;
}

static float element(int x, int y)
{
    return x < 0 || y < 0 || x >= 40 || y >= 100 ? 0.0f : (float)(y * 40 + x);
}

/* Checks a loaded box: the lane's column in every row, swizzled by hand. */
static bool box_right(const char *tile, int x, int y, bool swizzled)
{
    bool ok = true;
    for (int row = 0; row < 8; row++) {
        const int column = thread_index() % 32, unit = column / 4 ^ (swizzled ? row : 0);
        const float f = load<float>(tile + row * 128 + unit * 16 + column % 4 * 4, HERE);
        ok = ok && f == element(x + column, y + row);
    }
    return ok;
}

static bool ones(int n)
{
    for (int i = 0; i < n; i++)
        if (data[i] != 1.0f) return false;
    return true;
}

static bool warp_of_ones() { return ones(32); }
static bool group_of_ones() { return ones(128); }

/* ---- TMA loads ---- */

static void tma_boxes()
{
    static CUtensorMap plain, swizzled;
    plain = make_map(input, 0);
    swizzled = make_map(input, 3);
    init_barriers(1, 1);
    bool ok = true;
    const int at[4][2] = {{0, 0}, {20, 95}, {-3, -2}, {8, 50}};
    for (int i = 0; i < 4; i++) {
        if (thread_index() == 0) {
            mbarrier_arrive(barrier(0), 1, BOX, false, HERE);
            const CUtensorMap *map = i & 1 ? &swizzled : &plain;
            tensor_load(box_at(map, dynamic_memory(), barrier(0), at[i][0], at[i][1]), HERE);
        }
        mbarrier_wait(barrier(0), i & 1, HERE);
        ok = ok && box_right(dynamic_memory(), at[i][0], at[i][1], i & 1);
        bar_sync(0, 0, HERE);
    }
    set(thread_index(), ok);
}

/* Two stages; the second warp produces, the first consumes. `careful`: waits for empty stages. */
static void ring(bool careful, int expected)
{
    static CUtensorMap map;
    map = make_map(input, 0);
    init_barriers(4, 1); /* full 0 1, empty 2 3 */
    bool ok = true;
    if (thread_index() == 32) {
        for (int i = 0; i < 6; i++) {
            if (careful && i >= 2) mbarrier_wait(barrier(2 + i % 2), (i / 2 - 1) & 1, HERE);
            mbarrier_arrive(barrier(i % 2), 1, expected, false, HERE);
            tensor_load(box_at(&map, dynamic_memory() + i % 2 * BOX, barrier(i % 2), 0, 8 * i),
                        HERE);
        }
    }
    if (thread_index() >= 32) return;
    for (int i = 0; i < 6; i++) {
        mbarrier_wait(barrier(i % 2), i / 2 & 1, HERE);
        ok = ok && box_right(dynamic_memory() + i % 2 * BOX, 0, 8 * i, false);
        warp_sync(ALL, HERE);
        if (thread_index() == 0) mbarrier_arrive(barrier(2 + i % 2), 1, -1, false, HERE);
    }
    set(thread_index(), ok);
}

static void ring_right() { ring(true, BOX); }
static void ring_careless() { ring(false, BOX); }
static void ring_expects_too_much() { ring(true, BOX + 16); }

static void load_not_waited_for()
{
    static CUtensorMap map;
    map = make_map(input, 0);
    init_barriers(1, 1);
    if (thread_index() == 0) {
        mbarrier_arrive(barrier(0), 1, BOX, false, HERE);
        tensor_load(box_at(&map, dynamic_memory(), barrier(0), 0, 0), HERE);
    }
    bar_sync(0, 0, HERE);
    box_right(dynamic_memory(), 0, 0, false);
}

static void too_many_arrivals()
{
    init_barriers(1, 1);
    uint64_t *b = barrier(0);
    mbarrier_arrive(b, 2, -1, false, HERE);
}

static void barrier_not_initialised() { mbarrier_wait(barrier(0), 0, HERE); }

/* ---- im2col ---- */

/* A 3x3 filter with padding 1 over 2 images of 5 x 4 pixels and 8 channels: the 32 output pixels
 * from (n 0, h 1, w 2) on, at filter tap (r, s). */
static void im2col()
{
    static CUtensorMap map;
    const cuuint64_t dims[4] = {8, 4, 5, 2}, strides[3] = {32, 128, 640};
    const int lower[2] = {-1, -1}, upper[2] = {-1, -1};
    const cuuint32_t steps[4] = {1, 1, 1, 1};
    if (encode_im2col(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, input, dims, strides, lower, upper,
                      8, 32, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
                      CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE))
        trap(HERE, "encode_im2col refuses");
    init_barriers(1, 1);
    const int l = thread_index();
    bool ok = true;
    for (int tap = 0; tap < 9; tap++) {
        const int r = tap / 3, s = tap % 3;
        if (l == 0) {
            TensorCopy copy = box_at(&map, dynamic_memory(), barrier(0), 0, 2 - 1);
            copy.rank = 4;
            copy.coordinate[2] = 1 - 1;
            copy.coordinate[3] = 0;
            copy.im2col = true;
            copy.n_offsets = 2;
            copy.offset[0] = (uint16_t)s;
            copy.offset[1] = (uint16_t)r;
            mbarrier_arrive(barrier(0), 1, 32 * 32, false, HERE);
            tensor_load(copy, HERE);
        }
        mbarrier_wait(barrier(0), tap & 1, HERE);
        const int pixel = l + 6, n = pixel / 20, h = pixel / 4 % 5 + r - 1, w = pixel % 4 + s - 1;
        for (int c = 0; c < 8; c++) {
            const bool in = n < 2 && h >= 0 && h < 5 && w >= 0 && w < 4;
            const float want = in ? (float)(((n * 5 + h) * 4 + w) * 8 + c) : 0.0f;
            ok = ok && load<float>(dynamic_memory() + l * 32 + c * 4, HERE) == want;
        }
        bar_sync(0, 0, HERE);
    }
    set(l, ok);
}

/* ---- TMA stores ---- */

static void fill_box(float scale)
{
    for (int row = 0; row < 8; row++)
        store(dynamic_memory() + row * 128 + thread_index() * 4, scale * (float)row, HERE);
}

static void tma_store(bool fence, bool wait, bool overwrite)
{
    static CUtensorMap map;
    map = make_map(data, 0);
    fill_box(1.0f);
    if (fence) fence_proxy_async(HERE);
    bar_sync(0, 0, HERE);
    if (thread_index() == 0) {
        const TensorCopy copy = box_at(&map, dynamic_memory(), nullptr, 20, 1);
        tensor_store(copy, BulkReduce::NONE, HERE);
        bulk_commit(HERE);
        bulk_wait(0, false, HERE);
        tensor_store(copy, BulkReduce::ADD, HERE);
        bulk_commit(HERE);
        if (overwrite) store(dynamic_memory(), 9.0f, HERE);
        if (wait) bulk_wait(0, true, HERE);
        store(dynamic_memory(), 9.0f, HERE);
    }
}

static void store_right() { tma_store(true, true, false); }
static void store_without_fence() { tma_store(false, true, false); }
static void store_overwritten() { tma_store(true, true, true); }
static void store_not_waited_for()
{
    static CUtensorMap map;
    map = make_map(data, 0);
    fill_box(1.0f);
    fence_proxy_async(HERE);
    bar_sync(0, 0, HERE);
    if (thread_index() == 0) {
        tensor_store(box_at(&map, dynamic_memory(), nullptr, 0, 0), BulkReduce::NONE, HERE);
        bulk_commit(HERE);
    }
}

static bool stored()
{
    bool ok = data[40] == 0.0f;
    for (int row = 0; row < 8; row++)
        for (int x = 0; x < 40; x++)
            ok = ok && data[(row + 1) * 40 + x] == (x < 20 ? 0.0f : 2.0f * (float)row);
    return ok;
}

static void bulk_round_trip()
{
    init_barriers(1, 1);
    if (thread_index() == 0) {
        mbarrier_arrive(barrier(0), 1, 256, false, HERE);
        bulk_load(dynamic_memory(), input + 100, 256, barrier(0), false, 0, HERE);
        mbarrier_wait(barrier(0), 0, HERE);
        bulk_store(data, dynamic_memory(), 256, HERE);
        bulk_commit(HERE);
        bulk_wait(0, false, HERE);
    }
}

static bool bulk_copied() { return data[0] == 100.0f && data[63] == 163.0f && data[64] == 0.0f; }

/* ---- wgmma ---- */

/* Operand tiles of 64 x 64 bf16, loaded by TMA with a swizzle of 128 bytes. The tile in memory
 * holds value(i, k) at row i, column k when K-major, at row k, column i when MN-major. */
static float a_value(int m, int k) { return small(m * 5 + k); }
static float b_value(int n, int k) { return small(n * 3 + k * 2 + 1); }

static void write_operands(bool transpose_a, bool transpose_b)
{
    uint16_t *tiles = reinterpret_cast<uint16_t *>(data);
    for (int i = thread_index(); i < 64 * 64; i += 128) {
        const int row = i / 64, column = i % 64;
        store(tiles + i, bf16(transpose_a ? a_value(column, row) : a_value(row, column)), HERE);
        store(tiles + 4096 + i, bf16(transpose_b ? b_value(column, row) : b_value(row, column)),
              HERE);
    }
    bar_sync(0, 0, HERE);
}

static void load_operands()
{
    static CUtensorMap map;
    const cuuint64_t dims[2] = {64, 128}, strides[1] = {128};
    const cuuint32_t box[2] = {64, 64}, steps[2] = {1, 1};
    encode_tiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, data, dims, strides, box, steps,
                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                 CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    init_barriers(1, 1);
    if (thread_index() == 0) {
        mbarrier_arrive(barrier(0), 1, 16384, false, HERE);
        tensor_load(box_at(&map, dynamic_memory(), barrier(0), 0, 0), HERE);
        tensor_load(box_at(&map, dynamic_memory() + 8192, barrier(0), 0, 64), HERE);
    }
    mbarrier_wait(barrier(0), 0, HERE);
}

static uint64_t descriptor(const char *p)
{
    return (shared_address(p) & 0x3ffff) >> 4 | 1ull << 16 | (uint64_t)(1024 >> 4) << 32 |
           1ull << 62;
}

static void multiply(float *d, bool transpose_a, bool transpose_b)
{
    wgmma_fence(HERE);
    for (int step = 0; step < 4; step++) { /* 16 of k: 32 bytes of a row, or 16 rows */
        Wgmma op = {};
        op.type = MmaType::BF16;
        op.n = 64;
        op.d = d;
        op.desc_a = descriptor(dynamic_memory() + step * (transpose_a ? 2048 : 32));
        op.desc_b = descriptor(dynamic_memory() + 8192 + step * (transpose_b ? 2048 : 32));
        op.scale_d = step > 0;
        op.scale_a = op.scale_b = 1;
        op.transpose_a = transpose_a;
        op.transpose_b = transpose_b;
        wgmma(op, HERE);
    }
    wgmma_commit(HERE);
}

static bool product_right(const float *d)
{
    const int t = thread_index(), lane = t % 32;
    for (int r = 0; r < 32; r++) {
        const int m = t / 32 * 16 + lane / 4 + 8 * (r >> 1 & 1),
                  n = r / 4 * 8 + lane % 4 * 2 + (r & 1);
        float want = 0;
        for (int k = 0; k < 64; k++) want += a_value(m, k) * b_value(n, k);
        if (d[r] != want) return false;
    }
    return true;
}

static void wgmma_case(bool transpose_a, bool transpose_b)
{
    float d[32];
    write_operands(transpose_a, transpose_b);
    fence_proxy_async(HERE);
    load_operands();
    multiply(d, transpose_a, transpose_b);
    wgmma_wait(0, HERE);
    const bool ok = product_right(d);
    bar_sync(0, 0, HERE);
    set(thread_index(), ok);
}

static void wgmma_kk() { wgmma_case(false, false); }
static void wgmma_mk() { wgmma_case(true, false); }
static void wgmma_kn() { wgmma_case(false, true); }
static void wgmma_mn() { wgmma_case(true, true); }

static void overwrite_before_wait()
{
    float d[32];
    write_operands(false, false);
    load_operands();
    multiply(d, false, false);
    store(dynamic_memory() + thread_index() * 16, 0.0f, HERE);
    wgmma_wait(0, HERE);
}

static void wgmma_without_proxy_fence()
{
    for (int i = thread_index(); i < 4096; i += 128) store(dynamic_memory() + i * 4, 0u, HERE);
    bar_sync(0, 0, HERE);
    float d[32];
    multiply(d, false, false);
    wgmma_wait(0, HERE);
}

static void wgmma_without_fence()
{
    float d[32] = {};
    Wgmma op = {};
    op.n = 64;
    op.d = d;
    wgmma(op, HERE);
}

/* ---- setmaxnreg ---- */

/* 384 threads have 168 registers each: 504 per lane of three warpgroups. */
static void registers(int producer, int consumer)
{
    if (thread_index() < 128) set_max_registers(false, producer, HERE);
    else set_max_registers(true, consumer, HERE);
}

static void registers_right() { registers(40, 232); }
static void registers_too_many() { registers(40, 240); }
static void registers_wrong_way() { registers(176, 176); }
static void registers_odd() { registers(36, 232); }

static const Case cases[] = {
    {"tma_boxes", tma_boxes, nullptr, 1, 32, 1, 8, 1024, warp_of_ones},
    {"ring_right", ring_right, nullptr, 1, 64, 1, 32, 2048, warp_of_ones},
    {"ring_careless", ring_careless, "", 1, 64, 1, 32, 2048, nullptr},
    {"ring_expects_too_much", ring_expects_too_much, "deadlock", 1, 64, 1, 32, 2048, nullptr},
    {"load_not_waited_for", load_not_waited_for, "", 1, 32, 1, 8, 1024, nullptr},
    {"too_many_arrivals", too_many_arrivals, "more arrivals", 1, 32, 1, 8, 0, nullptr},
    {"barrier_not_initialised", barrier_not_initialised, "not initialised", 1, 32, 1, 8, 0,
     nullptr},
    {"im2col", im2col, nullptr, 1, 32, 1, 8, 1024, warp_of_ones},
    {"store_right", store_right, nullptr, 1, 32, 1, 0, 1024, stored},
    {"store_without_fence", store_without_fence, "fence.proxy.async", 1, 32, 1, 0, 1024, nullptr},
    {"store_overwritten", store_overwritten, "still reads", 1, 32, 1, 0, 1024, nullptr},
    {"store_not_waited_for", store_not_waited_for, "exits while", 1, 32, 1, 0, 1024, nullptr},
    {"bulk_round_trip", bulk_round_trip, nullptr, 1, 32, 1, 8, 1024, bulk_copied},
    {"wgmma_kk", wgmma_kk, nullptr, 1, 128, 1, 8, 16384, group_of_ones},
    {"wgmma_mk", wgmma_mk, nullptr, 1, 128, 1, 8, 16384, group_of_ones},
    {"wgmma_kn", wgmma_kn, nullptr, 1, 128, 1, 8, 16384, group_of_ones},
    {"wgmma_mn", wgmma_mn, nullptr, 1, 128, 1, 8, 16384, group_of_ones},
    {"overwrite_before_wait", overwrite_before_wait, "", 1, 128, 1, 8, 16384, nullptr},
    {"wgmma_without_proxy_fence", wgmma_without_proxy_fence, "fence.proxy.async", 1, 128, 1, 8,
     16384, nullptr},
    {"wgmma_without_fence", wgmma_without_fence, "without a wgmma.fence", 1, 128, 1, 8, 16384,
     nullptr},
    {"registers_right", registers_right, nullptr, 1, 384, 1, 0, 0, nullptr},
    {"registers_too_many", registers_too_many, "setmaxnreg.inc", 1, 384, 1, 0, 0, nullptr},
    {"registers_wrong_way", registers_wrong_way, "but the warp has 168", 1, 384, 1, 0, 0, nullptr},
    {"registers_odd", registers_odd, "multiples of 8", 1, 384, 1, 0, 0, nullptr},
};

Table hopper_cases() { return {cases, (int)(sizeof cases / sizeof *cases)}; }

} // namespace selftest
