/* ptx_decode.cpp - finds an instruction's row in the tables of opcodes and lets it decode. */
#include "ptx_decode.h"
#include <cctype>
#include <cstdlib>
#include <unordered_map>

namespace hostcuda {

Type parse_type(const std::string &s)
{
    if (s == "pred") return {'p', 1, false};
    if (s == "bf16") return {'B', 16, false};
    if (s == "bf16x2") return {'B', 16, true};
    if (s == "f16x2") return {'f', 16, true};
    if (s == "tf32") return {'t', 32, false};
    if (s.size() < 2 || !strchr("usfb", s[0]) || !isdigit((unsigned char)s[1])) return {};
    char *end;
    long bits = strtol(s.c_str() + 1, &end, 10);
    if (!strcmp(end, "x2")) return {s[0], (int)bits, true};
    return *end ? Type{} : Type{s[0], (int)bits, false};
}

bool Words::has(const char *suffix) const
{
    for (size_t i = 1; i < op.size(); i++)
        if (op[i] == suffix) return true;
    return false;
}

int Words::choice(std::initializer_list<const char *> names) const
{
    for (size_t i = 1; i < op.size(); i++) {
        int n = 0;
        for (const char *name : names) {
            if (op[i] == name) return n;
            n++;
        }
    }
    return -1;
}

void Words::unknown() const
{
    ptx_die("kernel " + function.name + ": an instruction the interpreter does not know: " + text);
}

int Words::constant(uint64_t value) const
{
    function.image.push_back(value);
    return (int)function.image.size() - 1;
}

int Words::slot(size_t i) const
{
    if (i >= arg.size() || arg[i].slot < 0) unknown();
    return arg[i].slot;
}

int Words::append(size_t operand) const
{
    if (operand >= arg.size()) unknown();
    const Operand &o = arg[operand];
    if (!o.vector) {
        function.lists.push_back(slot(operand));
        return 1;
    }
    function.lists.insert(function.lists.end(), o.lanes.begin(), o.lanes.end());
    return (int)o.lanes.size();
}

namespace {

struct Rows {
    std::unordered_map<std::string, Decode> of_class[3];
    Rows()
    {
        for (OpTable t :
             {integer_ops(), bit_ops(), compare_ops(), float_ops(), math_ops(), convert_ops(),
              memory_ops(), atomic_ops(), control_ops(), warp_ops(), tensor_ops(), copy_ops(),
              hopper_ops()})
            for (size_t i = 0; i < t.rows; i++)
                of_class[t.row[i].types][t.row[i].name] = t.row[i].decode;
    }
};

void find_types(Words &w)
{
    for (size_t i = w.op.size(); i-- > 1;) {
        Type t = parse_type(w.op[i]);
        if (!t.kind) continue;
        if (!w.type.kind) {
            w.type = t;
        } else {
            w.before = t;
            return;
        }
    }
}

} // namespace

void decode(Words &w, Inst &i)
{
    static const Rows rows;
    find_types(w);
    OpClass types = w.type.is_float() ? FLOAT : INT;
    for (OpClass c : {types, ANY}) {
        auto row = rows.of_class[c].find(w.op[0]);
        if (row == rows.of_class[c].end()) continue;
        row->second(w, i);
        if (i.run) return;
    }
    w.unknown();
}

} // namespace hostcuda
