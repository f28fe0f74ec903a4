/* ptx_integer.cpp - integer arithmetic: sums, products, carries, quotients, minima. */
#include "ptx_decode.h"
#include <limits>

namespace hostcuda {

namespace {

/* Sums and products have the same low bits signed or not, so they run on unsigned types. */
struct Add {
    template <class T> static T of(T a, T b) { return (T)(a + b); }
};
struct Sub {
    template <class T> static T of(T a, T b) { return (T)(a - b); }
};
struct MulLow {
    template <class T> static T of(T a, T b) { return (T)((uint64_t)a * b); }
};
struct Div { /* division by zero gives all ones, as the hardware does */
    template <class T> static T of(T a, T b)
    {
        if (b == 0) return (T)-1;
        if (std::is_signed_v<T> && b == (T)-1) return (T)(0 - (std::make_unsigned_t<T>)a);
        return (T)(a / b);
    }
};
struct Rem {
    template <class T> static T of(T a, T b)
    {
        if (b == 0) return a;
        return std::is_signed_v<T> && b == (T)-1 ? (T)0 : (T)(a % b);
    }
};
struct Min {
    template <class T> static T of(T a, T b) { return a < b ? a : b; }
};
struct Max {
    template <class T> static T of(T a, T b) { return a > b ? a : b; }
};

/* The upper half of a product */
template <class T> T multiply_high(T a, T b)
{
    if constexpr (sizeof(T) < 8) {
        using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
        return (T)((Wide)a * (Wide)b >> (8 * sizeof(T)));
    } else {
        using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
        return (T)((Wide)a * (Wide)b >> 64);
    }
}
struct MulHigh {
    template <class T> static T of(T a, T b) { return multiply_high(a, b); }
};

template <class Op> struct Binary {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        f.set<T>(i.d, Op::of(f.get<T>(i.a), f.get<T>(i.b)));
    }
};

/* d = Op(a, b) + c */
template <class Op> struct Ternary {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        using U = std::make_unsigned_t<T>;
        f.set<T>(i.d, (T)((U)Op::of(f.get<T>(i.a), f.get<T>(i.b)) + f.get<U>(i.c)));
    }
};

/* Products of twice the width, plus c (the zero slot for mul) */
struct Wide {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        using S = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
        uint64_t v = (uint64_t)((S)f.get<T>(i.a) * (S)f.get<T>(i.b)) + f.get<uint64_t>(i.c);
        if (sizeof(T) == 4) f.set<uint64_t>(i.d, v);
        else f.set<uint32_t>(i.d, (uint32_t)v);
    }
};

/* |a - b| + c */
struct SumOfDifferences {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        T a = f.get<T>(i.a), b = f.get<T>(i.b);
        f.set<T>(i.d, (T)((a > b ? a - b : b - a) + f.get<T>(i.c)));
    }
};

/* add.cc, addc, sub.cc, subc, mad.cc, madc: CARRY_IN and CARRY_OUT in mode. A borrow is a carry of
 * 1 here, as PTX has it. */
enum { CARRY_IN = 1, CARRY_OUT = 2 };
template <class Op> struct Carrying {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        unsigned __int128 sum = (unsigned __int128)Op::of(f.get<T>(i.a), f.get<T>(i.b))
                                + f.get<T>(i.c) + (i.mode & CARRY_IN ? f.slot[SLOT_CARRY] : 0);
        f.set<T>(i.d, (T)sum);
        if (i.mode & CARRY_OUT) f.slot[SLOT_CARRY] = (uint64_t)(sum >> (8 * sizeof(T))) & 1;
    }
};
struct First { /* for sums: a + c */
    template <class T> static T of(T a, T) { return a; }
};
struct Borrowing {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        __int128 rest = (__int128)f.get<T>(i.a) - f.get<T>(i.c)
                        - (i.mode & CARRY_IN ? f.slot[SLOT_CARRY] : 0);
        f.set<T>(i.d, (T)rest);
        if (i.mode & CARRY_OUT) f.slot[SLOT_CARRY] = rest < 0;
    }
};

struct Negate {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        f.set<T>(i.d, (T)(0 - (std::make_unsigned_t<T>)f.get<T>(i.a)));
    }
};
struct Absolute {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        T a = f.get<T>(i.a);
        f.set<T>(i.d, a < 0 ? (T)(0 - (std::make_unsigned_t<T>)a) : a);
    }
};

void add_saturating(Frame &f, const Inst &i)
{
    int64_t sum = (int64_t)f.get<int32_t>(i.a) + (i.mode ? -1 : 1) * (int64_t)f.get<int32_t>(i.b);
    int64_t low = std::numeric_limits<int32_t>::min(), high = std::numeric_limits<int32_t>::max();
    f.set<int32_t>(i.d, (int32_t)(sum < low ? low : sum > high ? high : sum));
}

