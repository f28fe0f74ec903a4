/* ptx_memory.cpp - loads and stores of every width, vector and state space, and fences. */
#include "ptx_address.h"

namespace hostcuda {

State state_of(const Words &w)
{
    switch (w.choice({"global", "shared", "shared::cta", "shared::cluster", "local", "param",
                      "const", "param::entry", "param::func"})) {
    case -1: return IN_GENERIC;
    case 0: return IN_GLOBAL;
    case 1:
    case 2: return IN_SHARED;
    case 3: return IN_CLUSTER;
    default: return IN_OWN;
    }
}

namespace {

/* Inst::mode: the access as it is announced, and fences of .acquire and .release */
enum { ATOMIC = 1, ACQUIRE = 2, RELEASE = 4 };

template <State S> struct Load {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        char *p = address_of(f, i, i.a, S);
        announce(f, i, p, sizeof(T) * i.lanes, i.mode ? Access::ATOMIC_READ : Access::READ, S);
        if (i.lanes == 1) {
            T v;
            memcpy(&v, p, sizeof v);
            f.set<T>(i.d, v);
        } else {
            const int *lane = f.list(i);
            for (int k = 0; k < i.lanes; k++) {
                T v;
                memcpy(&v, p + k * sizeof v, sizeof v);
                f.set<T>(lane[k], v);
            }
        }
        if (i.mode & ACQUIRE) fence(Scope::GPU, f.at(i));
    }
};

template <State S> struct Store {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        if (i.mode & RELEASE) fence(Scope::GPU, f.at(i));
        char *p = address_of(f, i, i.a, S);
        announce(f, i, p, sizeof(T) * i.lanes, i.mode ? Access::ATOMIC_WRITE : Access::WRITE, S);
        const int *lane = i.lanes == 1 ? &i.b : f.list(i);
        for (int k = 0; k < i.lanes; k++) {
            T v = f.get<T>(lane[k]);
            memcpy(p + k * sizeof v, &v, sizeof v);
        }
    }
};

uint16_t ordering(const Words &w)
{
    uint16_t mode = 0;
    if (w.choice({"volatile", "relaxed", "acquire", "release", "mmio"}) >= 0) mode |= ATOMIC;
    if (w.has("acquire")) mode |= ACQUIRE;
    if (w.has("release")) mode |= RELEASE;
    return mode;
}

void decode_access(const Words &w, Inst &i, bool load)
{
    size_t memory = load ? 1 : 0, value = load ? 0 : 1;
    if (w.arg.size() < 2 || !w.arg[memory].memory) return;
    int vector = w.choice({"v2", "v4", "v8"});
    w.list_begin(i);
    i.lanes = 1;
    if (vector >= 0 && (i.lanes = (uint8_t)w.append(value)) != 2 << vector) return;
    i.a = w.slot(memory);
    i.offset = w.arg[memory].offset;
    (load ? i.d : i.b) = w.slot(value);
    i.mode = ordering(w);
    Type t = w.type;
    if (t.packed) t = {'b', 32, false};
    auto choose = [&](auto h) { return for_integer<decltype(h)>(t); };
    i.run = load ? for_state<Load>(state_of(w), choose) : for_state<Store>(state_of(w), choose);
}
void decode_ld(const Words &w, Inst &i) { decode_access(w, i, true); }

/* st.async.shared::cluster.mbarrier::complete_tx::bytes{.v2,.v4}.b32 [remote], value, [bar] */
void store_async_lanes(Frame &f, const Inst &i)
{
    char value[16];
    for (int k = 0; k < i.lanes; k++)
        memcpy(value + k * i.bytes, &f.slot[f.list(i)[k]], i.bytes);
    store_async(address_of(f, i, i.a, IN_CLUSTER), value, i.bytes * i.lanes,
                (uint64_t *)shared_pointer(f.get<uint32_t>(i.b) + i.target), f.at(i));
}
void decode_st(const Words &w, Inst &i)
{
    if (!w.has("async")) return decode_access(w, i, false);
    if (w.arg.size() != 3) return;
    w.list_begin(i);
    i.lanes = (uint8_t)w.append(1);
    i.bytes = (uint8_t)(w.type.bits / 8);
    i.a = w.slot(0);
    i.offset = w.arg[0].offset;
    i.b = w.slot(2);
    i.target = (int)w.arg[2].offset;
    i.run = store_async_lanes;
}

/* ---- fences, and hints that have no effect ------------------------------------------------- */
void run_fence(Frame &f, const Inst &i) { fence((Scope)i.mode, f.at(i)); }
void run_fence_proxy(Frame &f, const Inst &i) { fence_proxy_async(f.at(i)); }
void nothing(Frame &, const Inst &) {}

void decode_fence(const Words &w, Inst &i)
{
    int scope = w.choice({"cta", "cluster", "gpu", "sys", "gl"});
    i.mode = (uint16_t)(scope < 0 ? Scope::SYSTEM : scope == 4 ? Scope::GPU : (Scope)scope);
    bool async = w.has("proxy") || w.has("mbarrier_init");
    i.run = async ? run_fence_proxy : run_fence;
}
void decode_nothing(const Words &, Inst &i) { i.run = nothing; }

void zero(Frame &f, const Inst &i) { f.slot[i.d] = 0; }
void decode_createpolicy(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.run = zero;
}

const OpRow rows[] = {
    {"ld", ANY, decode_ld},           {"ldu", ANY, decode_ld},
    {"st", ANY, decode_st},       {"fence", ANY, decode_fence},
    {"membar", ANY, decode_fence},    {"prefetch", ANY, decode_nothing},
    {"prefetchu", ANY, decode_nothing}, {"applypriority", ANY, decode_nothing},
    {"griddepcontrol", ANY, decode_nothing}, {"createpolicy", ANY, decode_createpolicy},
};

} // namespace

OpTable memory_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
