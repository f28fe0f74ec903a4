/* tma.cpp - bulk copies: cp.async.bulk, cp.async.bulk.tensor (TMA) and st.async.
 *
 * Loads complete on an mbarrier, at issue or later and then in any order. Stores are waited for in
 * groups: wait_group.read says that shared memory has been read, wait_group that memory is written.
 */
#include "check.h"
#include "tensor_map.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace hostcuda
{

/* ---- loads ---- */

namespace
{
/* Where the bytes of one load arrive: one CTA, or several by multicast. */
struct Target {
    char *shared;
    uint64_t *bar;
};

struct Load {
    std::vector<Target> targets;
    std::vector<Piece> pieces;
    uint32_t bytes;
    int swizzle;
    uint8_t fill[16]; /* of what lies outside of the tensor */
    At at;
};
} // namespace

static void set_fill(Load &load, const TensorMap &t)
{
    memset(load.fill, 0, sizeof load.fill);
    if (!t.fill_nan) return;
    const uint32_t nan = t.type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16  ? 0x7fff7fffu
                         : t.type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 ? 0x7fff7fffu
                                                                     : 0x7fffffffu;
    for (int i = 0; i < 4; i++) memcpy(load.fill + 4 * i, &nan, 4);
}

static std::vector<Target> targets_of(void *shared, uint64_t *bar, bool multicast, uint16_t mask,
                                      At at)
{
    if (!multicast) return {{static_cast<char *>(shared), bar}};
    std::vector<Target> all;
    for (uint32_t rank : Lanes{mask}) {
        const uint32_t s = map_to_rank(shared_address(shared), rank, at);
        const uint32_t b = map_to_rank(shared_address(bar), rank, at);
        all.push_back({shared_pointer(s), reinterpret_cast<uint64_t *>(shared_pointer(b))});
    }
    if (all.empty()) trap(at, "multicast to an empty mask");
    return all;
}

static void perform(const Load &load)
{
    for (const Target &target : load.targets) {
        const uint32_t base = shared_address(target.shared);
        for (const Piece &p : load.pieces) {
            char *to = shared_pointer(swizzle(base + p.offset, load.swizzle));
            memcpy(to, p.global ? p.global : reinterpret_cast<const char *>(load.fill), p.bytes);
        }
        check_pending_write(target.shared, load.bytes, false);
        check_touch(ENGINE, target.shared, load.bytes, Touch::ASYNC_WRITE, load.at);
        mbarrier_finish_bytes(target.bar, (int)load.bytes);
    }
}

static void start(Load load, size_t align, const char *op)
{
    const int thread = machine.current->index;
    for (const Target &target : load.targets) {
        need_shared(target.shared, load.bytes, align, op, load.at);
        mbarrier_must_exist(target.bar, op, load.at);
        check_touch(thread, target.shared, load.bytes, Touch::ASYNC_WRITE, load.at);
        check_pending_write(target.shared, load.bytes, true);
    }
    for (const Piece &p : load.pieces) {
        if (!p.global) continue;
        need_global(p.global, p.bytes, 1, op, load.at);
        check_touch(thread, p.global, p.bytes, Touch::READ, load.at);
    }
    if (!choose_late()) return perform(load);
    for (const Target &target : load.targets) memset(target.shared, 0xff, load.bytes);
    const auto kept = std::make_shared<Load>(std::move(load));
    engine_push([kept] { perform(*kept); });
}

void tensor_load(const TensorCopy &copy, At at)
{
    const TensorMap &t = tensor_map(copy, at);
    Load load = {targets_of(copy.shared, copy.bar, copy.multicast, copy.cta_mask, at),
                 tile_pieces(t, copy),
                 tile_bytes(t),
                 t.swizzle,
                 {},
                 at};
    set_fill(load, t);
    start(std::move(load), 128, "TMA load");
}

static std::vector<Piece> plain_pieces(const void *global, uint32_t bytes)
{
    std::vector<Piece> pieces;
    char *p = static_cast<char *>(const_cast<void *>(global));
    for (uint32_t i = 0; i < bytes; i += 16) pieces.push_back({i, 16, p + i});
    return pieces;
}

static void need_sixteens(const void *global, uint32_t bytes, const char *op, At at)
{
    if (bytes % 16 || reinterpret_cast<uintptr_t>(global) % 16)
        trap(at, "%s: %u bytes at %p: size and address have to be multiples of 16", op, bytes,
             global);
}

void bulk_load(void *shared, const void *global, uint32_t bytes, uint64_t *bar, bool multicast,
               uint16_t cta_mask, At at)
{
    need_sixteens(global, bytes, "cp.async.bulk", at);
    start({targets_of(shared, bar, multicast, cta_mask, at),
           plain_pieces(global, bytes),
           bytes,
           0,
           {},
           at},
          16, "cp.async.bulk");
}

/* ---- from shared memory to that of another CTA ---- */

static void send(std::vector<char> bytes, const char *from, char *remote, uint64_t *bar, At at)
{
    const int thread = machine.current->index;
    check_touch(thread, remote, bytes.size(), Touch::ASYNC_WRITE, at);
    check_pending_write(remote, bytes.size(), true);
    auto arrive = [bytes, from, remote, bar, at] {
        memcpy(remote, from ? from : bytes.data(), bytes.size());
        if (from) check_pending_read(from, bytes.size(), -1);
        check_pending_write(remote, bytes.size(), false);
        check_touch(ENGINE, remote, bytes.size(), Touch::ASYNC_WRITE, at);
        mbarrier_finish_bytes(bar, (int)bytes.size());
    };
    if (choose_late()) engine_push(arrive);
    else arrive();
}

void bulk_to_cluster(void *remote, const void *shared, uint32_t bytes, uint64_t *remote_bar, At at)
{
    const char *op = "cp.async.bulk to a CTA";
    need_sixteens(shared, bytes, op, at);
    need_own_shared(shared, bytes, 16, op, at);
    need_shared(remote, bytes, 16, op, at);
    mbarrier_must_exist(remote_bar, op, at);
    check_touch(machine.current->index, shared, bytes, Touch::ASYNC_READ, at);
    check_pending_read(shared, bytes, 1);
    send(std::vector<char>(bytes), static_cast<const char *>(shared), static_cast<char *>(remote),
         remote_bar, at);
}

void store_async(void *remote, const void *value, int bytes, uint64_t *remote_bar, At at)
{
    need_shared(remote, (size_t)bytes, (size_t)bytes, "st.async", at);
    mbarrier_must_exist(remote_bar, "st.async", at);
    const char *v = static_cast<const char *>(value);
    send(std::vector<char>(v, v + bytes), nullptr, static_cast<char *>(remote), remote_bar, at);
}

/* ---- stores ---- */

namespace
{
struct Store {
    char *shared;
    std::vector<Piece> pieces;
    uint32_t bytes;
    int swizzle, type;
    BulkReduce reduce;
    std::vector<char> tile; /* as read */
};
} // namespace

template <class T> static T reduced(BulkReduce how, T a, T b)
{
    switch (how) {
    case BulkReduce::ADD:
        return (T)(a + b);
    case BulkReduce::MIN:
        return b < a ? b : a;
    case BulkReduce::MAX:
        return a < b ? b : a;
    case BulkReduce::AND:
    case BulkReduce::OR:
    case BulkReduce::XOR:
    case BulkReduce::NONE:
        break;
    }
    return b;
}

template <class T> static T reduced_bits(BulkReduce how, T a, T b)
{
    switch (how) {
    case BulkReduce::AND:
        return (T)(a & b);
    case BulkReduce::OR:
        return (T)(a | b);
    case BulkReduce::XOR:
        return (T)(a ^ b);
    default:
        return reduced(how, a, b);
    }
}

template <class T, class F> static void each(char *into, const char *from, uint32_t bytes, F f)
{
    for (uint32_t i = 0; i < bytes; i += sizeof(T)) {
        T a, b;
        memcpy(&a, into + i, sizeof a);
        memcpy(&b, from + i, sizeof b);
        a = f(a, b);
        memcpy(into + i, &a, sizeof a);
    }
}

static void reduce_into(char *into, const char *from, uint32_t bytes, int type, BulkReduce how)
{
    auto plain = [how](auto a, auto b) { return reduced(how, a, b); };
    auto bits = [how](auto a, auto b) { return reduced_bits(how, a, b); };
    auto half = [how](__half a, __half b) {
        return __float2half_rn(reduced(how, __half2float(a), __half2float(b)));
    };
    auto brain = [how](__nv_bfloat16 a, __nv_bfloat16 b) {
        return __float2bfloat16_rn(reduced(how, __bfloat162float(a), __bfloat162float(b)));
    };
    switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
        return each<__half>(into, from, bytes, half);
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
        return each<__nv_bfloat16>(into, from, bytes, brain);
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
        return each<float>(into, from, bytes, plain);
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
        return each<double>(into, from, bytes, plain);
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
        return each<int32_t>(into, from, bytes, bits);
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
        return each<uint32_t>(into, from, bytes, bits);
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
        return each<int64_t>(into, from, bytes, bits);
    default:
        return each<uint64_t>(into, from, bytes, bits);
    }
}

