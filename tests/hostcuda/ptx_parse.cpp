/* ptx_parse.cpp - a function's body: scopes of register names, operands, labels, source lines. */
#include "ptx_decode.h"
#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <unordered_map>

namespace hostcuda {

namespace {

/* ".reg .b32 %r<100>" is one range; looking %r17 up splits it at its digits. */
struct Range {
    int first, count;
};
using Names = std::unordered_map<std::string, Range>;

const std::map<std::string, const uint32_t *> &specials()
{
    static const SpecialRegisters &r = special;
    static const std::map<std::string, const uint32_t *> names = {
        {"%tid.x", &r.tid.x}, {"%tid.y", &r.tid.y}, {"%tid.z", &r.tid.z},
        {"%ntid.x", &r.ntid.x}, {"%ntid.y", &r.ntid.y}, {"%ntid.z", &r.ntid.z},
        {"%ctaid.x", &r.ctaid.x}, {"%ctaid.y", &r.ctaid.y}, {"%ctaid.z", &r.ctaid.z},
        {"%nctaid.x", &r.nctaid.x}, {"%nctaid.y", &r.nctaid.y}, {"%nctaid.z", &r.nctaid.z},
        {"%laneid", &r.laneid}, {"%warpid", &r.warpid}, {"%nwarpid", &r.nwarpid},
        {"%lanemask_eq", &r.lanemask_eq}, {"%lanemask_lt", &r.lanemask_lt},
        {"%lanemask_le", &r.lanemask_le}, {"%lanemask_gt", &r.lanemask_gt},
        {"%lanemask_ge", &r.lanemask_ge}, {"%clusterid.x", &r.clusterid.x},
        {"%clusterid.y", &r.clusterid.y}, {"%clusterid.z", &r.clusterid.z},
        {"%nclusterid.x", &r.nclusterid.x}, {"%nclusterid.y", &r.nclusterid.y},
        {"%nclusterid.z", &r.nclusterid.z}, {"%cluster_ctaid.x", &r.cluster_ctaid.x},
        {"%cluster_ctaid.y", &r.cluster_ctaid.y}, {"%cluster_ctaid.z", &r.cluster_ctaid.z},
        {"%cluster_nctaid.x", &r.cluster_nctaid.x}, {"%cluster_nctaid.y", &r.cluster_nctaid.y},
        {"%cluster_nctaid.z", &r.cluster_nctaid.z}, {"%cluster_ctarank", &r.cluster_ctarank},
        {"%cluster_nctarank", &r.cluster_nctarank},
        {"%is_explicit_cluster", &r.is_explicit_cluster},
        {"%dynamic_smem_size", &r.dynamic_smem_size}, {"%total_smem_size", &r.total_smem_size},
        {"%smid", &r.smid}, {"%gridid", &r.gridid}};
    return names;
}

class BodyParser {
public:
    BodyParser(Function &f, Module &m) : f_(f), m_(m) {}
    void parse(const std::string &body);

private:
    void statement(const std::string &text);
    void declare(const std::string &text);
    void instruction(std::string text);
    void location(const std::string &line);
    const SourceLine *keep(const SourceLine &s)
    {
        f_.callers.push_back(s);
        return &f_.callers.back();
    }
    void branches(const std::string &text);
    void link();
    Operand operand(std::string text);
    Operand memory_operand(const std::string &inside);
    std::vector<int> slots_of(const std::string &braced);
    int value(const std::string &text, int64_t *offset);
    int find_register(const std::string &name) const;
    int symbol(const std::string &name);
    int fixed(const std::string &key, const Fixup &fixup);
    int shared_symbol(const std::string &name);
    int new_slot(uint64_t initial);
    int constant(uint64_t v);
    int negated(int slot);
    int sum(int slot, int64_t offset);
    void emit(const Inst &i, const std::string &text);

