/* ptx_compare.cpp - comparisons and selections. */
#include "ptx_decode.h"
#include <cmath>

namespace hostcuda {

namespace {

enum Comparison { EQ, NE, LT, LE, GT, GE, EQU, NEU, LTU, LEU, GTU, GEU, LO, LS, HI, HS, NUM, NAN_ };
const std::initializer_list<const char *> NAMES = {"eq",  "ne",  "lt",  "le",  "gt", "ge",
                                                   "equ", "neu", "ltu", "leu", "gtu", "geu",
                                                   "lo",  "ls",  "hi",  "hs",  "num", "nan"};
/* Inst::mode of setp: how the result joins the predicate c. */
enum Join { JOIN_NOTHING, JOIN_AND, JOIN_OR, JOIN_XOR };

template <int C, class V> bool holds(V a, V b)
{
    if constexpr (C == EQ) return a == b;
    if constexpr (C == NE) return a < b || a > b; /* false for NaN */
    if constexpr (C == LT || C == LO) return a < b;
    if constexpr (C == LE || C == LS) return a <= b;
    if constexpr (C == GT || C == HI) return a > b;
    if constexpr (C == GE || C == HS) return a >= b;
    if constexpr (C == EQU) return !(a < b || a > b);
    if constexpr (C == NEU) return !(a == b);
    if constexpr (C == LTU) return !(a >= b);
    if constexpr (C == LEU) return !(a > b);
    if constexpr (C == GTU) return !(a <= b);
    if constexpr (C == GEU) return !(a < b);
    if constexpr (C == NUM) return a == a && b == b;
    return a != a || b != b;
}

template <class T> auto operand_of(Frame &f, int slot)
{
    if constexpr (std::is_integral_v<T>) return f.get<T>(slot);
    else return widen(f.get<T>(slot));
}

template <int C> struct SetPredicate {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        bool r = holds<C>(operand_of<T>(f, i.a), operand_of<T>(f, i.b));
        f.slot[i.d] = r;
        f.slot[i.d2] = !r;
    }
};
template <int C> struct SetJoined {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        bool r = holds<C>(operand_of<T>(f, i.a), operand_of<T>(f, i.b)), c = f.slot[i.c] & 1;
        bool not_r = !r;
        if (i.mode == JOIN_AND) r = r && c, not_r = not_r && c;
        else if (i.mode == JOIN_OR) r = r || c, not_r = not_r || c;
        else r = r != c, not_r = not_r != c;
        f.slot[i.d] = r;
        f.slot[i.d2] = not_r;
    }
};
/* set: all ones or 1.0 (mode) instead of a predicate */
template <int C> struct SetValue {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        bool r = holds<C>(operand_of<T>(f, i.a), operand_of<T>(f, i.b));
        if (i.bytes == 4) f.set<uint32_t>(i.d, !r ? 0 : i.mode ? 0x3f800000u : ~0u);
        else f.set<uint16_t>(i.d, !r ? (uint16_t)0 : i.mode);
    }
};

/* Two comparisons of halves: predicates p|q, low and high */
template <int C> struct SetPacked {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        uint32_t a = f.get<uint32_t>(i.a), b = f.get<uint32_t>(i.b);
        for (int k = 0; k < 2; k++) {
            T x{(uint16_t)(a >> 16 * k)}, y{(uint16_t)(b >> 16 * k)};
            f.slot[k ? i.d2 : i.d] = holds<C>(widen(x), widen(y));
        }
    }
};
/* set.f16x2: 1.0 of the type in mode, or all ones, in each half */
template <int C> struct SetPackedValue {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        uint32_t a = f.get<uint32_t>(i.a), b = f.get<uint32_t>(i.b), r = 0;
        for (int k = 0; k < 2; k++) {
            T x{(uint16_t)(a >> 16 * k)}, y{(uint16_t)(b >> 16 * k)};
            if (holds<C>(widen(x), widen(y))) r |= (uint32_t)i.mode << 16 * k;
        }
        f.set<uint32_t>(i.d, r);
    }
};

template <class H> Handler for_any(Type t)
{
    return t.is_float() ? for_float<H>(t) : for_integer<H>(t);
}
template <class H> Handler for_half(Type t)
{
    return t.kind == 'B' ? H::template run<BF16> : t.kind == 'f' ? H::template run<F16> : nullptr;
}