/* Sums of four or two products of bytes */
template <class A, class B> void dot4(Frame &f, const Inst &i)
{
    uint32_t a = f.get<uint32_t>(i.a), b = f.get<uint32_t>(i.b);
    int64_t sum = f.get<int32_t>(i.c);
    for (int k = 0; k < 4; k++) sum += (int64_t)(A)(a >> 8 * k) * (B)(b >> 8 * k);
    f.set<uint32_t>(i.d, (uint32_t)sum);
}

void operands(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    if (w.arg.size() > 2) i.b = w.slot(2);
    if (w.arg.size() > 3) i.c = w.slot(3);
}

/* Two 16-bit lanes of 32 bits (add.u16x2, min.s16x2, ...) */
template <class Op> struct Packed {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        uint32_t a = f.get<uint32_t>(i.a), b = f.get<uint32_t>(i.b);
        uint16_t low = (uint16_t)Op::template of<T>((T)a, (T)b);
        uint16_t high = (uint16_t)Op::template of<T>((T)(a >> 16), (T)(b >> 16));
        f.set<uint32_t>(i.d, low | (uint32_t)high << 16);
    }
};
template <class Op> Handler packed(Type t)
{
    return t.is_signed() ? Packed<Op>::template run<int16_t> : Packed<Op>::template run<uint16_t>;
}

int carry_mode(const Words &w, const char *with_carry)
{
    return (w.op[0] == with_carry ? CARRY_IN : 0) | (w.has("cc") ? CARRY_OUT : 0);
}

void decode_sum(const Words &w, Inst &i)
{
    bool add = w.op[0][0] == 'a';
    operands(w, i);
    if (w.has("sat")) {
        i.mode = !add;
        i.run = add_saturating;
    } else if (w.type.packed) {
        i.run = add ? packed<Add>(w.type) : packed<Sub>(w.type);
    } else if (int mode = carry_mode(w, add ? "addc" : "subc")) {
        i.mode = (uint16_t)mode;
        i.c = i.b;
        i.run = add ? for_unsigned<Carrying<First>>(w.type.bits)
                    : for_unsigned<Borrowing>(w.type.bits);
    } else {
        i.run = add ? for_unsigned<Binary<Add>>(w.type.bits)
                    : for_unsigned<Binary<Sub>>(w.type.bits);
    }
}

void decode_mul(const Words &w, Inst &i)
{
    bool mad = w.op[0] != "mul";
    operands(w, i);
    if (w.has("wide")) {
        i.run = w.type.bits > 32 ? nullptr : for_integer<Wide>(w.type);
    } else if (int mode = mad ? carry_mode(w, "madc") : 0) {
        i.mode = (uint16_t)mode;
        i.run = w.has("hi") ? for_unsigned<Carrying<MulHigh>>(w.type.bits)
                            : for_unsigned<Carrying<MulLow>>(w.type.bits);
    } else if (w.has("hi")) {
        i.run = mad ? for_integer<Ternary<MulHigh>>(w.type) : for_integer<Binary<MulHigh>>(w.type);
    } else {
        i.run = mad ? for_unsigned<Ternary<MulLow>>(w.type.bits)
                    : for_unsigned<Binary<MulLow>>(w.type.bits);
    }
}

/* mul24, mad24: operands fit 24 bits, so the low 32 bits of the plain product are theirs. */
void decode_mul24(const Words &w, Inst &i)
{
    if (!w.has("hi")) decode_mul(w, i);
}

template <class Op> void decode_binary(const Words &w, Inst &i)
{
    operands(w, i);
    i.run = w.type.packed ? packed<Op>(w.type) : for_integer<Binary<Op>>(w.type);
}

template <class H> void decode_integer(const Words &w, Inst &i)
{
    operands(w, i);
    i.run = for_integer<H>(w.type);
}

void decode_dp4a(const Words &w, Inst &i)
{
    operands(w, i);
    bool a = w.before.is_signed(), b = w.type.is_signed();
    i.run = a ? (b ? dot4<int8_t, int8_t> : dot4<int8_t, uint8_t>)
              : (b ? dot4<uint8_t, int8_t> : dot4<uint8_t, uint8_t>);
}

const OpRow rows[] = {
    {"add", INT, decode_sum},         {"addc", INT, decode_sum},
    {"sub", INT, decode_sum},         {"subc", INT, decode_sum},
    {"mul", INT, decode_mul},         {"mad", INT, decode_mul},
    {"madc", INT, decode_mul},        {"mul24", INT, decode_mul24},
    {"mad24", INT, decode_mul24},     {"div", INT, decode_binary<Div>},
    {"rem", INT, decode_binary<Rem>}, {"min", INT, decode_binary<Min>},
    {"max", INT, decode_binary<Max>}, {"neg", INT, decode_integer<Negate>},
    {"abs", INT, decode_integer<Absolute>},
    {"sad", INT, decode_integer<SumOfDifferences>},
    {"dp4a", INT, decode_dp4a},
};

} // namespace

OpTable integer_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
