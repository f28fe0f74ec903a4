/* ptx_hopper.cpp - mbarriers, and addresses in other CTAs of a cluster. */
#include "ptx_address.h"

namespace hostcuda {

namespace {

uint64_t *barrier_at(const Frame &f, const Inst &i)
{
    return (uint64_t *)address_of(f, i, i.a, (State)i.bytes);
}

/* b: count or bytes or parity or state */
void init(Frame &f, const Inst &i)
{
    mbarrier_init(barrier_at(f, i), f.get<int>(i.b), f.at(i));
}
void inval(Frame &f, const Inst &i) { mbarrier_inval(barrier_at(f, i), f.at(i)); }
void expect(Frame &f, const Inst &i)
{
    mbarrier_expect_tx(barrier_at(f, i), f.get<int>(i.b), f.at(i));
}
void complete(Frame &f, const Inst &i)
{
    mbarrier_complete_tx(barrier_at(f, i), f.get<int>(i.b), f.at(i));
}

enum { EXPECT = 1, DROP = 2, COUNTED = 4 };
void arrive(Frame &f, const Inst &i)
{
    int count = i.mode & COUNTED ? f.get<int>(i.b) : 1;
    int bytes = i.mode & EXPECT ? f.get<int>(i.b) : -1;
    f.slot[i.d] = mbarrier_arrive(barrier_at(f, i), count, bytes, i.mode & DROP, f.at(i));
}

/* Waiting for the phase of a state token is waiting for its parity. */
enum { PARITY = 1, BLOCKING = 2 };
void wait(Frame &f, const Inst &i)
{
    uint32_t parity =
        i.mode & PARITY ? f.get<uint32_t>(i.b) : mbarrier_parity(f.get<uint64_t>(i.b));
    if (i.mode & BLOCKING) {
        mbarrier_wait(barrier_at(f, i), parity, f.at(i));
        f.slot[i.d] = 1;
    } else {
        f.slot[i.d] = mbarrier_test(barrier_at(f, i), parity, f.at(i));
    }
}
void pending(Frame &f, const Inst &i)
{
    f.set<uint32_t>(i.d, (uint32_t)mbarrier_pending_count(f.get<uint64_t>(i.a)));
}

void decode_mbarrier(const Words &w, Inst &i)
{
    const std::string &what = w.op[1];
    if (what == "pending_count") {
        i.d = w.slot(0);
        i.a = w.slot(1);
        i.run = pending;
        return;
    }
    size_t at = 0; /* of the address */
    while (at < w.arg.size() && !w.arg[at].memory) at++;
    if (at == w.arg.size()) return;
    i.a = w.slot(at);
    i.offset = w.arg[at].offset;
    i.bytes = state_of(w);
    bool more = w.arg.size() > at + 1;
    if (at) i.d = w.slot(0);
    if (more) i.b = w.slot(at + 1);
    if (what == "init") {
        i.run = init;
    } else if (what == "inval") {
        i.run = inval;
    } else if (what == "expect_tx" && more) {
        i.run = expect;
    } else if (what == "complete_tx" && more) {
        i.run = complete;
    } else if (what == "arrive" || what == "arrive_drop") {
        bool bytes = w.has("expect_tx");
        i.mode = (uint16_t)((bytes ? EXPECT : more ? COUNTED : 0)
                            | (what == "arrive_drop" ? DROP : 0));
        i.run = arrive;
    } else if ((what == "test_wait" || what == "try_wait") && more) {
        i.mode = (uint16_t)((w.has("parity") ? PARITY : 0) | (what == "try_wait" ? BLOCKING : 0));
        i.run = wait;
    }
}

void map_shared(Frame &f, const Inst &i)
{
    f.set<uint32_t>(i.d, map_to_rank(f.get<uint32_t>(i.a), f.get<uint32_t>(i.b), f.at(i)));
}
void map_generic(Frame &f, const Inst &i)
{
    uint32_t address = shared_address((const void *)f.slot[i.a]);
    f.slot[i.d] = (uint64_t)shared_pointer(map_to_rank(address, f.get<uint32_t>(i.b), f.at(i)));
}
void decode_mapa(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.run = state_of(w) == IN_GENERIC ? map_generic : map_shared;
}

void rank_shared(Frame &f, const Inst &i) { f.set<uint32_t>(i.d, rank_of(f.get<uint32_t>(i.a))); }
void rank_generic(Frame &f, const Inst &i)
{
    f.set<uint32_t>(i.d, rank_of(shared_address((const void *)f.slot[i.a])));
}
void decode_getctarank(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.run = state_of(w) == IN_GENERIC ? rank_generic : rank_shared;
}

const OpRow rows[] = {
    {"mbarrier", ANY, decode_mbarrier},
    {"mapa", ANY, decode_mapa},
    {"getctarank", ANY, decode_getctarank},
};

} // namespace

OpTable hopper_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
