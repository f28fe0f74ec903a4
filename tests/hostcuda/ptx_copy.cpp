/* ptx_copy.cpp - asynchronous copies: cp.async, cp.async.bulk and its tensor forms. */
#include "ptx_address.h"

namespace hostcuda {

namespace {

/* ---- cp.async ------------------------------------------------------------------------------ */
/* a: shared (+ offset), b: global (+ target), bytes; c: how many of them are read */
void copy(Frame &f, const Inst &i)
{
    char *global = (char *)f.slot[i.b] + i.target;
    int read = i.mode ? f.get<int>(i.c) : i.bytes;
    cp_async(address_of(f, i, i.a, IN_SHARED), global, i.bytes, read, f.at(i));
}
void commit(Frame &f, const Inst &i) { cp_async_commit(f.at(i)); }
void wait(Frame &f, const Inst &i) { cp_async_wait(f.get<int>(i.a), f.at(i)); }
void wait_all(Frame &f, const Inst &i)
{
    cp_async_commit(f.at(i));
    cp_async_wait(0, f.at(i));
}
void arrive(Frame &f, const Inst &i)
{
    cp_async_mbarrier_arrive((uint64_t *)address_of(f, i, i.a, (State)i.bytes), i.mode, f.at(i));
}

void decode_cp_async(const Words &w, Inst &i)
{
    if (w.has("commit_group")) {
        i.run = commit;
    } else if (w.has("wait_all")) {
        i.run = wait_all;
    } else if (w.has("wait_group")) {
        i.a = w.slot(0);
        i.run = wait;
    } else if (w.has("mbarrier")) {
        i.a = w.slot(0);
        i.offset = w.arg[0].offset;
        i.bytes = state_of(w);
        i.mode = w.has("noinc");
        i.run = arrive;
    } else if (w.arg.size() >= 3 && w.arg[0].memory && w.arg[1].memory) {
        i.a = w.slot(0);
        i.offset = w.arg[0].offset;
        i.b = w.slot(1);
        i.target = (int)w.arg[1].offset;
        i.bytes = (uint8_t)w.function.image[w.slot(2)];
        i.mode = w.arg.size() > 3;
        if (i.mode) i.c = w.slot(3);
        i.run = copy;
    }
}

/* ---- plain bulk copies --------------------------------------------------------------------- */
/* lists: destination, source, size, barrier, mask; a: multicast. No offsets (they are summed). */
enum { TO_SHARED, TO_CLUSTER, TO_GLOBAL };
void bulk(Frame &f, const Inst &i)
{
    const int *slot = f.list(i);
    uint32_t bytes = f.get<uint32_t>(slot[2]);
    auto shared = [&](int k) { return shared_pointer(f.get<uint32_t>(slot[k])); };
    if (i.mode == TO_GLOBAL)
        return bulk_store((void *)f.slot[slot[0]], shared(1), bytes, f.at(i));
    uint64_t *bar = (uint64_t *)shared(3);
    if (i.mode == TO_CLUSTER) return bulk_to_cluster(shared(0), shared(1), bytes, bar, f.at(i));
    bulk_load(shared(0), (const void *)f.slot[slot[1]], bytes, bar, i.bytes,
              f.get<uint16_t>(slot[4]), f.at(i));
}
void bulk_close(Frame &f, const Inst &i) { bulk_commit(f.at(i)); }
void bulk_await(Frame &f, const Inst &i) { bulk_wait(f.get<int>(i.a), i.mode, f.at(i)); }
void nothing(Frame &, const Inst &) {}

bool has_offsets(const Words &w)
{
    for (const Operand &o : w.arg)
        if (o.offset) return true;
    return false;
}

void decode_bulk(const Words &w, Inst &i)
{
    if (w.has("commit_group")) {
        i.run = bulk_close;
    } else if (w.has("wait_group")) {
        i.a = w.slot(0);
        i.mode = w.has("read");
        i.run = bulk_await;
    } else if (w.has("prefetch")) {
        i.run = nothing;
    } else if (!has_offsets(w) && w.arg.size() >= 3) {
        bool store = w.has("bulk_group");
        i.mode = store ? TO_GLOBAL : w.has("global") ? TO_SHARED : TO_CLUSTER;
        i.bytes = w.has("multicast::cluster");
        w.list_begin(i);
        for (size_t k = 0; k < (store ? 3u : 4u); k++) w.append(k);
        if (i.bytes) w.append(4);
        else w.function.lists.push_back(SLOT_ZERO);
        i.run = bulk;
    }
}

/* ---- tensors ------------------------------------------------------------------------------- */
enum { STORE = 1, IM2COL = 2, MULTICAST = 4 }; /* mode, and BulkReduce in bytes */
/* lists: map, shared, coordinates (lanes), barrier, mask, im2col offsets (lanes - 2) */
void tensor(Frame &f, const Inst &i)
{
    const int *slot = f.list(i);
    TensorCopy copy{};
    copy.map = (const CUtensorMap *)f.slot[slot[0]];
    copy.shared = shared_pointer(f.get<uint32_t>(slot[1]));
    copy.rank = i.lanes;
    for (int k = 0; k < i.lanes; k++) copy.coordinate[k] = f.get<int>(slot[2 + k]);
    slot += 2 + i.lanes;
    if (i.mode & STORE) {
        copy.im2col = i.mode & IM2COL;
        return tensor_store(copy, (BulkReduce)i.bytes, f.at(i));
    }
    copy.bar = (uint64_t *)shared_pointer(f.get<uint32_t>(slot[0]));
    copy.multicast = i.mode & MULTICAST;
    copy.cta_mask = f.get<uint16_t>(slot[1]);
    copy.im2col = i.mode & IM2COL;
    copy.n_offsets = copy.im2col ? i.lanes - 2 : 0;
    for (int k = 0; k < copy.n_offsets; k++) copy.offset[k] = f.get<uint16_t>(slot[2 + k]);
    tensor_load(copy, f.at(i));
}

bool known_reduction(const Words &w, Inst &i)
{
    if (w.op[1] != "reduce") return true;
    int op = w.choice({"add", "min", "max", "and", "or", "xor"});
    i.bytes = (uint8_t)(op + 1);
    return op >= 0;
}

/* loads: [shared], [map, {coordinates}], [barrier] {, {offsets}} {, mask} {, cache policy};
 * stores: [map, {coordinates}], [shared] */
void decode_tensor(const Words &w, Inst &i)
{
    if (w.has("prefetch")) {
        i.run = nothing;
        return;
    }
    int rank = w.choice({"1d", "2d", "3d", "4d", "5d"}) + 1;
    bool store = w.has("bulk_group");
    size_t map = store ? 0 : 1, shared = 1 - map;
    bool im2col = w.choice({"im2col", "im2col_no_offs"}) >= 0;
    if (w.arg.size() < (store ? 2u : 3u) || has_offsets(w) || !known_reduction(w, i)) return;
    if (rank < 1 || (int)w.arg[map].lanes.size() != rank || (im2col && rank < 3)) return;
    i.lanes = (uint8_t)rank;
    i.mode = (uint16_t)((store ? STORE : 0) | (im2col ? IM2COL : 0)
                        | (w.has("multicast::cluster") ? MULTICAST : 0));
    std::vector<int> &list = w.function.lists;
    w.list_begin(i);
    list.push_back(w.slot(map));
    list.push_back(w.slot(shared));
    list.insert(list.end(), w.arg[map].lanes.begin(), w.arg[map].lanes.end());
    if (!store) {
        size_t mask = im2col ? 4 : 3;
        list.push_back(w.slot(2));
        list.push_back(i.mode & MULTICAST ? w.slot(mask) : SLOT_ZERO);
        if (im2col && w.append(3) != rank - 2) return;
    }
    i.run = tensor;
}

void decode_cp(const Words &w, Inst &i)
{
    bool reduce = w.op[1] == "reduce";
    if (w.has("tensor")) decode_tensor(w, i);
    else if (w.has("bulk") && !reduce) decode_bulk(w, i);
    else if (w.has("async") && !reduce) decode_cp_async(w, i);
}

const OpRow rows[] = {{"cp", ANY, decode_cp}};

} // namespace

OpTable copy_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
