/* ptx_decode.h - from the words of an instruction to its record: what the opcode files share.
 *
 * Each opcode file (ptx_integer.cpp, ptx_float.cpp, ...) exports a table of opcodes. A row's decode
 * function gets the words of one instruction and fills in a record, handler included. Returning
 * without a handler means "not known here", which ends the program with the instruction's text.
 */
#pragma once
#include "ptx.h"
#include <initializer_list>

namespace hostcuda {

/* kind: u s f (f16, f32, f64) B (bf16) b p, or 0 without a type; packed: two of them in 32 bits;
 * bits: of one element. */
struct Type {
    char kind = 0;
    int bits = 0;
    bool packed = false;
    bool is_float() const { return kind == 'f' || kind == 'B'; }
    bool is_signed() const { return kind == 's'; }
};
/* Of a suffix without its dot, say "bf16x2"; kind 0: not a type. */
Type parse_type(const std::string &suffix);

struct Operand {
    int slot = SLOT_SINK;
    int pair = SLOT_SINK;       /* the second of d|p */
    bool memory = false;        /* [slot + offset] */
    bool vector = false;
    int64_t offset = 0;
    std::vector<int> lanes;     /* of a vector, or a tensor's coordinates in memory operands */
    std::string name;           /* of a label or function */
};



struct Words {
    Function &function;
    Module &module;
    std::string text;
    std::vector<std::string> op;  /* the opcode, split at dots */
    std::vector<Operand> arg;
    Type type, before;            /* the last type suffix and the one before it */

    bool has(const char *suffix) const;
    /* The first suffix among the choices as its index; -1: none. */
    int choice(std::initializer_list<const char *> names) const;
    [[noreturn]] void unknown() const;
    int constant(uint64_t value) const; /* a slot that holds it */
    int slot(size_t i) const;           /* of operand i, which must be there */
    /* Appends a vector operand (or a single one) to the lists, where i.list is the first of the
     * instruction's; returns how many lanes. Start with list_begin(). */
    void list_begin(Inst &i) const { i.list = (int)function.lists.size(); }
    int append(size_t operand) const;
};

/* Finds the opcode's row and fills i in; ends the program for an instruction that is not known. */
void decode(Words &w, Inst &i);

using Decode = void (*)(const Words &, Inst &);
enum OpClass : uint8_t { ANY, INT, FLOAT };
struct OpRow {
    const char *name;
    OpClass types;
    Decode decode;
};
struct OpTable {
    const OpRow *row;
    size_t rows;
};
OpTable integer_ops();
OpTable bit_ops();
OpTable compare_ops();
OpTable float_ops();
OpTable math_ops();
OpTable convert_ops();
OpTable memory_ops();
OpTable atomic_ops();
OpTable control_ops();
OpTable warp_ops();
OpTable tensor_ops();
OpTable copy_ops();
OpTable hopper_ops();

/* ---- choosing an instantiation by type ----------------------------------------------------- */
template <class H> Handler for_unsigned(int bits)
{
    switch (bits) {
    case 8: return H::template run<uint8_t>;
    case 16: return H::template run<uint16_t>;
    case 32: return H::template run<uint32_t>;
    case 64: return H::template run<uint64_t>;
    default: return nullptr;
    }
}
template <class H> Handler for_signed(int bits)
{
    switch (bits) {
    case 8: return H::template run<int8_t>;
    case 16: return H::template run<int16_t>;
    case 32: return H::template run<int32_t>;
    case 64: return H::template run<int64_t>;
    default: return nullptr;
    }
}
template <class H> Handler for_integer(Type t)
{
    return t.is_signed() ? for_signed<H>(t.bits) : for_unsigned<H>(t.bits);
}

/* ---- half-width floats, computed in double and rounded once -------------------------------- */
struct F16 {
    uint16_t bits;
};
struct BF16 {
    uint16_t bits;
};
double widen(F16 v);
double widen(BF16 v);
inline float widen(float v) { return v; }
inline double widen(double v) { return v; }
template <class T> T narrow(double v);
template <> F16 narrow<F16>(double v);
template <> BF16 narrow<BF16>(double v);
template <> inline float narrow<float>(double v) { return (float)v; }
template <> inline double narrow<double>(double v) { return v; }

template <class H> Handler for_float(Type t)
{
    if (t.kind == 'B') return H::template run<BF16>;
    if (t.kind != 'f') return nullptr;
    return t.bits == 16 ? H::template run<F16>
                        : t.bits == 32 ? H::template run<float> : H::template run<double>;
}

} // namespace hostcuda
