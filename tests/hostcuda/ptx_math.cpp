/* ptx_math.cpp - functions that the chip approximates, exact to rounding here: ex2, lg2, rcp,
 * rsqrt, sqrt, sin, cos, tanh.
 */
#include "ptx_decode.h"
#include <cmath>

namespace hostcuda {

namespace {

struct Exp2 {
    template <class V> static V of(V x) { return std::exp2(x); }
};
struct Log2 {
    template <class V> static V of(V x) { return std::log2(x); }
};
struct Reciprocal {
    template <class V> static V of(V x) { return 1 / x; }
};
struct ReciprocalRoot {
    template <class V> static V of(V x) { return 1 / std::sqrt(x); }
};
struct Root {
    template <class V> static V of(V x) { return std::sqrt(x); }
};
struct Sine {
    template <class V> static V of(V x) { return std::sin(x); }
};
struct Cosine {
    template <class V> static V of(V x) { return std::cos(x); }
};
struct Tanh {
    template <class V> static V of(V x) { return std::tanh(x); }
};

/* mode: .ftz */
template <class V> V flushed(V v, int mode)
{
    return mode && std::fpclassify(v) == FP_SUBNORMAL ? std::copysign((V)0, v) : v;
}

template <class Op> struct Unary {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        auto x = flushed(widen(f.get<T>(i.a)), i.mode);
        f.set<T>(i.d, narrow<T>(flushed(Op::of(x), i.mode)));
    }
};
template <class Op> struct Packed {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        uint32_t a = f.get<uint32_t>(i.a), r = 0;
        for (int k = 0; k < 32; k += 16)
            r |= (uint32_t)narrow<T>(Op::of(widen(T{(uint16_t)(a >> k)}))).bits << k;
        f.set<uint32_t>(i.d, r);
    }
};

/* rcp and rsqrt .approx.ftz.f64 keep the upper 32 bits and drop the lower ones. */
template <class Op> void rough_double(Frame &f, const Inst &i)
{
    double r = Op::of(f.get<double>(i.a));
    uint64_t bits;
    memcpy(&bits, &r, sizeof bits);
    f.set<uint64_t>(i.d, bits & 0xffffffff00000000u);
}

template <class Op> void decode_function(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.mode = w.has("ftz") && w.type.bits == 32;
    if (w.choice({"rz", "rm", "rp"}) >= 0) return;
    if (w.type.packed)
        i.run = w.type.kind == 'B' ? Packed<Op>::template run<BF16> : Packed<Op>::template run<F16>;
    else if (w.type.bits == 64 && w.has("approx"))
        i.run = rough_double<Op>;
    else
        i.run = for_float<Unary<Op>>(w.type);
}

const OpRow rows[] = {
    {"ex2", FLOAT, decode_function<Exp2>},           {"lg2", FLOAT, decode_function<Log2>},
    {"rcp", FLOAT, decode_function<Reciprocal>},     {"sqrt", FLOAT, decode_function<Root>},
    {"rsqrt", FLOAT, decode_function<ReciprocalRoot>},
    {"sin", FLOAT, decode_function<Sine>},           {"cos", FLOAT, decode_function<Cosine>},
    {"tanh", FLOAT, decode_function<Tanh>},
};

} // namespace

OpTable math_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
