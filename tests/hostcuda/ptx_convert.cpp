/* ptx_convert.cpp - cvt and cvta: between all integer and float types, with every rounding. */
#include "ptx_decode.h"
#include <cfenv>
#include <cmath>
#include <limits>

namespace hostcuda {

namespace {

enum { SAT = 1, FTZ = 2, RELU = 4, ROUND = 16 }; /* Inst::mode; ROUND * enum Rounding */
enum Rounding { NEAREST, ZERO, DOWN, UP };

template <class T> constexpr bool is_float = !std::is_integral_v<T>;

template <class V> V to_integral(V v, int rounding)
{
    switch (rounding) {
    case ZERO: return std::trunc(v);
    case DOWN: return std::floor(v);
    case UP: return std::ceil(v);
    default: return std::nearbyint(v);
    }
}

template <class V> V flushed(V v, int mode)
{
    return mode & FTZ && std::fpclassify(v) == FP_SUBNORMAL ? std::copysign((V)0, v) : v;
}

/* Out of range goes to the nearest end, NaN to 0 (of 64-bit results: to the lowest number). */
template <class D, class V> D clamp_to_integer(V v)
{
    using L = std::numeric_limits<D>;
    if (v != v) return sizeof(D) == 8 ? (D)(1ull << 63) : 0;
    if (v <= (V)L::min()) return L::min();
    if ((double)v >= std::ldexp(1.0, L::digits)) return L::max();
    return (D)v;
}

template <class D, class S> D float_to_integer(S s, int mode)
{
    return clamp_to_integer<D>(to_integral(flushed(widen(s), mode), mode / ROUND));
}

/* Rounding a wide value into the next narrower float in direction `rounding` */
template <class D> D directed(double v, int rounding)
{
    D d = narrow<D>(v);
    double back = widen(d);
    bool away = rounding == ZERO ? std::fabs(back) > std::fabs(v)
                                 : rounding == DOWN ? back > v : back < v;
    if (rounding == NEAREST || back == v || v != v) return d;
    uint64_t bits = 0; /* neighbours in magnitude are neighbours as integers */
    memcpy(&bits, &d, sizeof d);
    if (rounding == ZERO) {
        if (away) bits--;
    } else if (away) {
        bool grow = (rounding == UP) == (v > 0); /* magnitude */
        bits += grow ? 1 : -1;
    }
    memcpy(&d, &bits, sizeof d);
    return d;
}

template <class D, class S> D float_to_float(S s, int mode, bool integral)
{
    auto v = flushed(widen(s), mode);
    if (integral) v = to_integral(v, mode / ROUND);
    if (mode & SAT) v = v > 0 ? (v < 1 ? v : 1) : 0;
    if (mode & RELU && v < 0) v = 0;
    return directed<D>(v, integral ? NEAREST : mode / ROUND);
}

template <class D, class S> D integer_to_float(S s, int mode)
{
    if constexpr (std::is_same_v<D, float> || std::is_same_v<D, double>) {
        int round[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
        if (mode / ROUND == NEAREST) return (D)s;
        volatile S value = s;
        fesetround(round[mode / ROUND]);
        volatile D d = (D)value;
        fesetround(FE_TONEAREST);
        return d;
    } else {
        return directed<D>((double)s, mode / ROUND);
    }
}

template <class D, class S> D integer_to_integer(S s, int mode)
{
    if (!(mode & SAT)) return (D)s;
    __int128 v = s, low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
    return (D)(v < low ? low : v > high ? high : v);
}

template <class D, class S> void convert(Frame &f, const Inst &i)
{
    S s = f.get<S>(i.a);
    if constexpr (is_float<D> && is_float<S>) f.set<D>(i.d, float_to_float<D>(s, i.mode, i.bytes));
    else if constexpr (is_float<D>) f.set<D>(i.d, integer_to_float<D>(s, i.mode));
    else if constexpr (is_float<S>) f.set<D>(i.d, float_to_integer<D>(s, i.mode));
    else f.set<D>(i.d, integer_to_integer<D>(s, i.mode));
}

/* The commonest one without its modifiers */
void bf16_to_float(Frame &f, const Inst &i) { f.slot[i.d] = (uint64_t)f.get<uint16_t>(i.a) << 16; }

template <class D> struct FromSource {
    template <class S> static void run(Frame &f, const Inst &i) { convert<D, S>(f, i); }
};
struct ToTarget {
    template <class D> static Handler choose(Type source)
    {
        return source.is_float() ? for_float<FromSource<D>>(source)
                                 : for_integer<FromSource<D>>(source);
    }
};

Handler converter(Type to, Type from)
{
    switch (to.kind) {
    case 'B': return ToTarget::choose<BF16>(from);
    case 'f':
        return to.bits == 16 ? ToTarget::choose<F16>(from)
                             : to.bits == 32 ? ToTarget::choose<float>(from)
                                             : ToTarget::choose<double>(from);
    case 's':
        return to.bits == 8 ? ToTarget::choose<int8_t>(from)
               : to.bits == 16 ? ToTarget::choose<int16_t>(from)
               : to.bits == 32 ? ToTarget::choose<int32_t>(from) : ToTarget::choose<int64_t>(from);
    case 'u':
        return to.bits == 8 ? ToTarget::choose<uint8_t>(from)
               : to.bits == 16 ? ToTarget::choose<uint16_t>(from)
               : to.bits == 32 ? ToTarget::choose<uint32_t>(from)
                               : ToTarget::choose<uint64_t>(from);
    default: return nullptr;
    }
}

/* cvt.rn.bf16x2.f32 d, a, b: a in the upper half */
template <class T> void convert_pair(Frame &f, const Inst &i)
{
    uint32_t high = float_to_float<T>(f.get<float>(i.a), i.mode, false).bits;
    uint32_t low = float_to_float<T>(f.get<float>(i.b), i.mode, false).bits;
    f.set<uint32_t>(i.d, high << 16 | low);
}

/* tf32: 10 bits of mantissa. Ties away from zero (.rna) or to even (.rn). */
void to_tf32(Frame &f, const Inst &i)
{
    uint32_t bits = f.get<uint32_t>(i.a);
    bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    if (finite) bits += i.bytes ? 0x1000u : 0xfffu + (bits >> 13 & 1);
    bits &= 0xffffe000u;
    if (!finite && f.get<float>(i.a) != f.get<float>(i.a)) bits = 0x7fffe000u;
    if (i.mode & RELU && bits >> 31) bits = 0;
    f.set<uint32_t>(i.d, bits);
}

void decode_cvt(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    int integral = w.choice({"rni", "rzi", "rmi", "rpi"}),
        round = w.choice({"rn", "rz", "rm", "rp"});
    i.mode = (uint16_t)((w.has("sat") ? SAT : 0) | (w.has("relu") ? RELU : 0)
                        | (w.has("ftz") ? FTZ : 0)
                        | ROUND * (integral >= 0 ? integral : round >= 0 ? round : 0));
    i.bytes = integral >= 0;
    if (w.has("satfinite")) return;
    if (w.before.kind == 't') {
        i.bytes = w.has("rna");
        i.run = i.bytes || w.has("rn") ? to_tf32 : nullptr;
    } else if (w.before.packed) {
        i.b = w.slot(2);
        if (w.type.bits == 32)
            i.run = w.before.kind == 'B' ? convert_pair<BF16> : convert_pair<F16>;
    } else if (w.arg.size() == 2) {
        bool to_wide = w.before.kind == 'f' && w.before.bits == 32;
        i.run = w.type.kind == 'B' && to_wide && !i.mode && !i.bytes
                    ? bf16_to_float : converter(w.before, w.type);
    }
}

/* Addresses are host pointers but for shared ones, which are small numbers. */
void generic_of_shared(Frame &f, const Inst &i)
{
    f.set<uint64_t>(i.d, (uint64_t)shared_pointer(f.get<uint32_t>(i.a)));
}
void shared_of_generic(Frame &f, const Inst &i)
{
    f.set<uint64_t>(i.d, shared_address((const void *)f.get<uint64_t>(i.a)));
}
void same(Frame &f, const Inst &i) { f.slot[i.d] = f.slot[i.a]; }

bool names_shared(const Words &w)
{
    return w.choice({"shared", "shared::cta", "shared::cluster"}) >= 0;
}
void decode_cvta(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.run = !names_shared(w) ? same : w.has("to") ? shared_of_generic : generic_of_shared;
}

template <bool (*CHECK)(const void *)> void in_space(Frame &f, const Inst &i)
{
    f.slot[i.d] = CHECK((const void *)f.slot[i.a]);
}
void decode_isspacep(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    if (w.has("global")) i.run = in_space<is_global>;
    else if (w.has("shared::cluster")) i.run = in_space<is_shared>;
    else if (names_shared(w)) i.run = in_space<is_shared_own>;
}

const OpRow rows[] = {
    {"cvt", ANY, decode_cvt}, {"cvta", ANY, decode_cvta}, {"isspacep", ANY, decode_isspacep},
};

} // namespace

OpTable convert_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