struct Row {
    Handler (*predicate)(Type), (*joined)(Type), (*value)(Type), (*packed)(Type),
        (*packed_value)(Type);
};
template <int C> constexpr Row row()
{
    return {for_any<SetPredicate<C>>, for_any<SetJoined<C>>, for_any<SetValue<C>>,
            for_half<SetPacked<C>>, for_half<SetPackedValue<C>>};
}
const Row comparisons[] = {row<EQ>(),  row<NE>(),  row<LT>(),  row<LE>(),  row<GT>(),  row<GE>(),
                           row<EQU>(), row<NEU>(), row<LTU>(), row<LEU>(), row<GTU>(), row<GEU>(),
                           row<LO>(),  row<LS>(),  row<HI>(),  row<HS>(),  row<NUM>(), row<NAN_>()};

void decode_setp(const Words &w, Inst &i)
{
    int c = w.choice(NAMES);
    if (c < 0 || w.arg.size() < 3) return;
    i.d = w.slot(0);
    i.d2 = w.arg[0].pair;
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.mode = (uint16_t)(w.choice({"and", "or", "xor"}) + 1);
    if (w.type.packed) {
        if (i.mode == JOIN_NOTHING) i.run = comparisons[c].packed(w.type);
    } else if (i.mode != JOIN_NOTHING) {
        i.c = w.slot(3);
        i.run = comparisons[c].joined(w.type);
    } else {
        i.run = comparisons[c].predicate(w.type);
    }
}

uint16_t one_of(Type t) { return t.kind == 'B' ? 0x3f80 : 0x3c00; }

/* set.<compare>.<result type>.<operand type> */
void decode_set(const Words &w, Inst &i)
{
    int c = w.choice(NAMES);
    if (c < 0 || w.arg.size() != 3) return;
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    bool floats = w.before.is_float();
    i.bytes = (uint8_t)(w.before.bits / 8);
    i.mode = !floats ? (w.before.bits == 32 ? 0 : 0xffff)
                     : w.before.bits == 32 ? 1 : one_of(w.before);
    if (w.type.packed) {
        i.mode = floats ? one_of(w.before) : 0xffff;
        i.run = comparisons[c].packed_value(w.type);
    } else {
        i.run = comparisons[c].value(w.type);
    }
}

struct Select {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        f.set<T>(i.d, f.get<T>(f.slot[i.c] & 1 ? i.a : i.b));
    }
};
/* slct: a where c >= 0 */
template <class C> struct SelectSign {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        f.set<T>(i.d, f.get<T>(f.get<C>(i.c) >= 0 ? i.a : i.b));
    }
};
void decode_selp(const Words &w, Inst &i)
{
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.b = w.slot(2);
    i.c = w.slot(3);
    i.run = for_unsigned<Select>(w.type.bits);
}
void decode_slct(const Words &w, Inst &i)
{
    decode_selp(w, i);
    i.run = w.type.is_float() ? for_unsigned<SelectSign<float>>(w.before.bits)
                              : for_unsigned<SelectSign<int32_t>>(w.before.bits);
}

/* testp: classes of floats */
template <class V> bool is_class(V v, int which)
{
    switch (which) {
    case 0: return std::isfinite(v);
    case 1: return std::isinf(v);
    case 2: return !std::isnan(v);
    case 3: return std::isnan(v);
    case 4: return std::fpclassify(v) == FP_NORMAL;
    default: return std::fpclassify(v) == FP_SUBNORMAL;
    }
}
struct Test {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        f.slot[i.d] = is_class(widen(f.get<T>(i.a)), i.mode);
    }
};
void decode_testp(const Words &w, Inst &i)
{
    int which =
        w.choice({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
    if (which < 0 || w.type.bits < 32) return;
    i.d = w.slot(0);
    i.a = w.slot(1);
    i.mode = (uint16_t)which;
    i.run = for_float<Test>(w.type);
}

const OpRow rows[] = {
    {"setp", ANY, decode_setp}, {"set", ANY, decode_set},     {"selp", ANY, decode_selp},
    {"slct", ANY, decode_slct}, {"testp", ANY, decode_testp},
};

} // namespace

OpTable compare_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