static void read_tile(Store &s)
{
    s.tile.resize(s.bytes);
    const uint32_t base = shared_address(s.shared);
    for (const Piece &p : s.pieces)
        memcpy(&s.tile[p.offset], shared_pointer(swizzle(base + p.offset, s.swizzle)), p.bytes);
}

static void write_tile(const Store &s)
{
    for (const Piece &p : s.pieces) {
        if (p.global && s.reduce == BulkReduce::NONE) memcpy(p.global, &s.tile[p.offset], p.bytes);
        else if (p.global) reduce_into(p.global, &s.tile[p.offset], p.bytes, s.type, s.reduce);
    }
}

static void start_store(Store store, size_t align, const char *op, At at)
{
    Thread &t = *machine.current;
    need_own_shared(store.shared, store.bytes, align, op, at);
    check_touch(t.index, store.shared, store.bytes, Touch::ASYNC_READ, at);
    check_pending_read(store.shared, store.bytes, 1);
    const Touch how = store.reduce == BulkReduce::NONE ? Touch::ASYNC_WRITE : Touch::ATOMIC;
    for (const Piece &p : store.pieces) {
        if (!p.global) continue;
        need_global(p.global, p.bytes, 1, op, at);
        check_touch(t.index, p.global, p.bytes, how, at);
    }
    const auto s = std::make_shared<Store>(std::move(store));
    const bool late = choose_late();
    if (!late) {
        read_tile(*s);
        write_tile(*s);
    }
    auto read = [s, late] {
        if (late) read_tile(*s);
        check_pending_read(s->shared, s->bytes, -1);
    };
    auto write = [s, late] {
        if (late) write_tile(*s);
    };
    t.bulk.push_back({read, write, at, false});
}

