/* ptx_bits.cpp - moves, logic, shifts, bit fields and permutations of bytes. */
#include "ptx_decode.h"

namespace hostcuda {

namespace {

/* ---- moves ------------------------------------------------------------------------------- */
struct Move {
    template <class T> static void run(Frame &f, const Inst &i) { f.set<T>(i.d, f.get<T>(i.a)); }
};
void move_predicate(Frame &f, const Inst &i) { f.slot[i.d] = f.slot[i.a] & 1; }

/* {a, b, ...} <- d */
template <class Part> void unpack(Frame &f, const Inst &i)
{
    const int *part = f.list(i);
    uint64_t whole = f.slot[i.a];
    for (int k = 0; k < i.lanes; k++) {
        f.set<Part>(part[k], (Part)whole);
        if (sizeof(Part) < 8) whole >>= 8 * sizeof(Part) % 64;
    }
}

/* d <- {a, b, ...} */
template <class Part> void pack(Frame &f, const Inst &i)
{
    const int *part = f.list(i);
    uint64_t whole = 0;
    for (int k = i.lanes; k-- > 0;)
        whole = (sizeof(Part) < 8 ? whole << 8 * sizeof(Part) % 64 : 0) | f.get<Part>(part[k]);
    f.slot[i.d] = whole;
}

Handler by_part(int bits, bool packing)
{
    switch (bits) {
    case 8: return packing ? pack<uint8_t> : unpack<uint8_t>;
    case 16: return packing ? pack<uint16_t> : unpack<uint16_t>;
    case 32: return packing ? pack<uint32_t> : unpack<uint32_t>;
    default: return nullptr;
    }
}

/* Registers that count time are read at each mov. */
void read_clock(Frame &f, const Inst &i) { f.slot[i.d] = clock_now(); }
void read_active(Frame &f, const Inst &i) { f.slot[i.d] = active_mask(); }

void decode_mov(const Words &w, Inst &i)
{
    if (w.arg.size() != 2) w.unknown();
    const std::string &name = w.arg[1].name;
    if (name == "%clock" || name == "%clock64" || name == "%globaltimer" || name == "%clock_hi"
        || name == "%globaltimer_lo") {
        i.d = w.slot(0);
        i.run = read_clock;
        return;
    }
    bool packing = w.arg[1].vector, unpacking = w.arg[0].vector;
    if (packing || unpacking) {
        w.list_begin(i);
        i.lanes = (uint8_t)w.append(packing ? 1 : 0);
        (packing ? i.d : i.a) = w.slot(packing ? 0 : 1);
        i.run = by_part(w.type.bits / i.lanes, packing);
        return;
    }
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.run = w.type.kind == 'p' ? move_predicate : for_unsigned<Move>(w.type.bits);
}

void decode_activemask(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.run = read_active;
}

/* ---- logic ------------------------------------------------------------------------------- */
struct And {
    static uint64_t of(uint64_t a, uint64_t b) { return a & b; }
};
struct Or {
    static uint64_t of(uint64_t a, uint64_t b) { return a | b; }
};
struct Xor {
    static uint64_t of(uint64_t a, uint64_t b) { return a ^ b; }
};
template <class Op> struct Logic {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        f.set<T>(i.d, (T)Op::of(f.slot[i.a], f.slot[i.b]));
    }
    static void predicate(Frame &f, const Inst &i)
    {
        f.slot[i.d] = Op::of(f.slot[i.a], f.slot[i.b]) & 1;
    }
};
template <class Op> void decode_logic(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.run = w.type.kind == 'p' ? Logic<Op>::predicate : for_unsigned<Logic<Op>>(w.type.bits);
}

struct Not {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        f.set<T>(i.d, (T)~f.get<T>(i.a));
    }
};
struct IsZero {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        f.set<T>(i.d, (T)(f.get<T>(i.a) == 0));
    }
};
void not_predicate(Frame &f, const Inst &i) { f.slot[i.d] = ~f.slot[i.a] & 1; }
void decode_not(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.run = w.type.kind == 'p' ? not_predicate : for_unsigned<Not>(w.type.bits);
}
void decode_cnot(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.run = for_unsigned<IsZero>(w.type.bits);
}

