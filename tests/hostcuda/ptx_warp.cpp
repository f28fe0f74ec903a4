/* ptx_warp.cpp - what the lanes of a warp do together: shuffles, votes, matches, reductions. */
#include "ptx_decode.h"

namespace hostcuda {

namespace {

/* a: value, b: lane or distance, c: clamp and segment mask, e: member mask; mode: Shuffle */
void run_shuffle(Frame &f, const Inst &i)
{
    bool in_range = false;
    uint32_t v = shuffle((Shuffle)i.mode, f.get<uint32_t>(i.e), f.get<uint32_t>(i.a),
                         f.get<uint32_t>(i.b), f.get<uint32_t>(i.c), &in_range, f.at(i));
    f.set<uint32_t>(i.d, v);
    f.slot[i.d2] = in_range;
}
void decode_shfl(const Words &w, Inst &i)
{
    int kind = w.choice({"idx", "up", "down", "bfly"});
    if (kind < 0 || w.arg.size() != 5) return;
    i.d = w.slot(0);
    i.d2 = w.arg[0].pair;
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.c = w.slot(3);
    i.e = w.slot(4);
    i.mode = (uint16_t)kind;
    i.run = run_shuffle;
}

enum { BALLOT, ALL, ANYONE, UNIFORM };
void run_vote(Frame &f, const Inst &i)
{
    uint32_t mask = f.get<uint32_t>(i.b), members = mask & active_mask();
    uint32_t ballot = vote(mask, f.slot[i.a] & 1, f.at(i));
    switch (i.mode) {
    case BALLOT: f.set<uint32_t>(i.d, ballot); break;
    case ALL: f.slot[i.d] = ballot == members; break;
    case ANYONE: f.slot[i.d] = ballot != 0; break;
    default: f.slot[i.d] = ballot == members || ballot == 0;
    }
}
void decode_vote(const Words &w, Inst &i)
{
    int kind = w.choice({"ballot", "all", "any", "uni"});
    if (kind < 0 || w.arg.size() != 3) return;
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.mode = (uint16_t)kind;
    i.run = run_vote;
}

void run_match_any(Frame &f, const Inst &i)
{
    uint64_t v = i.bytes == 4 ? f.get<uint32_t>(i.a) : f.get<uint64_t>(i.a);
    f.set<uint32_t>(i.d, match_any(f.get<uint32_t>(i.b), v, f.at(i)));
}
void run_match_all(Frame &f, const Inst &i)
{
    uint64_t v = i.bytes == 4 ? f.get<uint32_t>(i.a) : f.get<uint64_t>(i.a);
    bool all = false;
    f.set<uint32_t>(i.d, match_all(f.get<uint32_t>(i.b), v, &all, f.at(i)));
    f.slot[i.d2] = all;
}
void decode_match(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.d2 = w.arg[0].pair;
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.bytes = (uint8_t)(w.type.bits / 8);
    i.run = w.has("any") ? run_match_any : w.has("all") ? run_match_all : nullptr;
}

void run_redux(Frame &f, const Inst &i)
{
    f.set<uint32_t>(i.d, redux((Redux)i.mode, f.get<uint32_t>(i.b), f.get<uint32_t>(i.a), f.at(i)));
}
void decode_redux(const Words &w, Inst &i)
{
    int op = w.choice({"add", "min", "max", "and", "or", "xor"});
    if (op < 0 || w.type.is_float()) return;
    bool s = w.type.is_signed();
    const Redux kinds[] = {Redux::ADD, s ? Redux::MIN_S : Redux::MIN_U,
                           s ? Redux::MAX_S : Redux::MAX_U, Redux::AND, Redux::OR, Redux::XOR};
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.mode = (uint16_t)kinds[op];
    i.run = run_redux;
}

void run_elect(Frame &f, const Inst &i)
{
    uint32_t leader = 0;
    bool elected = elect(f.get<uint32_t>(i.a), &leader, f.at(i));
    f.set<uint32_t>(i.d, leader);
    f.slot[i.d2] = elected;
}
void decode_elect(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.d2 = w.arg[0].pair;
    i.a = w.slot(1);
    i.run = run_elect;
}

const OpRow rows[] = {
    {"shfl", ANY, decode_shfl},   {"vote", ANY, decode_vote},   {"match", ANY, decode_match},
    {"redux", ANY, decode_redux}, {"elect", ANY, decode_elect},
};

} // namespace

OpTable warp_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
