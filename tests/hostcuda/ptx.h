/* ptx.h - PTX as the interpreter holds it: modules of functions, functions of decoded instructions.
 *
 * Every value a function names (register, constant, special register, address of a parameter or
 * variable) is a numbered slot of 64 bits. A thread starts with a copy of the function's image of
 * slots, in which constants have their values and registers all bits set; the few slots that differ
 * between threads are filled in by fixups. So an instruction's operands are slot numbers, and an
 * instruction is a call of its handler.
 *
 * Handlers read the low bytes of a slot and write all 64 bits (unsigned values extended by zeros,
 * signed ones by their sign), hence a slot may be read with any width.
 */
#pragma once
#include "machine.h"
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace hostcuda {

struct Frame;
struct Function;
struct Inst;
using Handler = void (*)(Frame &, const Inst &);

/* Slots that every function has. */
enum { SLOT_SINK, SLOT_TRUE, SLOT_ZERO, SLOT_CARRY, SLOT_FIRST };

struct Inst {
    Handler run = nullptr;
    int guard = SLOT_TRUE; /* runs when the lowest bit of this slot is `wanted` */
    uint8_t wanted = 1;
    uint8_t bytes = 0;     /* of one element in memory */
    uint8_t lanes = 1;     /* elements of a vector, registers of an operand */
    uint16_t mode = 0;     /* meaning up to the handler */
    int d = SLOT_SINK, d2 = SLOT_SINK, a = SLOT_ZERO, b = SLOT_ZERO, c = SLOT_ZERO, e = SLOT_ZERO;
    int list = 0;          /* first entry in Function::lists: vector operands, one after another */
    int target = 0;        /* of a branch: an index into Function::code */
    int64_t offset = 0;    /* added to an address */
    const Function *callee = nullptr;
};

/* How a slot's value depends on the thread. */
enum class Base : uint8_t {
    SPECIAL,   /* *source */
    ARGUMENTS, /* the block of arguments */
    LOCAL,     /* this frame's local memory */
    SHARED,    /* Module::shared[which] */
    DYNAMIC    /* the extern __shared__ array */
};
struct Fixup {
    int slot;
    Base base;
    const uint32_t *source;
    int which;
    int64_t offset;
};

struct Parameter {
    std::string name;
    size_t offset, size;
};

/* A kernel or a device function, decoded on first use. */
struct Function {
    std::string name;
    std::vector<Parameter> parameters;
    std::vector<Parameter> results;
    size_t parameter_bytes = 0; /* of the parameters, then the results */
    unsigned max_threads = 1024;
    unsigned cluster[3] = {0, 0, 0}; /* .reqnctapercluster; 0 = none */
    unsigned registers = 0;          /* .maxnreg; 0 = none */
    std::vector<int> shared;         /* static arrays it uses, indices into Module::shared */
    size_t dynamic_align = 0;        /* of its extern __shared__ array; 0 = none */
    std::vector<const Function *> callees;
    size_t local_bytes = 0;
    std::vector<uint64_t> image;     /* initial slots */
    std::vector<Fixup> fixups;
    std::vector<Inst> code;
    std::vector<SourceLine> places;  /* of each instruction: where it stands in the .cu */
    std::deque<SourceLine> callers;  /* that places point to */
    std::vector<std::string> texts;  /* of each instruction */
    std::vector<int> lists;
    std::vector<std::vector<int>> branch_tables;
};

/* One thread in one function. */
struct Frame {
    uint64_t *slot;
    const Function *function;
    const Inst *next; /* null: return */
    char *arguments;
    char *local;
    char *spare; /* thread memory beyond this frame, for the functions it calls */

    template <class T> T get(int s) const
    {
        T v;
        memcpy(&v, &slot[s], sizeof v);
        return v;
    }
    template <class T> void set(int s, T v)
    {
        if constexpr (std::is_integral_v<T>) {
            slot[s] = (uint64_t)(int64_t)v; /* signed types keep their sign */
            if constexpr (std::is_unsigned_v<T>) slot[s] = v;
        } else {
            uint64_t wide = 0;
            memcpy(&wide, &v, sizeof v);
            slot[s] = wide;
        }
    }
    const int *list(const Inst &i) const { return function->lists.data() + i.list; }
    At at(const Inst &i) const { return &function->places[&i - function->code.data()]; }
    const char *text(const Inst &i) const
    {
        return function->texts[&i - function->code.data()].c_str();
    }
};

/* A __device__ or __constant__ variable. */
struct Variable {
    char *memory;
    size_t size;
};

/* One fatbin's PTX. */
class Module {
public:
    explicit Module(std::string text);
    ~Module();
    /* A kernel or device function by its mangled name, decoded; null: there is none. */
    const Function *function(const std::string &name);
    Variable *variable(const std::string &name);

    /* Static and extern (no bytes) arrays in shared memory; those declared inside a function are
     * listed as function/name. position: in the list of the launch that runs. */
    struct SharedArray {
        std::string name;
        size_t bytes, align;
        int position;
    };
    std::vector<SharedArray> shared;
    int find_shared(const std::string &name) const; /* -1: none */
    std::map<int, std::string> files; /* .file numbers, without folders */

private:
    struct Pending {
        std::string head, body;
    };
    void scan();
    void item(const std::string &head, const std::string &body);
    void declare_variable(const std::string &text);
    void fill_variable(Variable &v, size_t element, const std::string &values);
    std::string text_;
    std::map<std::string, Pending> pending_;
    std::map<std::string, std::unique_ptr<Function>> functions_;
    std::map<std::string, Variable> variables_;
    std::vector<std::string> later_; /* initialisers that name other variables */
};

/* Text helpers. */
std::string trimmed(const std::string &s);
/* At commas (or `separator`) that stand outside brackets. */
std::vector<std::string> split(const std::string &s, char separator);
/* .align 8 .b8 name[16]: what stands there, in declarations of any state space. */
struct Declaration {
    std::string name;
    size_t element = 0, count = 1, align = 0;
    size_t size() const { return element * count; }
};
Declaration parse_declaration(const std::string &text);
size_t align_up(size_t n, size_t align);
[[noreturn]] void ptx_die(const std::string &message);

/* Decodes a function's body (between its braces) into f. */
void decode_body(Function &f, const std::string &body, Module &m);

/* One decoded kernel being launched, with its arguments as its parameters lay them out. */
struct Launch {
    const Function *function;
    Module *module;
    Kernel kernel;
    std::vector<char> arguments; /* with room to align them by 128, as the hardware does */
    char *base() const { return (char *)align_up((size_t)arguments.data(), 128); }
};

/* Fills in launch.kernel: what the machine has to know of the function. */
void prepare_launch(Launch &launch);

/* Calls a device function: its parameters lie in `arguments`; `memory` is free for its frame. */
void call_function(const Function &f, char *arguments, char *memory);
/* Whether p lies in this thread's local memory or in the kernel's arguments. */
bool is_own_memory(const void *p);
/* Bytes of thread memory that f and what it calls need. */
size_t frame_bytes(const Function &f);

} // namespace hostcuda