/* mode: the table of 8 results */
void lop3(Frame &f, const Inst &i)
{
    uint32_t a = f.get<uint32_t>(i.a), b = f.get<uint32_t>(i.b), c = f.get<uint32_t>(i.c), r = 0;
    for (int k = 0; k < 8; k++)
        if (i.mode >> k & 1) r |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    f.set<uint32_t>(i.d, r);
}
void decode_lop3(const Words &w, Inst &i)
{
    if (w.arg.size() != 5) w.unknown();
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.c = w.slot(3);
    i.mode = (uint16_t)w.function.image[w.slot(4)];
    i.run = lop3;
}

/* ---- shifts ------------------------------------------------------------------------------ */
struct ShiftLeft { /* amounts above the width give 0 */
    template <class T> static void run(Frame &f, const Inst &i)
    {
        uint32_t n = f.get<uint32_t>(i.b);
        f.set<T>(i.d, n >= 8 * sizeof(T) ? (T)0 : (T)((uint64_t)f.get<T>(i.a) << n));
    }
};
struct ShiftRight { /* amounts above the width give 0 or the sign */
    template <class T> static void run(Frame &f, const Inst &i)
    {
        uint32_t n = f.get<uint32_t>(i.b), width = 8 * sizeof(T);
        T a = f.get<T>(i.a);
        if (n >= width) f.set<T>(i.d, std::is_signed_v<T> && a < 0 ? (T)-1 : (T)0);
        else f.set<T>(i.d, (T)(a >> n));
    }
};
void decode_shl(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.run = for_unsigned<ShiftLeft>(w.type.bits);
}
void decode_shr(const Words &w, Inst &i)
{
    decode_shl(w, i);
    i.run = for_integer<ShiftRight>(w.type);
}

/* Funnel shift of b:a; CLAMP stops at 32, otherwise the amount wraps. */
template <bool LEFT, bool CLAMP> void funnel(Frame &f, const Inst &i)
{
    uint64_t pair = f.get<uint32_t>(i.a) | (uint64_t)f.get<uint32_t>(i.b) << 32;
    uint32_t n = f.get<uint32_t>(i.c);
    n = CLAMP ? (n > 32 ? 32 : n) : n & 31;
    f.set<uint32_t>(i.d, (uint32_t)(LEFT ? pair << n >> 32 : pair >> n));
}
template <> void funnel<true, true>(Frame &f, const Inst &i)
{
    uint64_t pair = f.get<uint32_t>(i.a) | (uint64_t)f.get<uint32_t>(i.b) << 32;
    uint32_t n = f.get<uint32_t>(i.c);
    f.set<uint32_t>(i.d, (uint32_t)(n >= 32 ? pair : pair << n >> 32));
}
void decode_shf(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.c = w.slot(3);
    bool clamp = w.has("clamp");
    i.run = w.has("l") ? (clamp ? funnel<true, true> : funnel<true, false>)
                       : (clamp ? funnel<false, true> : funnel<false, false>);
}

/* ---- bit fields -------------------------------------------------------------------------- */
uint64_t ones(unsigned n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

struct Insert { /* d = b with len bits of a at pos */
    template <class T> static void run(Frame &f, const Inst &i)
    {
        unsigned at = f.get<uint8_t>(i.c), count = f.get<uint8_t>(i.e);
        uint64_t mask = at >= 8 * sizeof(T) ? 0 : ones(count) << at;
        uint64_t moved = at >= 64 ? 0 : (uint64_t)f.get<T>(i.a) << at;
        f.set<T>(i.d, (T)((f.get<T>(i.b) & ~mask) | (moved & mask)));
    }
};
struct Extract {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        unsigned at = f.get<uint8_t>(i.b), count = f.get<uint8_t>(i.c), width = 8 * sizeof(T);
        T a = f.get<T>(i.a);
        uint64_t bits = at >= width ? 0 : (uint64_t)(std::make_unsigned_t<T>)a >> at;
        bits &= ones(count);
        unsigned top = at + count > width ? width - 1 : at + count - 1; /* the sign's place */
        bool negative = std::is_signed_v<T> && count && ((uint64_t)a >> top & 1);
        if (negative && count < 64) bits |= ~0ull << (at >= width ? 0 : top - at + 1);
        f.set<T>(i.d, (T)bits);
    }
};
void decode_bfi(const Words &w, Inst &i)
{
    if (w.arg.size() != 5) w.unknown();
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.c = w.slot(3);
    i.e = w.slot(4);
    i.run = for_unsigned<Insert>(w.type.bits);
}
void decode_bfe(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.c = w.slot(3);
    i.run = for_integer<Extract>(w.type);
}

