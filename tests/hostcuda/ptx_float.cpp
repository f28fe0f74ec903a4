/* ptx_float.cpp - arithmetic of f16, bf16, f32 and f64, plain and packed.
 *
 * Halves are computed in double and rounded once. Instructions without modifiers take a short path;
 * those with a rounding mode other than nearest, .sat, .ftz or .relu the long one.
 */
#include "ptx_decode.h"
#include <cfenv>
#include <cmath>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace hostcuda {

double widen(F16 v)
{
    __half_raw raw;
    raw.x = v.bits;
    return __half2float(__half(raw));
}

double widen(BF16 v)
{
    uint32_t bits = (uint32_t)v.bits << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

template <> F16 narrow<F16>(double v)
{
    __half_raw raw = __double2half(v);
    return {std::isnan(v) ? (uint16_t)0x7fff : raw.x};
}

/* Through float, rounded to odd so that the second rounding is that of the exact value. */
template <> BF16 narrow<BF16>(double v)
{
    if (std::isnan(v)) return {0x7fff};
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((double)f != v && std::isfinite(f)) {
        if (std::fabs((double)f) > std::fabs(v)) bits--; /* towards zero */
        bits |= 1;
    }
    return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

namespace {

enum { SAT = 1, FTZ = 2, RELU = 4, KEEP_NAN = 8, ROUND = 16 }; /* Inst::mode; ROUND * 0..3 */

const int ROUNDINGS[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};

uint16_t modifiers(const Words &w)
{
    uint16_t mode = 0;
    if (w.has("sat")) mode |= SAT;
    if (w.has("ftz") && w.type.bits == 32) mode |= FTZ;
    if (w.has("relu")) mode |= RELU;
    if (w.has("NaN")) mode |= KEEP_NAN;
    int round = w.choice({"rn", "rz", "rm", "rp"});
    return (uint16_t)(mode | (round > 0 ? round : 0) * ROUND);
}

struct Add {
    template <class V> static V of(V a, V b, V) { return a + b; }
};
struct Sub {
    template <class V> static V of(V a, V b, V) { return a - b; }
};
struct Mul {
    template <class V> static V of(V a, V b, V) { return a * b; }
};
struct Fma {
    template <class V> static V of(V a, V b, V c) { return std::fma(a, b, c); }
};
struct Div {
    template <class V> static V of(V a, V b, V) { return a / b; }
};
/* A NaN loses against a number; -0 is below +0. */
struct Min {
    template <class V> static V of(V a, V b, V)
    {
        if (a == 0 && b == 0) return std::signbit(a) ? a : b;
        return std::fmin(a, b);
    }
};
struct Max {
    template <class V> static V of(V a, V b, V)
    {
        if (a == 0 && b == 0) return std::signbit(a) ? b : a;
        return std::fmax(a, b);
    }
};
template <class Op> constexpr bool is_extremum = std::is_same_v<Op, Min> || std::is_same_v<Op, Max>;

/* The hardware's NaN */
template <class V> V canonical(V v) { return v; }
inline float canonical(float v)
{
    if (v == v) return v;
    uint32_t bits = 0x7fffffff;
    memcpy(&v, &bits, sizeof v);
    return v;
}

template <class V> V flushed(V v, int mode)
{
    return mode & FTZ && std::fpclassify(v) == FP_SUBNORMAL ? std::copysign((V)0, v) : v;
}

template <class Op, class T> T long_way(const Inst &i, T a, T b, T c)
{
    using V = decltype(widen(a));
    volatile V x = flushed(widen(a), i.mode), y = flushed(widen(b), i.mode);
    volatile V z = flushed(widen(c), i.mode);
    int round = ROUNDINGS[i.mode / ROUND];
    if (round != FE_TONEAREST) fesetround(round);
    volatile V result = Op::template of<V>(x, y, z);
    if (round != FE_TONEAREST) fesetround(FE_TONEAREST);
    if (is_extremum<Op> && i.mode & KEEP_NAN && (x != x || y != y)) result = NAN;
    V r = flushed((V)result, i.mode);
    if (i.mode & SAT) r = r > 0 ? (r < 1 ? r : (V)1) : (V)0; /* NaN too */
    if (i.mode & RELU && !(r > 0) && r == r) r = 0;
    return narrow<T>(canonical(r));
}

template <class Op> struct Plain {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        using V = decltype(widen(T{}));
        V r = Op::template of<V>(widen(f.get<T>(i.a)), widen(f.get<T>(i.b)), widen(f.get<T>(i.c)));
        f.set<T>(i.d, narrow<T>(canonical(r)));
    }
};
template <class Op> struct Modified {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        f.set<T>(i.d, long_way<Op, T>(i, f.get<T>(i.a), f.get<T>(i.b), f.get<T>(i.c)));
    }
};
/* Both halves of 32 bits */
template <class Op> struct Packed {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        uint32_t a = f.get<uint32_t>(i.a), b = f.get<uint32_t>(i.b), c = f.get<uint32_t>(i.c);
        uint32_t r = 0;
        for (int k = 0; k < 32; k += 16) {
            T x{(uint16_t)(a >> k)}, y{(uint16_t)(b >> k)}, z{(uint16_t)(c >> k)};
            r |= (uint32_t)long_way<Op, T>(i, x, y, z).bits << k;
        }
        f.set<uint32_t>(i.d, r);
    }
};
/* add.f32x2 and the like of sm_100 are not for our chips. */
template <class Op> Handler packed(Type t)
{
    return t.bits != 16 ? nullptr : t.kind == 'B' ? Packed<Op>::template run<BF16>
                                                  : Packed<Op>::template run<F16>;
}