void tensor_store(const TensorCopy &copy, BulkReduce reduce, At at)
{
    const TensorMap &t = tensor_map(copy, at);
    start_store({static_cast<char *>(copy.shared),
                 tile_pieces(t, copy),
                 tile_bytes(t),
                 t.swizzle,
                 t.type,
                 reduce,
                 {}},
                128, "TMA store", at);
}

void bulk_store(void *global, const void *shared, uint32_t bytes, At at)
{
    need_sixteens(global, bytes, "cp.async.bulk", at);
    start_store({static_cast<char *>(const_cast<void *>(shared)),
                 plain_pieces(global, bytes),
                 bytes,
                 0,
                 0,
                 BulkReduce::NONE,
                 {}},
                16, "cp.async.bulk", at);
}

void bulk_commit(At)
{
    Thread &t = *machine.current;
    t.bulk_groups.push_back(std::move(t.bulk));
    t.bulk.clear();
}

static void finish_read(BulkStore &s)
{
    if (!s.has_read) s.read();
    s.has_read = true;
}

void bulk_wait(int groups_left, bool only_reads, At)
{
    auto &groups = machine.current->bulk_groups;
    const size_t left = (size_t)groups_left;
    const size_t n = groups.size() > left ? groups.size() - left : 0;
    for (size_t i = 0; i < n; i++) {
        for (BulkStore &s : groups[i]) {
            finish_read(s);
            if (!only_reads) s.write();
        }
    }
    if (!only_reads) groups.erase(groups.begin(), groups.begin() + (ptrdiff_t)n);
}

/* The CTA's shared memory may go to another one as soon as its threads have exited. */
void bulk_thread_exits(Thread &t)
{
    t.bulk_groups.push_back(std::move(t.bulk));
    t.bulk.clear();
    for (auto &group : t.bulk_groups) {
        for (BulkStore &s : group) {
            if (!s.has_read)
                trap(s.at, "the thread exits while its bulk store may still read shared memory "
                           "(cp.async.bulk.wait_group.read 0 is missing)");
            s.write();
        }
    }
}

} // namespace hostcuda