/* szext: the low b bits, extended; clamp is the only mode nvcc emits. bmsk: b ones from bit a. */
template <class T> void extend(Frame &f, const Inst &i)
{
    uint32_t n = f.get<uint32_t>(i.b), shift = n >= 32 ? 0 : 32 - n;
    uint32_t a = f.get<uint32_t>(i.a);
    f.set<T>(i.d, n ? (T)(a << shift) >> shift : (T)0);
}
void decode_szext(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    if (w.has("clamp")) i.run = w.type.is_signed() ? extend<int32_t> : extend<uint32_t>;
}
void bit_mask(Frame &f, const Inst &i)
{
    uint32_t at = f.get<uint32_t>(i.a), count = f.get<uint32_t>(i.b);
    f.set<uint32_t>(i.d, at >= 32 ? 0 : (uint32_t)(ones(count) << at));
}
void decode_bmsk(const Words &w, Inst &i)
{
    decode_szext(w, i);
    i.run = w.has("clamp") ? bit_mask : nullptr;
}

/* ---- counts and permutations ------------------------------------------------------------- */
struct PopulationCount {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        f.set<uint32_t>(i.d, (uint32_t)__builtin_popcountll(f.get<T>(i.a)));
    }
};
struct LeadingZeros {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        uint32_t width = 8 * sizeof(T);
        uint64_t a = f.get<T>(i.a);
        f.set<uint32_t>(i.d, a ? (uint32_t)__builtin_clzll(a) - (64 - width) : width);
    }
};
/* The place of the highest bit that differs from the sign; mode: count from the top instead. */
struct FindHighest {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        T a = f.get<T>(i.a);
        uint64_t bits = (std::make_unsigned_t<T>)(std::is_signed_v<T> && a < 0 ? (T)~a : a);
        uint32_t at = bits ? 63 - (uint32_t)__builtin_clzll(bits) : ~0u;
        f.set<uint32_t>(i.d, bits && i.mode ? 8 * (uint32_t)sizeof(T) - 1 - at : at);
    }
};
struct Reverse {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        T a = f.get<T>(i.a), r = 0;
        for (unsigned k = 0; k < 8 * sizeof(T); k++)
            r |= (T)((a >> k & 1) << (8 * sizeof(T) - 1 - k));
        f.set<T>(i.d, r);
    }
};
template <class H> void decode_unary(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.mode = w.has("shiftamt");
    i.run = for_unsigned<H>(w.type.bits);
}
void decode_bfind(const Words &w, Inst &i)
{
    decode_unary<PopulationCount>(w, i);
    i.run = for_integer<FindHighest>(w.type);
}

/* Bytes of b:a chosen by the nibbles of c; a nibble's top bit copies the byte's sign instead. */
void permute(Frame &f, const Inst &i)
{
    uint64_t bytes = f.get<uint32_t>(i.a) | (uint64_t)f.get<uint32_t>(i.b) << 32;
    uint32_t chosen = f.get<uint32_t>(i.c), r = 0;
    for (int k = 0; k < 4; k++) {
        uint32_t n = chosen >> 4 * k & 15;
        uint32_t byte = (uint32_t)(bytes >> 8 * (n & 7)) & 255;
        if (n & 8) byte = byte & 128 ? 255 : 0;
        r |= byte << 8 * k;
    }
    f.set<uint32_t>(i.d, r);
}
void decode_prmt(const Words &w, Inst &i)
{
    if (w.op.size() != 2) w.unknown(); /* .f4e and the like */
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.c = w.slot(3);
    i.run = permute;
}

const OpRow rows[] = {
    {"mov", ANY, decode_mov},          {"activemask", ANY, decode_activemask},
    {"and", ANY, decode_logic<And>},   {"or", ANY, decode_logic<Or>},
    {"xor", ANY, decode_logic<Xor>},   {"not", ANY, decode_not},
    {"cnot", ANY, decode_cnot},        {"lop3", ANY, decode_lop3},
    {"shl", ANY, decode_shl},          {"shr", ANY, decode_shr},
    {"shf", ANY, decode_shf},          {"bfi", ANY, decode_bfi},
    {"bfe", ANY, decode_bfe},          {"szext", ANY, decode_szext},
    {"bmsk", ANY, decode_bmsk},        {"popc", ANY, decode_unary<PopulationCount>},
    {"clz", ANY, decode_unary<LeadingZeros>}, {"brev", ANY, decode_unary<Reverse>},
    {"bfind", ANY, decode_bfind},      {"prmt", ANY, decode_prmt},
};

} // namespace

OpTable bit_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