template <class Op> void decode_arithmetic(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    if (w.arg.size() > 3) i.c = w.slot(3);
    i.mode = modifiers(w);
    if (w.has("xorsign") || (i.mode / ROUND && w.type.bits == 16)) return;
    if (w.arg.size() > 3 && !std::is_same_v<Op, Fma>) return; /* minima of three */
    i.run = w.type.packed ? packed<Op>(w.type)
                          : i.mode ? for_float<Modified<Op>>(w.type) : for_float<Plain<Op>>(w.type);
}

/* div.full and div.approx are as exact as div.rn here. */
void decode_div(const Words &w, Inst &i) { decode_arithmetic<Div>(w, i); }

/* ---- signs: they act on bits ---------------------------------------------------------------- */
enum { NEGATE, ABSOLUTE };
template <int OP> struct Sign {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        const T top = (T)((T)1 << (8 * sizeof(T) - 1));
        T a = f.get<T>(i.a);
        f.set<T>(i.d, (T)(OP == NEGATE ? a ^ top : a & (T)~top));
    }
};
template <int OP> void sign_packed(Frame &f, const Inst &i)
{
    uint32_t a = f.get<uint32_t>(i.a);
    f.set<uint32_t>(i.d, OP == NEGATE ? a ^ 0x80008000u : a & 0x7fff7fffu);
}
template <int OP> void decode_sign(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.run = w.type.packed ? sign_packed<OP> : for_unsigned<Sign<OP>>(w.type.bits);
}

struct CopySign { /* the sign of a, the rest of b */
    template <class T> static void run(Frame &f, const Inst &i)
    {
        const T top = (T)((T)1 << (8 * sizeof(T) - 1));
        f.set<T>(i.d, (T)((f.get<T>(i.a) & top) | (f.get<T>(i.b) & (T)~top)));
    }
};
void decode_copysign(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.run = for_unsigned<CopySign>(w.type.bits);
}

const OpRow rows[] = {
    {"add", FLOAT, decode_arithmetic<Add>}, {"sub", FLOAT, decode_arithmetic<Sub>},
    {"mul", FLOAT, decode_arithmetic<Mul>}, {"fma", FLOAT, decode_arithmetic<Fma>},
    {"mad", FLOAT, decode_arithmetic<Fma>}, {"div", FLOAT, decode_div},
    {"min", FLOAT, decode_arithmetic<Min>}, {"max", FLOAT, decode_arithmetic<Max>},
    {"neg", FLOAT, decode_sign<NEGATE>},    {"abs", FLOAT, decode_sign<ABSOLUTE>},
    {"copysign", FLOAT, decode_copysign},
};

} // namespace

OpTable float_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