    Function &f_;
    Module &m_;
    std::vector<Names> scopes_;
    std::vector<std::map<std::string, size_t>> call_parameters_; /* offsets in local memory */
    std::map<std::string, size_t> local_;
    std::map<std::string, int> known_; /* slots of symbols and special registers */
    std::map<uint64_t, int> constants_;
    std::map<std::string, int> labels_;
    std::map<std::string, int> tables_; /* of .branchtargets, by label */
    std::vector<std::vector<std::string>> table_labels_;
    std::vector<std::pair<int, std::string>> jumps_; /* instruction, label */
    std::string last_label_;
    std::map<std::array<int, 3>, const SourceLine *> seen_;
    SourceLine place_{"ptx", 0, nullptr};
};

int BodyParser::new_slot(uint64_t initial)
{
    f_.image.push_back(initial);
    return (int)f_.image.size() - 1;
}

int BodyParser::constant(uint64_t v)
{
    auto at = constants_.find(v);
    if (at != constants_.end()) return at->second;
    return constants_[v] = new_slot(v);
}

int BodyParser::fixed(const std::string &key, const Fixup &fixup)
{
    auto at = known_.find(key);
    if (at != known_.end()) return at->second;
    f_.fixups.push_back(fixup);
    return known_[key] = f_.fixups.back().slot = new_slot(0);
}

int BodyParser::find_register(const std::string &name) const
{
    size_t digits = name.size();
    while (digits > 0 && isdigit((unsigned char)name[digits - 1])) digits--;
    int number = digits < name.size() ? atoi(name.c_str() + digits) : 0;
    std::string prefix = name.substr(0, digits) + "<";
    for (size_t s = scopes_.size(); s-- > 0;) {
        auto at = scopes_[s].find(name);
        if (at != scopes_[s].end()) return at->second.first;
        at = digits < name.size() ? scopes_[s].find(prefix) : scopes_[s].end();
        if (at != scopes_[s].end() && number < at->second.count) return at->second.first + number;
    }
    return -1;
}

int BodyParser::shared_symbol(const std::string &name)
{
    int which = m_.find_shared(f_.name + "/" + name);
    if (which < 0) which = m_.find_shared(name);
    if (which < 0) return -1;
    const Module::SharedArray &array = m_.shared[which];
    if (!array.bytes) {
        f_.dynamic_align = std::max(f_.dynamic_align, array.align);
        return fixed(name, {0, Base::DYNAMIC, nullptr, 0, 0});
    }
    if (std::find(f_.shared.begin(), f_.shared.end(), which) == f_.shared.end())
        f_.shared.push_back(which);
    return fixed(name, {0, Base::SHARED, nullptr, which, 0});
}

/* The address of a parameter, variable or array, in its own state space. */
int BodyParser::symbol(const std::string &name)
{
    for (size_t s = call_parameters_.size(); s-- > 0;) {
        auto at = call_parameters_[s].find(name);
        if (at == call_parameters_[s].end()) continue;
        int64_t offset = (int64_t)at->second;
        return fixed(name + "@" + std::to_string(offset), {0, Base::LOCAL, nullptr, 0, offset});
    }
    for (const auto *list : {&f_.parameters, &f_.results})
        for (const Parameter &p : *list)
            if (p.name == name)
                return fixed(name, {0, Base::ARGUMENTS, nullptr, 0, (int64_t)p.offset});
    auto local = local_.find(name);
    if (local != local_.end())
        return fixed(name, {0, Base::LOCAL, nullptr, 0, (int64_t)local->second});
    int shared = shared_symbol(name);
    if (shared >= 0) return shared;
    Variable *v = m_.variable(name);
    return v ? constant((uint64_t)v->memory) : -1;
}

/* An immediate, register, special register or symbol; "name+8" gives an offset. */
int BodyParser::value(const std::string &text, int64_t *offset)
{
    if (text.empty()) ptx_die("an empty operand");
    if (text == "_") return SLOT_SINK;
    int known = find_register(text);
    if (known >= 0) return known;
    char first = text[0], second = text.size() > 1 ? text[1] : 0;
    if (first == '0' && (second == 'f' || second == 'F' || second == 'd' || second == 'D'))
        return constant(strtoull(text.c_str() + 2, nullptr, 16));
    if (first == '-') return constant((uint64_t)strtoll(text.c_str(), nullptr, 0));
    if (isdigit((unsigned char)first)) return constant(strtoull(text.c_str(), nullptr, 0));
    auto special = specials().find(text);
    if (special != specials().end()) return fixed(text, {0, Base::SPECIAL, special->second, 0, 0});
    if (text == "WARP_SZ") return constant(32);
    int slot = symbol(text);
    if (slot >= 0) return slot;
    size_t sign = text.find_first_of("+-", 1);
    if (sign == std::string::npos) return -1;
    size_t digits = text[sign] == '+' ? sign + 1 : sign;
    *offset += strtoll(text.c_str() + digits, nullptr, 0);
    return value(trimmed(text.substr(0, sign)), offset);
}

std::vector<int> BodyParser::slots_of(const std::string &braced)
{
    std::vector<int> slots;
    for (const std::string &part : split(braced.substr(1, braced.size() - 2), ',')) {
        int64_t offset = 0;
        int slot = value(part, &offset);
        if (slot < 0) ptx_die(f_.name + ": unknown name " + part);
        slots.push_back(slot);
    }
    return slots;
}

/* [base+offset] or [tensor map, {coordinates}] */
Operand BodyParser::memory_operand(const std::string &inside)
{
    Operand o;
    o.memory = true;
    std::vector<std::string> parts = split(inside, ',');
    o.slot = value(parts[0], &o.offset);
    if (o.slot < 0) ptx_die(f_.name + ": unknown name in [" + inside + "]");
    if (parts.size() > 1 && parts[1][0] == '{') o.lanes = slots_of(parts[1]);
    return o;
}

void BodyParser::emit(const Inst &i, const std::string &text)
{
    f_.code.push_back(i);
    f_.places.push_back(place_);
    f_.texts.push_back(text);
}

/* !p as an operand */
int BodyParser::negated(int slot)
{
    Inst i;
    i.run = [](Frame &f, const Inst &n) { f.slot[n.d] = !(f.slot[n.a] & 1); };
    i.d = new_slot(0);
    i.a = slot;
    emit(i, "not.pred of an operand");
    return i.d;
}

/* The address of a place inside a variable */
int BodyParser::sum(int slot, int64_t offset)
{
    Inst i;
    i.run = [](Frame &f, const Inst &n) { f.slot[n.d] = f.slot[n.a] + (uint64_t)n.offset; };
    i.d = new_slot(0);
    i.a = slot;
    i.offset = offset;
    emit(i, "add of an offset");
    return i.d;
}

Operand BodyParser::operand(std::string text)
{
    Operand o;
    text = trimmed(text);
    if (text[0] == '{') {
        o.vector = true;
        o.lanes = slots_of(text);
        o.slot = o.lanes[0];
        return o;
    }
    if (text[0] == '[') return memory_operand(trimmed(text.substr(1, text.size() - 2)));
    if (text[0] == '(') {
        for (const std::string &part : split(text.substr(1, text.size() - 2), ','))
            o.lanes.push_back(operand(part).slot);
        o.vector = true;
        return o;
    }
    if (text[0] == '!') {
        o.slot = negated(operand(text.substr(1)).slot);
        return o;
    }
    size_t bar = text.find('|');
    if (bar != std::string::npos) {
        o = operand(text.substr(0, bar));
        o.pair = operand(text.substr(bar + 1)).slot;
        return o;
    }
    o.slot = value(text, &o.offset);
    if (o.slot >= 0 && o.offset) o.slot = sum(o.slot, o.offset);
    if (o.slot < 0) o.name = text;
    return o;
}

void BodyParser::declare(const std::string &text)
{
    if (text.compare(0, 4, ".reg") == 0) {
        std::istringstream words(text);
        std::string word, names;
        words >> word >> word;
        std::getline(words, names);
        for (const std::string &name : split(names, ',')) {
            size_t less = name.find('<');
            int count = less == std::string::npos ? 1 : atoi(name.c_str() + less + 1);
            std::string key = less == std::string::npos ? name : name.substr(0, less + 1);
            scopes_.back()[key] = {(int)f_.image.size(), count};
            f_.image.resize(f_.image.size() + count, ~0ull);
        }
        return;
    }
    if (text.compare(0, 15, ".branchtargets ") == 0 || text.compare(0, 14, ".branchtargets") == 0)
        return branches(text.substr(14));
    if (text.compare(0, 7, ".pragma") == 0 || text.compare(0, 14, ".callprototype") == 0) return;
    Declaration d = parse_declaration(text);
    size_t align = std::max<size_t>(d.align, d.element);
    if (text.compare(0, 7, ".shared") == 0) {
        m_.shared.push_back({f_.name + "/" + d.name, d.size(), align, 0});
    } else if (text.compare(0, 6, ".local") == 0 || text.compare(0, 6, ".param") == 0) {
        f_.local_bytes = align_up(f_.local_bytes, std::max<size_t>(align, 16));
        if (text[1] == 'l') local_[d.name] = f_.local_bytes;
        else call_parameters_.back()[d.name] = f_.local_bytes;
        f_.local_bytes += d.size();
    } else {
        ptx_die(f_.name + ": unknown directive: " + text);
    }
}

void BodyParser::branches(const std::string &text)
{
    tables_[last_label_] = (int)table_labels_.size();
    table_labels_.push_back(split(text, ','));
}

/* .loc file line column [, function_name label, inlined_at file line column]; the place of an
 * inlining is the newest .loc with that file, line and column, which may be an inlining itself. */
void BodyParser::location(const std::string &line)
{
    int file = 0, number = 0, column = 0;
    sscanf(line.c_str(), ".loc %d %d %d", &file, &number, &column);
    place_ = {m_.files[file].c_str(), number, nullptr};
    size_t at = line.find("inlined_at");
    if (at != std::string::npos) {
        int from[3] = {0, 0, 0};
        sscanf(line.c_str() + at, "inlined_at %d %d %d", &from[0], &from[1], &from[2]);
        const SourceLine *&caller = seen_[{from[0], from[1], from[2]}];
        if (!caller) caller = keep({m_.files[from[0]].c_str(), from[1], nullptr});
        place_.caller = caller;
    }
    const SourceLine *&here = seen_[{file, number, column}];
    if (!here || here->caller != place_.caller) here = keep(place_);
}

void BodyParser::instruction(std::string text)
{
    Words w{f_, m_, text, {}, {}, {}, {}};
    Inst i;
    if (text[0] == '@') {
        size_t space = text.find_first_of(" \t\n");
        std::string guard = text.substr(1, space - 1);
        i.wanted = guard[0] != '!';
        i.guard = find_register(guard.substr(!i.wanted));
        if (i.guard < 0) ptx_die(f_.name + ": unknown predicate in: " + text);
        text = trimmed(text.substr(space));
    }
    size_t end = text.find_first_of(" \t\n");
    w.op = split(text.substr(0, end), '.');
    std::string rest = end == std::string::npos ? "" : text.substr(end);
    for (const std::string &part : split(rest, ',')) w.arg.push_back(operand(part));
    decode(w, i);
    if (w.op[0] == "bra") jumps_.push_back({(int)f_.code.size(), w.arg[0].name});
    if (w.op[0] == "brx") i.list = tables_.at(w.arg[1].name);
    if (i.callee) f_.callees.push_back(i.callee);
    emit(i, w.text);
}

void BodyParser::statement(const std::string &text)
{
    if (text[0] == '.') declare(text);
    else instruction(text);
}

/* A label is a word before a single colon at the start of a statement. */
bool ends_label(const std::string &body, size_t i, const std::string &current)
{
    if (body[i] != ':' || body[i + 1] == ':' || (i && body[i - 1] == ':')) return false;
    return !current.empty() && current.find_first_of(" \t\n[,") == std::string::npos;
}

void BodyParser::parse(const std::string &body)
{
    scopes_.emplace_back();
    call_parameters_.emplace_back();
    std::string current;
    int depth = 0; /* of braces inside a statement */
    for (size_t i = 0; i < body.size(); i++) {
        char c = body[i];
        if (current.empty()) {
            if (isspace((unsigned char)c)) continue;
            if (c == '{' || c == '}') {
                if (c == '{') scopes_.emplace_back(), call_parameters_.emplace_back();
                else scopes_.pop_back(), call_parameters_.pop_back();
                continue;
            }
            if (body.compare(i, 5, ".loc\t") == 0 || body.compare(i, 5, ".loc ") == 0) {
                size_t end = body.find('\n', i);
                location(body.substr(i, end - i));
                i = end;
                continue;
            }
        }
        depth += (c == '{') - (c == '}');
        if (c == ';' && depth == 0) {
            statement(trimmed(current));
            current.clear();
        } else if (ends_label(body, i, current)) {
            last_label_ = current;
            labels_[current] = (int)f_.code.size();
            current.clear();
        } else {
            current += c == '\n' || c == '\t' ? ' ' : c;
        }
    }
    link();
}

void BodyParser::link()
{
    auto at = [&](const std::string &label) {
        auto found = labels_.find(label);
        if (found == labels_.end()) ptx_die(f_.name + ": no label " + label);
        return found->second;
    };
    for (const auto &jump : jumps_) f_.code[jump.first].target = at(jump.second);
    for (const auto &names : table_labels_) {
        f_.branch_tables.emplace_back();
        for (const std::string &name : names) f_.branch_tables.back().push_back(at(name));
    }
    Inst end; /* falling off the end returns */
    end.run = [](Frame &f, const Inst &) { f.next = nullptr; };
    emit(end, "end");
}

} // namespace

void decode_body(Function &f, const std::string &body, Module &m)
{
    f.image.assign(SLOT_FIRST, 0);
    f.image[SLOT_TRUE] = 1;
    BodyParser(f, m).parse(body);
}

} // namespace hostcuda
