/* tensors.cpp - cases of ldmatrix, stmatrix, mma, cp.async and the access statistics. */
#include "selftest.h"

namespace selftest
{

static void set(int i, float value) { store(data + i, value, HERE, Space::GLOBAL); }

/* ---- ldmatrix and friends ---- */

static uint16_t element(int matrix, int row, int column)
{
    return (uint16_t)(matrix * 64 + row * 8 + column);
}

/* Four 8x8 matrices of numbered elements, a row of 16 bytes per lane. */
static char *fill_matrices()
{
    const int l = thread_index();
    char *rows = dynamic_memory();
    for (int c = 0; c < 8; c++) store(rows + l * 16 + c * 2, element(l / 8, l % 8, c), HERE);
    warp_sync(ALL, HERE);
    return rows;
}

static void matrices()
{
    const int l = thread_index();
    char *rows = fill_matrices();
    uint32_t r[4], t[4], moved;
    ldmatrix(r, 4, false, rows + l * 16, HERE);
    ldmatrix(t, 4, true, rows + l * 16, HERE);
    movmatrix(&moved, r[0], HERE);
    bool ok = moved == t[0];
    for (int m = 0; m < 4; m++) {
        ok = ok && r[m] == (element(m, l / 4, l % 4 * 2) |
                            (uint32_t)element(m, l / 4, l % 4 * 2 + 1) << 16);
        ok = ok && t[m] == (element(m, l % 4 * 2, l / 4) |
                            (uint32_t)element(m, l % 4 * 2 + 1, l / 4) << 16);
    }
    warp_sync(ALL, HERE);
    stmatrix(t, 4, true, rows + 512 + l * 16, HERE);
    warp_sync(ALL, HERE);
    for (int c = 0; c < 8; c++)
        ok = ok && load<uint16_t>(rows + 512 + l * 16 + c * 2, HERE) == element(l / 8, l % 8, c);
    set(l, ok);
}

static bool warp_of_ones()
{
    for (int i = 0; i < 32; i++)
        if (data[i] != 1.0f) return false;
    return true;
}

static uint32_t pair(float low, float high) { return bf16(low) | (uint32_t)bf16(high) << 16; }
static float a_value(int m, int k) { return small(m * 16 + k); }
static float b_value(int k, int n) { return small(k * 8 + n + 100); }

static float product(int m, int n, int depth)
{
    float sum = small(m + n);
    for (int k = 0; k < depth; k++) sum += a_value(m, k) * b_value(k, n);
    return sum;
}

static void check_mma(MmaType type, int depth, const uint32_t *a, const uint32_t *b, bool *ok)
{
    const int l = thread_index();
    float d[4];
    for (int r = 0; r < 4; r++) d[r] = small(l / 4 + 8 * (r >> 1) + l % 4 * 2 + (r & 1));
    mma(type, depth, d, a, b, d, HERE);
    for (int r = 0; r < 4; r++)
        *ok = *ok && d[r] == product(l / 4 + 8 * (r >> 1), l % 4 * 2 + (r & 1), depth);
}

static void products()
{
    const int l = thread_index(), g = l / 4, q = l % 4;
    bool ok = true;
    uint32_t a[4], b[2];
    for (int r = 0; r < 4; r++) {
        const int m = g + 8 * (r & 1), k = q * 2 + 8 * (r >> 1);
        a[r] = pair(a_value(m, k), a_value(m, k + 1));
    }
    for (int r = 0; r < 2; r++)
        b[r] = pair(b_value(q * 2 + 8 * r, g), b_value(q * 2 + 8 * r + 1, g));
    check_mma(MmaType::BF16, 16, a, b, &ok);
    check_mma(MmaType::BF16, 8, a, b, &ok);
    for (int r = 0; r < 4; r++) {
        const float f = a_value(g + 8 * (r & 1), q + 4 * (r >> 1));
        memcpy(&a[r], &f, 4);
    }
    for (int r = 0; r < 2; r++) {
        const float f = b_value(q + 4 * r, g);
        memcpy(&b[r], &f, 4);
    }
    check_mma(MmaType::TF32, 8, a, b, &ok);
    check_mma(MmaType::TF32, 4, a, b, &ok);
    set(l, ok);
}

static void misaligned_ldmatrix()
{
    char *rows = fill_matrices();
    uint32_t r[4];
    ldmatrix(r, 4, false, rows + thread_index() * 16 + 8, HERE);
}

/* ---- cp.async ---- */

/* Two groups; the second is still in flight when the first is read. */
static void copies()
{
    const int l = thread_index();
    char *s = dynamic_memory();
    cp_async(s + l * 16, data, 16, l % 5 * 4, HERE);
    cp_async_commit(HERE);
    cp_async(s + 512 + l * 4, data, 4, 4, HERE);
    cp_async_commit(HERE);
    cp_async_wait(1, HERE);
    warp_sync(ALL, HERE);
    bool ok = true;
    for (int i = 0; i < 4; i++) ok = ok && load<uint32_t>(s + (l ^ 9) * 16 + i * 4, HERE) == 0;
    cp_async_wait(0, HERE);
    ok = ok && load<uint32_t>(s + 512 + l * 4, HERE) == 0;
    set(l + 32, ok);
}

static bool copies_right()
{
    for (int i = 32; i < 64; i++)
        if (data[i] != 1.0f) return false;
    return true;
}

static void copy_without_wait()
{
    const int l = thread_index();
    char *s = dynamic_memory();
    cp_async(s + l * 16, data + l * 4, 16, 16, HERE);
    cp_async_commit(HERE);
    cp_async_wait(1, HERE);
    load<float>(s + l * 16, HERE);
}

static void copy_without_barrier()
{
    const int l = thread_index();
    char *s = dynamic_memory();
    cp_async(s + l * 16, data + l * 4, 16, 16, HERE);
    cp_async_commit(HERE);
    cp_async_wait(0, HERE);
    load<float>(s + (l ^ 32) * 16, HERE);
}

static void copy_over_reader()
{
    const int l = thread_index();
    char *s = dynamic_memory();
    store(s + l * 16, 1.0f, HERE);
    bar_sync(0, 0, HERE);
    load<float>(s + (l ^ 32) * 16, HERE);
    cp_async(s + l * 16, data + l * 4, 16, 16, HERE);
}

static void copy_out_of_bounds()
{
    cp_async(dynamic_memory() + thread_index() * 16, data + DATA_WORDS - 4 + thread_index() * 4, 16,
             16, HERE);
    cp_async_commit(HERE);
    cp_async_wait(0, HERE);
}

/* ---- statistics ---- */

static int line_of_column, line_of_sum;

static void columns()
{
    const int l = thread_index();
    float *s = reinterpret_cast<float *>(dynamic_memory());
    for (int i = 0; i < 32; i++) store(s + i * 32 + l, 1.0f, HERE);
    warp_sync(ALL, HERE);
    uint32_t r[4];
    ldmatrix(r, 4, false, (char *)s + l * 128, HERE);
    line_of_column = __LINE__ + 1;
    load<float>(s + l * 32, HERE);
    line_of_sum = __LINE__ + 1;
    load<float>(data + l * 8, HERE);
}

static bool counted()
{
    const HostcudaStats column = hostcuda_stats(__FILE__, line_of_column);
    const HostcudaStats stores = hostcuda_ratio(HOSTCUDA_SHARED_STORE);
    const HostcudaStats matrix = hostcuda_ratio(HOSTCUDA_LDMATRIX);
    const HostcudaStats global = hostcuda_stats(__FILE__, line_of_sum);
    hostcuda_set_stats(0);
    return column.requests == 1 && column.ratio == 32.0 && stores.requests == 32 &&
           stores.ratio == 1.0 && matrix.ratio == 8.0 && matrix.requests == 4 &&
           global.actual == 32 && global.ideal == 4;
}

static const Case cases[] = {
    {"matrices", matrices, nullptr, 1, 32, 1, 0, 1024, warp_of_ones},
    {"products", products, nullptr, 1, 32, 1, 0, 0, warp_of_ones},
    {"misaligned_ldmatrix", misaligned_ldmatrix, "not 16-byte aligned", 1, 32, 1, 0, 1024, nullptr},
    {"copies", copies, nullptr, 1, 32, 1, 0, 1024, copies_right},
    {"copy_without_wait", copy_without_wait, "not waited for", 1, 32, 1, 0, 1024, nullptr},
    {"copy_without_barrier", copy_without_barrier, "", 1, 64, 1, 0, 1024, nullptr},
    {"copy_over_reader", copy_over_reader, "", 1, 64, 1, 0, 1024, nullptr},
    {"copy_out_of_bounds", copy_out_of_bounds, "cp.async: global memory out of bounds", 1, 32, 1, 0,
     1024, nullptr},
    {"statistics", columns, nullptr, 1, 32, 1, 0, 4096, counted},
};

Table tensor_cases() { return {cases, (int)(sizeof cases / sizeof *cases)}; }

} // namespace selftest
