/* warp.cpp - operations in which lanes of one warp meet: sync, shuffle, vote, match, redux, elect.
 *
 * A lane leaves a pointer to its operands and blocks; the last lane of the mask computes for all.
 * Several collectives of disjoint masks may be under way at once. Only warp_sync orders memory.
 */
#include "check.h"

#include <algorithm>

namespace hostcuda
{

const char *op_name(int op)
{
    static const char *const names[N_OPS] = {
        "__syncwarp", "__shfl_sync", "vote",      "__match_sync", "__reduce_sync", "elect.sync",
        "ldmatrix",   "stmatrix",    "movmatrix", "mma.sync",     "wgmma",         "setmaxnreg"};
    return names[op];
}

static bool same_line(At a, At b)
{
    return a == b || (a->line == b->line && std::string(a->file) == b->file);
}

static uint32_t checked_mask(uint32_t mask, Op op, At at)
{
    const Warp &w = *machine.current->warp;
    const int lane = machine.current->lane;
    if (!(mask >> lane & 1))
        trap(at, "%s: lane %d calls, but is not in its mask %08x", op_name(op), lane, mask);
    if (mask == FULL_MASK) mask = w.exist; /* the last warp of a block may be short */
    if (mask & ~w.exist) trap(at, "%s: mask %08x names lanes that do not exist", op_name(op), mask);
    if (mask & w.exited)
        trap(at, "%s: mask %08x names lanes that have exited (%08x)", op_name(op), mask,
             w.exited & mask);
    return mask;
}

/* The collective this lane belongs to, or a fresh one. */
static Collective &find_collective(uint32_t mask, Op op, bool aligned, At at)
{
    Warp &w = *machine.current->warp;
    const uint32_t bit = 1u << machine.current->lane;
    Collective *free_slot = nullptr;
    for (Collective &c : w.collective) {
        if (!c.mask) {
            free_slot = free_slot ? free_slot : &c;
            continue;
        }
        if (!(c.mask & bit) && !(mask & c.arrived)) continue;
        if (c.mask != mask || c.op != op)
            trap(at, "divergent warp: %s with mask %08x here, %s with mask %08x at %s", op_name(op),
                 mask, op_name(c.op), c.mask, place(c.at).c_str());
        if (aligned && !same_line(c.at, at))
            trap(at, "divergent %s (.aligned): other lanes are at %s", op_name(op),
                 place(c.at).c_str());
        return c;
    }
    if (!free_slot) trap(at, "too many warp collectives at once");
    free_slot->mask = mask;
    free_slot->arrived = 0;
    free_slot->op = op;
    free_slot->at = at;
    return *free_slot;
}

void collective(uint32_t mask, Op op, bool aligned, void *argument, At at, Complete complete)
{
    mask = checked_mask(mask, op, at);
    Collective &c = find_collective(mask, op, aligned, at);
    const int lane = machine.current->lane;
    c.argument[lane] = argument;
    c.arrived |= 1u << lane;
    if (c.arrived != mask) return block_on(State::WARP, op_name(op), at);
    Warp &w = *machine.current->warp;
    complete(c, w, at);
    c.mask = 0;
    for (uint32_t i : Lanes{mask & ~(1u << lane)}) make_ready(lane_thread(w, (int)i));
}

void warp_lane_exits(Thread &t)
{
    for (const Collective &c : t.warp->collective)
        if (c.mask & ~c.arrived & (1u << t.lane))
            trap(c.at, "%s waits for lane %d, which exits", op_name(c.op), t.lane);
}

uint32_t active_mask() { return machine.current->warp->exist & ~machine.current->warp->exited; }

/* ---- sync ---- */

void warp_sync(uint32_t mask, At at)
{
    collective(mask, OP_SYNC, false, nullptr, at, [](Collective &c, Warp &w, At) {
        int threads[LANES], n = 0;
        for (uint32_t i : Lanes{c.mask}) threads[n++] = w.first + (int)i;
        clock_join(threads, n);
    });
}

/* ---- shuffle ---- */

namespace
{
struct ShuffleLane {
    uint32_t in, out, b, c;
    Shuffle kind;
    bool in_range;
};
} // namespace

/* Source lane as in the PTX manual; -1 when out of range. */
static int shuffle_source(const ShuffleLane &s, uint32_t lane)
{
    const uint32_t b = s.b & 31, clamp = s.c & 31, segment = s.c >> 8 & 31;
    const int low = (int)(lane & segment), last = (int)((lane & segment) | (clamp & ~segment));
    int j = 0;
    switch (s.kind) {
    case Shuffle::UP:
        j = (int)lane - (int)b;
        return j >= last ? j : -1;
    case Shuffle::DOWN:
        j = (int)(lane + b);
        break;
    case Shuffle::BFLY:
        j = (int)(lane ^ b);
        break;
    case Shuffle::IDX:
        j = low | (int)(b & ~segment);
        break;
    }
    return j <= last ? j : -1;
}

static void shuffle_all(Collective &c, Warp &, At at)
{
    for (uint32_t i : Lanes{c.mask}) {
        ShuffleLane &s = *static_cast<ShuffleLane *>(c.argument[i]);
        int j = shuffle_source(s, i);
        s.in_range = j >= 0;
        j = j < 0 ? (int)i : j;
        if (!(c.mask >> j & 1))
            trap(at, "__shfl_sync: lane %u reads lane %d, which is not in mask %08x", i, j, c.mask);
        s.out = static_cast<ShuffleLane *>(c.argument[j])->in;
    }
}

uint32_t shuffle(Shuffle kind, uint32_t mask, uint32_t value, uint32_t b, uint32_t c,
                 bool *in_range, At at)
{
    ShuffleLane s = {value, 0, b, c, kind, false};
    collective(mask, OP_SHUFFLE, false, &s, at, shuffle_all);
    if (in_range) *in_range = s.in_range;
    return s.out;
}

/* ---- vote, match, redux, elect ---- */

namespace
{
struct ValueLane {
    uint64_t in;
    uint32_t out;
    Redux kind;
    bool all;
};
} // namespace

static ValueLane &value_of(Collective &c, uint32_t lane)
{
    return *static_cast<ValueLane *>(c.argument[lane]);
}

uint32_t vote(uint32_t mask, bool predicate, At at)
{
    ValueLane v = {predicate, 0, Redux::ADD, false};
    collective(mask, OP_VOTE, false, &v, at, [](Collective &c, Warp &, At) {
        uint32_t ballot = 0;
        for (uint32_t i : Lanes{c.mask}) ballot |= (uint32_t)value_of(c, i).in << i;
        for (uint32_t i : Lanes{c.mask}) value_of(c, i).out = ballot;
    });
    return v.out;
}

static void match_lanes(Collective &c, Warp &, At)
{
    for (uint32_t i : Lanes{c.mask}) {
        ValueLane &v = value_of(c, i);
        v.out = 0;
        for (uint32_t j : Lanes{c.mask}) v.out |= (uint32_t)(value_of(c, j).in == v.in) << j;
        v.all = v.out == c.mask;
    }
}

uint32_t match_any(uint32_t mask, uint64_t value, At at)
{
    ValueLane v = {value, 0, Redux::ADD, false};
    collective(mask, OP_MATCH, false, &v, at, match_lanes);
    return v.out;
}

uint32_t match_all(uint32_t mask, uint64_t value, bool *all, At at)
{
    ValueLane v = {value, 0, Redux::ADD, false};
    collective(mask, OP_MATCH, false, &v, at, match_lanes);
    if (all) *all = v.all;
    return v.all ? v.out : 0;
}

static uint32_t combine(Redux kind, uint32_t a, uint32_t b)
{
    const int32_t sa = (int32_t)a, sb = (int32_t)b;
    switch (kind) {
    case Redux::ADD:
        return a + b;
    case Redux::MIN_S:
        return (uint32_t)std::min(sa, sb);
    case Redux::MAX_S:
        return (uint32_t)std::max(sa, sb);
    case Redux::MIN_U:
        return std::min(a, b);
    case Redux::MAX_U:
        return std::max(a, b);
    case Redux::AND:
        return a & b;
    case Redux::OR:
        return a | b;
    case Redux::XOR:
        return a ^ b;
    }
    return 0;
}

static void redux_lanes(Collective &c, Warp &, At)
{
    const uint32_t first = (uint32_t)__builtin_ctz(c.mask);
    uint32_t sum = (uint32_t)value_of(c, first).in;
    for (uint32_t i : Lanes{c.mask & ~(1u << first)})
        sum = combine(value_of(c, first).kind, sum, (uint32_t)value_of(c, i).in);
    for (uint32_t i : Lanes{c.mask}) value_of(c, i).out = sum;
}

uint32_t redux(Redux kind, uint32_t mask, uint32_t value, At at)
{
    ValueLane v = {value, 0, kind, false};
    collective(mask, OP_REDUX, false, &v, at, redux_lanes);
    return v.out;
}

bool elect(uint32_t mask, uint32_t *leader, At at)
{
    ValueLane v = {0, 0, Redux::ADD, false};
    collective(mask, OP_ELECT, true, &v, at, [](Collective &c, Warp &, At) {
        for (uint32_t i : Lanes{c.mask}) value_of(c, i).out = (uint32_t)__builtin_ctz(c.mask);
    });
    if (leader) *leader = v.out;
    return v.out == (uint32_t)machine.current->lane;
}

} // namespace hostcuda
