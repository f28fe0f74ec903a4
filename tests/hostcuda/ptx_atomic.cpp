/* ptx_atomic.cpp - atom and red: read, modify, write in one step. */
#include "ptx_address.h"
#include <cmath>

namespace hostcuda {

namespace {

/* old value, operands b and c -> new value */
struct AddInteger {
    template <class T> static T of(T old, T b, T) { return (T)(old + b); }
};
struct Exchange {
    template <class T> static T of(T, T b, T) { return b; }
};
struct CompareAndSwap {
    template <class T> static T of(T old, T b, T c) { return old == b ? c : old; }
};
struct Min {
    template <class T> static T of(T old, T b, T) { return b < old ? b : old; }
};
struct Max {
    template <class T> static T of(T old, T b, T) { return b > old ? b : old; }
};
struct And {
    template <class T> static T of(T old, T b, T) { return old & b; }
};
struct Or {
    template <class T> static T of(T old, T b, T) { return old | b; }
};
struct Xor {
    template <class T> static T of(T old, T b, T) { return old ^ b; }
};
struct Increment {
    template <class T> static T of(T old, T b, T) { return old >= b ? 0 : old + 1; }
};
struct Decrement {
    template <class T> static T of(T old, T b, T) { return old == 0 || old > b ? b : old - 1; }
};
struct AddFloat {
    template <class T> static T of(T old, T b, T) { return narrow<T>(widen(old) + widen(b)); }
};
struct MinFloat {
    template <class T> static T of(T old, T b, T)
    {
        return narrow<T>(std::fmin(widen(old), widen(b)));
    }
};
struct MaxFloat {
    template <class T> static T of(T old, T b, T)
    {
        return narrow<T>(std::fmax(widen(old), widen(b)));
    }
};
template <class Half> struct Two {
    Half half[2];
};
/* Both halves of 32 bits */
template <class Op> struct Each {
    template <class T> static T of(T old, T b, T c)
    {
        for (int k = 0; k < 2; k++)
            old.half[k] = Op::of(old.half[k], b.half[k], c.half[k]);
        return old;
    }
};

template <class Op> struct Atomic {
    template <class T> static void run(Frame &f, const Inst &i)
    {
        State s = (State)i.bytes;
        char *p = address_of(f, i, i.a, s);
        if (i.mode) fence(Scope::GPU, f.at(i));
        announce(f, i, p, sizeof(T) * i.lanes, Access::ATOMIC, s);
        const int *value = i.lanes == 1 ? &i.b : f.list(i), *result = value + i.lanes;
        for (int k = 0; k < i.lanes; k++) {
            T old;
            memcpy(&old, p + k * sizeof old, sizeof old);
            T fresh = Op::of(old, f.get<T>(value[k]), f.get<T>(i.c));
            memcpy(p + k * sizeof old, &fresh, sizeof fresh);
            f.set<T>(i.lanes == 1 ? i.d : result[k], old);
        }
        if (i.mode) fence(Scope::GPU, f.at(i));
    }
};

Handler of_floats(const Words &w, int op)
{
    if (w.type.packed) {
        if (w.type.kind == 'B')
            return op == 0   ? Atomic<Each<AddFloat>>::run<Two<BF16>>
                   : op == 3 ? Atomic<Each<MinFloat>>::run<Two<BF16>>
                   : op == 4 ? Atomic<Each<MaxFloat>>::run<Two<BF16>> : nullptr;
        return op == 0   ? Atomic<Each<AddFloat>>::run<Two<F16>>
               : op == 3 ? Atomic<Each<MinFloat>>::run<Two<F16>>
               : op == 4 ? Atomic<Each<MaxFloat>>::run<Two<F16>> : nullptr;
    }
    if (op == 0) return for_float<Atomic<AddFloat>>(w.type);
    if (w.type.bits != 16) return nullptr;
    return op == 3 ? for_float<Atomic<MinFloat>>(w.type)
                   : op == 4 ? for_float<Atomic<MaxFloat>>(w.type) : nullptr;
}

Handler of_integers(const Words &w, int op)
{
    switch (op) {
    case 0: return for_unsigned<Atomic<AddInteger>>(w.type.bits);
    case 1: return for_unsigned<Atomic<Exchange>>(w.type.bits);
    case 2: return for_unsigned<Atomic<CompareAndSwap>>(w.type.bits);
    case 3: return for_integer<Atomic<Min>>(w.type);
    case 4: return for_integer<Atomic<Max>>(w.type);
    case 5: return for_unsigned<Atomic<And>>(w.type.bits);
    case 6: return for_unsigned<Atomic<Or>>(w.type.bits);
    case 7: return for_unsigned<Atomic<Xor>>(w.type.bits);
    case 8: return for_unsigned<Atomic<Increment>>(w.type.bits);
    case 9: return for_unsigned<Atomic<Decrement>>(w.type.bits);
    default: return nullptr;
    }
}

void decode_atomic(const Words &w, Inst &i)
{
    size_t at = w.op[0] == "atom"; /* of the address */
    if (w.has("async") || w.arg.size() < at + 2 || !w.arg[at].memory) return;
    i.a = w.slot(at);
    i.offset = w.arg[at].offset;
    i.bytes = state_of(w);
    i.mode = w.choice({"acquire", "release", "acq_rel"}) >= 0;
    if (w.choice({"v2", "v4", "v8"}) >= 0) {
        w.list_begin(i);
        i.lanes = (uint8_t)w.append(at + 1);
        if (at) w.append(0);
        else w.function.lists.insert(w.function.lists.end(), i.lanes, SLOT_SINK);
    } else {
        i.b = w.slot(at + 1);
        if (at) i.d = w.slot(0);
        if (w.has("cas")) i.c = w.slot(at + 2);
    }
    int op = w.choice({"add", "exch", "cas", "min", "max", "and", "or", "xor", "inc", "dec"});
    i.run = w.type.is_float() ? of_floats(w, op) : of_integers(w, op);
}

const OpRow rows[] = {{"atom", ANY, decode_atomic}, {"red", ANY, decode_atomic}};

} // namespace

OpTable atomic_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
